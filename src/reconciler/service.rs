//! The reconciler itself: what the API calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cell::Cell;
use super::config::TownConfig;
use super::desk::{Pen, SubmitError, report_of};
use super::drill::{Strain, Strained};
use super::dry_run::Fork;
use super::executor::{Executor, Tally};
use super::healing;
use super::hosts::{Happened, Hosts};
use super::keeper::{self, Pulse};
use super::ledger::Towns;
use super::metrics::{Metrics, TownGauges};
use super::opening::{self, Around};
use super::refold::Checks;
use super::runs::Runs;
use super::status::{self, TownStatus, classes};
use super::turn::Turn;
use super::view;
use crate::clock::{Clock, Timestamp};
use crate::gateway::{AGENT_CREATED, AGENT_DELETED, AGENT_PAUSED, Gateway};
use crate::ids::{AgentId, IdempotencyKey, TownId};
use crate::journal::{Actor, Fold, Journal, Record, Scan, kinds};
use crate::limits::{JOURNAL_APPEND_WAIT, TOWN_END_WAIT};
use crate::telemetry::{Registry, Shared};
use crate::town::Town;
use crate::town::event::Report as EventReport;
use crate::town::plan::Report;
use crate::town::words::ContainerStatus;

/// In how many pages of how many records the end of the journal is looked through for the last one of an earlier plimsoll:
/// one opening tells of little, but for the partitions that a lowered retention drops.
const LOOKED_BACK_AT: (usize, usize) = (10, 100);

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
}

/// Keeps towns. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) around: Arc<Around>,
    pub(super) ledger: Arc<Towns>,
    pub(super) pen: Pen,
    pub(super) gateway: Gateway,
    metrics: Metrics,
    shared: Shared,
    pub(super) strain: watch::Sender<Strain>,
    last_seen: OnceLock<Timestamp>,
    checks: Arc<Checks>,
    /// A std mutex suffices: a hold is a few map operations.
    kept: Mutex<BTreeMap<TownId, KeptTown>>,
    /// Held by who makes a town, lets an agent join one, or changes what one decides by.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// Told when a town and the gateway may not have the same agents.
    pub(super) mismatch: Notify,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    closing: CancellationToken,
}

/// A town that turns.
struct KeptTown {
    hosts: Hosts,
    pulse: Arc<Pulse>,
    executor: Arc<Executor>,
    keeper: JoinHandle<()>,
}

