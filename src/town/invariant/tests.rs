//! A busy town in which everything holds, how it is broken, and towns that nothing breaks.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::limits::TOWN_NOTE_BYTES_MAX;
use crate::town::event::TownEvent;
use crate::town::event::samples::bead;
use crate::town::plan::{Effect, plan};
use crate::town::policy::Policy;
use crate::town::state::tests::properties::steps;
use crate::town::state::tests::{Play, cancelled, convoy, created, done, failed};
use crate::town::words::{
    AgentStatus, BeadReason, BeadStatus, CancelStatus, Origin, Outcome, Recovery, Role,
};

/// Something of everything: `a` in progress, `held`, `c` that waits for `d`, the convoy `con` of `d` and `e`, `f` in
/// review, `g` after a failed attempt, `h` that waits for a person, `done`. Worker `w3` is idle.
pub(super) fn busy() -> Play {
    let mut play = Play::with(|policy| policy.review.enabled = true);
    play.registers("w3", Role::Worker, Origin::Dynamic);
    for id in ["done", "a", "held", "d", "e", "f", "g", "h"] {
        play.creates(id);
    }
    play.takes(cancelled("done", CancelStatus::Closed)).dispatches("a", "w1");
    play.takes(TownEvent::BeadHeld { bead: bead("held"), reason: None });
    play.takes(convoy("con", &["d", "e"])).takes(created("c", 2, &["d"]));
    play.dispatches("f", "w2").takes(done("w2", "f.1", Outcome::Done));
    play.takes(TownEvent::ReviewOpened { bead: bead("f"), review: bead("f.r1"), round: 1 });
    play.dispatches("f.r1", "r1").dispatches("g", "w2").takes(failed("g.1"));
    play.dispatches("h", "w2").takes(done("w2", "h.1", Outcome::NeedsHuman));
    let (from, to, reason) = (BeadStatus::InProgress, BeadStatus::Open, BeadReason::NeedsHuman);
    let escalation = Some(bead("h.e1"));
    play.takes(TownEvent::BeadTransitioned { bead: bead("h"), from, to, reason, escalation });
    play
}

/// The busy town with something changed that no event may change.
pub(super) fn broken(edit: impl FnOnce(&mut Value)) -> Town {
    let mut snapshot = busy().town.snapshot();
    edit(&mut snapshot["town"]);
    Town::restore(&snapshot).expect("readable")
}

/// Both sides of a hook, as far as they are there.
pub(super) fn hook(town: &mut Value, agent: &str, bead: &str) {
    let mut hook = town["agents"]["w1"]["hook"].clone();
    hook["bead"] = json!(bead);
    hook["dispatch_id"] = json!(format!("{bead}.1"));
    town["agents"][agent]["hook"] = hook;
    town["agents"][agent]["status"] = json!("working");
    if let Some(bead) = town["beads"].get_mut(bead) {
        bead["status"] = json!("in_progress");
    }
}

/// `NUMBER ENTITIES: MESSAGE`.
pub(super) fn told(found: &[Violation]) -> Vec<String> {
    let line = |violation: &Violation| {
        let entities: String = violation.entities.iter().map(|entity| format!(" {entity}")).collect();
        format!("{}{entities}: {}", violation.invariant, violation.message)
    };
    found.iter().map(line).collect()
}

#[test]
fn nothing_is_found_in_a_healthy_busy_town() {
    assert_eq!(told(&check_all(&busy().town)), [""; 0]);
    assert_eq!(told(&check_all(&Town::default())), [""; 0]);
}

#[test]
fn the_list_has_ten_by_number_and_the_policy_calls_them_by_the_same_names() {
    let numbers: Vec<u8> = INVARIANTS.iter().map(|invariant| invariant.number).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let names: BTreeSet<_> = INVARIANTS.iter().map(|invariant| invariant.name).collect();
    assert_eq!(names.len(), INVARIANTS.len());
    let is_label = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    assert!(names.iter().all(|name| is_label(name)), "{names:?}");
    // A policy that names one changes what is done about that one, and about no other.
    let recovery = serde_json::to_value(Policy::default().recovery).expect("plain");
    for key in recovery.as_object().expect("a map").keys().filter(|key| *key != "others") {
        let policy = json!({"recovery": {key: "off"}});
        let policy: Policy = serde_json::from_value(policy).expect("readable");
        let off = INVARIANTS.iter().filter(|known| policy.recovery(known.number) == Recovery::Off);
        assert_eq!(off.map(|known| known.name).collect::<Vec<_>>(), [key]);
    }
}

