//! What follows from what agents say, and from people who cancel.

use super::*;

/// Bead `a` is with `w1`.
fn at_work() -> Play {
    let mut play = Play::new();
    play.creates("a");
    play.tick();
    play
}

fn reviewing(rounds_max: u32) -> Play {
    let mut play = Play::with(|p| (p.review.enabled, p.review.rounds_max) = (true, rounds_max));
    play.creates("a");
    play.tick();
    play
}

#[test]
fn a_done_task_closes_and_frees_its_agent_for_the_next() {
    let mut play = at_work();
    play.takes(done("w1", "a.1", Outcome::Done)).creates("b");
    assert_eq!(told(&play.tick().actions), ["close_bead a", "dispatch_bead b"]);
    assert_eq!(play.status("a"), BeadStatus::Closed);
}

#[test]
fn a_word_that_comes_after_the_end_of_a_run_in_an_error_still_counts() {
    let mut play = at_work();
    play.takes(completed("w1", "a.1", CompletionStatus::Failed));
    assert_eq!(play.after(9).tick().actions, [], "the word may still come");
    play.takes(done("w1", "a.1", Outcome::Done));
    assert_eq!(told(&play.tick().actions), ["close_bead a"]);
    let mut play = at_work();
    play.takes(completed("w1", "a.1", CompletionStatus::Failed));
    assert_eq!(told(&play.after(10).tick().actions), ["retry_bead a"]);
}

#[test]
fn an_ending_nobody_can_read_is_asked_for_once_more_and_then_left_to_a_person() {
    let mut play = at_work();
    let ended = || completed("w1", "a.1", CompletionStatus::Completed);
    play.takes(ended());
    assert_eq!(play.plan().actions, [], "the word may still come");
    assert_eq!(told(&play.after(10).tick().actions), ["ask_ending a"]);
    assert_eq!(play.after(60).plan().actions.iter().filter(|a| a.kind == ActionKind::AskEnding).count(), 0);
    play.takes(ended());
    assert_eq!(told(&play.after(10).settles()), ["ask_person a"]);
    assert!(matches!(play.waits("a"), Wait::WaitingOnHuman { .. }));
    assert_eq!(play.status("a.e1"), BeadStatus::Open);
    play.takes(TownEvent::BeadReleased { bead: bead("a") });
    assert_eq!(dispatched(&play.tick()), ["a.2 to w1"]);
}

#[test]
fn work_that_is_done_is_not_done_again_because_the_question_how_it_ended_fails() {
    let mut play = at_work();
    play.takes(completed("w1", "a.1", CompletionStatus::Completed));
    assert_eq!(told(&play.after(10).tick().actions), ["ask_ending a"]);
    play.takes(TownEvent::AgentCompleted {
        agent: agent("w1"),
        dispatch_id: dispatch("a.1"),
        status: CompletionStatus::Failed,
        reason: Some("401 Unauthorized".into()),
        report: None,
    });
    assert_eq!(play.after(9).plan().actions, [], "the word may still come");
    assert_eq!(told(&play.after(1).tick().actions), ["ask_person a"]);
    assert!(matches!(play.waits("a"), Wait::WaitingOnHuman { .. }));
    assert_eq!(failure(&play), None, "no attempt failed");
    assert_eq!(play.bead("a.e1").looks.summary.as_deref(), Some("401 Unauthorized"));
    assert!(play.town.breaker().failures.is_empty());
}

/// A town whose beads all wait plans every five minutes, and is asked all the time.
#[test]
fn how_long_a_bead_waits_is_told_as_of_now() {
    let mut play = at_work();
    play.creates("b").takes(TownEvent::BeadHeld { bead: bead("b"), reason: None });
    let of = |play: &Play, before: &Plan, id: &str| {
        before.report[&bead(id)].as_of(&play.town, &bead(id), play.town.clock(play.at()))
    };
    let plan = play.tick();
    play.after(20).takes(TownEvent::AgentProgress {
        agent: agent("w1"),
        dispatch_id: dispatch("a.1"),
        report: None,
    });
    play.after(10);
    let Wait::Dispatched { for_ms, quiet_ms, .. } = of(&play, &plan, "a") else {
        panic!("{:?}", plan.report)
    };
    assert_eq!((for_ms, quiet_ms, of(&play, &plan, "b")), (30_000, 10_000, Wait::Held { for_ms: 30_000 }));
    play.takes(done("w1", "a.1", Outcome::Failed));
    play.settles();
    let (plan, at) = (play.plan(), play.waits("a"));
    let Wait::BackOff { left_ms, attempts: 1, failure } = at else { panic!("{at:?}") };
    play.after(7);
    assert_eq!(of(&play, &plan, "a"), Wait::BackOff { left_ms: left_ms - 7_000, attempts: 1, failure });
    play.takes(TownEvent::BeadReleased { bead: bead("b") });
    assert_eq!(of(&play, &plan, "b"), Wait::NextPlan, "it is not held any more");
}

