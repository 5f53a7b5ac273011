//! How an event changes a town.
//!
//! Each part looks (`look_at_...`), which alone can fail, and changes (`change_...`), which cannot: what is looked at for an
//! event is written once, for [`Town::check`] and [`Town::apply`]. What several events have in common, such as the end of a
//! bead with all that follows from it, stands in `steps`.

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
use crate::ids::{BeadId, Seq};
use crate::limits::{TOWN_KEY_AGE_MAX, TOWN_KEYS_MAX};
use crate::town::event::{Report, TownEvent};
use crate::town::time::TownTime;

/// Where an event stands in the journal, and when that is on the town's clock.
#[derive(Debug, Clone, Copy)]
struct At {
    seq: Seq,
    time: Timestamp,
    now: TownTime,
}

/// What an event is about, and so which file knows it.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// What the town decides by.
    Rules,
    Care,
    Agents,
    Answers,
    Beads,
    Dispatches,
    Status,
}

impl Part {
    const fn of(event: &TownEvent) -> Self {
        use TownEvent as E;
        match event {
            E::TownCreated { .. } | E::PolicyChanged { .. } => Self::Rules,
            E::DrainStarted { .. }
            | E::DrainEnded {}
            | E::TimeSkipped { .. }
            | E::BreakerOpened { .. }
            | E::BreakerClosed {}
            | E::ViolationOpened { .. }
            | E::ViolationResolved { .. }
            | E::EventRejected { .. }
            | E::NudgeSent { .. }
            | E::Escalated { .. } => Self::Care,
            E::AgentRegistered { .. }
            | E::AgentRemoved { .. }
            | E::AgentCollected { .. }
            | E::AgentTransitioned { .. }
            | E::ContainerStatus { .. }
            | E::ContainerEviction { .. } => Self::Agents,
            E::AgentDone { .. }
            | E::AgentCompleted { .. }
            | E::AgentProgress { .. }
            | E::ReviewDone { .. } => Self::Answers,
            E::BeadCreated { .. }
            | E::BeadCancelled { .. }
            | E::BeadHeld { .. }
            | E::BeadReleased { .. }
            | E::DependencyAdded { .. }
            | E::ConvoyStarted { .. } => Self::Beads,
            E::BeadDispatched { .. }
            | E::DispatchFailed { .. }
            | E::DispatchLost { .. }
            | E::AgentUnhooked { .. } => Self::Dispatches,
            E::BeadTransitioned { .. } | E::ReviewOpened { .. } => Self::Status,
        }
    }
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
        self.check(time, event)?;
        let time = time.max(self.facts.time);
        let at = At { seq, time, now: self.clock(time) };
        self.change(at, event);
        if let Some(report) = event.report() {
            self.keep_key(at, report, event.new_bead());
        }
        self.facts.seq = seq;
        self.facts.time = time;
        Ok(())
    }

    /// Whether [`Town::apply`] would take an event in that comes next, at this time. Changes nothing.
    ///
    /// # Errors
    /// [`Rejected`], as it would be.
    pub fn check(&self, time: Timestamp, event: &TownEvent) -> Result<(), Rejected> {
        event.check_bounds()?;
        if !self.facts.created && !matches!(event, TownEvent::TownCreated { .. }) {
            return Err(Rejected::NotCreated);
        }
        if let Some(report) = event.report() {
            self.check_key(report, time)?;
        }
        match Part::of(event) {
            Part::Rules => self.look_at_rules(event),
            Part::Care => self.look_at_care(event),
            Part::Agents => self.look_at_agents(event),
            Part::Answers => self.look_at_answer(event),
            Part::Beads => self.look_at_beads(event),
            Part::Dispatches => self.look_at_dispatches(event),
            Part::Status => self.look_at_status(event),
        }
    }

    fn change(&mut self, at: At, event: &TownEvent) {
        match Part::of(event) {
            Part::Rules => self.change_rules(event),
            Part::Care => self.change_care(at, event),
            Part::Agents => self.change_agents(at, event),
            Part::Answers => self.take_answer(at, event),
            Part::Beads => self.change_beads(at, event),
            Part::Dispatches => self.change_dispatches(at, event),
            Part::Status => self.change_status(at, event),
        }
    }

    fn look_at_rules(&self, event: &TownEvent) -> Result<(), Rejected> {
        let policy = match event {
            TownEvent::TownCreated { .. } if self.facts.created => return Err(Rejected::AlreadyCreated),
            TownEvent::TownCreated { policy } | TownEvent::PolicyChanged { policy } => policy,
            other => unreachable!("{} sets no rules", other.kind()),
        };
        policy.out_of_range().into_iter().next().map_or(Ok(()), |problem| Err(Rejected::Policy(problem)))
    }

    fn change_rules(&mut self, event: &TownEvent) {
        let (TownEvent::TownCreated { policy } | TownEvent::PolicyChanged { policy }) = event else {
            unreachable!("{} sets no rules", event.kind())
        };
        self.facts.created = true;
        self.facts.policy = policy.as_ref().clone();
    }
    fn check_key(&self, report: &Report, now: Timestamp) -> Result<(), Rejected> {
        match self.reported(&report.by, &report.key, now) {
            None => Ok(()),
            Some(KeyUse { seq, body, .. }) if *body == report.body => Err(Rejected::Repeated { first: *seq }),
            Some(KeyUse { seq, .. }) => Err(Rejected::KeyReused { first: *seq }),
        }
    }

    fn keep_key(&mut self, at: At, report: &Report, made: Option<&BeadId>) {
        let Report { by, key, body } = report;
        let used = KeyUse { seq: at.seq, time: at.time, body: body.clone(), made: made.cloned() };
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
