//! Violations as episodes: each is opened once, stays open while it is found again, and is resolved once.
//!
//! An episode is told from others by its invariant and its entities. What its message says may change meanwhile and is no
//! news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Check, INVARIANTS, Violation};
use crate::limits::TOWN_EPISODES_MAX;
use crate::town::event::TownEvent;
use crate::town::state::{Episode, Town};
use crate::town::words::Entity;

/// Which invariants were checked: what was not looked for is not resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of [`check_all`](super::check_all).
    Town,
    /// That of [`check_fold`](super::check_fold).
    Fold,
}

/// What violations mean for a town's journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Episodes {
    /// What to append, in this order: what is resolved, then what is opened.
    pub events: Vec<TownEvent>,
    /// Violations that were found and are not opened, because as many are open as may be. They are as soon as others are
    /// resolved.
    pub unopened: usize,
}

type Key<'a> = (u8, &'a BTreeSet<Entity>);

/// The events that make a town's open episodes those that were found. None if nothing changed, however often it is asked.
#[must_use]
pub fn episodes(town: &Town, found: &[Violation], scope: Scope) -> Episodes {
    let mut missing: BTreeMap<Key<'_>, &Arc<str>> = BTreeMap::new();
    for Violation { invariant, entities, message } in found {
        missing.entry((*invariant, entities)).or_insert(message);
    }
    let (mut events, mut open) = (Vec::new(), 0_usize);
    for Episode { invariant, entities, .. } in town.episodes() {
        if missing.remove(&(*invariant, entities)).is_some() || !scope.covers(*invariant) {
            open += 1;
        } else {
            events.push(TownEvent::ViolationResolved { invariant: *invariant, entities: entities.clone() });
        }
    }
    let room = TOWN_EPISODES_MAX.saturating_sub(open);
    let unopened = missing.len().saturating_sub(room);
    events.extend(missing.into_iter().take(room).map(|((invariant, entities), message)| {
        TownEvent::ViolationOpened { invariant, entities: entities.clone(), message: Arc::clone(message) }
    }));
    Episodes { events, unopened }
}

