//! Beads that go to agents, and come back.

use super::*;
use AgentStatus::{Idle, Stalled, Working};
use BeadStatus::{InProgress, Open};

#[test]
fn a_dispatch_is_hook_and_both_transitions() {
    let mut play = Play::new();
    play.creates("a").after(10).dispatches("a", "w1");
    assert_eq!((play.status("a"), play.agent("w1").status), (InProgress, Working));
    let hook = play.agent("w1").hook.as_ref().expect("hooked");
    assert_eq!((hook.bead.as_str(), hook.dispatch_id.to_string().as_str()), ("a", "a.1"));
    assert_eq!(play.bead("a").tries.assignee, Some(agent("w1")));
    assert_eq!(idle(&play.town), [&agent("w2"), &agent("r1")]);
}

#[test]
fn a_dispatch_that_does_not_hold_is_refused() {
    let mut play = Play::new();
    play.creates("a").creates("b").dispatches("a", "w1");
    let refused = |play: &mut Play, id: &str, to: &str| {
        let event = play.dispatch_of(id, to);
        play.refuses(event)
    };
    assert_eq!(refused(&mut play, "a", "w2"), "bead_waits");
    assert_eq!(refused(&mut play, "b", "w1"), "agent_holds");
    assert_eq!(refused(&mut play, "b", "r1"), "wrong_role");
    assert_eq!(refused(&mut play, "b", "nobody"), "unknown_agent");
    let numbered = |id: &str, attempt| TownEvent::BeadDispatched {
        bead: bead("b"),
        agent: agent("w2"),
        dispatch_id: dispatch(id),
        attempt,
    };
    assert_eq!(play.refuses(numbered("b.2", 1)), "wrong_number");
    assert_eq!(play.refuses(numbered("b.1", 2)), "wrong_number");
    assert_eq!(play.refuses(numbered("a.1", 1)), "unknown_bead");
    play.takes(TownEvent::DrainStarted { reason: None });
    assert_eq!(refused(&mut play, "b", "w2"), "draining");
    play.takes(TownEvent::DrainEnded {});
    play.takes(TownEvent::BeadHeld { bead: bead("b"), reason: None });
    assert_eq!(refused(&mut play, "b", "w2"), "bead_waits");
    play.takes(TownEvent::BeadReleased { bead: bead("b") }).dispatches("b", "w2");
}

#[test]
fn attempts_belong_to_the_bead_and_end_at_the_cap() {
    let mut play = Play::with(|p| p.dispatch.attempts_max = 3);
    play.creates("a");
    for (n, to) in [(1, "w1"), (2, "w2"), (3, "w1")] {
        play.dispatches("a", to).takes(failed(&format!("a.{n}")));
        assert_eq!(play.bead("a").tries.attempts, n, "who is hooked changes nothing");
    }
    let event = play.dispatch_of("a", "w2");
    assert_eq!(play.refuses(event), "bead_waits");
    play.takes(TownEvent::BeadTransitioned {
        bead: bead("a"),
        from: Open,
        to: BeadStatus::Failed,
        reason: BeadReason::AttemptsExhausted,
        escalation: Some(bead("a.e1")),
    });
    assert_eq!((play.status("a"), play.status("a.e1")), (BeadStatus::Failed, Open));
    assert_eq!(play.bead("a.e1").parent, Some(bead("a")));
    // One bead at its end is no harm to the others.
    play.creates("b").dispatches("b", "w2");
}

#[test]
fn a_restart_gives_the_attempt_back_and_no_number_is_used_twice() {
    let mut play = Play::new();
    play.creates("a");
    for (n, cause, attempts) in [
        (1, LostCause::Exited, 1),
        (2, LostCause::Restart, 1),
        (3, LostCause::Shutdown, 1),
        (4, LostCause::Silent, 2),
        (5, LostCause::Stuck, 3),
    ] {
        play.dispatches("a", "w1").takes(lost(&format!("a.{n}"), cause));
        assert_eq!((play.bead("a").tries.attempts, play.bead("a").tries.dispatches), (attempts, n));
        assert_eq!((play.status("a"), play.agent("w1").status), (Open, Idle));
    }
    play.dispatches("a", "w1").takes(TownEvent::AgentRemoved { agent: agent("w1") });
    assert_eq!((play.status("a"), play.bead("a").tries.attempts), (Open, 3));
}

