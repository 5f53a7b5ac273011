//! Beads that go to agents, and come back from them.

use std::sync::Arc;

use super::At;
use super::steps::Went;
use crate::ids::{AgentId, BeadId, DispatchId};
use crate::town::event::TownEvent;
use crate::town::state::agent::Hook;
use crate::town::state::bead::Bead;
use crate::town::state::{Agent, Rejected, Town};
use crate::town::words::{AgentStatus, BeadStatus, LostCause};

impl Town {
    pub(super) fn look_at_dispatches(&self, event: &TownEvent) -> Result<(), Rejected> {
        match event {
            TownEvent::BeadDispatched { bead, agent, dispatch_id, attempt } => {
                self.check_dispatch(bead, agent, dispatch_id, *attempt)
            }
            TownEvent::DispatchFailed { .. } | TownEvent::DispatchLost { .. } => Ok(()),
            TownEvent::AgentUnhooked { agent, bead } => {
                match self.agent(agent)?.hook.as_ref().is_some_and(|hook| hook.bead == *bead) {
                    true => Ok(()),
                    false => Err(Rejected::AgentHoldsNot { agent: agent.clone(), bead: bead.clone() }),
                }
            }
            other => unreachable!("{} does not concern dispatches", other.kind()),
        }
    }

    pub(super) fn change_dispatches(&mut self, at: At, event: &TownEvent) {
        match event {
            TownEvent::BeadDispatched { bead, agent, dispatch_id, attempt } => {
                if let Some(open) = &mut self.facts.breaker.open {
                    open.probe = Some(dispatch_id.clone());
                }
                let attempts_max = self.facts.policy.dispatch.attempts_max;
                self.edit_bead(bead, |bead| {
                    bead.tries.attempts = *attempt;
                    bead.tries.attempts_max = attempts_max;
                    bead.tries.dispatches = dispatch_id.number();
                });
                self.hook(at, agent, dispatch_id);
            }
            TownEvent::DispatchFailed { dispatch_id, error } => {
                self.end_dispatch(at, dispatch_id, Some(error.clone()));
            }
            TownEvent::DispatchLost { dispatch_id, cause } => {
                let failure = (!cause.gives_back()).then(|| self.why_lost(dispatch_id, *cause));
                self.end_dispatch(at, dispatch_id, failure);
            }
            TownEvent::AgentUnhooked { agent, bead } => {
                self.unhook(at, agent, Went::Neither);
                self.come_back(at, bead);
            }
            other => unreachable!("{} does not concern dispatches", other.kind()),
        }
    }

    fn check_dispatch(
        &self,
        id: &BeadId,
        agent_id: &AgentId,
        dispatch: &DispatchId,
        attempt: u32,
    ) -> Result<(), Rejected> {
        let bead = self.bead(id)?;
        if dispatch.bead() != id {
            return Err(Rejected::UnknownBead(dispatch.bead().clone()));
        }
        if let Some(why) = bead.obstacle() {
            return Err(Rejected::BeadWaits { bead: id.clone(), why });
        }
        self.check_idle(agent_id, id, bead)?;
        let counts = [
            ("dispatch", dispatch.number(), bead.tries.dispatches.saturating_add(1)),
            ("attempt", u64::from(attempt), u64::from(bead.tries.attempts.saturating_add(1))),
        ];
        for (what, given, next) in counts {
            if given != next {
                return Err(Rejected::WrongNumber { what, bead: id.clone(), given, next });
            }
        }
        if attempt > self.facts.policy.dispatch.attempts_max {
            return Err(Rejected::BeadWaits { bead: id.clone(), why: "out of attempts" });
        }
        if self.facts.draining.is_some() {
            return Err(Rejected::Draining);
        }
        match &self.facts.breaker.open {
            Some(open) if open.probe.is_some() || open.probed_well => Err(Rejected::Breaker("open")),
            Some(_) | None => Ok(()),
        }
    }

    fn check_idle(&self, id: &AgentId, bead_id: &BeadId, bead: &Bead) -> Result<(), Rejected> {
        let agent = self.agent(id)?;
        if let Some(hook) = &agent.hook {
            return Err(Rejected::AgentHolds { agent: id.clone(), bead: hook.bead.clone() });
        }
        let Agent { role, status, .. } = *agent;
        if status != AgentStatus::Idle {
            return Err(Rejected::AgentStands { agent: id.clone(), status, to: AgentStatus::Working });
        }
        if role != bead.work.role {
            let wanted = bead.work.role;
            return Err(Rejected::WrongRole { agent: id.clone(), role, bead: bead_id.clone(), wanted });
        }
        Ok(())
    }

    /// Both sides of a hook: the bead is in progress, the agent works.
    fn hook(&mut self, at: At, id: &AgentId, dispatch: &DispatchId) {
        self.edit_bead(dispatch.bead(), |bead| {
            bead.status = BeadStatus::InProgress;
            bead.since = at.now;
            bead.tries.assignee = Some(id.clone());
        });
        self.edit_agent(id, |agent| {
            agent.status = AgentStatus::Working;
            agent.since = at.now;
            agent.hook = Some(Hook::begun(dispatch.clone(), at.now));
            agent.unended = None;
        });
    }

    /// A dispatch came to nothing: its attempt failed, and why, or it does not count. One that is no longer anybody's
    /// says nothing.
    fn end_dispatch(&mut self, at: At, dispatch: &DispatchId, failure: Option<Arc<str>>) {
        let Some((holder, _)) = self.holder(dispatch) else { return self.ignore() };
        let holder = holder.clone();
        self.unhook(at, &holder, if failure.is_some() { Went::Badly } else { Went::Neither });
        match failure {
            Some(failure) => {
                self.note_failure(at, dispatch.bead(), &failure);
                self.come_back(at, dispatch.bead());
            }
            None => self.give_back(at, dispatch.bead()),
        }
    }

    /// Why nothing comes of a dispatch, with how what hosts its agent ended, if that was seen.
    fn why_lost(&self, dispatch: &DispatchId, cause: LostCause) -> Arc<str> {
        let seen = self.holder(dispatch).and_then(|(_, agent)| agent.container.as_ref());
        let seen = seen.filter(|seen| seen.dispatch_id.as_ref() == Some(dispatch));
        match seen.and_then(|seen| seen.exit_reason.as_ref()) {
            Some(why) => format!("its agent was lost ({cause}): {why}").into(),
            None => format!("its agent was lost ({cause})").into(),
        }
    }

    /// A bead that its agent lost through no fault of either: its attempt does not count.
    pub(super) fn give_back(&mut self, at: At, id: &BeadId) {
        self.edit_bead(id, |bead| {
            bead.tries.attempts = bead.tries.attempts.saturating_sub(1);
        });
        self.come_back(at, id);
    }

    /// A bead in progress that nobody holds any more is open; one that was cancelled ends.
    fn come_back(&mut self, at: At, id: &BeadId) {
        let Some(bead) = self.facts.beads.get(id) else { return };
        if self.hooked_to(id).next().is_some() {
            return;
        }
        if let Some(status) = bead.waits.cancel {
            self.cancel(at, id, status);
        } else if bead.status == BeadStatus::InProgress {
            self.reopen(at, id);
        }
    }
}