impl Scope {
    /// An invariant that is not known any more is not found any more either.
    fn covers(self, invariant: u8) -> bool {
        let known = INVARIANTS.iter().find(|known| known.number == invariant);
        match known.map(|known| known.check) {
            Some(Check::Alone(_)) | None => self == Self::Town,
            Some(Check::Against(_)) => self == Self::Fold,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::town::event::samples::{agent, bead};
    use crate::town::invariant::tests::{broken, busy, told};
    use crate::town::invariant::{check_all, check_fold};
    use crate::town::state::tests::Play;

    fn violation(invariant: u8, id: &str, message: &str) -> Violation {
        Violation { invariant, entities: BTreeSet::from([Entity::Bead(bead(id))]), message: message.into() }
    }

    fn follow(play: &mut Play, found: &[Violation], scope: Scope) -> Vec<&'static str> {
        let Episodes { events, unopened } = episodes(&play.town, found, scope);
        assert_eq!(unopened, 0);
        let kinds = events.iter().map(TownEvent::kind).collect();
        events.into_iter().for_each(|event| _ = play.takes(event));
        assert_eq!(episodes(&play.town, found, scope), Episodes::default(), "asked again");
        kinds
    }

    fn open(play: &Play) -> Vec<(u8, String)> {
        let named = |episode: &Episode| {
            let entities: Vec<_> = episode.entities.iter().map(ToString::to_string).collect();
            (episode.invariant, entities.join(" "))
        };
        play.town.episodes().map(named).collect()
    }

    #[test]
    fn a_violation_is_opened_once_and_resolved_once() {
        let mut play = Play::new();
        let found = [violation(4, "a", "no review")];
        assert_eq!(follow(&mut play, &found, Scope::Town), ["violation_opened"]);
        assert_eq!(follow(&mut play, &found, Scope::Town), [""; 0]);
        assert_eq!(follow(&mut play, &[], Scope::Town), ["violation_resolved"]);
        assert_eq!(follow(&mut play, &[], Scope::Town), [""; 0]);
        assert_eq!(follow(&mut play, &found, Scope::Town), ["violation_opened"]);
    }

    #[test]
    fn another_message_is_no_news_and_other_entities_are() {
        let mut play = Play::new();
        follow(&mut play, &[violation(5, "con", "1 closed")], Scope::Town);
        assert_eq!(follow(&mut play, &[violation(5, "con", "2 closed")], Scope::Town), [""; 0]);
        let other = [violation(5, "other", "1 closed"), violation(5, "other", "told twice")];
        assert_eq!(follow(&mut play, &other, Scope::Town), ["violation_resolved", "violation_opened"]);
        assert_eq!(open(&play), [(5, "bead/other".to_owned())]);
    }

    #[test]
    fn what_was_not_looked_for_is_not_resolved() {
        let mut play = Play::new();
        follow(&mut play, &[violation(1, "a", "differs")], Scope::Fold);
        follow(&mut play, &[violation(9, "b", "stranded")], Scope::Town);
        assert_eq!(open(&play).len(), 2);
        assert_eq!(follow(&mut play, &[], Scope::Fold), ["violation_resolved"]);
        assert_eq!(open(&play), [(9, "bead/b".to_owned())]);
    }

    #[test]
    fn a_flood_stops_at_the_limit_and_the_rest_comes_later() {
        let mut play = Play::new();
        let found: Vec<_> =
            (0..TOWN_EPISODES_MAX + 5).map(|n| violation(7, &format!("b{n:04}"), "x")).collect();
        let first = episodes(&play.town, &found, Scope::Town);
        assert_eq!((first.events.len(), first.unopened), (TOWN_EPISODES_MAX, 5));
        first.events.into_iter().for_each(|event| _ = play.takes(event));
        let again = episodes(&play.town, &found, Scope::Town);
        assert_eq!((again.events.len(), again.unopened), (0, 5));
        // Three of the first are mended: three of the others take their places.
        let later = episodes(&play.town, &found[3..], Scope::Town);
        assert_eq!((later.events.len(), later.unopened), (6, 2));
        later.events.into_iter().for_each(|event| _ = play.takes(event));
        assert_eq!(play.town.episodes().count(), TOWN_EPISODES_MAX);
    }

    #[test]
    fn the_violations_of_a_broken_town_become_episodes_of_it_and_end_with_its_repair() {
        let mut play = busy();
        play.town = broken(|town| town["agents"]["w3"]["status"] = json!("working"));
        let found = check_all(&play.town);
        assert_eq!(follow(&mut play, &found, Scope::Town), ["violation_opened"]);
        assert_eq!(open(&play), [(7, "agent/w3".to_owned())]);
        assert_eq!(told(&check_all(&play.town)), told(&found), "an episode breaks nothing");
        play.takes(TownEvent::AgentRemoved { agent: agent("w3") });
        let found = check_all(&play.town);
        assert_eq!(follow(&mut play, &found, Scope::Town), ["violation_resolved"]);
    }

    #[test]
    fn a_town_that_differs_from_its_fold_has_one_episode() {
        let mut play = busy();
        let folded = busy().town;
        play.town = broken(|town| town["beads"]["d"]["work"]["priority"] = json!(0));
        let found = check_fold(&play.town, &folded);
        assert_eq!(follow(&mut play, &found, Scope::Fold), ["violation_opened"]);
        assert_eq!(open(&play), [(1, "bead/d".to_owned())]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_open_is_what_was_found_last(
            rounds in prop::collection::vec(
                prop::collection::btree_set((2_u8..=10, prop::sample::select(vec!["a", "b", "c"])), 0..8),
                1..8,
            ),
        ) {
            let mut play = Play::new();
            for round in rounds {
                let found: Vec<_> = round.iter().map(|(n, id)| violation(*n, id, "x")).collect();
                follow(&mut play, &found, Scope::Town);
                let expected: Vec<_> = round.iter().map(|(n, id)| (*n, format!("bead/{id}"))).collect();
                prop_assert_eq!(open(&play), expected);
            }
        }
    }
}
