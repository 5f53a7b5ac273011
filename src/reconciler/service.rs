//! The reconciler itself: what the API calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cell::Cell;
use super::config::TownConfig;
use super::desk::{Pen, SubmitError, Submitted, report_of};
use super::dry_run::Fork;
use super::executor::{Executor, Tally};
use super::hosts::{Happened, Hosts};
use super::keeper::{self, Pulse};
use super::ledger::Towns;
use super::metrics::{Metrics, TownGauges};
use super::opening;
use super::runs::Runs;
use super::status::{self, TownStatus, classes};
use super::turn::{Strain, Turn};
use super::view;
use crate::clock::{Clock, Timestamp};
use crate::gateway::{AGENT_CREATED, AGENT_PAUSED, AGENT_RESUMED, Gateway};
use crate::ids::{AgentId, IdempotencyKey, TownId};
use crate::journal::{Actor, Fold, Journal};
use crate::limits::{TOWN_END_WAIT, TOWN_ID_BYTES_MAX, TOWNS_MAX};
use crate::telemetry::Registry;
use crate::town::event::{Report as EventReport, TownEvent};
use crate::town::plan::Report;
use crate::town::words::ContainerStatus;
use crate::town::{Policy, Town};

/// What a reconciler is made of.
pub struct ReconcilerParts {
    /// `towns:`.
    pub towns: BTreeMap<TownId, TownConfig>,
    /// What carries out dispatches.
    pub gateway: Gateway,
    /// Where the events of towns are written.
    pub journal: Arc<dyn Journal>,
    /// Makes the metric handles.
    pub registry: Registry,
    /// Measures.
    pub clock: Clock,
    /// What makes ticks slow on purpose.
    pub strain: Strain,
}

/// Keeps towns. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler {
    inner: Arc<Inner>,
}

struct Inner {
    config: BTreeMap<TownId, TownConfig>,
    ledger: Arc<Towns>,
    pen: Pen,
    gateway: Gateway,
    metrics: Metrics,
    strain: Strain,
    /// A std mutex suffices: a hold is a few map operations.
    kept: Mutex<BTreeMap<TownId, KeptTown>>,
    /// Held by who makes a town, or lets an agent join one.
    changing: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
    closing: CancellationToken,
}

/// A town that turns.
struct KeptTown {
    hosts: Hosts,
    pulse: Arc<Pulse>,
    keeper: JoinHandle<()>,
}

