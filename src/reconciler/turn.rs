//! One tick: observe, drain, plan, append, fold, effects, invariants, report.
//!
//! A plan is appended only behind what it was made from: if something got in between, nothing is, and the town plans
//! again. Only for what the town then took in, effects begin.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use serde_json::Value;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::cadence::{Cadence, Moment, Work};
use super::cell::{Cell, Refused};
use super::coalescing::Heard;
use super::desk::record;
use super::drill::Strained;
use super::executor::{Executor, note};
use super::hosts::Hosts;
use super::keeper::STRANDED;
use super::observe::{self, Observed};
use super::opening::Around;
use super::status::{Counted, LastTick};
use crate::clock::Timestamp;
use crate::ids::{BeadId, Seq};
use crate::journal::{Actor, Append, AppendError, NewRecord, StreamId};
use crate::limits::{JOURNAL_GROUP_RECORDS_MAX, TOWN_LIFE_EVERY};
use crate::telemetry::span;
use crate::town::Town;
use crate::town::event::TownEvent;
use crate::town::invariant::{self, Episodes, Scope, check_all, episodes};
use crate::town::plan::{Action, Plan, Wait, plan};
use crate::town::state::{Bead, Episode};
use crate::town::words::{AgentStatus, Role};

/// How many plans one tick makes before it keeps everybody from appending beside it.
const PLANS_MAX: u32 = 4;
/// A tick slower than this has a span, whatever it did: what the alert on slow ticks is about.
const SLOW: Duration = Duration::from_millis(500);

/// What turns one town.
pub(super) struct Turn {
    pub(super) cell: Arc<Cell>,
    pub(super) executor: Arc<Executor>,
    pub(super) hosts: Hosts,
    pub(super) around: Arc<Around>,
    pub(super) strain: Strained,
}

/// A plan whose events are in the town.
struct Carried {
    plan: Plan,
    span: Span,
    /// Whether the town refused some of it.
    refused: bool,
}

/// What a tick comes to.
pub(super) struct Turned {
    pub(super) tick: LastTick,
    pub(super) plan: Plan,
    /// Whether the town refused some of it.
    pub(super) refused: bool,
    /// When it began.
    pub(super) begun: Moment,
    pub(super) work: Work,
    pub(super) counted: Counted,
}

/// What the check of a town comes to.
#[derive(Default)]
struct Checked {
    violations: usize,
    counted: Counted,
}

impl Turn {
    /// One tick.
    ///
    /// # Errors
    /// The journal cannot write: nothing was done that it does not hold.
    pub(super) async fn tick(&self, cadence: &mut Cadence) -> Result<Turned, AppendError> {
        let pen = &self.executor.pen;
        let begun = self.skip_time(cadence).await?;
        self.observe().await?;
        let began = pen.clock.elapsed();
        let mut drained = 0;
        let Carried { plan, span, refused } = self.carry(&mut drained).await?;
        let Checked { violations, counted } = self.follow_violations().await?;
        let wall = pen.clock.elapsed().saturating_sub(began);
        let metrics = &self.executor.metrics;
        metrics.tick_ended(wall);
        let span =
            if span.is_none() && (wall > SLOW || violations > 0) { self.span_of(drained, 0) } else { span };
        span.record("ms", wall.as_secs_f64() * 1e3);
        let tick = LastTick::of(pen.journal.now(), wall, drained, &plan, self.executor.tally.take())
            .leaving(violations, self.cell.pending());
        let work = self.work(&plan);
        Ok(Turned { tick, plan, refused, begun, work, counted })
    }

