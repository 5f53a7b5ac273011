//! Who gets what, and when nobody does.

use super::*;

#[test]
fn the_most_urgent_goes_out_first_then_the_oldest_to_agents_of_its_role() {
    let mut play = Play::new();
    for (id, priority) in [("late", 4), ("b", 2), ("a", 2), ("now", 0)] {
        play.takes(created(id, priority, &[]));
    }
    assert_eq!(dispatched(&play.tick()), ["now.1 to w1", "b.1 to w2"]);
    assert_eq!(play.waits("a"), Wait::NoIdleAgent { role: Role::Worker, working: 2 });
    play.registers("w3", Role::Worker, Origin::Configured);
    assert_eq!(dispatched(&play.tick()), ["a.1 to w3"]);
}

#[test]
fn what_is_held_blocked_or_drained_stays_and_says_why() {
    let mut play = Play::new();
    play.creates("a").creates("b").takes(created("c", 0, &["a"]));
    play.takes(TownEvent::BeadHeld { bead: bead("b"), reason: None }).after(3);
    assert_eq!(play.waits("b"), Wait::Held { for_ms: 3_000 });
    assert_eq!(play.waits("c"), Wait::BlockedBy { beads: vec![bead("a")], count: 1 });
    play.takes(TownEvent::DrainStarted { reason: None });
    assert_eq!((play.plan().actions, play.waits("a")), (vec![], Wait::Draining));
    play.takes(TownEvent::DrainEnded {});
    assert_eq!(dispatched(&play.tick()), ["a.1 to w1"]);
    play.after(5);
    let (agent, for_ms, quiet_ms, class) = (agent("w1"), 5_000, 5_000, StuckClass::Working);
    assert_eq!(play.waits("a"), Wait::Dispatched { agent, for_ms, quiet_ms, class });
}

#[test]
fn a_bead_waits_out_its_back_off_while_others_go() {
    let mut play = Play::new();
    play.creates("a").creates("b").dispatches("a", "w1").takes(failed("a.1"));
    assert_eq!(dispatched(&play.tick()), ["b.1 to w1"]);
    let failure = Some("the lane is full".into());
    assert_eq!(play.waits("a"), Wait::BackOff { left_ms: 30_000, attempts: 1, failure });
    play.after(29);
    assert_eq!(dispatched(&play.plan()), [""; 0]);
    play.after(1);
    assert_eq!(dispatched(&play.plan()), ["a.2 to w2"]);
}

#[test]
fn many_failing_beads_open_the_breaker_and_one_probe_closes_it() {
    let mut play = Play::with(|p| p.breaker.beads = 3);
    for id in ["a", "b", "c", "healthy", "x", "y"] {
        play.creates(id);
    }
    play.dispatches("healthy", "w2");
    for id in ["a", "b"] {
        play.dispatches(id, "w1").takes(failed(&format!("{id}.1")));
    }
    assert!(told(&play.plan().actions).contains(&"dispatch_bead c".to_owned()), "two are not many");
    play.dispatches("c", "w1").takes(failed("c.1"));
    assert_eq!(told(&play.tick().actions), ["open_breaker"], "and nothing else goes out");
    assert_eq!(play.waits("x"), Wait::BreakerOpen { probe_in_ms: Some(300_000) });
    play.sees("healthy.1", "w2", ContainerStatus::Running).after(299);
    assert_eq!(play.plan().actions, []);
    play.after(1).registers("w3", Role::Worker, Origin::Configured);
    assert_eq!(told(&play.tick().actions), ["dispatch_bead x"], "one, which was tried least");
    assert_eq!(play.waits("y"), Wait::BreakerOpen { probe_in_ms: None });
    // The probe fails: it waits anew. The next one goes well.
    play.takes(failed("x.1"));
    assert_eq!(play.waits("y"), Wait::BreakerOpen { probe_in_ms: Some(300_000) });
    play.after(300);
    assert_eq!(told(&play.tick().actions), ["dispatch_bead y"]);
    play.takes(done("w1", "y.1", Outcome::Done));
    assert_eq!(told(&play.tick().actions), ["close_bead y"]);
    assert_eq!(told(&play.tick().actions), ["close_breaker"]);
    assert_eq!(play.tick().actions.len(), 2, "dispatching goes on");
}

#[test]
fn a_plan_is_cut_at_its_limit_and_says_so() {
    use crate::limits::TOWN_ACTIONS_MAX;
    let mut play = Play::new();
    for n in 0..=TOWN_ACTIONS_MAX {
        play.creates(&format!("b{n}")).registers(&format!("x{n}"), Role::Worker, Origin::Configured);
    }
    let plan = play.tick();
    assert_eq!((plan.actions.len(), plan.more), (TOWN_ACTIONS_MAX, true));
    let plan = play.tick();
    assert_eq!((plan.actions.len(), plan.more), (1, false));
}

#[test]
fn who_waits_for_a_failed_bead_fails_with_it_all_the_way() {
    let mut play = Play::new();
    play.creates("a").takes(created("b", 2, &["a"])).takes(created("c", 2, &["b"]));
    play.takes(cancelled("a", CancelStatus::Failed));
    assert_eq!(told(&play.settles()), ["fail_bead b", "fail_bead c"]);
}
