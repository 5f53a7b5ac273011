//! What must never happen, looked for after every event and every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll::clock::Timestamp;
use plimsoll::ids::{AgentId, BeadId, DispatchId, IdempotencyKey};
use plimsoll::limits::TOWN_KEY_AGE_MAX;
use plimsoll::town::event::TownEvent;
use plimsoll::town::invariant::{Violation, check_all};
use plimsoll::town::plan::{Plan, Reason, Wait};
use plimsoll::town::state::{ClosedBead, Town};
use plimsoll::town::words::{AgentStatus, BeadKind, BeadReason, BeadStatus, Entity, Tier};

use crate::journal::Entry;
use crate::tally::Tally;

/// An uncounted part of a jump of the clock: what may pass before a tick is late, and between two ticks.
const JUMP_SLACK_MS: u64 = 66_000;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    beads: BTreeMap<BeadId, (BeadKind, BeadStatus)>,
    agents: BTreeMap<AgentId, AgentStatus>,
    ended: BTreeMap<BeadId, ClosedBead>,
    keys: BTreeMap<(Arc<str>, IdempotencyKey), Timestamp>,
    /// When something was last taken in about a dispatch, and how many jumps there were until then.
    heard: BTreeMap<DispatchId, (u64, u64)>,
    dispatches: BTreeSet<DispatchId>,
    /// Agents that were damaged on purpose and are not mended yet.
    pub(crate) damaged: BTreeSet<AgentId>,
}

impl Watch {
    /// After an event was taken in.
    pub(crate) fn note(&mut self, town: &Town, entry: &Entry, tally: &mut Tally) {
        let Some(event) = &entry.event else { return };
        *tally.events.entry(event.kind()).or_default() += 1;
        self.note_words(town, entry, event, tally);
        let quiet = matches!(event, TownEvent::AgentProgress { .. } | TownEvent::ContainerStatus { .. });
        if !quiet {
            self.note_beads(town, event, tally);
            self.note_agents(town, tally);
        }
    }

    fn note_words(&mut self, town: &Town, entry: &Entry, event: &TownEvent, tally: &mut Tally) {
        if let Some(report) = event.report() {
            let key = (report.by.clone(), report.key.clone());
            let before = self.keys.insert(key, town.time());
            let twice = before.is_some_and(|before| town.time().since(before) <= TOWN_KEY_AGE_MAX);
            assert!(!twice, "a report was taken in twice: {event:?}");
        }
        let heard = (entry.mono, entry.jumps);
        match event {
            TownEvent::BeadDispatched { dispatch_id, .. } => {
                assert!(self.dispatches.insert(dispatch_id.clone()), "{dispatch_id} was used twice");
                self.heard.insert(dispatch_id.clone(), heard);
            }
            TownEvent::AgentDone { dispatch_id, .. }
            | TownEvent::AgentCompleted { dispatch_id, .. }
            | TownEvent::AgentProgress { dispatch_id, .. }
            | TownEvent::ReviewDone { dispatch_id, .. } => {
                // Only what the hook took: a lie or a repetition is no progress.
                let hook = town.holder(dispatch_id).and_then(|(_, agent)| agent.hook.as_ref());
                if hook.is_some_and(|hook| hook.progress == town.clock(town.time())) {
                    self.heard.insert(dispatch_id.clone(), heard);
                }
            }
            TownEvent::DispatchLost { cause, .. } => *tally.causes.entry(*cause).or_default() += 1,
            _ => {}
        }
    }

    fn note_beads(&mut self, town: &Town, event: &TownEvent, tally: &mut Tally) {
        let told = if let TownEvent::BeadTransitioned { reason, .. } = event {
            *tally.reasons.entry(*reason).or_default() += 1;
            true
        } else {
            false
        };
        let mut gone = std::mem::take(&mut self.beads);
        for (id, bead) in town.beads() {
            let before = gone.remove(id);
            let now = (bead.kind, bead.status);
            if before != Some(now) {
                assert!(!self.ended.contains_key(id), "{id} had ended");
                let way = (bead.kind, before.map(|(_, status)| status), bead.status);
                *tally.bead_ways.entry(way).or_default() += 1;
            }
            self.beads.insert(id.clone(), now);
        }
        for (id, (kind, before)) in gone {
            let closed = town.closed().get(&id).unwrap_or_else(|| panic!("{id} is gone"));
            *tally.bead_ways.entry((kind, Some(before), closed.status)).or_default() += 1;
            *tally.reasons.entry(closed.reason).or_default() += u64::from(!told);
            self.ended.insert(id, closed.clone());
        }
    }

