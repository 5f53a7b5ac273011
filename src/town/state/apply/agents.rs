//! Agents that come, go, and are seen.

use std::sync::Arc;

use super::At;
use super::steps::Went;
use crate::ids::{AgentId, DispatchId};
use crate::limits::TOWN_AGENTS_MAX;
use crate::town::event::TownEvent;
use crate::town::state::agent::{Agent, ContainerSeen};
use crate::town::state::{Rejected, Town};
use crate::town::words::{AgentReason, AgentStatus, ContainerStatus, Origin};

impl Town {
    pub(super) fn look_at_agents(&self, event: &TownEvent) -> Result<(), Rejected> {
        match event {
            TownEvent::AgentRegistered { agent, .. } => self.check_new_agent(agent),
            TownEvent::AgentCollected { agent, .. } => self.check_unneeded(agent),
            TownEvent::AgentTransitioned { agent, from, to, reason } => {
                self.check_agent_way(agent, (*from, *to), *reason)
            }
            TownEvent::AgentRemoved { agent }
            | TownEvent::ContainerStatus { agent, .. }
            | TownEvent::ContainerEviction { agent, .. } => self.agent(agent).map(drop),
            other => unreachable!("{} does not concern agents", other.kind()),
        }
    }

    pub(super) fn change_agents(&mut self, at: At, event: &TownEvent) {
        match event {
            TownEvent::AgentRegistered { agent, role, origin, nudges, template } => {
                let new = Agent {
                    role: *role,
                    origin: *origin,
                    nudges: *nudges,
                    template: template.clone(),
                    status: AgentStatus::Idle,
                    since: at.now,
                    hook: None,
                    container: None,
                    unended: None,
                };
                self.indices.add_agent(agent, &new);
                self.facts.agents.insert(agent.clone(), new);
            }
            TownEvent::AgentRemoved { agent } | TownEvent::AgentCollected { agent, .. } => {
                self.remove_agent(at, agent);
            }
            TownEvent::AgentTransitioned { agent, to, .. } => self.edit_agent(agent, |agent| {
                agent.status = *to;
                agent.since = at.now;
            }),
            TownEvent::ContainerStatus { agent, dispatch_id, status, exit_reason, report: _ } => {
                self.see_container(at, agent, dispatch_id.as_ref(), *status, exit_reason.as_ref());
            }
            TownEvent::ContainerEviction { agent, dispatch_id, reason, report: _ } => {
                let status = ContainerStatus::Evicted;
                self.see_container(at, agent, Some(dispatch_id), status, reason.as_ref());
            }
            other => unreachable!("{} does not concern agents", other.kind()),
        }
    }

    fn check_new_agent(&self, id: &AgentId) -> Result<(), Rejected> {
        if self.facts.agents.contains_key(id) {
            return Err(Rejected::AgentExists(id.clone()));
        }
        if self.facts.agents.len() >= TOWN_AGENTS_MAX {
            return Err(Rejected::Full { what: "agents", max: TOWN_AGENTS_MAX });
        }
        Ok(())
    }

    fn remove_agent(&mut self, at: At, id: &AgentId) {
        if let Some(hook) = self.hook_of(id).cloned() {
            self.unhook(at, id, Went::Neither);
            self.give_back(at, &hook.bead);
        }
        if let Some(agent) = self.facts.agents.remove(id) {
            self.indices.remove_agent(id, &agent);
        }
    }

    fn check_unneeded(&self, id: &AgentId) -> Result<(), Rejected> {
        let agent = self.agent(id)?;
        match (&agent.hook, agent.status) {
            (Some(hook), _) => Err(Rejected::AgentHolds { agent: id.clone(), bead: hook.bead.clone() }),
            (None, AgentStatus::Idle | AgentStatus::Dead) => Ok(()),
            (None, status @ (AgentStatus::Working | AgentStatus::Stalled)) => {
                Err(Rejected::AgentStands { agent: id.clone(), status, to: AgentStatus::Idle })
            }
        }
    }

    fn check_agent_way(
        &self,
        id: &AgentId,
        (from, to): (AgentStatus, AgentStatus),
        reason: AgentReason,
    ) -> Result<(), Rejected> {
        let agent = self.agent(id)?;
        let way = match (from, to) {
            (AgentStatus::Working, AgentStatus::Stalled) | (AgentStatus::Stalled, AgentStatus::Working) => {
                agent.hook.is_some()
            }
            (AgentStatus::Idle, AgentStatus::Dead)
            | (AgentStatus::Dead | AgentStatus::Working | AgentStatus::Stalled, AgentStatus::Idle) => {
                agent.hook.is_none()
            }
            // The one event that breaks an invariant, on purpose.
            (AgentStatus::Idle, AgentStatus::Working) => agent.hook.is_none() && reason == AgentReason::Drill,
            (
                AgentStatus::Idle | AgentStatus::Working | AgentStatus::Stalled | AgentStatus::Dead,
                AgentStatus::Idle | AgentStatus::Working | AgentStatus::Stalled | AgentStatus::Dead,
            ) => false,
        };
        if agent.status != from || !way {
            return Err(Rejected::AgentStands { agent: id.clone(), status: agent.status, to });
        }
        Ok(())
    }

    fn see_container(
        &mut self,
        at: At,
        id: &AgentId,
        dispatch_id: Option<&DispatchId>,
        status: ContainerStatus,
        exit_reason: Option<&Arc<str>>,
    ) {
        let current = self.hook_of(id).map(|hook| &hook.dispatch_id);
        if dispatch_id.is_some() && dispatch_id != current {
            return self.ignore();
        }
        let Some(agent) = self.facts.agents.get_mut(id) else { return };
        let same = |seen: &&ContainerSeen| seen.status == status && seen.dispatch_id.as_ref() == dispatch_id;
        let since = agent.container.as_ref().filter(same).map_or(at.now, |seen| seen.since);
        let begins = |seen: &ContainerSeen| {
            let (from, to) = (seen.status, status);
            from == ContainerStatus::Starting && to != from && seen.dispatch_id.as_ref() == dispatch_id
        };
        if agent.origin != Origin::External && agent.container.as_ref().is_some_and(begins) {
            // It was plimsoll that it waited for: its silence begins here.
            agent.hook.iter_mut().for_each(|hook| hook.progress = at.now);
        }
        agent.container = Some(ContainerSeen {
            status,
            exit_reason: exit_reason.cloned(),
            dispatch_id: dispatch_id.cloned(),
            since,
        });
    }
}
