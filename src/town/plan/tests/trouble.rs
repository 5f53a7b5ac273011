//! Trouble that other reconcilers met, in the order of the design: each test falls without the rule that keeps it away.
//! What needs a journal and agents that run is played in the tests of `reconciler`.

use super::*;
use crate::ids::IdempotencyKey;
use crate::limits::TOWN_KEY_AGE_MAX;
use crate::town::event::Report;
use crate::town::invariant::check_all;
use crate::town::state::tests::moved;

/// Bead `a` is with `w1`.
fn at_work() -> Play {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    play
}

/// The same, and its container was seen to run.
fn seen_at_work() -> Play {
    let mut play = at_work();
    play.sees("a.1", "w1", ContainerStatus::Running);
    play
}

fn progress(id: &str) -> TownEvent {
    TownEvent::AgentProgress { agent: agent("w1"), dispatch_id: dispatch(id), report: None }
}

#[test]
fn a_dispatch_that_always_fails_ends_in_few_tries_and_a_failed_bead() {
    let mut play = Play::new();
    play.creates("a");
    let (mut waits, mut tries) = (Vec::new(), 0);
    while play.town.beads().contains_key(&bead("a")) {
        let plan = play.tick();
        if let [only] = dispatched(&plan).as_slice() {
            tries += 1;
            assert!(only.starts_with(&format!("a.{tries} ")), "{only}");
            play.takes(failed(&format!("a.{tries}")));
        }
        if let Some(Wait::BackOff { left_ms, .. }) = play.plan().report.get(&bead("a")) {
            waits.push(left_ms / 1_000);
            play.ms += left_ms;
        }
        assert!(tries <= 5);
    }
    assert_eq!((tries, waits), (5, vec![30, 60, 120, 300]));
    assert_eq!(play.status("a"), BeadStatus::Failed);
    assert_eq!(play.waits("a.e1"), Wait::Escalated { about: Some(bead("a")) });
    // The town is not dead: another bead goes out.
    play.creates("b");
    assert_eq!(dispatched(&play.tick()), ["b.1 to w1"]);
}

#[test]
fn attempts_are_not_reset_by_hooking_a_bead_to_another() {
    let mut play = Play::with(|p| p.dispatch.attempts_max = 3);
    play.creates("a");
    for (n, to) in [(1, "w1"), (2, "w2"), (3, "w1")] {
        play.after(600).dispatches("a", to).takes(failed(&format!("a.{}", 2 * n - 1)));
        assert_eq!(play.bead("a").tries.attempts, n);
        if n < 3 {
            // One that is given back is none, and takes none back that failed.
            play.dispatches("a", "w2").takes(lost(&format!("a.{}", 2 * n), LostCause::Restart));
            assert_eq!(play.bead("a").tries.attempts, n);
        }
    }
    assert_eq!(told(&play.after(600).settles()), ["fail_bead a"]);
}

#[test]
fn attempts_that_failed_do_not_leave_the_whole_town_dead() {
    let mut play = Play::with(|p| (p.breaker.beads, p.dispatch.attempts_max) = (3, 1));
    for id in ["a", "b", "c"] {
        play.creates(id).dispatches(id, "w1").takes(failed(&format!("{id}.1")));
    }
    play.creates("x").creates("y");
    assert_eq!(told(&play.settles()), ["fail_bead a", "fail_bead b", "fail_bead c", "open_breaker"]);
    // One is tried, and with its success all go on: what failed before counts no more.
    assert_eq!(dispatched(&play.after(300).tick()), ["x.1 to w1"]);
    play.takes(done("w1", "x.1", Outcome::Done));
    assert_eq!(told(&play.settles()), ["close_bead x", "close_breaker", "dispatch_bead y"]);
    play.takes(done("w1", "y.1", Outcome::Done)).settles();
    // Nor does what failed long ago.
    for id in ["d", "e"] {
        play.creates(id).dispatches(id, "w1").takes(failed(&format!("{id}.1"))).settles();
    }
    play.after(31 * 60).creates("f").dispatches("f", "w1").takes(failed("f.1"));
    assert_eq!(told(&play.settles()), ["fail_bead f"]);
    // And what a person lets go on begins anew.
    play.creates("g").dispatches("g", "w1").takes(done("w1", "g.1", Outcome::NeedsHuman)).settles();
    play.takes(TownEvent::BeadReleased { bead: bead("g") });
    assert_eq!(dispatched(&play.tick()), ["g.2 to w1"]);
    assert_eq!(play.bead("g").tries.attempts, 1);
}

#[test]
fn done_and_completed_in_one_batch_give_one_plan_in_both_orders() {
    let words = [done("w1", "a.1", Outcome::Done), completed("w1", "a.1", CompletionStatus::Failed)];
    let plans = [[0, 1], [1, 0]].map(|order| {
        let mut play = at_work();
        order.into_iter().for_each(|index: usize| _ = play.takes(words[index].clone()));
        play.plan()
    });
    assert_eq!(plans[0], plans[1]);
    assert_eq!(told(&plans[0].actions), ["close_bead a"], "the agent's word stands above its run's end");
}

