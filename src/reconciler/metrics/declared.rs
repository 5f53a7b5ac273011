//! What towns are measured by.

use crate::limits::TOWN_SERIES_MAX;
use crate::telemetry::metric::{Counter, Definition, Gauge, Histogram};
use crate::town::invariant::INVARIANTS;
use crate::town::plan::ActionKind;
use crate::town::words::{AgentStatus, BeadStatus, StuckClass};

/// How long ticks take.
pub(super) static TICK_SECONDS: Histogram<1> = Histogram::new(
    "plimsoll_reconciler_tick_duration_seconds",
    &["town"],
    "Wall clock of a town's ticks: drain, plan, durable append, fold and invariants, without observation and effects.",
    (
        &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0],
        "from a tick that finds nothing to one that waits for a disk that hangs; alerts begin above 0.5",
    ),
)
.series_max(series(1));

/// How long the last one took.
pub(super) static LAST_TICK_SECONDS: Gauge<1> = Gauge::new(
    "plimsoll_reconciler_last_tick_duration_seconds",
    &["town"],
    "Wall clock of a town's last tick; of the slowest last tick under `other`.",
)
.series_max(series(1));

/// How long the one that runs has taken.
pub(super) static TICK_RUNNING_SECONDS: Gauge<1> = Gauge::new(
    "plimsoll_reconciler_tick_running_seconds",
    &["town"],
    "How long a town's tick has been running, read when this is rendered; 0 between ticks.",
)
.series_max(series(1));

/// How late the next one is.
pub(super) static TICK_OVERDUE_SECONDS: Gauge<1> = Gauge::new(
    "plimsoll_reconciler_tick_overdue_seconds",
    &["town"],
    "How long a town's next tick should have begun, read when this is rendered; 0 while it is not due.",
)
.series_max(series(1));

/// How long observing takes.
pub(super) static OBSERVE_SECONDS: Histogram<1> = Histogram::new(
    "plimsoll_reconciler_observe_duration_seconds",
    &["town"],
    "How long a look at what hosts a town's working agents took.",
    (
        &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0],
        "from a look into memory to an engine that does not answer",
    ),
)
.series_max(series(1));

/// How long effects take.
pub(super) static EFFECT_SECONDS: Histogram<1> = Histogram::new(
    "plimsoll_reconciler_effect_duration_seconds",
    &["town"],
    "From the turn of an effect until it ended, well or not; of a dispatch, until the gateway accepted it.",
    (
        &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0],
        "from a request that is accepted at once to a stop that takes its whole deadline",
    ),
)
.series_max(series(1));

/// Events that were taken in.
pub(super) static EVENTS_DRAINED: Counter<1> = Counter::new(
    "plimsoll_reconciler_events_drained_total",
    &["town"],
    "Events of a town that ticks took into account.",
)
.series_max(series(1));

/// What was decided.
pub(super) static ACTIONS: Counter<2> = Counter::new(
    "plimsoll_reconciler_actions_total",
    &["town", "action"],
    "Actions of a town's plans whose events were accepted, by their type.",
)
.series_max(series(ActionKind::ALL.len()));

/// What was done.
pub(super) static EFFECTS: Counter<2> = Counter::new(
    "plimsoll_reconciler_effects_total",
    &["town", "outcome"],
    "Effects of a town, by outcome: attempted when one is begun, succeeded or failed when it ended; a stop that is tried again counts each time.",
)
.series_max(series(OUTCOMES.len()));

/// What waits to be taken in.
pub(super) static PENDING_EVENTS: Gauge<1> = Gauge::new(
    "plimsoll_reconciler_pending_events",
    &["town"],
    "Events of a town that are appended and that no tick took into account yet; of the town with the most under `other`.",
)
.series_max(series(1));

/// What could not be taken in.
pub(super) static REJECTED_EVENTS: Counter<1> = Counter::new(
    "plimsoll_reconciler_rejected_events_total",
    &["town"],
    "Events of a town that could not be read, or did not fit its state: each is recorded once and passed over.",
)
.series_max(series(1));

/// What was seen again.
pub(super) static STATUS_SUPPRESSED: Counter<1> = Counter::new(
    "plimsoll_reconciler_container_status_suppressed_total",
    &["town"],
    "Observations of a town's agents that said what was recorded last, and were not recorded again.",
)
.series_max(series(1));

/// Violations that were found.
pub(super) static VIOLATIONS: Counter<2> = Counter::new(
    "plimsoll_invariant_violations_total",
    &["town", "invariant"],
    "Episodes in which an invariant of a town did not hold, by number and name; counted on over restarts, from the durable record.",
)
.series_max(series(INVARIANTS.len()));

/// Violations that are open.
pub(super) static VIOLATIONS_OPEN: Gauge<2> = Gauge::new(
    "plimsoll_invariant_violations_open",
    &["town", "invariant"],
    "Episodes that are open: an invariant of a town does not hold now, by number and name.",
)
.series_max(series(INVARIANTS.len()));

/// Agents of a town.
pub(super) static AGENTS: Gauge<2> = Gauge::new(
    "plimsoll_agents",
    &["town", "status"],
    "Agents of a town, by what they do: idle, working, stalled, dead.",
)
.series_max(series(AgentStatus::ALL.len()));

/// Agents of a town that hold a bead.
pub(super) static AGENTS_BY_CLASS: Gauge<2> = Gauge::new(
    "plimsoll_agents_by_class",
    &["town", "class"],
    "Agents of a town that hold a bead, by what their silence is taken for: working, long_running, stalled, stuck; and under waiting_on_human the beads whose agents asked for a person.",
)
.series_max(series(StuckClass::ALL.len()));

/// Beads of a town.
pub(super) static BEADS: Gauge<2> = Gauge::new(
    "plimsoll_beads",
    &["town", "status"],
    "Beads of a town, by status: open, in_progress, in_review, closed, failed.",
)
.series_max(series(BeadStatus::ALL.len()));

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[
    &TICK_SECONDS.0,
    &LAST_TICK_SECONDS.0,
    &TICK_RUNNING_SECONDS.0,
    &TICK_OVERDUE_SECONDS.0,
    &OBSERVE_SECONDS.0,
    &EFFECT_SECONDS.0,
    &EVENTS_DRAINED.0,
    &ACTIONS.0,
    &EFFECTS.0,
    &PENDING_EVENTS.0,
    &REJECTED_EVENTS.0,
    &STATUS_SUPPRESSED.0,
    &VIOLATIONS.0,
    &VIOLATIONS_OPEN.0,
    &AGENTS.0,
    &AGENTS_BY_CLASS.0,
    &BEADS.0,
];

/// How an effect fares.
pub(super) const OUTCOMES: [&str; 3] = ["attempted", "succeeded", "failed"];

/// Series of a metric that has so many for each town.
const fn series(each: usize) -> usize {
    (TOWN_SERIES_MAX + 1) * each
}