impl Reconciler {
    /// One that keeps no town yet.
    #[must_use]
    pub fn new(parts: ReconcilerParts) -> Self {
        let ReconcilerParts { towns, gateway, journal, registry, clock, strain } = parts;
        let tasks = TaskTracker::new();
        let inner = Inner {
            config: towns,
            ledger: Arc::default(),
            pen: Pen { journal, clock, tasks: tasks.clone() },
            gateway,
            metrics: Metrics::new(&registry),
            strain,
            kept: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            tasks,
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What of it survives a restart: to be registered when the journal is opened.
    #[must_use]
    pub fn fold(&self) -> Arc<dyn Fold> {
        Arc::clone(&self.inner.ledger) as _
    }

    /// Begins with every town that is configured or was made before; to be called once the journal is open and the
    /// gateway serves.
    pub async fn open(&self) {
        let inner = &self.inner;
        inner.ledger.publish(&inner.metrics);
        let last_seen = inner.last_seen();
        for (id, config) in &inner.config {
            opening::apply(&inner.pen, &inner.ledger.open(id), config).await;
        }
        for cell in inner.ledger.list() {
            if !inner.config.contains_key(&cell.id) {
                // Who stood in the configuration and does no more has left.
                let policy = cell.drained().town.policy().clone();
                opening::apply(&inner.pen, &cell, &TownConfig { policy, ..TownConfig::default() }).await;
            }
            inner.keep(&cell, last_seen);
        }
        let watcher = Arc::clone(inner);
        let tail = inner.pen.journal.tail();
        inner.tasks.spawn(async move { watcher.watch(tail).await });
    }

    /// Decides nothing any more; what is under way goes on. What is cut from here on is given back.
    pub async fn quiet(&self) {
        self.inner.stop.cancel();
        self.inner.closing.cancel();
        let kept = std::mem::take(&mut *self.inner.kept());
        for (town, KeptTown { mut keeper, .. }) in kept {
            if timeout(TOWN_END_WAIT, &mut keeper).await.is_err() {
                tracing::error!(source = "reconciler", %town, "a tick does not end and is cut");
                keeper.abort();
            }
        }
    }

    /// Waits for the ends of what the gateway had under way to be written; to be called once it has none.
    pub async fn close(&self) {
        self.inner.tasks.close();
        if timeout(TOWN_END_WAIT, self.inner.tasks.wait()).await.is_err() {
            tracing::error!(
                source = "reconciler",
                "the journal is late: ends of dispatches are not written, and are given back at the next start"
            );
        }
    }

    /// Ends as a kill would: nothing more is decided or written.
    #[cfg(test)]
    pub(super) async fn cut(&self) {
        let kept = std::mem::take(&mut *self.inner.kept());
        for (_, KeptTown { keeper, .. }) in kept {
            keeper.abort();
            // It was told to.
            let _ = keeper.await;
        }
    }

    /// What is kept of a town.
    pub(super) fn cell(&self, town: &TownId) -> Option<Arc<Cell>> {
        self.inner.cell(town).ok()
    }

    /// Every town, by id.
    #[must_use]
    pub fn towns(&self) -> Vec<TownId> {
        let created = |cell: &Arc<Cell>| cell.drained().town.is_created().then(|| cell.id.clone());
        self.inner.ledger.list().iter().filter_map(created).collect()
    }

    /// Looks at a town as it is now, and at why each open bead waited at its last tick; `None` if there is no such town.
    pub fn look<T>(&self, town: &TownId, look: impl FnOnce(&Town, &Report) -> T) -> Option<T> {
        let cell = self.inner.cell(town).ok()?;
        let report = self.inner.kept().get(town).map(|kept| kept.pulse.report()).unwrap_or_default();
        let book = cell.drained();
        Some(look(&book.town, &report))
    }

    /// What a town does; `None` if there is no such town.
    #[must_use]
    pub fn status(&self, town: &TownId) -> Option<TownStatus> {
        let cell = self.inner.cell(town).ok()?;
        let pulse = self.inner.kept().get(town).map(|kept| Arc::clone(&kept.pulse)).unwrap_or_default();
        let waits = view::waits(&pulse.report());
        let book = cell.drained();
        let town = &book.town;
        Some(TownStatus {
            town: cell.id.clone(),
            agents: status::agents(town),
            beads: status::beads(town),
            draining: town.draining().is_some(),
            breaker_open: town.breaker().open.is_some(),
            set_aside: pulse.set_aside(),
            cadence: pulse.view(&self.inner.pen.clock),
            pending_event_count: cell.pending(),
            last_tick: pulse.last(),
            violations: status::violations(town),
            waits: waits.first,
            waits_left_out: waits.left_out,
        })
    }

    /// Makes a town; it turns at once.
    ///
    /// # Errors
    /// See [`SubmitError`]: nothing was changed then.
    pub async fn create_town(
        &self,
        actor: &Actor,
        town: TownId,
        policy: Policy,
    ) -> Result<Submitted, SubmitError> {
        let inner = &self.inner;
        if town.as_str().len() > TOWN_ID_BYTES_MAX {
            return Err(SubmitError::TownIdTooLong(TOWN_ID_BYTES_MAX));
        }
        let _one_at_a_time = inner.changing.lock().await;
        if inner.ledger.list().len() >= TOWNS_MAX && inner.ledger.get(&town).is_none() {
            return Err(SubmitError::TooManyTowns(TOWNS_MAX));
        }
        let cell = inner.ledger.open(&town);
        if cell.drained().town.is_created() {
            return Err(SubmitError::TownExists(town));
        }
        let created = TownEvent::TownCreated { policy: Box::new(policy) };
        let submitted = inner.pen.submit(&cell, actor, created).await?;
        inner.keep(&cell, inner.pen.clock.now());
        Ok(submitted)
    }

    /// Takes one event of outside in: durable and in the town when this answers.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(
        &self,
        town: &TownId,
        actor: &Actor,
        event: TownEvent,
    ) -> Result<Submitted, SubmitError> {
        assert!(event.from_outside(), "{} is the reconciler's own", event.kind());
        let cell = self.inner.cell(town)?;
        match &event {
            TownEvent::AgentRegistered { agent, .. } => {
                let _one_at_a_time = self.inner.changing.lock().await;
                self.inner.works_nowhere_else(agent, town)?;
                self.inner.pen.submit(&cell, actor, event).await
            }
            _ => self.inner.pen.submit(&cell, actor, event).await,
        }
    }

    pub(super) fn pen(&self) -> &Pen {
        &self.inner.pen
    }

    /// A copy of a town with everything in it that is durable by now.
    pub(super) fn fork(&self, town: &TownId) -> Option<Fork> {
        let cell = self.inner.cell(town).ok()?;
        let book = cell.drained();
        Some(Fork { town: book.town.clone(), line: Vec::new(), pending: cell.pending() })
    }

    /// What marks a report of an external runtime, so that it happens once.
    #[must_use]
    pub fn report(actor: &Actor, key: IdempotencyKey, body: &[u8]) -> EventReport {
        report_of(actor, key, body)
    }

    /// Brings the gauges up to date; to be called before metrics are rendered.
    pub fn refresh_gauges(&self) {
        let inner = &self.inner;
        let kept: Vec<_> =
            inner.kept().iter().map(|(id, kept)| (id.clone(), Arc::clone(&kept.pulse))).collect();
        let gauges = kept.into_iter().filter_map(|(town, pulse)| {
            let (running, overdue) = pulse.delays(&inner.pen.clock);
            let (counted, last) = (pulse.counted(), pulse.last());
            let number = |count: &usize| u64::try_from(*count).unwrap_or(u64::MAX);
            Some(TownGauges {
                pending: inner.ledger.get(&town)?.pending(),
                running,
                overdue,
                last_tick: std::time::Duration::from_secs_f64(
                    last.map_or(0.0, |tick| tick.wall_clock_ms / 1e3),
                ),
                open: counted.open.iter().map(|(invariant, count)| (*invariant, number(count))).collect(),
                agents: counted.agents.iter().map(|(status, count)| (*status, number(count))).collect(),
                classes: classes(&pulse.report())
                    .iter()
                    .map(|(class, count)| (*class, number(count)))
                    .collect(),
                beads: counted.beads.iter().map(|(status, count)| (*status, number(count))).collect(),
                town,
            })
        });
        inner.metrics.show(&gauges.collect::<Vec<_>>());
    }
}

impl Inner {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<TownId, KeptTown>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, town: &TownId) -> Result<Arc<Cell>, SubmitError> {
        let cell = self.ledger.get(town).filter(|cell| cell.drained().town.is_created());
        cell.ok_or_else(|| SubmitError::UnknownTown(town.clone()))
    }

