//! Beads that come, wait, belong together, and end.

use super::*;
use crate::limits::BEAD_BLOCKERS_MAX;
use BeadStatus::{Closed, Failed, InProgress, Open};

#[test]
fn the_most_urgent_goes_first_then_the_oldest() {
    let mut play = Play::new();
    for (id, priority) in [("b", 2), ("a", 2), ("late", 4), ("now", 0), ("c", 2)] {
        play.takes(created(id, priority, &[]));
    }
    assert_eq!(play.queue(Role::Worker), ["now", "b", "a", "c", "late"]);
    assert_eq!(play.queue(Role::Reviewer), [""; 0]);
    play.takes(TownEvent::BeadHeld { bead: bead("b"), reason: None });
    assert_eq!(play.queue(Role::Worker), ["now", "a", "c", "late"]);
    play.takes(TownEvent::BeadReleased { bead: bead("b") });
    assert_eq!(play.queue(Role::Worker), ["now", "b", "a", "c", "late"]);
}

#[test]
fn an_id_is_used_once_even_after_its_bead_ended() {
    let mut play = Play::new();
    play.creates("a");
    assert_eq!(play.refuses(created("a", 2, &[])), "bead_exists");
    play.takes(cancelled("a", CancelStatus::Closed));
    assert_eq!(play.refuses(created("a", 2, &[])), "bead_exists");
}

#[test]
fn a_terminal_bead_never_changes_again() {
    let mut play = Play::new();
    play.creates("a").takes(cancelled("a", CancelStatus::Failed));
    let closed = play.town.closed()[&bead("a")].clone();
    assert_eq!((closed.status, closed.reason), (Failed, BeadReason::Cancelled));
    for event in [
        cancelled("a", CancelStatus::Closed),
        TownEvent::BeadHeld { bead: bead("a"), reason: None },
        TownEvent::BeadReleased { bead: bead("a") },
        moved("a", Failed, Open, BeadReason::AttemptFailed),
        TownEvent::ReviewOpened { bead: bead("a"), review: bead("a.r1"), round: 1 },
        TownEvent::BeadDispatched {
            bead: bead("a"),
            agent: agent("w1"),
            dispatch_id: dispatch("a.1"),
            attempt: 1,
        },
    ] {
        assert_eq!(play.refuses(event), "ended");
    }
    assert_eq!(play.town.closed()[&bead("a")], closed);
}

#[test]
fn an_event_for_a_bead_that_never_was_is_refused() {
    let mut play = Play::new();
    for event in [
        cancelled("ghost", CancelStatus::Closed),
        moved("ghost", Open, Failed, BeadReason::BlockerFailed),
        TownEvent::BeadHeld { bead: bead("ghost"), reason: None },
        convoy("con", &["ghost"]),
        created("a", 2, &["ghost"]),
    ] {
        assert_eq!(play.refuses(event), "unknown_bead");
    }
}

#[test]
fn who_waits_goes_once_all_it_waits_for_closed() {
    let mut play = Play::new();
    play.creates("a").creates("b").takes(created("c", 2, &["a", "b"]));
    assert_eq!(play.queue(Role::Worker), ["a", "b"]);
    play.takes(cancelled("a", CancelStatus::Closed));
    assert_eq!(play.queue(Role::Worker), ["b"]);
    play.takes(cancelled("b", CancelStatus::Closed));
    assert_eq!(play.queue(Role::Worker), ["c"]);
    assert_eq!(play.refuses(created("d", 2, &["c", "d"])), "unknown_bead");
}

