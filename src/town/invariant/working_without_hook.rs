//! 7: a working agent has a hook.
//!
//! An agent that works on nothing is never given a bead, because it is not idle, and never freed, because no dispatch of
//! it can end. A stalled agent counts as working.

use super::Broken;
use crate::town::state::Town;
use crate::town::words::{AgentStatus, Entity, Role};

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let at_work = |status| Role::ALL.iter().flat_map(move |role| town.agents_that_are(status, *role));
    let agents = at_work(AgentStatus::Working).chain(at_work(AgentStatus::Stalled));
    let without = agents.filter(|(_, agent)| agent.hook.is_none());
    without
        .map(|(id, agent)| {
            let message = format!("agent {id} is {} and holds no bead", agent.status);
            Broken::new([Entity::Agent(id.clone())], message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, told};

    #[test]
    fn an_agent_that_works_on_nothing_is_found() {
        for status in ["working", "stalled"] {
            let town = broken(|town| town["agents"]["w3"]["status"] = json!(status));
            assert_eq!(
                told(&check_all(&town)),
                [format!("7 agent/w3: agent w3 is {status} and holds no bead")]
            );
        }
    }
}
