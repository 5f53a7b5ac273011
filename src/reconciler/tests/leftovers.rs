//! What an earlier plimsoll left at work: an agent whose container outlived a kill, and was found at the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::world::{Act, Cast, Cradle, World, agent, bead, swift, town};
use crate::clock::{Clock, Timestamp};
use crate::ids::DispatchId;
use crate::journal::{Actor, Append, Journal as _, MemoryJournal, StreamId};
use crate::lifecycle::{self, Find, Script, ScriptedRunner};
use crate::limits::TOWN_STOP_WAIT;
use crate::reconciler::desk::record;
use crate::reconciler::opening::{Left, left_at_work};
use crate::town::event::TownEvent;
use crate::town::words::{
    BeadReason, BeadStatus, CancelStatus, CompletionStatus, LostCause, Origin, Outcome, Role,
};

const DONE: &str = r#"{"outcome":"done"}"#;

/// A container that was left running, and takes a while to stop.
fn left_running() -> Arc<ScriptedRunner> {
    let stop = lifecycle::Act { takes: Duration::from_millis(100), fails: None };
    let script = Script { finds: [Find::Running].into(), stops: [stop].into(), ..Script::default() };
    Arc::new(ScriptedRunner::new(script))
}

fn has_stopped(runner: &ScriptedRunner) -> bool {
    runner.calls().iter().any(|(call, _)| *call == "stopped")
}

/// What a plan decided last before the kill: durable, and not begun.
async fn decides(journal: &MemoryJournal, events: &[TownEvent]) {
    let records = events.iter().map(|event| record(event, Actor::Planner, None, None)).collect();
    let append = Append { stream: StreamId::town(&town()), expected_last_seq: None, records };
    journal.append(append).await.expect("it is taken");
}

