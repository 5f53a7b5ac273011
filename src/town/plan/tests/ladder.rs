//! Work that does not move.

use super::*;
use crate::town::plan::Effect;
use crate::town::words::AgentStatus;

/// Bead `a` is with `w1`, whose container runs.
fn at_work() -> Play {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").sees("a.1", "w1", ContainerStatus::Running);
    play
}

fn progress() -> TownEvent {
    TownEvent::AgentProgress { agent: agent("w1"), dispatch_id: dispatch("a.1"), report: None }
}

#[test]
fn silence_climbs_the_ladder_each_tier_once() {
    let mut play = at_work();
    let mut climbed = Vec::new();
    for minute in 1..=125 {
        play.after(60);
        for step in told(&play.settles()) {
            climbed.push(format!("{minute}: {step}"));
        }
        if play.status("a") == BeadStatus::Open {
            break;
        }
    }
    let tiers = ["15: mark_stalled w1", "15: nudge_agent a", "60: escalate_bead a", "120: drop_dispatch a"];
    assert_eq!(climbed[..4], tiers);
    assert_eq!((play.bead("a").tries.attempts, play.agent("w1").status), (1, AgentStatus::Idle));
    assert_eq!(play.status("a.e1"), BeadStatus::Open);
}

#[test]
fn who_was_asked_how_it_ended_and_hangs_is_stopped_and_its_work_not_done_again() {
    let mut play = at_work();
    play.takes(completed("w1", "a.1", CompletionStatus::Completed));
    assert_eq!(told(&play.after(10).settles()), ["ask_ending a"]);
    play.after(3_600).settles();
    let plan = play.after(3_600).tick();
    assert_eq!(told(&plan.actions), ["ask_person a"]);
    assert!(matches!(plan.actions[0].effect, Some(Effect::Stop { .. })));
    assert!(matches!(play.waits("a"), Wait::WaitingOnHuman { .. }));
    assert_eq!(play.bead("a").tries.failed_at, None);
}

#[test]
fn an_agent_that_does_not_say_how_is_not_nudged_and_the_event_says_so() {
    let nudge = |nudges: bool| {
        let mut play = Play::new();
        let (agent, role, origin) = (agent("n1"), Role::Coordinator, Origin::Configured);
        play.takes(TownEvent::AgentRegistered { agent: agent.clone(), role, origin, nudges, template: None });
        let mut task = created("n", 2, &[]);
        if let TownEvent::BeadCreated { role, .. } = &mut task {
            *role = Role::Coordinator;
        }
        play.takes(task).dispatches("n", "n1").sees("n.1", "n1", ContainerStatus::Running);
        play.after(900).tick();
        let action = play.plan().actions.remove(0);
        let TownEvent::NudgeSent { skipped, .. } = action.event().clone() else { panic!("{action:?}") };
        (action.effect, skipped.is_some())
    };
    let (agent, dispatch_id) = (agent("n1"), dispatch("n.1"));
    assert_eq!(nudge(true), (Some(Effect::Nudge { agent, dispatch_id }), false));
    assert_eq!(nudge(false), (None, true));
}

#[test]
fn progress_ends_the_climb() {
    let mut play = at_work();
    play.after(900).settles();
    assert_eq!(play.agent("w1").status, AgentStatus::Stalled);
    play.takes(progress());
    assert_eq!(told(&play.settles()), ["mark_working w1"]);
    assert_eq!(play.agent("w1").status, AgentStatus::Working);
    assert_eq!(play.after(899).plan().actions, []);
}

#[test]
fn a_tier_does_not_come_twice_within_an_hour() {
    let mut play = at_work();
    play.after(900).settles();
    play.after(60).takes(progress()).settles();
    assert_eq!(told(&play.after(900).settles()), ["mark_stalled w1"], "it was nudged 16 minutes ago");
    assert_eq!(told(&play.after(44 * 60).settles()), ["nudge_agent a"], "60 minutes");
}

#[test]
fn silence_has_a_class_and_long_work_that_moves_is_not_stuck() {
    let class = |play: &Play| match play.waits("a") {
        Wait::Dispatched { class, .. } => class,
        other => panic!("{other:?}"),
    };
    let mut play = at_work();
    assert_eq!(class(&play), StuckClass::Working);
    for _ in 0..7 {
        play.after(600).takes(progress());
        assert_eq!(play.plan().actions, []);
    }
    assert_eq!(class(&play), StuckClass::LongRunning);
    play.after(900).settles();
    assert_eq!(class(&play), StuckClass::Stalled);
    play.after(2_700).settles();
    assert_eq!(class(&play), StuckClass::Stuck);
}

#[test]
fn nobody_is_pressed_during_a_drain_or_for_skipped_time() {
    let mut play = at_work();
    play.takes(TownEvent::DrainStarted { reason: None });
    assert_eq!(play.after(7_200).plan().actions, []);
    let mut play = at_work();
    play.after(7_200).takes(TownEvent::TimeSkipped { ms: 7_200_000 });
    assert_eq!(play.plan().actions, []);
}

#[test]
fn who_has_not_begun_because_somebody_does_not_stop_is_not_pressed() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").sees("a.1", "w1", ContainerStatus::Starting);
    assert_eq!(play.after(3_599).plan().actions, []);
    assert_eq!(told(&play.after(1).tick().actions), ["escalate_bead a"], "a person is told");
    for _ in 0..14 {
        assert_eq!(play.after(600).plan().actions, []);
    }
    let waits = play.waits("a").to_string();
    assert_eq!(waits, "w1 has it for 12000 s and has not begun: it starts, or somebody has to stop first");
    assert!(!play.plan().has_work(), "what it waits for tells when it is over");
    // Its silence begins where it begins.
    play.sees("a.1", "w1", ContainerStatus::Running);
    assert_eq!(play.after(899).plan().actions, []);
    assert_eq!(told(&play.after(1).plan().actions), ["mark_stalled w1"]);
    assert_eq!(play.bead("a").tries.attempts, 1);
}

#[test]
fn a_runtime_elsewhere_that_only_ever_starts_is_pressed() {
    let mut play = Play::new();
    play.registers("ext", Role::Coordinator, Origin::External);
    let mut task = created("a", 2, &[]);
    if let TownEvent::BeadCreated { role, .. } = &mut task {
        *role = Role::Coordinator;
    }
    play.takes(task).dispatches("a", "ext").sees("a.1", "ext", ContainerStatus::Starting);
    assert!(matches!(play.waits("a"), Wait::Dispatched { .. }));
    assert_eq!(told(&play.after(900).tick().actions), ["mark_stalled ext"]);
}
