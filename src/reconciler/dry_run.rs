//! What the next tick would do, on a copy of the town: nothing is written, counted, or called.
//!
//! Exact for the same moment and the same observations, of which it takes none; a tick that comes late first leaves out
//! the time in which nobody looked after the town.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::history::Folded;
use super::view::{self, BeadWait, FoundViolation, PlannedAction};
use crate::clock::Timestamp;
use crate::journal::Record;
use crate::town::Town;
use crate::town::invariant::check_all;
use crate::town::plan::{ActionKind, plan};

/// A copy of a town as it stands.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// As far as it is folded.
    pub town: Town,
    /// Records that it did not take in yet, in order.
    pub line: Vec<Record>,
    /// Events that no plan knows of yet, those in line included.
    pub pending: u64,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// The moment that it was planned for.
    pub now: Timestamp,
    /// What the planner would do.
    pub actions: Vec<PlannedAction>,
    /// Why each open bead waits: the first 1,000.
    pub report: Vec<BeadWait>,
    /// Open beads that `report` leaves out.
    pub report_left_out: usize,
    /// The tick in numbers.
    pub metrics: DryRunMetrics,
    /// Where invariants would not hold after it: the first 1,000.
    pub violations: Vec<FoundViolation>,
    /// Violations that are left out.
    pub violations_left_out: usize,
}

/// The tick in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRunMetrics {
    /// Actions of the plan.
    pub actions_emitted: usize,
    /// The same by type.
    pub actions_by_type: BTreeMap<ActionKind, usize>,
    /// Events that the town itself did not drain yet; they stay pending there.
    pub pending_event_count: u64,
    /// Events that the tick would drain.
    pub events_drained: u64,
}

/// Plays the next tick at this moment, or at that of the last event if that is later. Costs milliseconds in a large
/// town: call it off the runtime.
#[must_use]
pub fn dry_run(fork: Fork, now: Timestamp) -> DryRun {
    let Fork { town, line, pending } = fork;
    let mut folded = Folded { town, ..Folded::default() };
    for record in &line {
        folded.take(record);
    }
    let mut town = folded.town;
    let now = now.max(town.time());
    let plan = plan(&town, now);
    for action in &plan.actions {
        // A town takes in what its planner says. One that was damaged may not: then the next tick tells of it, and this
        // shows what it would find all the same.
        let _ = town.apply(town.seq().next(), now, action.event());
    }
    let report = view::waits(&plan.report);
    let violations = view::violations(&check_all(&town));
    DryRun {
        now,
        actions: plan.actions.iter().map(PlannedAction::from).collect(),
        report: report.first,
        report_left_out: report.left_out,
        metrics: DryRunMetrics {
            actions_emitted: plan.actions.len(),
            actions_by_type: view::by_type(&plan.actions),
            pending_event_count: pending,
            events_drained: pending,
        },
        violations: violations.first,
        violations_left_out: violations.left_out,
    }
}
