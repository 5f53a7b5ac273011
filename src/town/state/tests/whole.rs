//! What concerns a town as a whole: its beginning, its clock, its breaker, its keys, its violations.

use std::time::Duration;

use super::*;
use crate::ids::IdempotencyKey;
use crate::limits::TOWN_KEYS_MAX;
use crate::town::event::samples::samples;
use crate::town::event::{KINDS, Report};
use crate::town::state::KeyUse;
use crate::town::state::index::Indices;
use crate::town::words::{Entity, StuckClass, Tier};

#[test]
fn a_town_begins_with_its_creation_and_only_once() {
    let mut play = Play::empty();
    assert_eq!(play.refuses(created("a", 2, &[])), "not_created");
    let mut wrong = Policy::default();
    wrong.dispatch.attempts_max = 0;
    assert_eq!(play.refuses(TownEvent::TownCreated { policy: Box::new(wrong.clone()) }), "policy");
    play.takes(TownEvent::TownCreated { policy: Box::default() });
    assert_eq!(play.refuses(TownEvent::TownCreated { policy: Box::default() }), "already_created");
    assert_eq!(play.refuses(TownEvent::PolicyChanged { policy: Box::new(wrong) }), "policy");
    let mut other = Policy::default();
    other.review.enabled = true;
    play.takes(TownEvent::PolicyChanged { policy: Box::new(other) });
    assert!(play.town.policy().review.enabled);
}

#[test]
fn an_event_is_taken_in_once_and_in_order() {
    let mut play = Play::new();
    let last = play.town.seq();
    for seq in [last, Seq(1), Seq(0)] {
        let again = play.town.apply(seq, play.at(), &created("a", 2, &[]));
        assert_eq!(again, Err(Rejected::OutOfOrder { last }));
    }
}

#[test]
fn each_kind_of_event_is_taken_or_refused_and_never_panics() {
    for first in samples() {
        let mut play = Play::new();
        let _ = play.tries(first);
        let kinds: Vec<_> =
            samples().into_iter().map(|event| (event.kind(), play.tries(event).is_ok())).collect();
        assert_eq!(kinds.len(), KINDS.len());
    }
}

#[test]
fn skipped_time_ages_nothing_even_what_came_between() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").after(60);
    let quiet = |play: &Play| {
        let hook = play.agent("w1").hook.as_ref().expect("hooked");
        play.town.clock(play.at()).since(hook.progress)
    };
    assert_eq!(quiet(&play), Duration::from_secs(60));
    // Eight hours of sleep; the first event after it comes before anybody saw that.
    play.after(8 * 3_600);
    let (agent, dispatch_id) = (agent("w1"), dispatch("a.1"));
    play.takes(TownEvent::AgentProgress { agent, dispatch_id, report: None });
    play.takes(TownEvent::TimeSkipped { ms: 8 * 3_600_000 });
    assert_eq!(quiet(&play), Duration::ZERO);
    play.after(5);
    assert_eq!(quiet(&play), Duration::from_secs(5));
    assert_eq!(play.town.clock(play.at()).since(play.bead("a").since), Duration::from_secs(65));
}

#[test]
fn a_clock_that_jumps_back_or_skips_too_much_makes_no_age() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    play.ms -= 500_000;
    play.creates("b");
    assert_eq!(play.bead("b").since, play.bead("a").since);
    play.takes(TownEvent::TimeSkipped { ms: u64::MAX });
    assert_eq!(play.town.clock(play.at()).as_millis(), 0);
    play.after(510);
    assert_eq!(play.town.clock(play.at()).since(play.bead("a").since), Duration::from_secs(10));
}

#[test]
fn an_open_breaker_lets_one_probe_through() {
    let probe = |play: &Play| {
        let open = play.town.breaker().open.clone().expect("open");
        (open.probe.map(|id| id.to_string()), open.probed_well)
    };
    let mut play = Play::new();
    for id in ["a", "b", "c"] {
        play.creates(id);
    }
    play.takes(TownEvent::BreakerOpened { failed_beads: 20 });
    assert_eq!(play.refuses(TownEvent::BreakerOpened { failed_beads: 20 }), "breaker");
    play.dispatches("a", "w1");
    assert_eq!(probe(&play), (Some("a.1".into()), false));
    let second = play.dispatch_of("b", "w2");
    assert_eq!(play.refuses(second), "breaker");
    // It fails: the wait begins anew. A restart says nothing.
    play.after(60).takes(failed("a.1"));
    let now = play.town.clock(play.at());
    assert_eq!(play.town.breaker().open.as_ref().map(|open| open.since), Some(now));
    play.after(60).dispatches("b", "w2").takes(lost("b.1", LostCause::Restart));
    assert_eq!(
        (probe(&play), play.town.breaker().open.as_ref().map(|open| open.since)),
        ((None, false), Some(now))
    );
    play.dispatches("c", "w1").takes(done("w1", "c.1", Outcome::Done));
    play.moves("c", BeadStatus::InProgress, BeadStatus::Closed, BeadReason::Done);
    assert_eq!(probe(&play), (None, true));
    let waits = play.dispatch_of("b", "w2");
    assert_eq!(play.refuses(waits), "breaker", "it is closed first");
    play.takes(TownEvent::BreakerClosed {}).dispatches("b", "w2");
    assert_eq!(play.town.breaker(), &crate::town::state::Breaker::default());
    assert_eq!(play.refuses(TownEvent::BreakerClosed {}), "breaker");
}

