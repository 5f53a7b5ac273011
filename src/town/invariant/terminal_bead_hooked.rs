//! 2: a terminal bead is hooked by nobody.
//!
//! An agent that holds a bead which has ended works for nothing, and is given nothing else: what it says of it changes
//! nothing any more, so nothing would ever free it.

use super::Broken;
use crate::town::state::Town;
use crate::town::words::Entity;

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let ended = |id| match town.beads().get(id) {
        Some(bead) => Some(bead.status).filter(|status| status.is_terminal()),
        None => town.closed().get(id).map(|closed| closed.status),
    };
    let mut found = Vec::new();
    for (id, status) in town.hooked().filter_map(|id| Some((id, ended(id)?))) {
        for (agent, _) in town.hooked_to(id) {
            let entities = [Entity::Agent(agent.clone()), Entity::Bead(id.clone())];
            found.push(Broken::new(entities, format!("agent {agent} holds bead {id}, which is {status}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, hook, told};

    #[test]
    fn a_hook_to_a_bead_that_ended_is_found() {
        let town = broken(|town| hook(town, "w3", "done"));
        assert_eq!(
            told(&check_all(&town)),
            ["2 agent/w3 bead/done: agent w3 holds bead done, which is closed"]
        );
    }

    #[test]
    fn a_bead_that_ended_and_still_stands_among_the_open_ones_is_found_too() {
        let town = broken(|town| town["beads"]["a"]["status"] = json!("failed"));
        let found = told(&check_all(&town));
        assert_eq!(found[0], "2 agent/w1 bead/a: agent w1 holds bead a, which is failed");
    }
}