#[test]
fn how_long_a_probe_is_off_is_told_as_of_now() {
    let mut play = Play::with(|p| p.breaker.beads = 1);
    play.creates("a").creates("b").dispatches("a", "w1").takes(failed("a.1")).settles();
    let plan = play.plan();
    let Wait::BreakerOpen { probe_in_ms: Some(ms) } = plan.report[&bead("b")] else {
        panic!("{:?}", plan.report)
    };
    play.after(7);
    let now = play.town.clock(play.at());
    let told = plan.report[&bead("b")].as_of(&play.town, &bead("b"), now);
    assert_eq!(told, Wait::BreakerOpen { probe_in_ms: Some(ms - 7_000) });
}

#[test]
fn needs_human_waits_for_a_person_and_is_not_stuck() {
    let mut play = at_work();
    play.takes(done("w1", "a.1", Outcome::NeedsHuman));
    assert_eq!(told(&play.settles()), ["ask_person a"]);
    assert_eq!(play.after(48 * 3_600).plan().actions, []);
    assert_eq!(play.waits("a"), Wait::WaitingOnHuman { for_ms: 48 * 3_600_000 });
    // The escalation goes with its bead.
    play.takes(cancelled("a", CancelStatus::Closed));
    assert_eq!(told(&play.settles()), ["close_bead a.e1"]);
}

#[test]
fn failed_attempts_end_in_a_failed_bead_and_an_escalation() {
    let mut play = Play::with(|p| p.dispatch.attempts_max = 2);
    play.creates("a");
    play.tick();
    play.takes(done("w1", "a.1", Outcome::Failed));
    assert_eq!(told(&play.settles()), ["retry_bead a"]);
    play.after(30).tick();
    play.takes(completed("w1", "a.2", CompletionStatus::Failed));
    assert_eq!(told(&play.after(10).settles()), ["fail_bead a"]);
    assert_eq!((play.status("a"), play.status("a.e1")), (BeadStatus::Failed, BeadStatus::Open));
    assert_eq!(play.after(86_400).plan().actions, [], "a person has to look");
}

/// What bead `a` keeps of its last failed attempt.
fn failure(play: &Play) -> Option<&str> {
    play.bead("a").tries.failure.as_deref()
}

#[test]
fn why_an_attempt_failed_is_kept_with_its_bead() {
    let said = |summary: Option<&str>| TownEvent::AgentDone {
        agent: agent("w1"),
        dispatch_id: dispatch("a.1"),
        outcome: Outcome::Failed,
        summary: summary.map(Into::into),
        report: None,
    };
    let ended = |reason: Option<&str>| TownEvent::AgentCompleted {
        agent: agent("w1"),
        dispatch_id: dispatch("a.1"),
        status: CompletionStatus::Failed,
        reason: reason.map(Into::into),
        report: None,
    };
    for (event, kept) in [
        (said(Some("no such file")), Some("no such file")),
        (said(None), Some("its agent said that it failed")),
        (ended(Some("401 Unauthorized")), Some("401 Unauthorized")),
        (ended(None), Some("its run failed")),
        (failed("a.1"), Some("the lane is full")),
        (lost("a.1", LostCause::Stuck), Some("its agent was lost (stuck)")),
        (lost("a.1", LostCause::Restart), None),
    ] {
        let mut play = at_work();
        let told = format!("{event:?}");
        play.takes(event).after(10).settles();
        assert_eq!(failure(&play), kept, "{told}");
    }
    let mut play = at_work();
    play.takes(TownEvent::ContainerStatus {
        agent: agent("w1"),
        dispatch_id: Some(dispatch("a.1")),
        status: ContainerStatus::Exited,
        exit_reason: Some("out of memory".into()),
        report: None,
    });
    play.after(10).settles();
    assert_eq!(failure(&play), Some("its agent was lost (exited): out of memory"));
}

