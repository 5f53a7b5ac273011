//! 8: a hook points to a bead that exists and has not ended.
//!
//! An agent that holds a bead which nobody knows is never freed: nothing that it says can be taken in. One that ended is
//! told by invariant 2, so that one fault is told once.

use super::Broken;
use crate::town::state::Town;
use crate::town::words::Entity;

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let nowhere = |id| !town.beads().contains_key(id) && !town.closed().contains_key(id);
    let mut found = Vec::new();
    for id in town.hooked().filter(|id| nowhere(*id)) {
        for (agent, _) in town.hooked_to(id) {
            let entities = [Entity::Agent(agent.clone()), Entity::Bead(id.clone())];
            found.push(Broken::new(entities, format!("agent {agent} holds bead {id}, which is not there")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, hook, told};

    #[test]
    fn a_hook_to_a_bead_that_never_was_is_found() {
        let town = broken(|town| hook(town, "w3", "ghost"));
        assert_eq!(
            told(&check_all(&town)),
            ["8 agent/w3 bead/ghost: agent w3 holds bead ghost, which is not there"]
        );
    }
}