#[test]
fn only_failed_attempts_wait_and_count_for_the_breaker() {
    let mut play = Play::with(|p| p.breaker.beads = 2);
    for id in ["a", "b", "c"] {
        play.creates(id).after(1).dispatches(id, "w1").takes(failed(&format!("{id}.1")));
    }
    let failures = &play.town.breaker().failures;
    assert_eq!(failures.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["b", "c"], "the latest");
    play.creates("d").dispatches("d", "w1").takes(lost("d.1", LostCause::Restart));
    assert!(!play.town.breaker().failures.contains_key(&bead("d")));
    assert_eq!(play.bead("d").tries.failed_at, None);
    play.after(31 * 60).dispatches("d", "w1").takes(failed("d.2"));
    assert_eq!(play.town.breaker().failures.len(), 1, "older ones lie outside of the window");
}

#[test]
fn done_and_completed_in_one_batch_are_the_same_in_both_orders() {
    let both = [done("w1", "a.1", Outcome::NeedsHuman), completed("w1", "a.1", CompletionStatus::Completed)];
    let after = |events: Vec<TownEvent>| {
        let mut play = Play::new();
        play.creates("a").dispatches("a", "w1");
        events.into_iter().for_each(|event| _ = play.takes(event));
        play.town.hash()
    };
    let (forth, back) = (both.to_vec(), both.iter().rev().cloned().collect());
    assert_eq!(after(forth), after(back));
}

#[test]
fn the_first_word_counts() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(done("w1", "a.1", Outcome::Done));
    play.takes(done("w1", "a.1", Outcome::Failed));
    let said = play.agent("w1").hook.as_ref().and_then(|hook| hook.said.clone());
    assert_eq!(said, Some(crate::town::state::Said::Outcome(Outcome::Done)));
    assert_eq!(play.town.counts().ignored, 1);
}

#[test]
fn an_agent_goes_only_where_its_hook_lets_it() {
    let goes = |id: &str, from, to| TownEvent::AgentTransitioned {
        agent: agent(id),
        from,
        to,
        reason: crate::town::words::AgentReason::Silent,
    };
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    assert_eq!(play.refuses(goes("w1", Working, Idle)), "agent_stands");
    assert_eq!(play.refuses(goes("w1", Stalled, Working)), "agent_stands");
    assert_eq!(play.refuses(goes("w1", Working, AgentStatus::Dead)), "agent_stands");
    play.takes(goes("w1", Working, Stalled)).takes(goes("w1", Stalled, Working));
    assert_eq!(play.refuses(goes("w2", Idle, Working)), "agent_stands");
    play.takes(goes("w2", Idle, AgentStatus::Dead));
    play.creates("b");
    let event = play.dispatch_of("b", "w2");
    assert_eq!(play.refuses(event), "agent_stands");
    play.takes(goes("w2", AgentStatus::Dead, Idle)).dispatches("b", "w2");
}

#[test]
fn a_container_is_seen_since_it_is_so_and_for_its_dispatch_only() {
    use crate::town::words::ContainerStatus::{self, Evicted, Exited, NotFound, Running};
    let seen = |status: ContainerStatus, id: Option<&str>| TownEvent::ContainerStatus {
        agent: agent("w1"),
        dispatch_id: id.map(dispatch),
        status,
        exit_reason: None,
        report: None,
    };
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(seen(NotFound, Some("a.1")));
    let since = play.agent("w1").container.as_ref().expect("seen").since;
    play.after(60).takes(seen(NotFound, Some("a.1")));
    assert_eq!(play.agent("w1").container.as_ref().expect("seen").since, since);
    for status in [Exited, Running, Exited] {
        play.after(1).takes(seen(status, Some("a.1")));
        assert_eq!(play.agent("w1").container.as_ref().expect("seen").status, status);
    }
    play.takes(seen(Running, Some("a.7"))).takes(seen(Running, Some("b.1")));
    assert_eq!(play.agent("w1").container.as_ref().expect("seen").status, Exited);
    let evicted = |id: &str| {
        let (agent, dispatch_id) = (agent("w1"), dispatch(id));
        TownEvent::ContainerEviction { agent, dispatch_id, reason: None, report: None }
    };
    play.takes(evicted("b.1"));
    assert_eq!(play.agent("w1").container.as_ref().expect("seen").status, Exited);
    play.takes(evicted("a.1"));
    let container = play.agent("w1").container.as_ref().expect("seen");
    assert_eq!((container.status, &container.dispatch_id), (Evicted, &Some(dispatch("a.1"))));
}

#[test]
fn a_hook_astray_is_taken_away_and_its_bead_comes_back() {
    let unhooked = |id: &str, from: &str| TownEvent::AgentUnhooked { agent: agent(id), bead: bead(from) };
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    assert_eq!(play.refuses(unhooked("w1", "b")), "agent_holds_not");
    assert_eq!(play.refuses(unhooked("w2", "a")), "agent_holds_not");
    play.takes(unhooked("w1", "a"));
    assert_eq!((play.status("a"), play.agent("w1").status), (Open, Idle));
    assert_eq!(play.town.hooked().count(), 0);
}
