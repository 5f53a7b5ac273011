//! What agents say of their dispatches. It is kept at the hook and decides nothing here: the planner looks at all that
//! was said, so that the order in which it came does not matter.

use std::sync::Arc;

use super::At;
use crate::ids::{AgentId, DispatchId};
use crate::town::event::TownEvent;
use crate::town::state::agent::{Ended, Hook, Said};
use crate::town::state::{Rejected, Town};
use crate::town::words::{BeadKind, Outcome};

impl Town {
    pub(super) fn look_at_answer(&self, event: &TownEvent) -> Result<(), Rejected> {
        match event {
            TownEvent::ReviewDone { agent, dispatch_id, .. } => {
                if let Some(bead) = self.facts.beads.get(dispatch_id.bead())
                    && bead.kind != BeadKind::Review
                {
                    return Err(Rejected::WrongKind { bead: dispatch_id.bead().clone(), kind: bead.kind });
                }
                self.agent(agent).map(drop)
            }
            TownEvent::AgentDone { agent, .. }
            | TownEvent::AgentCompleted { agent, .. }
            | TownEvent::AgentProgress { agent, .. } => self.agent(agent).map(drop),
            other => unreachable!("{} is no answer", other.kind()),
        }
    }

    pub(super) fn take_answer(&mut self, at: At, event: &TownEvent) {
        match event {
            TownEvent::AgentDone { agent, dispatch_id, outcome, summary, report: _ } => {
                self.say(at, agent, dispatch_id, (Said::Outcome(*outcome), summary.clone()));
            }
            TownEvent::ReviewDone { agent, dispatch_id, verdict, notes, report: _ } => {
                let (verdict, notes) = (*verdict, notes.clone());
                self.say(at, agent, dispatch_id, (Said::Verdict { verdict, notes }, None));
            }
            TownEvent::AgentCompleted { agent, dispatch_id, status, reason, report: _ } => {
                let ended = Ended { status: *status, at: at.now, reason: reason.clone() };
                self.end_run(agent, dispatch_id);
                self.hear(at, agent, dispatch_id, |hook| match hook.ended {
                    Some(_) => false,
                    None => {
                        hook.ended = Some(ended);
                        true
                    }
                });
            }
            TownEvent::AgentProgress { agent, dispatch_id, .. } => {
                self.hear(at, agent, dispatch_id, |_| true);
            }
            other => unreachable!("{} is no answer", other.kind()),
        }
    }

    /// Nothing works on it any more, though the agent held it no longer.
    fn end_run(&mut self, id: &AgentId, dispatch: &DispatchId) {
        let agent = self.facts.agents.get_mut(id);
        if let Some(agent) = agent.filter(|agent| agent.unended.as_ref() == Some(dispatch)) {
            agent.unended = None;
        }
    }

    fn say(
        &mut self,
        at: At,
        agent: &AgentId,
        dispatch: &DispatchId,
        (said, summary): (Said, Option<Arc<str>>),
    ) {
        self.hear(at, agent, dispatch, |hook| {
            let counts = counts_after(hook.said.as_ref(), &said);
            if counts {
                (hook.said, hook.summary) = (Some(said), summary);
            }
            counts
        });
    }

    /// Lets the agent's hook take an answer, if the answer is to its current dispatch. One that is not, or that the hook
    /// does not take, is counted and says nothing.
    fn hear(&mut self, at: At, id: &AgentId, dispatch: &DispatchId, take: impl FnOnce(&mut Hook) -> bool) {
        let hook = self.facts.agents.get_mut(id).and_then(|agent| agent.hook.as_mut());
        let current = hook.filter(|hook| hook.dispatch_id == *dispatch);
        let taken = current.is_some_and(|hook| {
            let taken = take(hook);
            if taken {
                hook.progress = at.now;
            }
            taken
        });
        if !taken {
            self.ignore();
        }
    }

    pub(super) fn ignore(&mut self) {
        self.facts.counts.ignored = self.facts.counts.ignored.saturating_add(1);
    }
}

/// The first word counts. That a reviewer is done is none before its verdict, whose order does not matter.
fn counts_after(before: Option<&Said>, word: &Said) -> bool {
    match (before, word) {
        (None, _) | (Some(Said::Outcome(Outcome::Done)), Said::Verdict { .. }) => true,
        (Some(Said::Outcome(_) | Said::Verdict { .. }), Said::Outcome(_) | Said::Verdict { .. }) => false,
    }
}