#[test]
fn who_waited_for_a_bead_that_failed_is_doomed_unless_the_policy_lets_it_go_on() {
    let mut play = Play::new();
    play.creates("a").takes(created("b", 2, &["a"])).takes(cancelled("a", CancelStatus::Failed));
    assert_eq!(play.town.doomed().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(play.queue(Role::Worker), [""; 0]);
    // What waits for one that failed already is doomed at once.
    play.takes(created("c", 2, &["a"]));
    assert_eq!(play.town.doomed().count(), 2);
    play.moves("b", Open, Failed, BeadReason::BlockerFailed);
    // A person may say that it is fine.
    play.takes(TownEvent::BeadReleased { bead: bead("c") });
    assert_eq!(play.queue(Role::Worker), ["c"]);

    let mut play =
        Play::with(|p| p.dispatch.on_blocker_failed = crate::town::words::OnBlockerFailed::Proceed);
    play.creates("a").takes(created("b", 2, &["a"])).takes(cancelled("a", CancelStatus::Failed));
    assert_eq!(play.queue(Role::Worker), ["b"]);
}

#[test]
fn no_bead_waits_for_itself_however_far_around() {
    let mut play = Play::new();
    play.creates("a").takes(created("b", 2, &["a"])).takes(created("c", 2, &["b"]));
    assert_eq!(play.refuses(depends("a", "c")), "cycle");
    assert_eq!(play.refuses(depends("a", "a")), "cycle");
    play.takes(depends("c", "a"));
    // A convoy ends after its tasks: a task of it that waits for the convoy waits for itself.
    play.takes(convoy("con", &["a"]));
    assert_eq!(play.refuses(depends("a", "con")), "cycle");
    play.creates("d").takes(depends("d", "con"));
    let mut joining = created("e", 2, &["d"]);
    if let TownEvent::BeadCreated { convoy, .. } = &mut joining {
        *convoy = Some(bead("con"));
    }
    assert_eq!(play.refuses(joining), "cycle");
}

#[test]
fn a_bead_waits_for_so_many_and_no_more() {
    let mut play = Play::new();
    for n in 0..=BEAD_BLOCKERS_MAX {
        play.creates(&format!("x{n}"));
    }
    play.creates("a");
    for n in 0..BEAD_BLOCKERS_MAX {
        play.takes(depends("a", &format!("x{n}")));
    }
    assert_eq!(play.refuses(depends("a", &format!("x{BEAD_BLOCKERS_MAX}"))), "full");
}

#[test]
fn a_convoy_counts_its_tasks_as_they_end_and_those_that_join() {
    let mut play = Play::new();
    play.creates("a").creates("b").creates("c").takes(cancelled("c", CancelStatus::Closed));
    play.takes(convoy("con", &["a", "b", "c"]));
    let progress = |play: &Play| {
        let progress = play.town.convoys()[&bead("con")];
        (progress.total, progress.closed, progress.failed, progress.is_over())
    };
    assert_eq!(progress(&play), (3, 1, 0, false));
    let mut joining = created("d", 2, &[]);
    if let TownEvent::BeadCreated { convoy, .. } = &mut joining {
        *convoy = Some(bead("con"));
    }
    play.takes(joining);
    for (id, status) in
        [("a", CancelStatus::Closed), ("b", CancelStatus::Failed), ("d", CancelStatus::Closed)]
    {
        assert!(!progress(&play).3);
        play.takes(cancelled(id, status));
    }
    assert_eq!(progress(&play), (4, 3, 1, true));
    assert_eq!(play.refuses(convoy("other", &["a"])), "in_convoy");
    assert_eq!(play.refuses(convoy("other", &["con"])), "wrong_kind");
    play.moves("con", Open, Closed, BeadReason::ConvoyEnded);
    assert!(play.town.convoys().is_empty());
}

#[test]
fn a_convoy_ends_only_when_its_counts_say_so() {
    let mut play = Play::new();
    play.creates("a").creates("b").takes(convoy("con", &["a", "b"]));
    let over = moved("con", Open, Closed, BeadReason::ConvoyEnded);
    let broke = moved("con", Open, Failed, BeadReason::ConvoyFailed);
    assert_eq!(play.refuses(over.clone()), "bead_waits");
    play.takes(cancelled("a", CancelStatus::Closed));
    assert_eq!((play.refuses(over.clone()), play.refuses(broke.clone())), ("bead_waits", "bead_waits"));
    let mut failed = play.clone();
    failed.takes(cancelled("b", CancelStatus::Failed)).takes(broke.clone());
    play.takes(cancelled("b", CancelStatus::Closed));
    assert_eq!(play.refuses(broke), "bead_waits");
    play.takes(over);
}

#[test]
fn a_cancelled_convoy_takes_its_tasks_along() {
    let mut play = Play::new();
    play.creates("a").creates("b").takes(convoy("con", &["a", "b"])).dispatches("b", "w1");
    play.takes(cancelled("con", CancelStatus::Failed));
    assert_eq!((play.status("con"), play.status("a"), play.status("b")), (Failed, Failed, InProgress));
    assert_eq!(play.bead("b").waits.cancel, Some(CancelStatus::Failed));
}

#[test]
fn a_bead_cancelled_while_it_is_worked_on_ends_when_its_agent_is_told() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(cancelled("a", CancelStatus::Failed));
    assert_eq!((play.status("a"), play.agent("w1").status), (InProgress, AgentStatus::Working));
    assert_eq!(play.town.cancelling().count(), 1);
    // What the agent says meanwhile changes nothing of that.
    play.takes(done("w1", "a.1", Outcome::Done));
    assert_eq!(play.refuses(moved("a", InProgress, Open, BeadReason::AttemptFailed)), "bead_waits");
    assert_eq!(play.refuses(moved("a", InProgress, Closed, BeadReason::Cancelled)), "no_such_way");
    play.moves("a", InProgress, Failed, BeadReason::Cancelled);
    assert_eq!((play.status("a"), play.agent("w1").status), (Failed, AgentStatus::Idle));
}

#[test]
fn a_cancelled_bead_whose_agent_is_lost_ends_too() {
    let ends: [fn(&mut Play); 3] = [
        |play| _ = play.takes(lost("a.1", LostCause::Exited)),
        |play| _ = play.takes(failed("a.1")),
        |play| _ = play.takes(TownEvent::AgentRemoved { agent: agent("w1") }),
    ];
    for end in ends {
        let mut play = Play::new();
        play.creates("a").dispatches("a", "w1").takes(cancelled("a", CancelStatus::Closed));
        end(&mut play);
        assert_eq!(play.status("a"), Closed);
    }
}