    fn note_agents(&mut self, town: &Town, tally: &mut Tally) {
        let mut gone = std::mem::take(&mut self.agents);
        for (id, agent) in town.agents() {
            let before = gone.remove(id);
            if before != Some(agent.status) && !self.damaged.contains(id) {
                *tally.agent_ways.entry((before, Some(agent.status))).or_default() += 1;
            }
            self.agents.insert(id.clone(), agent.status);
        }
        for (_, before) in gone {
            *tally.agent_ways.entry((Some(before), None)).or_default() += 1;
        }
    }

    /// Begins anew with a town that was changed by no event.
    pub(crate) fn adopt(&mut self, town: &Town) {
        self.agents = town.agents().iter().map(|(id, agent)| (id.clone(), agent.status)).collect();
    }

    /// The ten invariants but the first. Agents that were damaged on purpose may be named until they are mended.
    pub(crate) fn check(&self, town: &Town) -> Vec<Violation> {
        let damaged = &self.damaged;
        let wanted = |entity: &Entity| matches!(entity, Entity::Agent(id) if damaged.contains(id));
        let found = check_all(town);
        let bad: Vec<_> = found.iter().filter(|found| !found.entities.iter().any(wanted)).collect();
        assert!(bad.is_empty(), "{bad:?}");
        found
    }

    /// Beads that ended stay as they ended; a convoy may still take one in.
    pub(crate) fn check_ended(&self, town: &Town) {
        assert_eq!(self.ended.len(), town.closed().len());
        for (id, before) in &self.ended {
            let now = town.closed().get(id).unwrap_or_else(|| panic!("{id} is forgotten"));
            let parent = before.parent.is_none() || before.parent == now.parent;
            let same = ClosedBead { parent: before.parent.clone(), ..now.clone() } == *before;
            assert!(same && parent, "{id} changed after its end: {before:?}, {now:?}");
        }
    }

    /// A plan speaks once of each entity, says of every open bead why it waits, and takes nobody's silence for longer
    /// than it was.
    pub(crate) fn check_plan(&self, town: &Town, plan: &Plan, mono: u64, jumps: u64) {
        let mut entities = BTreeSet::new();
        for action in &plan.actions {
            let fresh = action.entity.as_ref().is_none_or(|entity| entities.insert(entity));
            assert!(fresh, "two actions on one entity: {:?}", plan.actions);
            check_asked(town, action.event());
            let (dispatch, quiet_ms) = match (&action.reason, action.event()) {
                (Reason::Lost { quiet_ms, .. }, TownEvent::DispatchLost { dispatch_id, .. })
                | (Reason::Quiet { quiet_ms, .. }, TownEvent::DispatchLost { dispatch_id, .. }) => {
                    (dispatch_id, *quiet_ms)
                }
                (Reason::Unreadable { ended_ms, .. }, TownEvent::BeadTransitioned { bead, .. }) => {
                    let hook = town.hooked_to(bead).find_map(|(_, agent)| agent.hook.as_ref());
                    let hook = hook.expect("it was at work");
                    // What it says after its end is no silence, and its end counts; what it says after it was asked,
                    // as before, ends a silence.
                    if hook.ended.is_some() {
                        continue;
                    }
                    let asked_at = hook.tiers.get(&Tier::Ending).expect("it was asked").as_millis();
                    let heard_after = hook.progress.as_millis().saturating_sub(asked_at);
                    (&hook.dispatch_id, ended_ms.saturating_sub(heard_after))
                }
                _ => continue,
            };
            let (heard, before) = self.heard[dispatch];
            let most = mono - heard + (jumps - before) * JUMP_SLACK_MS;
            assert!(quiet_ms <= most, "{dispatch} was quiet for {most} ms at most, not {quiet_ms}");
        }
        assert!(plan.report.keys().eq(town.beads().keys()), "the report leaves beads out");
        for (id, wait) in &plan.report {
            assert!(*wait != Wait::Astray, "{id} is astray");
        }
    }
}

/// Work that is done is not done again because nobody answers how it ended.
fn check_asked(town: &Town, event: &TownEvent) {
    let bead = match event {
        TownEvent::DispatchLost { dispatch_id, .. } => dispatch_id.bead(),
        TownEvent::BeadTransitioned {
            bead,
            reason: BeadReason::AttemptFailed | BeadReason::AttemptsExhausted,
            ..
        } => bead,
        _ => return,
    };
    let mut hooks = town.hooked_to(bead).filter_map(|(_, agent)| agent.hook.as_ref());
    let in_vain = hooks.any(|hook| hook.asked > 0 && hook.said.is_none());
    assert!(!in_vain, "{bead} was done, and is done again: {event:?}");
}