impl Reconciler {
    /// One that keeps no town yet.
    #[must_use]
    pub fn new(parts: ReconcilerParts) -> Self {
        let ReconcilerParts { towns, gateway, journal, registry, clock } = parts;
        let (tasks, ledger) = (TaskTracker::new(), Arc::<Towns>::default());
        let changing = Arc::<tokio::sync::Mutex<()>>::default();
        let around = Around { towns: Arc::clone(&ledger), config: towns, changing: Arc::clone(&changing) };
        let inner = Inner {
            around: Arc::new(around),
            ledger,
            pen: Pen { journal, clock, heard: Arc::default() },
            gateway,
            metrics: Metrics::new(&registry),
            shared: Shared::new(&registry),
            strain: watch::Sender::default(),
            last_seen: OnceLock::new(),
            checks: Arc::default(),
            kept: Mutex::default(),
            changing,
            mismatch: Notify::new(),
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

    /// Looks when plimsoll was last seen at work: to be called when the journal is open and nothing of this life is in it but
    /// what the journal tells of itself.
    pub fn look_back(&self) {
        let seen = self.inner.last_record();
        // It is called once.
        let _ = self.inner.last_seen.set(seen);
    }

    /// Begins with every town that is configured or was made before; to be called once the journal is open and the
    /// gateway serves.
    pub async fn open(&self) {
        let inner = &self.inner;
        inner.ledger.publish(&inner.metrics);
        let now = inner.pen.journal.now();
        inner.pen.heard.note(now);
        let last_seen = inner.last_seen.get().copied().unwrap_or(now);
        healing::heal(&inner.ledger, &inner.pen.journal).await;
        // Before any town turns: nothing goes to an agent that is not there.
        let matched = timeout(JOURNAL_APPEND_WAIT, inner.dismiss_gone()).await;
        if matched.is_err() {
            tracing::warn!(
                source = "reconciler",
                "the journal is late: agents that are no more may stand in their towns"
            );
        }
        let mut new = BTreeSet::new();
        for (id, config) in &inner.around.config {
            let cell = inner.ledger.open(id);
            // One that is new is there when this returns; of one that was there before, what a restart cut comes first.
            if cell.drained().town.is_created() || cell.unread().is_some() {
                continue;
            }
            new.insert(id);
            if let Err(error) = opening::apply(&inner.pen, &cell, config, &inner.around).await {
                tracing::error!(source = "reconciler", town = %id, %error, "a town cannot be made yet");
            }
        }
        for cell in inner.ledger.list() {
            inner.keep(&cell, if new.contains(&cell.id) { now } else { last_seen });
        }
        let watcher = Arc::clone(inner);
        let tail = inner.pen.journal.tail();
        inner.tasks.spawn(async move { watcher.watch(tail).await });
        let matcher = Arc::clone(inner);
        inner.tasks.spawn(async move { matcher.keep_matched().await });
    }

    /// Decides nothing any more; what is under way goes on. What is cut from here on is given back.
    pub async fn quiet(&self) {
        self.inner.stop.cancel();
        self.inner.closing.cancel();
        let kept = std::mem::take(&mut *self.inner.kept());
        let keepers: Vec<_> = kept.into_values().map(|kept| kept.keeper).collect();
        let cut: Vec<_> = keepers.iter().map(JoinHandle::abort_handle).collect();
        // A tick that is cut decided nothing, or what the next start makes up for: as after a kill.
        if timeout(TOWN_END_WAIT, join_all(keepers)).await.is_err() {
            tracing::error!(source = "reconciler", "a tick does not end and is cut");
            cut.iter().for_each(AbortHandle::abort);
        }
    }

    /// Waits for the ends of what the gateway had under way to be written; to be called once it has none.
    pub async fn close(&self) {
        self.inner.tasks.close();
        if timeout(TOWN_END_WAIT, self.inner.tasks.wait()).await.is_err() {
            tracing::error!(
                source = "reconciler",
                "effects, or the writing of what came of them, do not end and are cut: the next start makes up for them"
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

    /// Something happens to an instance of an agent of this town.
    #[cfg(test)]
    pub(super) fn happens(&self, town: &TownId, happened: Happened) {
        self.inner.kept().get(town).expect("it is kept").hosts.note(happened);
    }

    /// What is kept of a town.
    pub(super) fn cell(&self, town: &TownId) -> Option<Arc<Cell>> {
        self.inner.cell(town).ok()
    }

    /// Every town, by id.
    #[must_use]
    pub fn towns(&self) -> Vec<TownId> {
        self.inner.ledger.list().iter().filter(|cell| is_there(cell)).map(|cell| cell.id.clone()).collect()
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
        let cell = self.inner.ledger.get(town).filter(is_there)?;
        let pulse = self.inner.kept().get(town).map(|kept| Arc::clone(&kept.pulse)).unwrap_or_default();
        let book = cell.drained();
        let town = &book.town;
        let waits = view::waits_as_of(&pulse.report(), town, self.inner.pen.journal.now());
        Some(TownStatus {
            town: cell.id.clone(),
            agents: status::agents(town),
            beads: status::beads(town),
            draining: town.draining().is_some(),
            breaker_open: town.breaker().open.is_some(),
            set_aside: pulse.set_aside(),
            failing: pulse.failing(),
            cadence: pulse.view(&self.inner.pen.clock),
            pending_event_count: cell.pending(),
            last_tick: pulse.last(),
            violations: view::open_violations(town),
            waits: waits.first,
            waits_left_out: waits.left_out,
        })
    }

    /// Whether a town was put aside: it does not turn, its status says why.
    #[must_use]
    pub fn is_set_aside(&self, town: &TownId) -> bool {
        self.inner.kept().get(town).is_some_and(|kept| kept.pulse.set_aside().is_some())
    }

    /// Why there is no looking at a town.
    #[must_use]
    pub fn absence(&self, town: &TownId) -> SubmitError {
        self.inner.cell(town).err().unwrap_or_else(|| SubmitError::UnknownTown(town.clone()))
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

    pub(super) fn cell(&self, town: &TownId) -> Result<Arc<Cell>, SubmitError> {
        let cell = self.ledger.get(town).filter(is_there);
        let cell = cell.ok_or_else(|| SubmitError::UnknownTown(town.clone()))?;
        if cell.unread().is_some() {
            return Err(SubmitError::SetAside(town.clone()));
        }
        Ok(cell)
    }

    pub(super) fn executor(&self, town: &TownId) -> Option<Arc<Executor>> {
        self.kept().get(town).map(|kept| Arc::clone(&kept.executor))
    }

    pub(super) fn works_nowhere_else(&self, agent: &AgentId, town: &TownId) -> Result<(), SubmitError> {
        match self.around.elsewhere(town, agent) {
            Some(town) => Err(SubmitError::Elsewhere { agent: agent.clone(), town }),
            None => Ok(()),
        }
    }

    /// When an earlier plimsoll last wrote to the journal. What the journal tells of itself may be of this start.
    fn last_record(&self) -> Timestamp {
        let own = [kinds::END_CUT, kinds::PARTITION_DROPPED, kinds::PARTITION_LOST];
        let of_life = |record: &&Record| !own.contains(&record.kind.as_str());
        let (pages, limit) = LOOKED_BACK_AT;
        let mut before = None;
        for _ in 0..pages {
            let newest = Scan { before, limit, newest_first: true, ..Scan::default() };
            let Ok(page) = self.pen.journal.scan(&newest) else { break };
            if let Some(last) = page.records.iter().find(of_life) {
                return last.time;
            }
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        self.pen.journal.now()
    }

    /// Has a town turn from now on.
    pub(super) fn keep(self: &Arc<Self>, cell: &Arc<Cell>, last_seen: Timestamp) {
        let mut kept = self.kept();
        if kept.contains_key(&cell.id) || self.stop.is_cancelled() {
            return;
        }
        let config = self.around.config.get(&cell.id);
        let (hosts, pulse) =
            (Hosts::new(self.gateway.clone(), self.shared.clone()), Arc::new(Pulse::default()));
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
            checks: Arc::clone(&self.checks),
        };
        let executor = Arc::new(executor);
        let turn = Turn {
            cell: Arc::clone(cell),
            executor: Arc::clone(&executor),
            around: Arc::clone(&self.around),
            hosts: hosts.clone(),
            strain: Strained(self.strain.subscribe()),
        };
        let keeper = tokio::spawn(keeper::keep(turn, Arc::clone(&pulse), last_seen, self.stop.clone()));
        kept.insert(cell.id.clone(), KeptTown { hosts, pulse, executor, keeper });
    }

    /// Hears what happens to instances, until it is told to stop. What it misses a look finds.
    async fn watch(self: &Arc<Self>, mut tail: tokio::sync::broadcast::Receiver<Arc<Record>>) {
        use tokio::sync::broadcast::error::RecvError;
        let mut resumes = self.gateway.resumes();
        loop {
            let record = tokio::select! {
                () = self.stop.cancelled() => return,
                Ok(()) = resumes.changed() => {
                    self.ledger.list().iter().for_each(|cell| cell.wake());
                    continue;
                }
                record = tail.recv() => record,
            };
            let record = match record {
                Ok(record) => record,
                Err(RecvError::Lagged(_)) => {
                    self.mismatch.notify_one();
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            self.pen.heard.note(record.time);
            if [AGENT_CREATED, AGENT_PAUSED].contains(&record.kind.as_str()) {
                self.ledger.list().iter().for_each(|cell| cell.wake());
            }
            self.follow_departure(&record);
            if record.kind == AGENT_DELETED
                && let Some(agent) = record.detail["agent"].as_str().and_then(|id| AgentId::parse(id).ok())
            {
                // Another change may come first: what happens to instances does not wait for that.
                let forgetting = Arc::clone(self);
                self.tasks.spawn(async move { forgetting.forget_agent(&agent).await });
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

/// Whether a town was made, also one of which nobody can read what it is.
fn is_there(cell: &Arc<Cell>) -> bool {
    cell.unread().is_some() || cell.drained().town.is_created()
}