/// A life in which `one` works on `a` when it is killed, having decided this.
async fn killed_after(cast: &Arc<Cast>, events: &[TownEvent]) -> Arc<MemoryJournal> {
    let world = World::new(&["one"], cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.reconciler.cut().await;
    decides(&world.journal, events).await;
    world.journal
}

fn first() -> DispatchId {
    DispatchId::parse("a.1").expect("an id")
}

fn at_work() -> Act {
    Act::Work(Arc::new(Notify::new()), DONE)
}

#[tokio::test]
async fn who_worked_on_a_cancelled_bead_when_plimsoll_was_killed_is_stopped_at_the_next_start() {
    let cast = Cast::of([at_work()]);
    let cancelled =
        TownEvent::BeadCancelled { bead: bead("a"), cancel_status: CancelStatus::Closed, reason: None };
    let ended = TownEvent::BeadTransitioned {
        bead: bead("a"),
        from: BeadStatus::InProgress,
        to: BeadStatus::Closed,
        reason: BeadReason::Cancelled,
        escalation: None,
    };
    let journal = killed_after(&cast, &[cancelled, ended]).await;
    let runner = left_running();
    let cradle = Cradle { hosts: vec![("one", Arc::clone(&runner))], ..Cradle::of(&journal, &["one"]) };
    let next = World::begin(cradle, &cast, swift()).await;
    next.holds("it stopped", || has_stopped(&runner)).await;
    next.stop().await;
}

#[tokio::test]
async fn a_bead_that_was_taken_from_its_agent_goes_to_nobody_before_the_agent_has_stopped() {
    for cause in [LostCause::Stuck, LostCause::Exited] {
        let cast = Cast::of([at_work(), Act::Say(DONE)]);
        let lost = TownEvent::DispatchLost { dispatch_id: first(), cause };
        let journal = killed_after(&cast, &[lost]).await;
        let runner = left_running();
        let hosts = vec![("one", Arc::clone(&runner))];
        let cradle = Cradle { hosts, ..Cradle::of(&journal, &["one", "two"]) };
        let next = World::begin(cradle, &cast, swift()).await;
        cast.told(2).await;
        assert!(has_stopped(&runner), "{:#?}", next.kinds());
        next.ends("a", BeadStatus::Closed).await;
        next.stop().await;
    }
}

#[tokio::test]
async fn an_agent_that_said_how_it_ended_and_was_still_at_work_at_a_kill_is_stopped() {
    let cast = Cast::of([at_work()]);
    let (outcome, summary, report) = (Outcome::Done, None, None);
    let said = TownEvent::AgentDone { agent: agent("one"), dispatch_id: first(), outcome, summary, report };
    let journal = killed_after(&cast, &[said]).await;
    let runner = left_running();
    let cradle = Cradle { hosts: vec![("one", Arc::clone(&runner))], ..Cradle::of(&journal, &["one"]) };
    let next = World::begin(cradle, &cast, swift()).await;
    next.holds("it stopped", || has_stopped(&runner)).await;
    next.ends("a", BeadStatus::Closed).await;
    assert_eq!(next.count("dispatch_lost"), 0, "{:#?}", next.kinds());
    next.stop().await;
}

#[tokio::test]
async fn a_stop_that_failed_is_tried_again_and_the_bead_waits_for_it() {
    let cast = Cast::of([at_work(), Act::Say(DONE)]);
    let lost = TownEvent::DispatchLost { dispatch_id: first(), cause: LostCause::Stuck };
    let journal = killed_after(&cast, &[lost]).await;
    let fails = lifecycle::Act { takes: Duration::ZERO, fails: Some("the engine does not answer".into()) };
    let script = Script {
        finds: [Find::Running].into(),
        stops: [fails, lifecycle::Act::default()].into(),
        ..Script::default()
    };
    let runner = Arc::new(ScriptedRunner::new(script));
    let hosts = vec![("one", Arc::clone(&runner))];
    let cradle = Cradle { hosts, ..Cradle::of(&journal, &["one", "two"]) };
    let next = World::begin(cradle, &cast, swift()).await;
    cast.told(2).await;
    let stopped = runner.calls().iter().filter(|(call, _)| *call == "stopped").count();
    assert_eq!(stopped, 1, "{:#?}", runner.calls());
    next.ends("a", BeadStatus::Closed).await;
    next.stop().await;
}

#[test]
fn only_a_run_whose_end_nobody_heard_is_left_at_work() {
    use crate::town::state::tests::Play;
    let completed = || TownEvent::AgentCompleted {
        agent: agent("w"),
        dispatch_id: first(),
        status: CompletionStatus::Completed,
        reason: None,
        report: None,
    };
    let left = |told| vec![Left { agent: agent("w"), dispatch_id: first(), told }];
    let lost = TownEvent::DispatchLost { dispatch_id: first(), cause: LostCause::Restart };
    let begun = || {
        let mut play = Play::new();
        play.registers("w", Role::Worker, Origin::Configured).creates("a").dispatches("a", "w");
        play
    };
    let mut play = begun();
    assert_eq!(left_at_work(&play.town), left(Some(lost)));
    play.takes(completed());
    assert_eq!(left_at_work(&play.town), []);
    let mut play = begun();
    play.takes(TownEvent::DispatchLost { dispatch_id: first(), cause: LostCause::Stuck });
    assert_eq!(left_at_work(&play.town), left(None), "it is idle, and may be at it");
    play.takes(completed());
    assert_eq!(left_at_work(&play.town), [], "the end of its run was heard late");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_takes_longer_than_it_may_is_waited_for_all_the_same() {
    let cast = Cast::of([at_work(), Act::Say(DONE)]);
    let stop = lifecycle::Act { takes: TOWN_STOP_WAIT * 2, fails: None };
    let script = Script { finds: [Find::Running].into(), stops: [stop].into(), ..Script::default() };
    let runner = Arc::new(ScriptedRunner::new(script));
    let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
    let cradle = Cradle { hosts: vec![("one", Arc::clone(&runner))], ..Cradle::of(&journal, &["one"]) };
    let world = World::begin(cradle, &cast, swift()).await;
    world.gateway.instances().known(&agent("one")).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    let (bead, cancel_status) = (bead("a"), CancelStatus::Closed);
    world.submit(TownEvent::BeadCancelled { bead, cancel_status, reason: None }).await;
    world.add("b", &[]).await;
    cast.told(2).await;
    assert!(has_stopped(&runner), "{:#?}", world.kinds());
    world.stop().await;
}

/// An engine that stops what it hosts in its own time, longer than a lost agent is waited for.
#[tokio::test(start_paused = true)]
async fn a_stop_at_a_start_that_outlasts_every_wait_burns_no_attempt() {
    let cast = Cast::of([at_work(), Act::Say(DONE)]);
    let (clock, hand) = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    let cradle = || Cradle { clock: clock.clone(), ..Cradle::of(&journal, &["one"]) };
    let world = World::begin(cradle(), &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.reconciler.cut().await;
    let stop = lifecycle::Act { takes: TOWN_STOP_WAIT * 8, fails: None };
    let script = Script { finds: [Find::Running].into(), stops: [stop].into(), ..Script::default() };
    let runner = Arc::new(ScriptedRunner::new(script));
    let next =
        World::begin(Cradle { hosts: vec![("one", Arc::clone(&runner))], ..cradle() }, &cast, swift()).await;
    let ticked = || next.reconciler.status(&town()).is_some_and(|status| status.last_tick.is_some());
    while !ticked() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for _ in 0..10 {
        hand.advance(Duration::from_secs(50));
        next.ticks().await;
    }
    assert!(!has_stopped(&runner), "it is not over yet");
    assert_eq!(next.count("dispatch_lost"), 0, "{:#?}", next.kinds());
    while !has_stopped(&runner) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    next.ends("a", BeadStatus::Closed).await;
    let lost: Vec<_> = next.records().into_iter().filter(|record| record.kind == "dispatch_lost").collect();
    assert_eq!(lost.iter().map(|record| record.detail["cause"].clone()).collect::<Vec<_>>(), ["restart"]);
    next.stop().await;
}