#[test]
fn done_and_a_verdict_in_one_batch_give_one_plan_in_both_orders() {
    let words = [done("r1", "a.r1.1", Outcome::Done), reviewed("a.r1.1", Verdict::Approved, "fine")];
    for order in [[0, 1], [1, 0]] {
        let mut play = Play::with(|p| p.review.enabled = true);
        play.creates("a").tick();
        play.takes(done("w1", "a.1", Outcome::Done)).settles();
        order.into_iter().for_each(|index: usize| _ = play.takes(words[index].clone()));
        assert_eq!(told(&play.tick().actions), ["close_bead a.r1"], "{order:?}");
        assert_eq!(play.status("a"), BeadStatus::Closed);
    }
}

#[test]
fn a_stale_completion_after_a_dispatch_anew_changes_nothing() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(lost("a.1", LostCause::Silent)).dispatches("a", "w1");
    let before = play.town.agents().clone();
    for event in [
        completed("w1", "a.1", CompletionStatus::Failed),
        done("w1", "a.1", Outcome::Done),
        failed("a.1"),
        lost("a.1", LostCause::Exited),
        done("w2", "a.2", Outcome::Done),
        TownEvent::AgentProgress { agent: agent("w1"), dispatch_id: dispatch("a.1"), report: None },
    ] {
        play.takes(event);
    }
    assert_eq!(play.town.agents(), &before);
    assert_eq!(play.town.counts().ignored, 6);
    assert_eq!(play.plan().actions, [], "and nothing follows from it");
}

#[test]
fn an_event_for_a_deleted_bead_changes_nothing() {
    let mut play = at_work();
    play.takes(cancelled("a", CancelStatus::Closed)).settles();
    play.creates("b").dispatches("b", "w1");
    let (before, closed) = (play.town.agents().clone(), play.town.closed().clone());
    for event in [
        done("w1", "a.1", Outcome::Failed),
        progress("a.1"),
        failed("a.1"),
        done("w1", "ghost.1", Outcome::Done),
    ] {
        play.takes(event);
    }
    assert_eq!(play.town.counts().ignored, 4);
    for (id, code) in [("a", "ended"), ("ghost", "unknown_bead")] {
        assert_eq!(play.refuses(cancelled(id, CancelStatus::Failed)), code);
        assert_eq!(
            play.refuses(moved(id, BeadStatus::Closed, BeadStatus::Open, BeadReason::AttemptFailed)),
            code
        );
    }
    assert_eq!((play.town.agents(), play.town.closed()), (&before, &closed));
    assert_eq!(play.plan().actions, []);
}

#[test]
fn a_poison_event_blocks_nothing_behind_it() {
    let mut play = Play::new();
    assert_eq!(play.refuses(created("a", 9, &[])), "out_of_bounds");
    let poison = play.town.seq().next();
    play.creates("a");
    play.takes(TownEvent::EventRejected { seq: poison, error: "priority".into() });
    assert_eq!((play.town.counts().rejected, play.town.counts().rejected_last), (1, poison));
    assert_eq!(dispatched(&play.tick()), ["a.1 to w1"]);
}

/// That it was cancelled, that nothing of it runs, and that it is silent each have a rule for `w1`.
#[test]
fn two_rules_on_one_agent_in_one_tick_give_one_action() {
    let told_by = |cancel: bool, exit: bool| {
        let mut play = at_work();
        play.creates("b").dispatches("b", "w2").sees("b.1", "w2", ContainerStatus::Running).creates("c");
        play.sees("a.1", "w1", if exit { ContainerStatus::Exited } else { ContainerStatus::Running });
        if cancel {
            play.takes(cancelled("a", CancelStatus::Closed));
        }
        play.after(3_600).takes(TownEvent::AgentProgress {
            agent: agent("w2"),
            dispatch_id: dispatch("b.1"),
            report: None,
        });
        let plan = play.tick();
        assert_eq!(check_all(&play.town), []);
        told(&plan.actions)
    };
    assert_eq!(told_by(false, false), ["mark_stalled w1"]);
    assert_eq!(told_by(false, true), ["drop_dispatch a"]);
    assert_eq!(told_by(true, false), ["cancel_bead a"]);
    assert_eq!(
        told_by(true, true),
        ["cancel_bead a"],
        "the first of three, and w1 gets nothing new before the next"
    );
}

#[test]
fn a_cancel_while_an_agent_works_stops_it_at_once_whatever_it_said() {
    let mut play = at_work();
    play.takes(done("w1", "a.1", Outcome::Failed)).takes(cancelled("a", CancelStatus::Closed));
    play.sees("a.1", "w1", ContainerStatus::Exited);
    let plan = play.tick();
    assert_eq!(told(&plan.actions), ["cancel_bead a"], "one thing of one agent in one tick");
    let stop = super::super::Effect::Stop { agent: agent("w1"), dispatch_id: dispatch("a.1") };
    assert_eq!(plan.actions[0].effect, Some(stop));
    assert_eq!(play.status("a"), BeadStatus::Closed);
}

