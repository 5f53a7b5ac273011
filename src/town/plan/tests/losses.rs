//! Workers of which nothing runs any more.

use super::*;

fn at_work() -> Play {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    play
}

#[test]
fn a_silent_worker_of_which_nothing_was_seen_is_lost_after_90_seconds() {
    let mut play = at_work();
    assert_eq!(play.after(89).plan().actions, []);
    let plan = play.after(1).tick();
    assert_eq!(told(&plan.actions), ["drop_dispatch a"]);
    let reason = plan.actions[0].reason.to_string();
    assert_eq!(reason, "its agent is lost (silent): nothing was heard for 90s, and nothing of it was seen");
    assert_eq!((play.status("a"), play.bead("a").tries.attempts), (BeadStatus::Open, 1));
}

#[test]
fn a_worker_whose_container_runs_is_never_lost_by_its_silence() {
    let mut play = at_work();
    play.sees("a.1", "w1", ContainerStatus::Running);
    assert_eq!(play.after(899).plan().actions, []);
    assert_eq!(told(&play.after(86_400).plan().actions), ["mark_stalled w1"], "it is pressed, not lost");
}

#[test]
fn progress_keeps_a_worker() {
    let mut play = at_work();
    for _ in 0..5 {
        let (agent, dispatch_id) = (agent("w1"), dispatch("a.1"));
        play.after(80).takes(TownEvent::AgentProgress { agent, dispatch_id, report: None });
        assert_eq!(play.plan().actions, []);
    }
}

#[test]
fn an_ended_container_is_a_loss_unless_a_last_word_comes_and_an_unknown_one_after_its_grace() {
    for status in [ContainerStatus::Exited, ContainerStatus::Evicted] {
        let mut play = at_work();
        play.sees("a.1", "w1", status);
        assert_eq!(play.after(9).plan().actions, [], "its last word may still come");
        assert_eq!(told(&play.after(1).plan().actions), ["drop_dispatch a"]);
        play.takes(done("w1", "a.1", Outcome::Done));
        assert_eq!(told(&play.plan().actions), ["close_bead a"]);
    }
    let mut play = at_work();
    play.sees("a.1", "w1", ContainerStatus::NotFound);
    assert_eq!(play.after(179).plan().actions, []);
    assert_eq!(told(&play.after(1).plan().actions), ["drop_dispatch a"]);
}

#[test]
fn what_was_seen_before_the_dispatch_says_nothing_of_it() {
    let mut play = Play::new();
    let seen = TownEvent::ContainerStatus {
        agent: agent("w1"),
        dispatch_id: None,
        status: ContainerStatus::Exited,
        exit_reason: None,
        report: None,
    };
    play.creates("a").takes(seen).after(1).dispatches("a", "w1");
    assert_eq!(play.after(60).plan().actions, []);
}

#[test]
fn who_said_how_it_ended_is_not_lost() {
    let mut play = at_work();
    play.takes(done("w1", "a.1", Outcome::Done)).sees("a.1", "w1", ContainerStatus::Exited);
    assert_eq!(told(&play.after(600).tick().actions), ["close_bead a"]);
}

#[test]
fn nobody_is_given_up_during_a_drain() {
    let mut play = at_work();
    play.takes(TownEvent::DrainStarted { reason: None }).sees("a.1", "w1", ContainerStatus::Exited);
    assert_eq!(play.after(600).plan().actions, []);
}

#[test]
fn what_was_silent_during_a_drain_is_given_up_no_sooner_than_any_other() {
    let drained = |status: Option<ContainerStatus>, secs: u64| {
        let mut play = at_work();
        play.takes(TownEvent::DrainStarted { reason: None });
        status.into_iter().for_each(|status| _ = play.sees("a.1", "w1", status));
        play.after(secs).takes(TownEvent::DrainEnded {});
        play
    };
    for (status, secs, left) in [
        (None, 600, 90),
        (Some(ContainerStatus::NotFound), 600, 180),
        (Some(ContainerStatus::Running), 7_200, 900),
    ] {
        let mut play = drained(status, secs);
        assert_eq!(play.after(left - 1).plan().actions, [], "{status:?}");
        assert_eq!(play.after(1).plan().actions.len(), 1, "{status:?}");
    }
    // One that did not drain is not ended.
    let mut play = at_work();
    play.after(90).takes(TownEvent::DrainEnded {});
    assert_eq!(told(&play.plan().actions), ["drop_dispatch a"]);
}

