//! Work that is looked at before it closes.

use super::*;
use BeadStatus::{Closed, Failed, InProgress, InReview, Open};

/// Task `a` was done by `w1` and is in review.
fn in_review() -> Play {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(done("w1", "a.1", Outcome::Done)).takes(opened(1));
    play
}

fn opened(round: u32) -> TownEvent {
    TownEvent::ReviewOpened { bead: bead("a"), review: bead(&format!("a.r{round}")), round }
}

fn standing(play: &Play) -> (BeadStatus, BeadStatus, AgentStatus) {
    (play.status("a"), play.status("a.r1"), play.agent("w1").status)
}

#[test]
fn a_review_frees_the_worker_and_waits_for_a_reviewer() {
    let mut play = in_review();
    assert_eq!(standing(&play), (InReview, Open, AgentStatus::Idle));
    assert_eq!((play.queue(Role::Worker), play.queue(Role::Reviewer)), (vec![], vec!["a.r1"]));
    assert_eq!(play.bead("a").tries.attempts, 0, "it went well");
    assert_eq!(play.refuses(opened(2)), "bead_stands", "one review at a time");
}

#[test]
fn approval_closes_the_task_with_its_review() {
    let mut play = in_review();
    play.dispatches("a.r1", "r1").takes(reviewed("a.r1.1", Verdict::Approved, "fine"));
    play.moves("a.r1", InProgress, Closed, BeadReason::Approved);
    assert_eq!((play.status("a"), play.status("a.r1")), (Closed, Closed));
    assert_eq!(play.town.closed()[&bead("a")].reason, BeadReason::Approved);
    assert_eq!(play.agent("r1").status, AgentStatus::Idle);
}

#[test]
fn changes_reopen_the_task_and_keep_what_is_to_change() {
    let mut play = in_review();
    play.dispatches("a.r1", "r1").takes(reviewed("a.r1.1", Verdict::Changes, "add a test"));
    play.moves("a.r1", InProgress, Closed, BeadReason::Changes);
    assert_eq!(play.status("a"), Open);
    assert_eq!(play.bead("a").looks.notes.as_deref(), Some("add a test"));
    assert_eq!(play.queue(Role::Worker), ["a"]);
    play.dispatches("a", "w2").takes(done("w2", "a.2", Outcome::Done));
    assert_eq!(play.refuses(opened(1)), "wrong_number");
    play.takes(opened(2));
    assert_eq!((play.bead("a").looks.reviews, play.status("a.r2")), (2, Open));
}

#[test]
fn a_review_knows_what_was_said_of_the_work_that_it_looks_at() {
    let said = |id: &str, summary: Option<&str>| TownEvent::AgentDone {
        agent: agent("w1"),
        dispatch_id: dispatch(id),
        outcome: Outcome::Done,
        summary: summary.map(Into::into),
        report: None,
    };
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(said("a.1", Some("it was a typo")));
    assert_eq!(play.bead("a").looks.summary, None, "it is not looked at yet");
    play.takes(opened(1));
    assert_eq!(play.bead("a").looks.summary.as_deref(), Some("it was a typo"));
    play.dispatches("a.r1", "r1").takes(reviewed("a.r1.1", Verdict::Changes, "add a test"));
    play.moves("a.r1", InProgress, Closed, BeadReason::Changes);
    play.dispatches("a", "w1").takes(said("a.2", None)).takes(opened(2));
    assert_eq!(play.bead("a").looks.summary, None, "the work is another");
}

/// A task whose last review wants changes and is one too many.
fn reviewed_too_often() -> Play {
    let mut play = in_review();
    play.dispatches("a.r1", "r1").takes(reviewed("a.r1.1", Verdict::Changes, "again"));
    play.takes(TownEvent::BeadTransitioned {
        bead: bead("a.r1"),
        from: InProgress,
        to: Closed,
        reason: BeadReason::Changes,
        escalation: Some(bead("a.e1")),
    });
    play
}

#[test]
fn a_task_reviewed_often_enough_waits_for_a_person() {
    let mut play = reviewed_too_often();
    assert_eq!((play.status("a"), play.status("a.e1")), (Open, Open));
    assert_eq!((play.queue(Role::Worker), play.bead("a.e1").parent.clone()), (vec![], Some(bead("a"))));
    play.takes(TownEvent::BeadReleased { bead: bead("a") });
    assert_eq!(play.queue(Role::Worker), ["a"]);
}