#[test]
fn many_faults_are_sorted_and_named() {
    let town = broken(|town| {
        town["beads"]["g"]["tries"]["attempts"] = json!(99);
        town["convoys"]["con"]["total"] = json!(7);
        hook(town, "w3", "ghost");
        hook(town, "w2", "done");
    });
    let found = check_all(&town);
    let names: Vec<_> = found.iter().map(Violation::name).collect();
    assert_eq!(
        names,
        ["terminal_bead_hooked", "convoy_out_of_step", "hook_points_nowhere", "attempts_over_cap"]
    );
    let text = serde_json::to_string(&found[0]).expect("plain");
    assert_eq!(
        text,
        r#"{"invariant":2,"entities":["agent/w2","bead/done"],"message":"agent w2 holds bead done, which is closed"}"#
    );
}

/// Found, told, mended, resolved: the way of an episode whose repair is policy.
#[test]
fn what_the_policy_mends_is_mended_and_its_episode_ends() {
    type Fault = fn(&mut Value);
    let faults: [(u8, Fault); 4] = [
        (2, |town| hook(town, "w3", "done")),
        (7, |town| town["agents"]["w3"]["status"] = json!("working")),
        (7, |town| town["agents"]["w3"]["status"] = json!("stalled")),
        (8, |town| hook(town, "w3", "ghost")),
    ];
    for (number, fault) in faults {
        let mut play = busy();
        play.town = broken(fault);
        let follow = |play: &mut Play| {
            let events = episodes(&play.town, &check_all(&play.town), Scope::Town).events;
            let kinds: Vec<_> = events.iter().map(TownEvent::kind).collect();
            events.into_iter().for_each(|event| _ = play.takes(event));
            kinds
        };
        assert_eq!(follow(&mut play), ["violation_opened"]);
        assert!(play.town.episodes().all(|episode| episode.invariant == number));
        for action in plan(&play.town, play.at()).actions {
            play.takes(action.event().clone());
        }
        assert_eq!(follow(&mut play), ["violation_resolved"]);
        assert_eq!(told(&check_all(&play.town)), [""; 0]);
        assert_eq!(play.agent("w3").status, AgentStatus::Idle);
    }
}

