//! 1: the state of a town equals the fold of its events.
//!
//! Everything rests on it: replays, what-ifs and every look at the past say what the fold says, and a restart begins with
//! it. A state that differs was changed by something that is no event, or the events or the snapshot are damaged.
//!
//! Needs the events, so it is checked on snapshots and at boot. What is derived from the facts is compared too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Broken, named};
use crate::town::state::Town;
use crate::town::words::Entity;

pub(super) fn check(town: &Town, folded: &Town) -> Vec<Broken> {
    if town == folded {
        return Vec::new();
    }
    if town.seq() != folded.seq() {
        let message = format!("the state stands at event {}, and the fold at {}", town.seq(), folded.seq());
        return vec![Broken::new([], message)];
    }
    let entities = differing_entities(town, folded);
    let facts = named(differing_facts(town, folded));
    let facts = if facts.is_empty() { "what is derived from its facts".to_owned() } else { facts };
    let seq = town.seq();
    let message = match entities.first() {
        Some(first) => format!("at event {seq} the state is not what its events make: {facts}; see {first}"),
        None => format!("at event {seq} the state is not what its events make: {facts}"),
    };
    vec![Broken::new(entities, message)]
}

fn differing_entities(town: &Town, folded: &Town) -> BTreeSet<Entity> {
    let agents = differing(town.agents(), folded.agents()).cloned().map(Entity::Agent);
    let beads = differing(town.beads(), folded.beads())
        .chain(differing(town.closed(), folded.closed()))
        .chain(differing(town.convoys(), folded.convoys()));
    agents.chain(beads.cloned().map(Entity::Bead)).collect()
}

/// The names of the facts that are not the same, by what a snapshot keeps.
fn differing_facts(town: &Town, folded: &Town) -> Vec<String> {
    let facts = |town: &Town| match town.snapshot()["town"].take() {
        Value::Object(facts) => facts.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    differing(&facts(town), &facts(folded)).cloned().collect()
}

fn differing<'a, K: Ord, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let changed = one.iter().filter(|(key, value)| other.get(*key) != Some(*value)).map(|(key, _)| key);
    changed.chain(other.keys().filter(|key| !one.contains_key(*key)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::ids::Seq;
    use crate::town::event::TownEvent;
    use crate::town::invariant::tests::{broken, busy, told};
    use crate::town::invariant::{check_all, check_fold};
    use crate::town::state::Town;

    #[test]
    fn a_state_that_its_events_did_not_make_is_found() {
        let changed = broken(|town| {
            town["beads"]["d"]["work"]["priority"] = json!(0);
            town["agents"]["w3"]["nudges"] = json!(true);
        });
        assert_eq!(
            told(&check_fold(&changed, &busy().town)),
            [
                "1 agent/w3 bead/d: at event 27 the state is not what its events make: agents, beads; see agent/w3"
            ]
        );
        assert_eq!(told(&check_all(&changed)), [""; 0]);
    }

    #[test]
    fn a_fact_of_the_whole_town_and_another_place_in_the_journal_are_told_without_entities() {
        let skipped = broken(|town| town["skipped_ms"] = json!(7));
        assert_eq!(
            told(&check_fold(&skipped, &busy().town)),
            ["1: at event 27 the state is not what its events make: skipped_ms"]
        );
        let mut further = busy();
        further.takes(TownEvent::DrainStarted { reason: None });
        assert_eq!(
            told(&check_fold(&further.town, &busy().town)),
            ["1: the state stands at event 28, and the fold at 27"]
        );
    }

    #[test]
    fn a_bead_that_is_gone_is_found_from_either_side() {
        let gone = broken(|town| _ = town["closed"].as_object_mut().expect("a map").remove("done"));
        for (one, other) in [(&gone, &busy().town), (&busy().town, &gone)] {
            let found = told(&check_fold(one, other));
            assert_eq!(
                found,
                ["1 bead/done: at event 27 the state is not what its events make: closed; see bead/done"]
            );
        }
    }

    #[test]
    fn the_fold_of_its_events_is_the_state() {
        let play = busy();
        let mut folded = Town::default();
        for (seq, time, event) in &play.log {
            folded.apply(*seq, *time, event).expect("it was accepted before");
        }
        assert_eq!(folded.seq(), Seq(27));
        assert_eq!(told(&check_fold(&play.town, &folded)), [""; 0]);
    }
}