#[test]
fn a_bead_that_failed_for_good_names_its_last_failure_to_who_looks() {
    let mut play = Play::with(|p| p.dispatch.attempts_max = 2);
    play.creates("a");
    for (n, why) in [(1, "a timeout".to_owned()), (2, format!("401 Unauthorized\n{}", "é".repeat(1_000)))] {
        play.after(60).tick();
        play.takes(TownEvent::AgentCompleted {
            agent: agent("w1"),
            dispatch_id: dispatch(&format!("a.{n}")),
            status: CompletionStatus::Failed,
            reason: Some(why.into()),
            report: None,
        });
        play.after(10).settles();
        if n == 1 {
            assert_eq!(
                play.waits("a").to_string(),
                "1 attempt failed, and the next comes in 30 s; the last failure: a timeout"
            );
        }
    }
    let closed = &play.town.closed()[&bead("a")];
    let kept = closed.failure.as_deref().expect("it is kept");
    assert!(kept.starts_with("401 Unauthorized") && (255..=256).contains(&kept.len()), "{kept}");
    let told = play.bead("a.e1").looks.summary.as_deref().expect("it is told");
    assert!(told.starts_with("401 Unauthorized") && (1_023..=1_024).contains(&told.len()), "{told}");
}

#[test]
fn a_failure_is_forgotten_once_the_work_goes_well_or_a_person_lets_it_go_on() {
    let mut play = reviewing(5);
    play.takes(failed("a.1")).after(30).tick();
    play.takes(done("w1", "a.2", Outcome::NeedsHuman)).settles();
    assert_eq!(failure(&play), Some("the lane is full"));
    play.takes(TownEvent::BeadReleased { bead: bead("a") });
    assert_eq!(failure(&play), None);
    play.tick();
    play.takes(failed("a.3")).after(60).tick();
    play.takes(done("w1", "a.4", Outcome::Done)).settles();
    assert_eq!((play.status("a"), failure(&play)), (BeadStatus::InReview, None));
}

#[test]
fn reviewed_work_closes_when_it_is_approved() {
    let mut play = reviewing(5);
    play.takes(done("w1", "a.1", Outcome::Done));
    assert_eq!(told(&play.tick().actions), ["open_review a"]);
    assert_eq!(play.waits("a"), Wait::InReview { review: Some(bead("a.r1")), round: 1 });
    assert_eq!(dispatched(&play.tick()), ["a.r1.1 to r1"]);
    play.takes(reviewed("a.r1.1", Verdict::Approved, "fine"));
    assert_eq!(told(&play.settles()), ["close_bead a.r1"]);
    assert_eq!(play.status("a"), BeadStatus::Closed);
}

#[test]
fn work_that_is_never_good_enough_is_left_to_a_person_after_its_rounds() {
    let mut play = reviewing(3);
    for round in 1..=3 {
        play.takes(done("w1", &format!("a.{round}"), Outcome::Done)).settles();
        play.takes(reviewed(&format!("a.r{round}.1"), Verdict::Changes, "again")).settles();
    }
    assert!(matches!(play.waits("a"), Wait::WaitingOnHuman { .. }));
    assert_eq!((play.status("a.e1"), play.bead("a").looks.reviews), (BeadStatus::Open, 3));
}

#[test]
fn a_reviewer_without_a_verdict_is_asked_for_it() {
    let mut play = reviewing(5);
    play.takes(done("w1", "a.1", Outcome::Done)).settles();
    play.takes(done("r1", "a.r1.1", Outcome::Done)).takes(completed(
        "r1",
        "a.r1.1",
        CompletionStatus::Completed,
    ));
    assert_eq!(told(&play.after(10).settles()), ["ask_ending a.r1"]);
    play.takes(reviewed("a.r1.1", Verdict::Approved, ""));
    play.settles();
    assert_eq!(play.status("a"), BeadStatus::Closed);
}

#[test]
fn a_convoy_ends_with_its_last_bead_or_with_its_first_failure() {
    for (one_failure_fails, status) in [(false, BeadStatus::Closed), (true, BeadStatus::Failed)] {
        let mut play = Play::with(|p| p.convoy.one_failure_fails = one_failure_fails);
        play.creates("a").creates("b").takes(convoy("con", &["a", "b"]));
        play.takes(TownEvent::DrainStarted { reason: None });
        play.takes(cancelled("a", CancelStatus::Failed));
        let first = told(&play.settles());
        assert_eq!(first.is_empty(), !one_failure_fails);
        play.takes(cancelled("b", CancelStatus::Closed)).settles();
        assert_eq!(play.status("con"), status);
    }
}