    fn works_nowhere_else(&self, agent: &AgentId, town: &TownId) -> Result<(), SubmitError> {
        let others = self.ledger.list();
        let mut others = others.iter().filter(|cell| cell.id != *town);
        match others.find(|cell| cell.drained().town.agents().contains_key(agent)) {
            Some(cell) => Err(SubmitError::Elsewhere { agent: agent.clone(), town: cell.id.clone() }),
            None => Ok(()),
        }
    }

    /// When plimsoll was last seen at work, as far as the journal tells.
    fn last_seen(&self) -> Timestamp {
        let last = self.pen.journal.status().last;
        let query = crate::journal::Scan { from: last, limit: 1, ..Default::default() };
        let page = self.pen.journal.scan(&query).ok();
        let last = page.and_then(|page| Some(page.records.first()?.time));
        last.unwrap_or_else(|| self.pen.clock.now())
    }

    /// Has a town turn from now on.
    fn keep(self: &Arc<Self>, cell: &Arc<Cell>, last_seen: Timestamp) {
        let config = self.config.get(&cell.id);
        let (hosts, pulse) = (Hosts::new(self.gateway.clone()), Arc::new(Pulse::default()));
        let executor = Executor {
            cell: Arc::clone(cell),
            pen: self.pen.clone(),
            gateway: self.gateway.clone(),
            metrics: self.metrics.town(&cell.id),
            runs: Runs::default(),
            nudges: config.map(opening::nudges).unwrap_or_default(),
            tasks: self.tasks.clone(),
            closing: self.closing.clone(),
            tally: Tally::default(),
        };
        let turn = Turn {
            cell: Arc::clone(cell),
            executor: Arc::new(executor),
            hosts: hosts.clone(),
            strain: self.strain,
        };
        let keeper = tokio::spawn(keeper::keep(turn, Arc::clone(&pulse), last_seen, self.stop.clone()));
        let before = self.kept().insert(cell.id.clone(), KeptTown { hosts, pulse, keeper });
        assert!(before.is_none(), "a town is kept once");
    }

    /// Hears what happens to instances, until it is told to stop. What it misses a look finds.
    async fn watch(&self, mut tail: tokio::sync::broadcast::Receiver<Arc<crate::journal::Record>>) {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            let record = tokio::select! {
                () = self.stop.cancelled() => return,
                record = tail.recv() => record,
            };
            let record = match record {
                Ok(record) => record,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            if [AGENT_CREATED, AGENT_PAUSED, AGENT_RESUMED].contains(&record.kind.as_str()) {
                self.ledger.list().iter().for_each(|cell| cell.wake());
            }
            let Some(agent) = record.stream.instance_id() else { continue };
            let status = match record.kind.as_str() {
                "lazy_start" | "adopted" => ContainerStatus::Running,
                "exited" | "lost" => ContainerStatus::Exited,
                _ => continue,
            };
            let reason = record.detail["reason"].as_str().map(Into::into);
            let happened = Happened { agent, status, reason };
            self.kept().values().for_each(|kept| kept.hosts.note(happened.clone()));
        }
    }
}
