//! Agents that come, go, and are seen.

use std::sync::Arc;

use super::At;
use super::steps::Went;
use crate::ids::{AgentId, DispatchId};
use crate::limits::TOWN_AGENTS_MAX;
use crate::town::event::TownEvent;
use crate::town::state::agent::{Agent, ContainerSeen};
use crate::town::state::{Rejected, Town};
use crate::town::words::{AgentStatus, ContainerStatus};

impl Town {
    pub(super) fn change_agents(&mut self, at: At, event: &TownEvent) -> Result<(), Rejected> {
        match event {
            TownEvent::AgentRegistered { agent, role, origin, nudges } => {
                let new = Agent {
                    role: *role,
                    origin: *origin,
                    nudges: *nudges,
                    status: AgentStatus::Idle,
                    since: at.now,
                    hook: None,
                    container: None,
                };
                self.register(agent, new)
            }
            TownEvent::AgentRemoved { agent } => self.remove_agent(at, agent),
            TownEvent::AgentCollected { agent, .. } => self.collect(at, agent),
            TownEvent::AgentTransitioned { agent, from, to, reason: _ } => {
                self.transition_agent(at, agent, *from, *to)
            }
            TownEvent::ContainerStatus { agent, dispatch_id, status, exit_reason, report: _ } => {
                self.see_container(at, agent, dispatch_id.as_ref(), *status, exit_reason.as_ref())
            }
            TownEvent::ContainerEviction { agent, reason } => {
                let hook = self.agent(agent)?.hook.as_ref();
                let dispatch_id = hook.map(|hook| hook.dispatch_id.clone());
                self.see_container(at, agent, dispatch_id.as_ref(), ContainerStatus::Evicted, reason.as_ref())
            }
            other => unreachable!("{} does not concern agents", other.kind()),
        }
    }

    fn register(&mut self, id: &AgentId, agent: Agent) -> Result<(), Rejected> {
        if self.facts.agents.contains_key(id) {
            return Err(Rejected::AgentExists(id.clone()));
        }
        if self.facts.agents.len() >= TOWN_AGENTS_MAX {
            return Err(Rejected::Full { what: "agents", max: TOWN_AGENTS_MAX });
        }
        self.indices.add_agent(id, &agent);
        self.facts.agents.insert(id.clone(), agent);
        Ok(())
    }

    fn remove_agent(&mut self, at: At, id: &AgentId) -> Result<(), Rejected> {
        let hook = self.agent(id)?.hook.clone();
        if let Some(hook) = hook {
            self.unhook(at, id, Went::Neither);
            self.give_back(at, &hook.bead);
        }
        if let Some(agent) = self.facts.agents.remove(id) {
            self.indices.remove_agent(id, &agent);
        }
        Ok(())
    }

    fn collect(&mut self, at: At, id: &AgentId) -> Result<(), Rejected> {
        let agent = self.agent(id)?;
        match (&agent.hook, agent.status) {
            (Some(hook), _) => Err(Rejected::AgentHolds { agent: id.clone(), bead: hook.bead.clone() }),
            (None, AgentStatus::Idle | AgentStatus::Dead) => self.remove_agent(at, id),
            (None, status @ (AgentStatus::Working | AgentStatus::Stalled)) => {
                Err(Rejected::AgentStands { agent: id.clone(), status, to: AgentStatus::Idle })
            }
        }
    }

    fn transition_agent(
        &mut self,
        at: At,
        id: &AgentId,
        from: AgentStatus,
        to: AgentStatus,
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
            (
                AgentStatus::Idle | AgentStatus::Working | AgentStatus::Stalled | AgentStatus::Dead,
                AgentStatus::Idle | AgentStatus::Working | AgentStatus::Stalled | AgentStatus::Dead,
            ) => false,
        };
        if agent.status != from || !way {
            return Err(Rejected::AgentStands { agent: id.clone(), status: agent.status, to });
        }
        self.edit_agent(id, |agent| {
            agent.status = to;
            agent.since = at.now;
        });
        Ok(())
    }

    fn see_container(
        &mut self,
        at: At,
        id: &AgentId,
        dispatch_id: Option<&DispatchId>,
        status: ContainerStatus,
        exit_reason: Option<&Arc<str>>,
    ) -> Result<(), Rejected> {
        let current = self.agent(id)?.hook.as_ref().map(|hook| &hook.dispatch_id);
        if dispatch_id.is_some() && dispatch_id != current {
            self.ignore();
            return Ok(());
        }
        let Some(agent) = self.facts.agents.get_mut(id) else { return Ok(()) };
        let same = |seen: &&ContainerSeen| seen.status == status && seen.dispatch_id.as_ref() == dispatch_id;
        let since = agent.container.as_ref().filter(same).map_or(at.now, |seen| seen.since);
        agent.container = Some(ContainerSeen {
            status,
            exit_reason: exit_reason.cloned(),
            dispatch_id: dispatch_id.cloned(),
            since,
        });
        Ok(())
    }
}
