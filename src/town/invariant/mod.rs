//! What must hold in a town, whatever happens to it: checked while it runs, in replays, and in tests.
//!
//! No event that [`Town::apply`] accepts breaks any of it, but for the one of a drill; a fault of plimsoll, a damaged snapshot or a later change can.
//! Each invariant is a file, which says why it must hold; what does not hold is a [`Violation`]. Nothing is mended here:
//! that is policy, and the planner's. Checks look at what is open and never through what is closed, and no check needs
//! the time. Start at [`INVARIANTS`] and [`check_all`]; how violations become events stands in `episodes`.

mod attempts_over_cap;
mod bead_hooked_twice;
mod convoy_out_of_step;
mod episodes;
mod hook_points_nowhere;
mod in_review_without_review;
mod open_bead_stranded;
mod reviewed_twice_at_once;
mod state_differs_from_events;
mod terminal_bead_hooked;
#[cfg(test)]
mod tests;
mod working_without_hook;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;

use super::state::Town;
use super::words::Entity;
use crate::limits::TOWN_ENTITIES_MAX;

pub use episodes::{Episodes, Scope, episodes};

/// Entities that a message names: more say nothing new.
const NAMED_MAX: usize = 10;

/// Something that must hold in every town.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    /// 1 to 10; what events and snapshots call it.
    pub number: u8,
    /// What is the case where it does not hold; the name in labels.
    pub name: &'static str,
    /// What repairs it, for people.
    pub repair: &'static str,
    check: Check,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    /// Of a town as it stands.
    Alone(fn(&Town) -> Vec<Broken>),
    /// Of a town and the fold of its events.
    Against(fn(&Town, &Town) -> Vec<Broken>),
}

/// Every invariant, in the order of their numbers.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        number: 1,
        name: "state_differs_from_events",
        check: Check::Against(state_differs_from_events::check),
        repair: "plimsoll makes the town anew from its events; keep a copy of the data directory and report the fault",
    },
    Invariant {
        number: 2,
        name: "terminal_bead_hooked",
        check: Check::Alone(terminal_bead_hooked::check),
        repair: "set recovery.terminal_bead_hooked of the policy to auto, which unhooks the agent, or remove the agent from the town",
    },
    Invariant {
        number: 3,
        name: "reviewed_twice_at_once",
        check: Check::Alone(reviewed_twice_at_once::check),
        repair: "cancel the later reviews: the first one goes on",
    },
    Invariant {
        number: 4,
        name: "in_review_without_review",
        check: Check::Alone(in_review_without_review::check),
        repair: "cancel the task, and make it anew",
    },
    Invariant {
        number: 5,
        name: "convoy_out_of_step",
        check: Check::Alone(convoy_out_of_step::check),
        repair: "cancel the convoy, and make it anew; where it ended, cancel those of its tasks that are open",
    },
    Invariant {
        number: 6,
        name: "bead_hooked_twice",
        check: Check::Alone(bead_hooked_twice::check),
        repair: "cancel the bead, which stops who works on it, and make it anew",
    },
    Invariant {
        number: 7,
        name: "working_without_hook",
        check: Check::Alone(working_without_hook::check),
        repair: "set recovery.working_without_hook of the policy to auto, which makes the agent idle, or remove the agent from the town",
    },
    Invariant {
        number: 8,
        name: "hook_points_nowhere",
        check: Check::Alone(hook_points_nowhere::check),
        repair: "set recovery.hook_points_nowhere of the policy to auto, which unhooks the agent, or remove the agent from the town",
    },
    Invariant {
        number: 9,
        name: "open_bead_stranded",
        check: Check::Alone(open_bead_stranded::check),
        repair: "cancel the beads, which also stops who holds them, and make them anew; a town that was put aside goes on after a restart of plimsoll, and the log says why it was",
    },
    Invariant {
        number: 10,
        name: "attempts_over_cap",
        check: Check::Alone(attempts_over_cap::check),
        repair: "cancel the bead, and make it anew",
    },
];

/// A place where an invariant does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// The number of the invariant.
    pub invariant: u8,
    /// Where: the first hundred. With the number they tell it from others.
    pub entities: BTreeSet<Entity>,
    /// What is wrong, for people.
    pub message: Arc<str>,
}

impl Violation {
    /// The name of the invariant; empty if there is none of this number.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of(self.invariant)
    }
}

/// The name of the invariant of this number; empty if there is none.
#[must_use]
pub fn name_of(number: u8) -> &'static str {
    INVARIANTS.iter().find(|known| known.number == number).map_or("", |known| known.name)
}

/// What repairs the invariant of this number; none if there is none of this number.
#[must_use]
pub fn repair_of(number: u8) -> Option<&'static str> {
    INVARIANTS.iter().find(|known| known.number == number).map(|known| known.repair)
}

/// Where a town as it stands breaks an invariant, sorted. All are checked but the first, which needs the town's events:
/// see [`check_fold`].
#[must_use]
pub fn check_all(town: &Town) -> Vec<Violation> {
    let found = INVARIANTS.iter().map(|invariant| match invariant.check {
        Check::Alone(check) => invariant.violations(check(town)),
        Check::Against(_) => Vec::new(),
    });
    sorted(found)
}

/// Where a town is not the `folded` one, which was made from its events up to the same place. Costs as much as the town
/// is large: for snapshots and for the boot.
#[must_use]
pub fn check_fold(town: &Town, folded: &Town) -> Vec<Violation> {
    let found = INVARIANTS.iter().map(|invariant| match invariant.check {
        Check::Against(check) => invariant.violations(check(town, folded)),
        Check::Alone(_) => Vec::new(),
    });
    sorted(found)
}

fn sorted(found: impl Iterator<Item = Vec<Violation>>) -> Vec<Violation> {
    let mut found: Vec<Violation> = found.flatten().collect();
    found.sort();
    found
}

impl Invariant {
    fn violations(self, broken: Vec<Broken>) -> Vec<Violation> {
        let told = |Broken { entities, message }| Violation {
            invariant: self.number,
            entities,
            message: String::into(message),
        };
        broken.into_iter().map(told).collect()
    }
}

/// What a check finds.
struct Broken {
    entities: BTreeSet<Entity>,
    message: String,
}

impl Broken {
    fn new(entities: impl IntoIterator<Item = Entity>, message: String) -> Self {
        let mut entities: BTreeSet<Entity> = entities.into_iter().collect();
        while entities.len() > TOWN_ENTITIES_MAX {
            entities.pop_last();
        }
        Self { entities, message }
    }
}

/// The first ten of these, and how many there are besides.
fn named<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let first: Vec<String> = all.by_ref().take(NAMED_MAX).map(|one| one.to_string()).collect();
    match all.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
