//! 6: at most one agent is hooked to a bead.
//!
//! Two agents on one bead do the same work twice, at twice the price, and overwrite each other's.

use super::{Broken, named};
use crate::limits::TOWN_ENTITIES_MAX;
use crate::town::state::Town;
use crate::town::words::Entity;

pub(super) fn check(town: &Town) -> Vec<Broken> {
    let mut found = Vec::new();
    for id in town.hooked() {
        if town.hooked_to(id).nth(1).is_some() {
            let agents = || town.hooked_to(id).map(|(agent, _)| agent);
            let message = format!("bead {id} is held by the agents {}", named(agents()));
            // However many agents there are, the bead is among the entities.
            let holders = agents().take(TOWN_ENTITIES_MAX - 1).cloned().map(Entity::Agent);
            found.push(Broken::new(holders.chain([Entity::Bead(id.clone())]), message));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::limits::TOWN_ENTITIES_MAX;
    use crate::town::invariant::check_all;
    use crate::town::invariant::tests::{broken, hook, told};

    #[test]
    fn two_agents_at_one_bead_are_found() {
        let town = broken(|town| hook(town, "w3", "a"));
        assert_eq!(
            told(&check_all(&town)),
            ["6 agent/w1 agent/w3 bead/a: bead a is held by the agents w1, w3"]
        );
    }

    #[test]
    fn of_very_many_agents_a_hundred_entities_and_ten_names_are_told() {
        let town = broken(|town| {
            for n in 0..TOWN_ENTITIES_MAX {
                let id = format!("{n:03}{}", "x".repeat(61));
                town["agents"][&id] = town["agents"]["w1"].clone();
            }
        });
        let found = check_all(&town);
        assert_eq!((found.len(), found[0].entities.len()), (1, TOWN_ENTITIES_MAX));
        assert!(found[0].message.ends_with(" and 91 more"), "{}", found[0].message);
        assert!(told(&found)[0].contains(" bead/a: "));
    }
}
