//! What is seen of the agents that hold beads, and of those that could: pure. Only what differs from what was recorded
//! last becomes an event.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{AgentId, DispatchId};
use crate::town::event::TownEvent;
use crate::town::state::Town;
use crate::town::words::{AgentReason, AgentStatus, ContainerStatus};

/// What hosts an agent, as it was seen for one dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) agent: AgentId,
    pub(super) dispatch_id: DispatchId,
    pub(super) status: ContainerStatus,
    pub(super) exit_reason: Option<Arc<str>>,
}

/// What the sights come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Observed {
    /// In the order in which they were seen.
    pub(super) events: Vec<TownEvent>,
    /// Sights that say what was known.
    pub(super) suppressed: u64,
}

/// The sights that say something new. Several of one agent are compared with each other: no change is missed.
pub(super) fn news(town: &Town, sights: impl IntoIterator<Item = Sight>) -> Observed {
    let mut observed = Observed::default();
    let mut last: BTreeMap<AgentId, (DispatchId, ContainerStatus)> = BTreeMap::new();
    for Sight { agent, dispatch_id, status, exit_reason } in sights {
        let known = last.get(&agent).cloned().or_else(|| recorded(town, &agent));
        if known == Some((dispatch_id.clone(), status)) {
            observed.suppressed += 1;
            continue;
        }
        last.insert(agent.clone(), (dispatch_id.clone(), status));
        let dispatch_id = Some(dispatch_id);
        observed.events.push(TownEvent::ContainerStatus {
            agent,
            dispatch_id,
            status,
            exit_reason,
            report: None,
        });
    }
    observed
}

fn recorded(town: &Town, agent: &AgentId) -> Option<(DispatchId, ContainerStatus)> {
    let seen = town.agents().get(agent)?.container.as_ref()?;
    Some((seen.dispatch_id.clone()?, seen.status))
}

/// Agents without a bead that can be used no more, or again, as `usable` says; `None` where nobody here can tell.
pub(super) fn fitness(town: &Town, usable: impl Fn(&AgentId) -> Option<bool>) -> Vec<TownEvent> {
    let free = town.agents().iter().filter(|(_, agent)| agent.hook.is_none());
    let turned = free.filter_map(|(id, agent)| {
        let (from, to, reason) = match (agent.status, usable(id)?) {
            (AgentStatus::Idle, false) => (AgentStatus::Idle, AgentStatus::Dead, AgentReason::Unusable),
            (AgentStatus::Dead, true) => (AgentStatus::Dead, AgentStatus::Idle, AgentReason::Usable),
            (AgentStatus::Idle, true)
            | (AgentStatus::Dead, false)
            | (AgentStatus::Working | AgentStatus::Stalled, _) => return None,
        };
        Some(TownEvent::AgentTransitioned { agent: id.clone(), from, to, reason })
    });
    turned.collect()
}
