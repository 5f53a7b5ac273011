//! Ranges of the policy, and how it is read.

use std::time::Duration;

use serde_json::json;

use super::*;

fn keys(policy: &Policy) -> Vec<&'static str> {
    policy.problems().iter().map(|problem| problem.key).collect()
}

fn with(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = Policy::default();
    change(&mut policy);
    policy
}

#[test]
fn the_defaults_are_within_their_ranges_and_are_kept() {
    assert_eq!(keys(&Policy::default()), [""; 0]);
    insta::assert_json_snapshot!(Policy::default());
}

#[test]
fn each_number_is_refused_outside_of_its_range_and_named() {
    let cases: Vec<(&str, Policy)> = vec![
        ("dispatch.attempts_max", with(|p| p.dispatch.attempts_max = 0)),
        ("dispatch.attempts_max", with(|p| p.dispatch.attempts_max = 101)),
        ("dispatch.backoff", with(|p| p.dispatch.backoff.clear())),
        ("dispatch.backoff", with(|p| p.dispatch.backoff = vec![Period::from_secs(1); 21])),
        ("dispatch.backoff", with(|p| p.dispatch.backoff = vec![Period::from_secs(DAY + 1)])),
        ("dispatch.deadline", with(|p| p.dispatch.deadline = Period::from_millis(999))),
        ("breaker.beads", with(|p| p.breaker.beads = 10_001)),
        ("breaker.window", with(|p| p.breaker.window = Period::from_secs(0))),
        ("breaker.probe_after", with(|p| p.breaker.probe_after = Period::from_secs(DAY + 1))),
        ("lost.quiet_after", with(|p| p.lost.quiet_after = Period::from_secs(0))),
        ("lost.not_found_grace", with(|p| p.lost.not_found_grace = Period::from_secs(DAY + 1))),
        ("review.rounds_max", with(|p| p.review.rounds_max = 0)),
        ("stuck.escalate_after", with(|p| p.stuck.escalate_after = p.stuck.stop_after)),
        ("stuck.escalate_after", with(|p| p.stuck.nudge_after = p.stuck.escalate_after)),
        ("stuck.repeat_after", with(|p| p.stuck.repeat_after = Period::from_secs(0))),
        ("stuck.ending_grace", with(|p| p.stuck.ending_grace = Period::from_secs(HOUR + 1))),
        ("collect.idle_after", with(|p| p.collect.idle_after = Period::from_secs(59))),
        ("recovery.others", with(|p| p.recovery.others = Recovery::Auto)),
    ];
    for (key, policy) in cases {
        assert_eq!(keys(&policy), [key]);
    }
    assert_eq!(keys(&with(|p| p.dispatch.attempts_max = 100)), [""; 0]);
    assert_eq!(keys(&with(|p| p.lost.not_found_grace = Period::from_secs(0))), [""; 0]);
    let before = with(|p| p.recovery.others = Recovery::Auto).out_of_range();
    assert_eq!(before, [], "an event of before may say so");
}

#[test]
fn the_wait_grows_and_then_stays() {
    let waits = [0, 1, 2, 3, 4, 5, 6, u32::MAX].map(|failed| Policy::default().backoff(failed).as_secs());
    assert_eq!(waits, [0, 30, 60, 120, 300, 600, 600, 600]);
    assert_eq!(with(|p| p.dispatch.backoff.clear()).backoff(3), Duration::ZERO);
}

#[test]
fn people_are_told_of_unknown_keys_and_events_pass_them_over() {
    let later = json!({"breaker": {"beads": 7, "mood": 1}, "weather": "fine"});
    assert!(serde_json::from_value::<Policy>(later.clone()).is_err());
    let read = Policy::of_event(&later).expect("readable");
    assert_eq!(*read, with(|p| p.breaker.beads = 7));
    assert!(Policy::of_event(&json!({"breaker": {"beads": "many"}})).is_err());
}

#[test]
fn two_seven_and_eight_are_repaired_and_the_others_suggested() {
    let policy = Policy::default();
    let auto: Vec<u8> = (1..=10).filter(|n| policy.recovery(*n) == Recovery::Auto).collect();
    assert_eq!(auto, [2, 7, 8]);
}

#[test]
fn a_changed_policy_keeps_what_is_not_named() {
    let policy = with(|p| p.breaker.beads = 7);
    let changed = policy.changed(&json!({"lost": {"quiet_after": "5m"}})).expect("readable");
    assert_eq!(changed, Policy { lost: changed.lost.clone(), ..policy.clone() });
    assert_eq!(changed.lost.quiet_after, Period::from_secs(300));
    for wrong in [json!({"mood": 1}), json!({"lost": {"mood": 1}}), json!({"lost": 1}), json!("strict")] {
        assert!(policy.changed(&wrong).is_err(), "{wrong}");
    }
}