    /// Leaves out the time in which nobody looked after the town, up to now.
    async fn skip_time(&self, cadence: &mut Cadence) -> Result<Moment, AppendError> {
        let pen = &self.executor.pen;
        let now = Moment { time: self.now(), elapsed: pen.clock.elapsed() };
        match cadence.begin(now) {
            Some(unused) => {
                let ms = u64::try_from(unused.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(source = "reconciler", town = %self.cell.id, ms, "a tick came late: that time does not count");
                self.note(vec![TownEvent::TimeSkipped { ms }]).await?;
                cadence.settle(now);
            }
            None => self.sign_of_life(now.time),
        }
        Ok(now)
    }

    /// Where something in the town grows older and nothing else is written anywhere, the journal tells that it was looked
    /// after: without that, a start after a kill would leave out time that passed.
    fn sign_of_life(&self, now: Timestamp) {
        let pen = &self.executor.pen;
        if now.since(pen.heard.last()) < TOWN_LIFE_EVERY || !ages(&self.cell.drained().town) {
            return;
        }
        let records = vec![record(&TownEvent::TimeSkipped { ms: 0 }, Actor::System, None, None)];
        let append = Append { stream: StreamId::town(&self.cell.id), expected_last_seq: None, records };
        if let Err(error) = pen.journal.offer(append) {
            tracing::debug!(source = "reconciler", town = %self.cell.id, %error, "a sign of life is not written");
        }
    }

    /// The present of the town: no event lies behind it.
    fn now(&self) -> Timestamp {
        self.executor.pen.journal.now().max(self.cell.drained().town.time())
    }

    /// Whether the town is worth a look every few seconds. Where beads wait for agents that take no work, it is once one of
    /// them may; the end of a pause wakes the town.
    fn work(&self, plan: &Plan) -> Work {
        if plan.has_work() {
            return Work::Some;
        }
        let waited_for =
            |wait: &Wait| if let Wait::NoIdleAgent { role, .. } = wait { Some(*role) } else { None };
        let roles: BTreeSet<Role> = plan.report.values().filter_map(waited_for).collect();
        let book = self.cell.drained();
        let dead = roles.iter().flat_map(|role| book.town.agents_that_are(AgentStatus::Dead, *role));
        let back = dead.filter_map(|(id, _)| self.hosts.back_in(id)).min();
        back.map_or(Work::None, Work::At)
    }

    async fn observe(&self) -> Result<(), AppendError> {
        let clock = &self.executor.pen.clock;
        let began = clock.elapsed();
        let happened = self.hosts.take();
        let (events, suppressed, heard) = {
            let book = self.cell.drained();
            let heard = self.cell.coalescing.take_unwritten(&book.town, began);
            let sights = self.hosts.sights(&book.town, &happened, &self.executor);
            let Observed { mut events, suppressed } = observe::news(&book.town, sights);
            events.extend(observe::fitness(&book.town, |agent| self.hosts.usable(agent, &self.executor)));
            events.extend(heard.iter().map(Heard::event));
            (events, suppressed, heard)
        };
        self.executor.metrics.observed(clock.elapsed().saturating_sub(began));
        let noted = self.note(events).await;
        match &noted {
            Ok(()) => self.executor.metrics.status_suppressed(suppressed),
            // The next tick tells of it.
            Err(_) => {
                self.hosts.put_back(happened);
                self.cell.coalescing.put_back(&heard);
            }
        }
        noted
    }

    /// Appends facts, whatever the town stands at.
    async fn note(&self, events: Vec<TownEvent>) -> Result<(), AppendError> {
        for some in events.chunks(JOURNAL_GROUP_RECORDS_MAX) {
            let records = some.iter().map(|event| record(event, Actor::System, None, None)).collect();
            self.executor.pen.append(&self.cell.id, None, records).await?;
        }
        Ok(())
    }

    /// Plans, appends the plan, folds it, and hands over its effects.
    async fn carry(&self, drained: &mut u64) -> Result<Carried, AppendError> {
        self.strain.slow_down().await;
        let mut tries = 1;
        let mut alone = None;
        loop {
            *drained += self.take_in().await?;
            let (plan, at, now) = self.plan().await;
            if plan.actions.is_empty() {
                let span = self.span(*drained, 0);
                return Ok(Carried { plan, span, refused: false });
            }
            let span = self.span(*drained, plan.actions.len());
            let trace_id = span::trace_id_of(&span);
            let of = |action: &Action| record(action.event(), Actor::Planner, Some(now), trace_id);
            let records: Vec<NewRecord> = plan.actions.iter().map(of).collect();
            match self.executor.pen.append(&self.cell.id, Some(at), records).await {
                Ok(first) => {
                    let refused = self.hand_over(&plan, first, &span);
                    return Ok(Carried { plan, span, refused });
                }
                Err(AppendError::Conflict { .. }) if alone.is_none() => {
                    tries += 1;
                    if tries >= PLANS_MAX {
                        // Nobody appends beside it now.
                        alone = Some(self.cell.door.write().await);
                    }
                }
                // Something that does not ask came all the same: it is pending, and the next tick begins at once.
                Err(AppendError::Conflict { .. }) => {
                    let plan = Plan { actions: Vec::new(), more: true, ..plan };
                    return Ok(Carried { plan, span, refused: false });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes in what came, and tells of what was refused; how many records that were.
    ///
    /// # Panics
    /// If an event cannot be folded: the town is put aside.
    async fn take_in(&self) -> Result<u64, AppendError> {
        let mut records = 0;
        loop {
            let pending = self.cell.pending();
            let untold: Vec<Refused> = {
                let book = self.cell.drained();
                book.untold.iter().take(JOURNAL_GROUP_RECORDS_MAX).cloned().collect()
            };
            assert!(!self.cell.is_broken(), "an event cannot be folded");
            self.cell.decided(pending);
            self.executor.metrics.drained(pending);
            records += pending;
            if untold.is_empty() {
                return Ok(records);
            }
            let told = |refused: &Refused| TownEvent::EventRejected {
                seq: refused.seq,
                error: note(&refused.error),
            };
            self.note(untold.iter().map(told).collect()).await?;
            // Once it is told: one that cannot be is looked at again.
            self.executor.metrics.rejected(u64::try_from(untold.len()).unwrap_or(u64::MAX));
            for Refused { seq, error } in &untold {
                tracing::warn!(source = "reconciler", town = %self.cell.id, seq = seq.0, error, "an event was rejected");
            }
        }
    }

    /// The plan, what it was made from, and when. It takes milliseconds in a large town: off the runtime.
    async fn plan(&self) -> (Plan, Seq, Timestamp) {
        let (cell, now) = (Arc::clone(&self.cell), self.now());
        blocking(move || {
            #[cfg(test)]
            cell.trip();
            let book = cell.read();
            (plan(&book.town, now), book.at, now)
        })
        .await
    }

    fn span(&self, drained: u64, actions: usize) -> Span {
        if drained == 0 && actions == 0 {
            return Span::none();
        }
        self.span_of(drained, actions)
    }

    /// It begins once there is a plan: how long the whole took, it says itself.
    fn span_of(&self, drained: u64, actions: usize) -> Span {
        let town = &self.cell.id;
        tracing::info_span!(parent: None, "reconciler.tick", %town, drained, actions, ms = tracing::field::Empty)
    }

    /// Folds what was appended, and begins the effects of what the town took in. Whether it refused some of it.
    fn hand_over(&self, plan: &Plan, first: Seq, span: &Span) -> bool {
        let refused: BTreeSet<Seq> = self
            .cell
            .drained()
            .untold
            .iter()
            .map(|refused| refused.seq)
            .filter(|seq| *seq >= first)
            .collect();
        let own = u64::try_from(plan.actions.len()).unwrap_or(u64::MAX);
        self.cell.decided(own);
        for (seq, action) in (first.0..).map(Seq).zip(&plan.actions) {
            if refused.contains(&seq) {
                tracing::error!(source = "reconciler", town = %self.cell.id, seq = seq.0, action = action.kind.as_str(), "the town refused what its planner decided");
                continue;
            }
            self.executor.metrics.acted(action.kind);
            let at = i64::try_from(seq.0).unwrap_or(i64::MAX);
            span.add_event(action.event().kind(), vec![KeyValue::new("seq", at)]);
            if let Some(effect) = action.effect.clone() {
                self.executor.carry_out(effect, span);
            }
        }
        !refused.is_empty()
    }

    /// Makes episodes of what does not hold; how many violations were found.
    async fn follow_violations(&self) -> Result<Checked, AppendError> {
        let mut tries = 1;
        loop {
            let alone = if tries < PLANS_MAX { None } else { Some(self.cell.door.write().await) };
            match self.follow_once().await? {
                Some(checked) => return Ok(checked),
                None if alone.is_some() => return Ok(Checked::default()),
                None => {
                    self.cell.drain();
                    tries += 1;
                }
            }
        }
    }

    /// The same, unless something got in between.
    async fn follow_once(&self) -> Result<Option<Checked>, AppendError> {
        let cell = Arc::clone(&self.cell);
        let (found, Episodes { events, unopened }, at, counted) = blocking(move || {
            let book = cell.read();
            let found = check_all(&book.town);
            let episodes = episodes(&book.town, &found, Scope::Town);
            (found, episodes, book.at, Counted::of(&book.town))
        })
        .await;
        if unopened > 0 {
            tracing::error!(source = "reconciler", town = %self.cell.id, unopened, "more violations than can be open at once");
        }
        for some in events.chunks(JOURNAL_GROUP_RECORDS_MAX).take(1) {
            let records = some.iter().map(|event| record(event, Actor::System, None, None)).collect();
            match self.executor.pen.append(&self.cell.id, Some(at), records).await {
                Ok(_) => self.opened(some),
                Err(AppendError::Conflict { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Checked { violations: found.len(), counted }))
    }

    /// Has an open violation stand for a town that does not turn any more; its first tick after a restart resolves it. One
    /// that an earlier life told of, and that could not be taken in either, is not told again.
    pub(super) async fn tell_set_aside(&self) {
        let told = |kind: &str, detail: &Value| kind == "violation_opened" && detail["invariant"] == STRANDED;
        let is_it = |open: &Episode| open.invariant == STRANDED && open.entities.is_empty();
        let is_open = self.cell.read().town.episodes().any(is_it);
        if is_open || self.cell.awaits(told) {
            return;
        }
        let message = "the town is put aside: nothing is decided in it until plimsoll is restarted, its status says why";
        let (entities, message) = (BTreeSet::new(), message.into());
        self.executor.tell(vec![TownEvent::ViolationOpened { invariant: STRANDED, entities, message }]).await;
    }

    /// Says what was opened and resolved; the counters follow from the records.
    fn opened(&self, events: &[TownEvent]) {
        self.cell.drain();
        for event in events {
            match event {
                TownEvent::ViolationOpened { invariant, message, .. } => {
                    let name = invariant::name_of(*invariant);
                    tracing::error!(source = "reconciler", town = %self.cell.id, invariant, name, %message, "an invariant does not hold");
                }
                TownEvent::ViolationResolved { invariant, .. } => {
                    tracing::info!(source = "reconciler", town = %self.cell.id, invariant, "an invariant holds again");
                }
                other => unreachable!("{} is no episode", other.kind()),
            }
        }
    }
}

/// Whether something in the town grows older that a rule looks at, without anybody writing.
fn ages(town: &Town) -> bool {
    let hooked = town.hooked().next().is_some();
    let tried = |(_, bead): (&BeadId, &Bead)| bead.tries.failed_at.is_some();
    hooked
        || town.breaker().open.is_some()
        || town.collectable().next().is_some()
        || Role::ALL.iter().any(|role| town.queue(*role).any(tried))
}

/// Runs something that takes milliseconds off the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()))
}