#[test]
fn skipped_time_loses_nobody() {
    let mut play = at_work();
    play.after(8 * 3_600).takes(TownEvent::TimeSkipped { ms: 8 * 3_600_000 });
    assert_eq!(play.plan().actions, []);
    assert_eq!(play.after(89).plan().actions, []);
    assert_eq!(told(&play.after(1).plan().actions), ["drop_dispatch a"]);
}

#[test]
fn our_own_restarts_never_end_a_bead() {
    let mut play = Play::new();
    play.creates("a");
    for n in 1..=20 {
        let plan = play.tick();
        assert_eq!(dispatched(&plan), [format!("a.{n} to w1")], "no back-off either");
        play.takes(lost(&format!("a.{n}"), LostCause::Restart));
    }
    assert_eq!(play.bead("a").tries.attempts, 0);
}

#[test]
fn who_was_asked_how_it_ended_and_says_no_more_is_left_to_a_person_whatever_became_of_its_container() {
    for container in [None, Some(ContainerStatus::Exited), Some(ContainerStatus::Evicted)] {
        let mut play = at_work();
        play.takes(completed("w1", "a.1", CompletionStatus::Completed));
        container.into_iter().for_each(|status| _ = play.sees("a.1", "w1", status));
        assert_eq!(told(&play.after(200).tick().actions), ["ask_ending a"]);
        assert_eq!(play.after(89).plan().actions.iter().filter(|a| a.effect.is_some()).count(), 0);
        let plan = play.after(1).tick();
        assert_eq!(told(&plan.actions), ["ask_person a"], "{container:?}");
        assert!(matches!(plan.actions[0].effect, Some(Effect::Stop { .. })), "what is left of it is stopped");
        assert!(matches!(play.waits("a"), Wait::WaitingOnHuman { .. }));
        assert_eq!((play.status("a"), play.status("a.e1")), (BeadStatus::Open, BeadStatus::Open));
    }
}

#[test]
fn who_was_asked_how_it_ended_and_moves_is_waited_for() {
    let mut play = at_work();
    play.takes(completed("w1", "a.1", CompletionStatus::Completed));
    play.sees("a.1", "w1", ContainerStatus::Exited);
    assert_eq!(told(&play.after(10).tick().actions), ["ask_ending a"]);
    let (agent, dispatch_id) = (agent("w1"), dispatch("a.1"));
    play.after(80).takes(TownEvent::AgentProgress { agent, dispatch_id, report: None });
    assert_eq!(play.after(80).plan().actions, []);
    play.takes(done("w1", "a.1", Outcome::Done));
    assert_eq!(told(&play.tick().actions), ["close_bead a"]);
}

#[test]
fn who_was_asked_how_it_ended_has_the_grace_of_an_unknown_container_from_then_on() {
    let mut play = at_work();
    play.sees("a.1", "w1", ContainerStatus::NotFound);
    play.after(175).takes(completed("w1", "a.1", CompletionStatus::Completed));
    assert_eq!(told(&play.after(10).settles()), ["ask_ending a"]);
    assert_eq!(play.after(179).plan().actions, []);
    assert_eq!(told(&play.after(1).plan().actions), ["ask_person a"]);
}

#[test]
fn who_speaks_after_nothing_of_it_was_found_is_waited_for_as_any_other() {
    let mut play = at_work();
    play.sees("a.1", "w1", ContainerStatus::NotFound);
    let (agent, dispatch_id) = (agent("w1"), dispatch("a.1"));
    play.after(175).takes(TownEvent::AgentProgress { agent, dispatch_id, report: None });
    assert_eq!(play.after(179).plan().actions, []);
    assert_eq!(told(&play.after(1).plan().actions), ["drop_dispatch a"]);
}
