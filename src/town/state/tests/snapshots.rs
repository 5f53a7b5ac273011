//! Towns that are written down and read back.

use std::collections::BTreeMap;

use super::*;
use crate::limits::TOWN_CLOSED_BEADS_MAX;
use crate::town::state::index::Indices;
use crate::town::state::{SNAPSHOT_VERSION, bead::ClosedBead};
use serde_json::json;

fn busy() -> Play {
    let mut play = Play::new();
    for id in ["a", "b", "c", "d"] {
        play.creates(id);
    }
    play.takes(depends("d", "c")).takes(convoy("con", &["c", "d"])).dispatches("a", "w1");
    play.takes(TownEvent::BeadHeld { bead: bead("b"), reason: Some("later".into()) });
    play.takes(cancelled("c", CancelStatus::Closed));
    play
}

#[test]
fn a_town_is_read_as_it_was_written_and_the_form_is_kept() {
    let play = busy();
    let snapshot = play.town.snapshot();
    let text = snapshot.to_string();
    let read = Town::restore(&serde_json::from_str(&text).expect("JSON")).expect("readable");
    assert_eq!((&read, read.hash()), (&play.town, play.town.hash()));
    insta::assert_json_snapshot!(snapshot);
}

#[test]
fn an_older_snapshot_lacks_facts_a_newer_one_has_more_and_a_later_version_is_refused() {
    let mut snapshot = busy().town.snapshot();
    snapshot["town"]["weather"] = json!("fine");
    snapshot["town"]["policy"]["mood"] = json!({"attempts_max": 1});
    snapshot["town"]["policy"]["dispatch"]["haste"] = json!(true);
    snapshot["town"]["agents"]["w1"]["mood"] = json!("good");
    snapshot["town"].as_object_mut().expect("an object").remove("episodes");
    assert_eq!(Town::restore(&snapshot).expect("readable"), busy().town);
    snapshot["version"] = json!(SNAPSHOT_VERSION + 1);
    assert!(Town::restore(&snapshot).expect_err("later").contains("later plimsoll"));
    for damaged in [json!({}), json!(null), json!({"version": 1, "town": {"beads": {"A": {}}}})] {
        assert!(Town::restore(&damaged).is_err(), "{damaged}");
    }
}

#[test]
fn a_snapshot_that_makes_no_sense_is_read_and_does_not_panic_later() {
    let mut snapshot = busy().town.snapshot();
    snapshot["town"]["beads"].as_object_mut().expect("an object").remove("a");
    snapshot["town"]["convoys"] = json!({});
    snapshot["town"]["agents"]["w2"]["status"] = json!("working");
    let mut play = busy();
    play.town = Town::restore(&snapshot).expect("readable");
    play.takes(lost("a.1", LostCause::Exited));
    assert_eq!(play.agent("w1").status, AgentStatus::Idle);
    play.takes(TownEvent::AgentTransitioned {
        agent: agent("w2"),
        from: AgentStatus::Working,
        to: AgentStatus::Idle,
        reason: crate::town::words::AgentReason::Recovered,
    });
    play.takes(cancelled("d", CancelStatus::Closed));
}

#[test]
fn one_fact_more_is_another_hash() {
    let (mut play, before) = (busy(), busy().town.hash());
    assert_eq!(play.town.hash(), before);
    play.takes(TownEvent::DrainStarted { reason: None });
    assert_ne!(play.town.hash(), before);
    assert_eq!(before.to_string().len(), 64);
}

#[test]
fn closed_beads_leave_nothing_among_the_open_ones() {
    let open = |play: &Play| Indices {
        closed: BTreeSet::new(),
        ended: BTreeMap::new(),
        ..play.town.indices.clone()
    };
    let mut play = busy();
    let before = open(&play);
    for n in 0..1_000 {
        let id = format!("x{n}");
        play.creates(&id).dispatches(&id, "w2").takes(done("w2", &format!("{id}.1"), Outcome::Done));
        play.moves(&id, BeadStatus::InProgress, BeadStatus::Closed, BeadReason::Done);
    }
    assert_eq!(open(&play), before);
    assert_eq!((play.town.closed().len(), play.town.beads().len()), (1_001, 4));
}

#[test]
fn the_oldest_closed_beads_are_forgotten_at_the_limit() {
    let mut play = Play::new();
    play.creates("a");
    let ended = |seq: usize| ClosedBead {
        kind: crate::town::words::BeadKind::Task,
        status: BeadStatus::Closed,
        reason: BeadReason::Done,
        at: crate::town::TownTime::default(),
        seq: Seq(u64::try_from(seq).expect("small")),
        parent: None,
        failure: None,
    };
    let full = (0..TOWN_CLOSED_BEADS_MAX).map(|n| (bead(&format!("old{n}")), ended(n)));
    play.town.facts.closed = full.collect();
    play.town.indices = Indices::of(&play.town.facts);
    play.takes(cancelled("a", CancelStatus::Closed));
    assert_eq!(play.town.closed().len(), TOWN_CLOSED_BEADS_MAX);
    assert_eq!(play.town.bead_count(BeadStatus::Closed), TOWN_CLOSED_BEADS_MAX);
    assert!(!play.town.closed().contains_key(&bead("old0")));
    assert!(play.town.closed().contains_key(&bead("old1")));
    assert_eq!(play.status("a"), BeadStatus::Closed);
}