#[test]
fn a_healthy_busy_town_has_no_violation_and_is_left_alone() {
    use ActionKind::{CloseBead, DispatchBead, EndConvoy, OpenReview};
    let mut play = Play::with(|p| p.review.enabled = true);
    for n in 0..60 {
        let (id, first) = (format!("b{n:02}"), format!("b{:02}", n / 2));
        play.takes(created(&id, n % 5, &[]));
        if n % 3 == 2 {
            play.takes(depends(&id, &first));
        }
    }
    play.takes(convoy("con", &["b10", "b20", "b30"])).creates("later");
    play.takes(TownEvent::BeadHeld { bead: bead("later"), reason: None });
    for _ in 0..300 {
        let plan = play.after(30).tick();
        let fine = |action: &Action| [DispatchBead, CloseBead, OpenReview, EndConvoy].contains(&action.kind);
        assert!(plan.actions.iter().all(fine), "{:?}", told(&plan.actions));
        assert_eq!(check_all(&play.town), []);
        let holders = play.town.agents().iter();
        let held: Vec<_> = holders
            .filter_map(|(id, agent)| Some((id.to_string(), agent.hook.clone()?.dispatch_id)))
            .collect();
        for (by, id) in held {
            play.takes(match by.as_str() {
                "r1" => reviewed(&id.to_string(), Verdict::Approved, ""),
                _ => done(&by, &id.to_string(), Outcome::Done),
            });
            assert_eq!(check_all(&play.town), []);
        }
    }
    assert_eq!(play.town.beads().keys().collect::<Vec<_>>(), [&bead("later")]);
}

#[test]
fn stalled_agents_and_people_do_not_keep_the_fast_cadence_for_ever() {
    let mut play = seen_at_work();
    assert!(play.plan().has_work(), "somebody works");
    play.after(900).settles();
    assert!(!play.plan().has_work(), "stalled, and pressed at its time");
    play.takes(progress("a.1"));
    assert!(play.plan().has_work());
    play.settles();
    play.takes(done("w1", "a.1", Outcome::NeedsHuman)).settles();
    assert!(!play.plan().has_work(), "a person is waited for");
    play.takes(cancelled("a", CancelStatus::Closed)).settles();
    play.creates("b").dispatches("b", "w1").takes(failed("b.1"));
    assert!(play.plan().has_work(), "the back-off ends soon");
}

#[test]
fn a_clock_that_jumps_both_ways_loses_nobody_and_keeps_nobody_waiting() {
    const HOURS: u64 = 8 * 3_600;
    let mut play = at_work();
    play.creates("b").dispatches("b", "w2").takes(failed("b.1"));
    // Ahead: the tick that finds that leaves it out.
    play.after(HOURS).takes(TownEvent::TimeSkipped { ms: HOURS * 1_000 });
    assert_eq!(play.plan().actions, [], "nobody was silent, and no back-off is over");
    // Back: what was, was not later than now.
    play.ms -= 2 * HOURS * 1_000;
    play.takes(progress("a.1"));
    assert_eq!(play.plan().actions, []);
    let failure = Some("the lane is full".into());
    assert_eq!(play.waits("b"), Wait::BackOff { left_ms: 30_000, attempts: 1, failure });
    play.takes(TownEvent::TimeSkipped { ms: u64::MAX });
    assert_eq!(play.plan().actions, []);
    // The present is never behind the last event, and goes on from there.
    play.ms += 2 * HOURS * 1_000;
    assert_eq!(dispatched(&play.after(30).plan()), ["b.2 to w2"]);
    assert_eq!(told(&play.after(60).plan().actions), ["drop_dispatch a", "dispatch_bead b"]);
}

#[test]
fn the_same_external_event_delivered_twice_is_taken_once() {
    let progress = |body: &str, by: &str| TownEvent::AgentProgress {
        agent: agent("w1"),
        dispatch_id: dispatch("a.1"),
        report: Some(Box::new(Report {
            by: by.into(),
            key: IdempotencyKey::parse("k").expect("a key"),
            body: body.repeat(64).into(),
        })),
    };
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(progress("1", "one"));
    let first = play.town.seq();
    assert_eq!(play.refuses(progress("1", "one")), "repeated");
    assert_eq!(play.refuses(progress("2", "one")), "key_reused");
    play.takes(progress("2", "two"));
    let key = IdempotencyKey::parse("k").expect("a key");
    assert_eq!(play.town.reported("one", &key, play.at()).map(|used| used.seq), Some(first));
    play.after(TOWN_KEY_AGE_MAX.as_secs());
    assert_eq!(play.refuses(progress("2", "one")), "key_reused");
    play.after(1);
    assert_eq!(play.town.reported("one", &key, play.at()), None);
    play.takes(progress("2", "one"));
    assert_eq!(play.town.reported("two", &key, play.at()), None, "forgotten");
}
