//! What the gauges of a town show.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::TownId;
use crate::town::words::{AgentStatus, BeadStatus, StuckClass};

/// What the gauges of a town show; what is missing in a map is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TownGauges {
    /// Which town.
    pub town: TownId,
    /// Events appended and not yet folded.
    pub pending: u64,
    /// How long its tick has been running; zero between ticks.
    pub running: Duration,
    /// How long its next tick should have begun; zero while it is not due.
    pub overdue: Duration,
    /// How long its last tick took.
    pub last_tick: Duration,
    /// Open episodes, by the number of the invariant.
    pub open: BTreeMap<u8, u64>,
    /// Agents, by status.
    pub agents: BTreeMap<AgentStatus, u64>,
    /// Agents that hold a bead, by what their silence is taken for; and under [`StuckClass::WaitingOnHuman`] the beads
    /// that wait for a person.
    pub classes: BTreeMap<StuckClass, u64>,
    /// Beads, by status.
    pub beads: BTreeMap<BeadStatus, u64>,
}

impl TownGauges {
    /// Nothing to show.
    pub(super) fn none(town: TownId) -> Self {
        Self {
            town,
            pending: 0,
            running: Duration::ZERO,
            overdue: Duration::ZERO,
            last_tick: Duration::ZERO,
            open: BTreeMap::new(),
            agents: BTreeMap::new(),
            classes: BTreeMap::new(),
            beads: BTreeMap::new(),
        }
    }

    /// The worse of both where one can be worse, and the sum of what is counted.
    pub(super) fn or_worse(self, more: &Self) -> Self {
        let Self { town: _, pending, running, overdue, last_tick, open, agents, classes, beads } = more;
        Self {
            town: self.town,
            pending: self.pending.max(*pending),
            running: self.running.max(*running),
            overdue: self.overdue.max(*overdue),
            last_tick: self.last_tick.max(*last_tick),
            open: sum(self.open, open),
            agents: sum(self.agents, agents),
            classes: sum(self.classes, classes),
            beads: sum(self.beads, beads),
        }
    }
}

fn sum<K: Ord + Copy>(mut counts: BTreeMap<K, u64>, more: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    for (key, count) in more {
        *counts.entry(*key).or_default() += count;
    }
    counts
}
