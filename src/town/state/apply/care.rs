//! What the town as a whole goes through: drains, the breaker, time, violations; and what is done about work that does
//! not move.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::At;
use crate::ids::{AgentId, DispatchId};
use crate::limits::TOWN_EPISODES_MAX;
use crate::town::event::TownEvent;
use crate::town::state::bead::Hold;
use crate::town::state::{Episode, OpenBreaker, Rejected, Town};
use crate::town::words::{Entity, Tier};

impl Town {
    pub(super) fn look_at_care(&self, event: &TownEvent) -> Result<(), Rejected> {
        match event {
            TownEvent::DrainStarted { .. }
            | TownEvent::DrainEnded {}
            | TownEvent::TimeSkipped { .. }
            | TownEvent::EventRejected { .. } => Ok(()),
            TownEvent::BreakerOpened { .. } => match self.facts.breaker.open {
                Some(_) => Err(Rejected::Breaker("open")),
                None => Ok(()),
            },
            TownEvent::BreakerClosed {} => match self.facts.breaker.open {
                Some(_) => Ok(()),
                None => Err(Rejected::Breaker("closed")),
            },
            TownEvent::ViolationOpened { invariant, entities, message: _ } => {
                self.check_new_episode(*invariant, entities)
            }
            TownEvent::ViolationResolved { invariant, entities } => {
                match self.facts.episodes.contains_key(&episode_key(*invariant, entities)) {
                    true => Ok(()),
                    false => Err(Rejected::Episode { invariant: *invariant, stands: "not open" }),
                }
            }
            TownEvent::NudgeSent { agent, .. } => self.agent(agent).map(drop),
            TownEvent::Escalated { escalation, bead, .. } => {
                self.bead(bead)?;
                self.check_bead_id(escalation)
            }
            other => unreachable!("{} does not concern the town as a whole", other.kind()),
        }
    }

    pub(super) fn change_care(&mut self, at: At, event: &TownEvent) {
        match event {
            TownEvent::DrainStarted { reason } => {
                let begun = Hold { since: at.now, reason: reason.clone() };
                self.facts.draining.get_or_insert(begun);
            }
            TownEvent::DrainEnded {} => {
                if self.facts.draining.take().is_some() {
                    self.begin_silences_anew(at.now);
                }
            }
            TownEvent::TimeSkipped { ms } => self.skip(at, *ms),
            TownEvent::BreakerOpened { .. } => {
                self.facts.breaker.open =
                    Some(OpenBreaker { since: at.now, probe: None, probed_well: false });
            }
            TownEvent::BreakerClosed {} => {
                self.facts.breaker.open = None;
                self.facts.breaker.failures.clear();
            }
            TownEvent::ViolationOpened { invariant, entities, message } => {
                let (entities, message) = (entities.clone(), message.clone());
                let key = episode_key(*invariant, &entities);
                let episode =
                    Episode { invariant: *invariant, entities, message, since: at.now, seq: at.seq };
                self.facts.episodes.insert(key, episode);
            }
            TownEvent::ViolationResolved { invariant, entities } => {
                self.facts.episodes.remove(&episode_key(*invariant, entities));
            }
            TownEvent::EventRejected { seq, error: _ } => {
                let counts = &mut self.facts.counts;
                counts.rejected = counts.rejected.saturating_add(1);
                counts.rejected_last = counts.rejected_last.max(*seq);
            }
            TownEvent::NudgeSent { agent, dispatch_id, tier, .. } => {
                self.note_tier(at, agent, dispatch_id, *tier);
            }
            TownEvent::Escalated { escalation, bead, reason, .. } => {
                self.open_escalation(at, escalation, bead, reason);
                let holders: Vec<AgentId> = self.hooked_to(bead).map(|(id, _)| id.clone()).collect();
                for holder in &holders {
                    self.reach_tier(at, holder, Tier::Escalate);
                }
            }
            other => unreachable!("{} does not concern the town as a whole", other.kind()),
        }
    }

    fn skip(&mut self, at: At, ms: u64) {
        self.facts.skipped_ms = self.facts.skipped_ms.saturating_add(ms).min(at.time.as_millis());
        let now = self.clock(at.time);
        self.clamp_moments(now);
    }

    fn check_new_episode(&self, invariant: u8, entities: &BTreeSet<Entity>) -> Result<(), Rejected> {
        if self.facts.episodes.contains_key(&episode_key(invariant, entities)) {
            return Err(Rejected::Episode { invariant, stands: "open" });
        }
        if self.facts.episodes.len() >= TOWN_EPISODES_MAX {
            return Err(Rejected::Full { what: "open violations", max: TOWN_EPISODES_MAX });
        }
        Ok(())
    }

    fn note_tier(&mut self, at: At, agent: &AgentId, dispatch: &DispatchId, tier: Tier) {
        if self.hook_of(agent).is_some_and(|hook| hook.dispatch_id == *dispatch) {
            self.reach_tier(at, agent, tier);
        } else {
            self.ignore();
        }
    }

    /// Nothing of this is in an index.
    fn reach_tier(&mut self, at: At, agent: &AgentId, tier: Tier) {
        let hook = self.facts.agents.get_mut(agent).and_then(|agent| agent.hook.as_mut());
        let Some(hook) = hook else { return };
        hook.tiers.insert(tier, at.now);
        if tier == Tier::Ending {
            // It was asked to say again how it ended: its run goes on.
            (hook.said, hook.summary, hook.ended) = (None, None, None);
            hook.asked = hook.asked.saturating_add(1);
        }
    }
}

fn episode_key(invariant: u8, entities: &BTreeSet<Entity>) -> Arc<str> {
    entities.iter().fold(format!("{invariant:02}"), |key, entity| format!("{key} {entity}")).into()
}