type Cancelled = (u8, &'static str, fn(&mut Value), &'static [&'static str]);

/// Every invariant whose violation people end: what is broken, the bead that they cancel, and who is stopped.
const CANCELLED: &[Cancelled] = &[
    (3, "f", two_reviews, &["r1 f.r1.1", "w3 f.r2.1"]),
    (4, "f", |town| town["beads"]["f.r1"]["parent"] = json!("h"), &[]),
    (5, "con", |town| town["convoys"]["con"]["closed"] = json!(1), &["w2 d.1", "w3 e.1"]),
    (
        5,
        "con",
        |town| _ = town["convoys"].as_object_mut().expect("a map").remove("con"),
        &["w2 d.1", "w3 e.1"],
    ),
    (6, "a", |town| hook(town, "w3", "a"), &["w1 a.1", "w3 a.1"]),
    (9, "c", |town| town["beads"]["c"]["status"] = json!("in_progress"), &[]),
    (9, "a", |town| town["agents"]["w1"]["status"] = json!("idle"), &["w1 a.1"]),
    (9, "a", |town| town["agents"]["w1"]["hook"]["dispatch_id"] = json!("c.1"), &["w1 c.1"]),
    (9, "e", held_and_open, &["w3 e.1"]),
    (9, "c", |town| town["beads"]["c"]["waits"]["blocked_by"] = json!(["ghost"]), &[]),
    (9, "c", |town| town["beads"]["c"]["waits"]["cancel"] = json!("closed"), &[]),
    (9, "c", |town| town["beads"]["c"]["status"] = json!("closed"), &[]),
    (9, "d", |town| town["beads"]["d"]["waits"]["blocked_by"] = json!(["c"]), &[]),
    (9, "g", |town| town["breaker"]["open"] = json!({"since": 1, "probe": "g.1", "probed_well": false}), &[]),
    (10, "g", |town| town["beads"]["g"]["tries"]["attempts"] = json!(6), &[]),
    (10, "a", |town| town["beads"]["a"]["tries"]["attempts"] = json!(6), &["w1 a.1"]),
];

fn two_reviews(town: &mut Value) {
    town["beads"]["f.r2"] = town["beads"]["f.r1"].clone();
    town["agents"]["w3"]["role"] = json!("reviewer");
    hook(town, "w3", "f.r2");
}

fn held_and_open(town: &mut Value) {
    hook(town, "w3", "e");
    town["beads"]["e"]["status"] = json!("open");
}

#[test]
fn cancelling_ends_what_nothing_mends_and_stops_everybody_who_holds_it() {
    for (number, id, fault, stopped) in CANCELLED {
        let mut play = busy();
        play.town = broken(fault);
        assert!(check_all(&play.town).iter().any(|found| found.invariant == *number), "{number} {id}");
        follow(&mut play);
        let before: BTreeSet<_> = stops(&mut play);
        assert_eq!(before, BTreeSet::new(), "{number} {id}: nobody said so");
        play.takes(cancelled(id, CancelStatus::Closed));
        assert_eq!(stops(&mut play), stopped.iter().map(ToString::to_string).collect(), "{number} {id}");
        follow(&mut play);
        assert_eq!(told(&check_all(&play.town)), [""; 0], "{number} {id}");
        assert_eq!(play.town.episodes().count(), 0, "{number} {id}");
        assert_eq!(play.status(id), BeadStatus::Closed, "{number} {id}");
    }
}

/// Opens and resolves episodes.
fn follow(play: &mut Play) {
    for event in episodes(&play.town, &check_all(&play.town), Scope::Town).events {
        play.takes(event);
    }
}

/// Whom a few ticks tell to stop, and of which dispatch.
fn stops(play: &mut Play) -> BTreeSet<String> {
    let mut stopped = BTreeSet::new();
    for _ in 0..3 {
        for action in plan(&play.town, play.at()).actions {
            if let Some(Effect::Stop { agent, dispatch_id }) = &action.effect {
                stopped.insert(format!("{agent} {dispatch_id}"));
            }
            play.takes(action.event().clone());
        }
    }
    stopped
}

#[test]
fn a_message_fits_its_event_however_much_is_wrong() {
    let long = |n: usize| format!("{n:03}{}", "x".repeat(61));
    let town = broken(|town| {
        for n in 0..300 {
            let mut bead = town["beads"]["f.r1"].clone();
            bead["waits"]["blocked_by"] = (0..50).map(|m| long(n + m + 1)).collect();
            bead["waits"]["held"] = json!({"since": 1, "reason": "x".repeat(TOWN_NOTE_BYTES_MAX)});
            town["beads"][long(n)] = bead;
            town["agents"][long(n)] = town["agents"]["w1"].clone();
        }
    });
    let found = check_all(&town).into_iter().chain(check_fold(&town, &busy().town));
    let mut numbers = BTreeSet::new();
    for Violation { invariant, entities, message } in found {
        numbers.insert(invariant);
        let opened = TownEvent::ViolationOpened { invariant, entities, message };
        assert_eq!(opened.check_bounds(), Ok(()));
    }
    assert_eq!(numbers, BTreeSet::from([1, 3, 6, 9]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_event_that_is_accepted_breaks_an_invariant(steps in steps(120)) {
        let mut play = busy();
        for step in &steps {
            if play.step(step).is_ok() {
                let event = play.log.last().map(|(_, _, event)| event);
                prop_assert_eq!(told(&check_all(&play.town)), [""; 0], "{:?}", event);
            }
        }
        let mut folded = Town::default();
        let fold = |town: &mut Town, log: &[(Seq, Timestamp, TownEvent)]| {
            log.iter().for_each(|(seq, time, event)| _ = town.apply(*seq, *time, event));
        };
        fold(&mut folded, &play.log);
        prop_assert_eq!(told(&check_fold(&play.town, &folded)), [""; 0]);
    }

    /// What came up from outside and what the planner makes of it, in turns.
    #[test]
    fn nothing_is_found_in_a_town_that_is_looked_after(steps in steps(100), every in 1_usize..6) {
        let mut play = busy();
        for turn in steps.chunks(every) {
            turn.iter().for_each(|step| _ = play.step(step));
            for action in plan(&play.town, play.at()).actions {
                play.takes(action.event().clone());
                prop_assert_eq!(told(&check_all(&play.town)), [""; 0], "{:?}", action);
            }
        }
    }

    #[test]
    fn what_is_broken_panics_nowhere_and_its_episodes_are_accepted(
        town in "(agents|beads|convoys)",
        pick in any::<prop::sample::Index>(),
        steps in steps(40),
    ) {
        let mut play = busy();
        play.town = broken(|facts| {
            let things = facts[&town].as_object_mut().expect("a map");
            let gone = things.keys().nth(pick.index(things.len())).cloned().expect("there is one");
            things.remove(&gone);
        });
        for step in &steps {
            let _ = play.step(step);
            let found = check_all(&play.town);
            for event in episodes(&play.town, &found, Scope::Town).events {
                play.takes(event);
            }
            prop_assert_eq!(episodes(&play.town, &found, Scope::Town), Episodes::default());
        }
    }
}
