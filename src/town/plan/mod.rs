//! What should be done in a town now, and why; and why everything that is not done waits.
//!
//! Pure, total and deterministic: the same town at the same moment gives the same plan. It decides everything; whoever
//! carries it out has nothing left to choose. A plan says at most one thing of an agent or a bead: rules are asked in the
//! order of `RULES`, and what an earlier one spoke of is passed over by the later ones until the next plan.
//!
//! Each rule is a file. Start at [`plan`].

mod action;
mod breaker;
mod cancel;
mod collect;
mod convoy;
mod dispatch;
mod dropout;
mod lost;
mod recover;
mod report;
mod settle;
mod stuck;
mod taken;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

use super::event::TownEvent;
use super::state::Town;
use super::time::TownTime;
use super::words::Entity;
use crate::clock::Timestamp;
use crate::ids::{AgentId, BeadId};
use crate::limits::TOWN_ACTIONS_MAX;

pub use action::{Action, ActionKind, Effect, Reason};
pub use report::{Report, Wait};

/// What should be done now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order in which their events are appended.
    pub actions: Vec<Action>,
    /// Why each open bead waits.
    pub report: Report,
    /// Whether more should be done than one plan may hold.
    pub more: bool,
}

impl Plan {
    /// Whether the town is worth a look every few seconds: there is something to do, or time alone will soon bring
    /// something. Agents that are silent for long are not worth it, nor is what waits for people.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.more || !self.actions.is_empty() || self.report.values().any(Wait::is_live)
    }
}

type Rule = fn(&mut Draft<'_>);

/// Every rule with its name, in the order of precedence.
const RULES: &[(&str, Rule)] = &[
    // What is broken is mended first: no other rule may touch it.
    ("recover", recover::rule),
    // Somebody said so; nothing else matters to such a bead.
    ("cancel", cancel::rule),
    // What an agent said stands above what its silence is taken for.
    ("settle", settle::rule),
    // Who is gone is freed before anything is measured of it.
    ("lost", lost::rule),
    // Who is there and silent is pressed, which needs to know that it is there.
    ("stuck", stuck::rule),
    // What cannot be done ends before it would be dispatched.
    ("dropout", dropout::rule),
    // A batch follows from its beads.
    ("convoy", convoy::rule),
    // Whether anything is dispatched at all.
    ("breaker", breaker::rule),
    // It gives away what is left.
    ("dispatch", dispatch::rule),
    // Last: who still has nothing to do may go.
    ("collect", collect::rule),
];

/// Decides what to do in a town at this moment of journal time.
#[must_use]
pub fn plan(town: &Town, now: Timestamp) -> Plan {
    let mut draft = Draft::new(town, now);
    for (_, rule) in RULES {
        rule(&mut draft);
    }
    let report = report::of(&draft);
    let Draft { actions, more, .. } = draft;
    Plan { actions, report, more }
}

/// A plan that is being made.
struct Draft<'a> {
    town: &'a Town,
    now: TownTime,
    actions: Vec<Action>,
    /// What the plan speaks of already.
    taken: BTreeSet<Entity>,
    /// What an open violation is about: nothing happens to that but what mends it, and what a person says.
    violated: BTreeSet<Entity>,
    more: bool,
}

impl<'a> Draft<'a> {
    fn new(town: &'a Town, now: Timestamp) -> Self {
        let violated = town.episodes().flat_map(|episode| episode.entities.iter().cloned()).collect();
        let (actions, taken) = (Vec::new(), BTreeSet::new());
        Self { town, now: town.clock(now), actions, taken, violated, more: false }
    }

    fn is_full(&self) -> bool {
        self.actions.len() >= TOWN_ACTIONS_MAX
    }

    fn is_free(&self, agent: &AgentId) -> bool {
        self.may_touch(&Entity::Agent(agent.clone()))
    }

    fn is_untouched(&self, bead: &BeadId) -> bool {
        self.may_touch(&Entity::Bead(bead.clone()))
    }

    fn may_touch(&self, entity: &Entity) -> bool {
        !self.taken.contains(entity) && !self.violated.contains(entity)
    }

    /// Adds an action, unless the plan spoke of one of these before or is full.
    fn act(&mut self, touches: &[Entity], action: Action) {
        if touches.iter().all(|entity| self.may_touch(entity)) {
            self.push(touches, action);
        }
    }

    /// Adds what mends an entity of an open violation, or what a person said about one.
    fn obey(&mut self, touches: &[Entity], action: Action) {
        if touches.iter().all(|entity| !self.taken.contains(entity)) {
            self.push(touches, action);
        }
    }

    fn push(&mut self, touches: &[Entity], action: Action) {
        if self.is_full() {
            self.more = true;
            return;
        }
        self.taken.extend(touches.iter().cloned());
        self.actions.push(action);
    }

    /// An id for a bead about another: `<bead>.<mark><n>`, the first that is free. `None` if none is short enough.
    fn id_about(&self, bead: &BeadId, mark: char, from: u32) -> Option<BeadId> {
        let ids = (from.max(1)..=u32::MAX).map(|n| BeadId::parse(&format!("{bead}.{mark}{n}")).ok());
        let is_free =
            |id: &BeadId| !self.town.beads().contains_key(id) && !self.town.closed().contains_key(id);
        ids.take_while(Option::is_some).flatten().find(is_free)
    }

    fn escalation_of(&self, bead: &BeadId) -> Option<BeadId> {
        let opened = self.town.beads().get(bead).map_or(0, |bead| bead.looks.escalations);
        self.id_about(bead, 'e', opened.saturating_add(1))
    }
}