#[test]
fn a_violation_is_opened_once_and_resolved_once() {
    let entities = BTreeSet::from([Entity::Agent(agent("w1"))]);
    let opened = TownEvent::ViolationOpened {
        invariant: 7,
        entities: entities.clone(),
        message: "works without a hook".into(),
    };
    let resolved = TownEvent::ViolationResolved { invariant: 7, entities };
    let mut play = Play::new();
    assert_eq!(play.refuses(resolved.clone()), "episode");
    play.takes(opened.clone());
    assert_eq!(play.refuses(opened.clone()), "episode");
    assert_eq!(play.town.episodes().count(), 1);
    play.takes(resolved).takes(opened);
}

#[test]
fn tiers_are_kept_at_the_dispatch_that_they_are_about() {
    let nudged = |id: &str, tier| TownEvent::NudgeSent {
        agent: agent("w1"),
        dispatch_id: dispatch(id),
        tier,
        class: StuckClass::Stalled,
        quiet_ms: 900_000,
        skipped: None,
    };
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(completed("w1", "a.1", CompletionStatus::Completed));
    play.takes(nudged("a.1", Tier::Nudge)).takes(nudged("a.9", Tier::Stop));
    play.takes(nudged("a.1", Tier::Ending)).takes(TownEvent::Escalated {
        escalation: bead("a.e1"),
        bead: bead("a"),
        class: StuckClass::Stuck,
        quiet_ms: 3_600_000,
        reason: "silent".into(),
    });
    let hook = play.agent("w1").hook.as_ref().expect("hooked");
    assert_eq!(hook.tiers.keys().copied().collect::<Vec<_>>(), [Tier::Ending, Tier::Nudge, Tier::Escalate]);
    assert_eq!((hook.asked, &hook.ended), (1, &None), "its run goes on");
    assert_eq!((play.bead("a").looks.escalations, play.town.counts().ignored), (1, 1));
}

#[test]
fn dynamic_agents_that_are_idle_are_found_longest_idle_first() {
    let mut play = Play::new();
    play.registers("d1", Role::Worker, Origin::Dynamic).after(5).registers(
        "d2",
        Role::Worker,
        Origin::Dynamic,
    );
    let found = |play: &Play| play.town.collectable().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
    assert_eq!(found(&play), ["d1", "d2"]);
    play.creates("a").dispatches("a", "d1");
    assert_eq!(found(&play), ["d2"]);
    let collected = |id: &str| TownEvent::AgentCollected { agent: agent(id), idle_ms: 1 };
    assert_eq!(play.refuses(collected("d1")), "agent_holds");
    play.after(5).takes(failed("a.1"));
    assert_eq!(found(&play), ["d2", "d1"]);
    play.takes(collected("d2"));
    assert_eq!(found(&play), ["d1"]);
}

#[test]
fn codes_and_sentences_of_refusals_are_kept() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    let mut told = Vec::new();
    for event in samples().into_iter().chain([
        cancelled("ghost", CancelStatus::Closed),
        created("a", 2, &[]),
        play.dispatch_of("a", "w2"),
        moved("a", BeadStatus::Open, BeadStatus::Failed, BeadReason::BlockerFailed),
        moved("a", BeadStatus::InProgress, BeadStatus::InReview, BeadReason::Done),
        depends("a", "a"),
    ]) {
        if let Err(rejected) = play.tries(event) {
            told.push(format!("{}: {rejected}", rejected.code()));
        }
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn so_many_keys_are_known_and_the_oldest_is_forgotten_for_one_more() {
    let key = |text: &str| IdempotencyKey::parse(text).expect("a key");
    let mut play = Play::new();
    let body: std::sync::Arc<str> = "0a".repeat(32).into();
    let used = |seq: usize| KeyUse {
        seq: Seq(u64::try_from(seq).expect("small")),
        time: play.at(),
        body: body.clone(),
        made: None,
    };
    let known = (1..TOWN_KEYS_MAX).map(|n| (key(&format!("k{n}")), used(n))).collect();
    play.town.facts.keys.insert("one".into(), known);
    play.town.indices = Indices::of(&play.town.facts);
    play.seq = 1_000_000;
    let reported = |text: &str| TownEvent::AgentProgress {
        agent: agent("w1"),
        dispatch_id: dispatch("a.1"),
        report: Some(Box::new(Report { by: "two".into(), key: key(text), body: body.clone() })),
    };
    let is_known =
        |play: &Play, by: &str, text: &str| play.town.reported(by, &key(text), play.at()).is_some();
    play.takes(reported("last"));
    assert!(is_known(&play, "one", "k1") && is_known(&play, "two", "last"), "as many as may be");
    play.takes(reported("more"));
    assert!(!is_known(&play, "one", "k1"), "the oldest, whoever sent it");
    assert!(is_known(&play, "one", "k2") && is_known(&play, "two", "more"));
}
