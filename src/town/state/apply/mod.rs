//! How an event changes a town.
//!
//! Each function here looks first and changes after: once it changes anything, nothing can fail. What several events have
//! in common, such as the end of a bead with all that follows from it, stands in `steps`.

mod agents;
mod answers;
mod beads;
mod care;
mod dispatches;
mod steps;
mod transitions;
#[cfg(test)]
pub(in crate::town) use transitions::WAYS;

use super::{KeyUse, Rejected, Town};
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::limits::{TOWN_KEY_AGE_MAX, TOWN_KEYS_MAX};
use crate::town::event::{Report, TownEvent};
use crate::town::policy::Policy;
use crate::town::time::TownTime;

/// Where an event stands in the journal, and when that is on the town's clock.
#[derive(Debug, Clone, Copy)]
struct At {
    seq: Seq,
    time: Timestamp,
    now: TownTime,
}

impl Town {
    /// Takes an event in that stands at this place in the journal, at this time. The same events make the same town.
    ///
    /// # Errors
    /// [`Rejected`]: it does not hold, and nothing was changed.
    pub fn apply(&mut self, seq: Seq, time: Timestamp, event: &TownEvent) -> Result<(), Rejected> {
        if seq <= self.facts.seq {
            return Err(Rejected::OutOfOrder { last: self.facts.seq });
        }
        event.check_bounds()?;
        if !self.facts.created && !matches!(event, TownEvent::TownCreated { .. }) {
            return Err(Rejected::NotCreated);
        }
        if let Some(report) = event.report() {
            self.check_key(report, time)?;
        }
        let time = time.max(self.facts.time);
        let at = At { seq, time, now: self.clock(time) };
        self.change(at, event)?;
        if let Some(report) = event.report() {
            self.keep_key(at, report);
        }
        self.facts.seq = seq;
        self.facts.time = time;
        Ok(())
    }

    fn change(&mut self, at: At, event: &TownEvent) -> Result<(), Rejected> {
        use TownEvent as E;
        match event {
            E::TownCreated { policy } => self.create(policy),
            E::PolicyChanged { policy } => self.change_policy(policy),
            E::DrainStarted { .. }
            | E::DrainEnded {}
            | E::TimeSkipped { .. }
            | E::BreakerOpened { .. }
            | E::BreakerClosed {}
            | E::ViolationOpened { .. }
            | E::ViolationResolved { .. }
            | E::EventRejected { .. }
            | E::NudgeSent { .. }
            | E::Escalated { .. } => self.change_care(at, event),
            E::AgentRegistered { .. }
            | E::AgentRemoved { .. }
            | E::AgentCollected { .. }
            | E::AgentTransitioned { .. }
            | E::ContainerStatus { .. }
            | E::ContainerEviction { .. } => self.change_agents(at, event),
            E::AgentDone { .. }
            | E::AgentCompleted { .. }
            | E::AgentProgress { .. }
            | E::ReviewDone { .. } => self.take_answer(at, event),
            E::BeadCreated { .. }
            | E::BeadCancelled { .. }
            | E::BeadHeld { .. }
            | E::BeadReleased { .. }
            | E::DependencyAdded { .. }
            | E::ConvoyStarted { .. } => self.change_beads(at, event),
            E::BeadDispatched { .. }
            | E::DispatchFailed { .. }
            | E::DispatchLost { .. }
            | E::AgentHooked { .. }
            | E::AgentUnhooked { .. } => self.change_dispatches(at, event),
            E::BeadTransitioned { .. } | E::ReviewOpened { .. } => self.change_status(at, event),
        }
    }

    fn create(&mut self, policy: &Policy) -> Result<(), Rejected> {
        if self.facts.created {
            return Err(Rejected::AlreadyCreated);
        }
        self.change_policy(policy)?;
        self.facts.created = true;
        Ok(())
    }

    fn change_policy(&mut self, policy: &Policy) -> Result<(), Rejected> {
        if let Some(problem) = policy.problems().into_iter().next() {
            return Err(Rejected::Policy(problem));
        }
        self.facts.policy = policy.clone();
        Ok(())
    }

    fn check_key(&self, report: &Report, now: Timestamp) -> Result<(), Rejected> {
        match self.reported(&report.by, &report.key, now) {
            None => Ok(()),
            Some(KeyUse { seq, body, .. }) if *body == report.body => Err(Rejected::Repeated { first: *seq }),
            Some(KeyUse { seq, .. }) => Err(Rejected::KeyReused { first: *seq }),
        }
    }

    fn keep_key(&mut self, at: At, report: &Report) {
        let Report { by, key, body } = report;
        let used = KeyUse { seq: at.seq, time: at.time, body: body.clone() };
        if let Some(before) = self.facts.keys.entry(by.clone()).or_default().insert(key.clone(), used) {
            self.indices.keys.remove(&before.seq);
        }
        self.indices.keys.insert(at.seq, (by.clone(), key.clone()));
        while let Some((seq, (by, key))) = self.indices.keys.first_key_value() {
            let old = self.facts.keys.get(by).and_then(|keys| keys.get(key));
            let old = old.is_none_or(|used| at.time.since(used.time) > TOWN_KEY_AGE_MAX);
            if !old && self.indices.keys.len() <= TOWN_KEYS_MAX {
                break;
            }
            let (seq, by, key) = (*seq, by.clone(), key.clone());
            self.indices.keys.remove(&seq);
            if let Some(keys) = self.facts.keys.get_mut(&by) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.facts.keys.remove(&by);
                }
            }
        }
    }
}
