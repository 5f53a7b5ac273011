//! What is told of a town: counts, its cadence, its last tick, open violations, and why each open bead waits.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::executor::Tallied;
use super::view::{self, BeadWait, FoundViolation};
use crate::clock::Timestamp;
use crate::ids::TownId;
use crate::town::Town;
use crate::town::plan::{ActionKind, Plan, Report, Wait};
use crate::town::words::{AgentStatus, BeadStatus, StuckClass};

/// One tick, as `lastTick` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastTick {
    /// When it ended.
    pub at: Timestamp,
    /// Events that it took in.
    pub events_drained: u64,
    /// What it did.
    pub actions_emitted: usize,
    /// The same by type.
    pub actions_by_type: BTreeMap<ActionKind, usize>,
    /// Effects that ended since the tick before.
    pub side_effects_attempted: u64,
    /// Of these, those that ended well.
    pub side_effects_succeeded: u64,
    /// Of these, those that failed.
    pub side_effects_failed: u64,
    /// Violations that it found.
    pub invariant_violations: usize,
    /// Milliseconds for drain, plan, append, fold and invariants.
    pub wall_clock_ms: f64,
    /// Events that it left.
    pub pending_event_count: u64,
}

impl LastTick {
    pub(super) fn of(
        at: Timestamp,
        wall: Duration,
        events_drained: u64,
        plan: &Plan,
        effects: Tallied,
    ) -> Self {
        Self {
            at,
            events_drained,
            actions_emitted: plan.actions.len(),
            actions_by_type: view::by_type(&plan.actions),
            side_effects_attempted: effects.attempted,
            side_effects_succeeded: effects.succeeded,
            side_effects_failed: effects.failed,
            invariant_violations: 0,
            wall_clock_ms: wall.as_secs_f64() * 1e3,
            pending_event_count: 0,
        }
    }

    pub(super) fn leaving(self, invariant_violations: usize, pending_event_count: u64) -> Self {
        Self { invariant_violations, pending_event_count, ..self }
    }
}

/// The body of `GET /api/towns/{id}/status`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TownStatus {
    /// Which town.
    pub town: TownId,
    /// Agents by status.
    pub agents: BTreeMap<AgentStatus, usize>,
    /// Beads by status; of those that ended the latest are counted.
    pub beads: BTreeMap<BeadStatus, usize>,
    /// Whether nothing is dispatched because of a drain.
    pub draining: bool,
    /// Whether nothing is dispatched because too much fails.
    pub breaker_open: bool,
    /// Why the town does not turn, if it was put aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// What keeps its ticks from being written, if none can be. Nothing is decided then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingTicks>,
    /// When it turns.
    pub cadence: CadenceView,
    /// Events that no plan knows of yet.
    pub pending_event_count: u64,
    /// The last tick; none before the first.
    pub last_tick: Option<LastTick>,
    /// Violations that are open.
    pub violations: Vec<FoundViolation>,
    /// Why each open bead waits, as the last tick saw it, with its times as they are now: the first 1,000.
    pub waits: Vec<BeadWait>,
    /// Open beads that `waits` leaves out.
    pub waits_left_out: usize,
}

impl TownStatus {
    /// The same without what agents and providers say.
    #[must_use]
    pub fn without_words(self) -> Self {
        Self { waits: self.waits.into_iter().map(BeadWait::without_words).collect(), ..self }
    }
}

/// Ticks that cannot write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailingTicks {
    /// When the first of them began.
    pub since: Timestamp,
    /// Why the last of them could not write.
    pub why: String,
}

/// When a town turns.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CadenceView {
    /// Milliseconds between ticks, unless an event comes.
    pub every_ms: u64,
    /// Milliseconds that a tick runs by now; 0 between ticks.
    pub running_ms: u64,
    /// Milliseconds that the next one is late, or that none could write; 0 while neither is so.
    pub overdue_ms: u64,
}

/// What gauges show of a town.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counted {
    pub(super) agents: BTreeMap<AgentStatus, usize>,
    pub(super) beads: BTreeMap<BeadStatus, usize>,
    pub(super) open: BTreeMap<u8, usize>,
}

impl Counted {
    pub(super) fn of(town: &Town) -> Self {
        let mut open = BTreeMap::new();
        town.episodes().for_each(|episode| *open.entry(episode.invariant).or_default() += 1);
        Self { agents: agents(town), beads: beads(town), open }
    }
}

/// Dispatched beads by what the silence of their agents is taken for.
pub(super) fn classes(report: &Report) -> BTreeMap<StuckClass, usize> {
    let mut counts: BTreeMap<_, _> = StuckClass::ALL.iter().map(|class| (*class, 0)).collect();
    for wait in report.values() {
        match wait {
            Wait::Dispatched { class, .. } => *counts.entry(*class).or_default() += 1,
            Wait::Starting { .. } => *counts.entry(StuckClass::Working).or_default() += 1,
            Wait::WaitingOnHuman { .. } => *counts.entry(StuckClass::WaitingOnHuman).or_default() += 1,
            Wait::Acted { .. }
            | Wait::Escalated { .. }
            | Wait::Held { .. }
            | Wait::InReview { .. }
            | Wait::Convoy { .. }
            | Wait::BlockerFailed { .. }
            | Wait::BlockedBy { .. }
            | Wait::Violated
            | Wait::BackOff { .. }
            | Wait::Draining
            | Wait::BreakerOpen { .. }
            | Wait::NoIdleAgent { .. }
            | Wait::NextPlan
            | Wait::Astray => {}
        }
    }
    counts
}

/// Agents by status.
pub(super) fn agents(town: &Town) -> BTreeMap<AgentStatus, usize> {
    AgentStatus::ALL.iter().map(|status| (*status, town.agent_count(*status))).collect()
}

/// Beads by status.
pub(super) fn beads(town: &Town) -> BTreeMap<BeadStatus, usize> {
    BeadStatus::ALL.iter().map(|status| (*status, town.bead_count(*status))).collect()
}