#[test]
fn a_review_that_ends_without_a_verdict_leaves_its_task_to_a_person() {
    let mut play = in_review();
    play.takes(cancelled("a.r1", CancelStatus::Closed));
    assert_eq!((play.status("a"), play.bead("a").waits.human.is_some()), (Open, true));
    let mut play = in_review();
    play.dispatches("a.r1", "r1").takes(lost("a.r1.1", LostCause::Exited));
    assert_eq!(standing(&play).1, Open, "the review goes out again");
    play.moves("a.r1", Open, Failed, BeadReason::AttemptsExhausted);
    assert_eq!((play.status("a"), play.bead("a").waits.human.is_some()), (Open, true));
}

#[test]
fn a_cancelled_task_takes_its_review_along() {
    let mut play = in_review();
    play.takes(cancelled("a", CancelStatus::Failed));
    assert_eq!((play.status("a"), play.status("a.r1")), (Failed, Closed));
    let mut play = in_review();
    play.dispatches("a.r1", "r1").takes(cancelled("a", CancelStatus::Failed));
    assert_eq!((play.status("a"), play.bead("a.r1").waits.cancel), (Failed, Some(CancelStatus::Closed)));
    play.moves("a.r1", InProgress, Closed, BeadReason::Cancelled);
    assert_eq!(play.agent("r1").status, AgentStatus::Idle);
}

#[test]
fn only_a_reviewer_gives_a_verdict() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1");
    assert_eq!(play.refuses(reviewed("a.1", Verdict::Approved, "")), "wrong_kind");
}

#[test]
fn needs_human_waits_for_a_person_who_lets_it_go_on_anew() {
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(failed("a.1")).dispatches("a", "w1");
    play.takes(done("w1", "a.2", Outcome::NeedsHuman)).moves("a", InProgress, Open, BeadReason::NeedsHuman);
    assert_eq!((play.queue(Role::Worker), play.agent("w1").status), (vec![], AgentStatus::Idle));
    play.takes(TownEvent::BeadReleased { bead: bead("a") });
    assert_eq!((play.queue(Role::Worker), play.bead("a").tries.attempts), (vec!["a"], 0));
    assert_eq!(play.bead("a").tries.dispatches, 2);
}

#[test]
fn what_an_agent_said_is_there_for_the_person_who_has_to_look() {
    let words = |id: &str, outcome, summary: &str| TownEvent::AgentDone {
        agent: agent("w1"),
        dispatch_id: dispatch(id),
        outcome,
        summary: Some(summary.into()),
        report: None,
    };
    let moved = |to, reason, escalation: &str| TownEvent::BeadTransitioned {
        bead: bead("a"),
        from: InProgress,
        to,
        reason,
        escalation: Some(bead(escalation)),
    };
    let said = |play: &Play, id: &str| play.bead(id).looks.summary.as_deref().map(str::to_owned);
    let mut play = Play::new();
    play.creates("a").dispatches("a", "w1").takes(words("a.1", Outcome::NeedsHuman, "which colour?"));
    play.takes(moved(Open, BeadReason::NeedsHuman, "a.e1"));
    assert_eq!((said(&play, "a"), said(&play, "a.e1")), (Some("which colour?".into()), said(&play, "a")));
    play.takes(TownEvent::BeadReleased { bead: bead("a") }).dispatches("a", "w1");
    play.takes(moved(Open, BeadReason::Unreadable, "a.e2"));
    assert_eq!((said(&play, "a"), said(&play, "a.e2")), (None, None), "nothing that can be read");
    play.takes(TownEvent::BeadReleased { bead: bead("a") }).dispatches("a", "w1");
    play.takes(words("a.3", Outcome::Failed, "no such file"));
    play.takes(moved(Failed, BeadReason::AttemptsExhausted, "a.e3"));
    assert_eq!(said(&play, "a.e3").as_deref(), Some("no such file"), "also of one that ended");
    let play = reviewed_too_often();
    assert_eq!(said(&play, "a.e1").as_deref(), Some("again"), "the reviewer's words");
}
