//! What takes no work for a while burns no attempt: full lanes, pauses, and who does not stop. Time is moved, not waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::world::{Act, Cast, World, agent, bead, swift, town};
use crate::gateway::{Caller, Channel, SendRequest, UnderWay};
use crate::ids::{DispatchId, RequestId, SessionId};
use crate::journal::{Actor, Append, Journal as _, NewRecord, Record, StreamId};
use crate::reconciler::runs::{Running, Stage};
use crate::town::plan::Effect;
use crate::town::words::{AgentStatus, BeadStatus, ContainerStatus};

const DONE: &str = r#"{"outcome":"done"}"#;

fn hangs() -> Act {
    Act::Work(Arc::new(Notify::new()), DONE)
}

/// Somebody at work who never stops, for a dispatch that was taken from it.
fn never_stops(agent_id: &str) -> Running {
    let request = RequestId::parse("gone").expect("an id");
    Running { agent: agent(agent_id), request, over: CancellationToken::new() }
}

/// How many attempts a bead burnt.
fn attempts(world: &World, id: &str) -> u32 {
    let tries = world.reconciler.look(&town(), |town, _| town.beads()[&bead(id)].tries.attempts);
    tries.expect("there is a town")
}

/// Waits for the first dispatch that came to nothing, and says why.
async fn lost(world: &World) -> serde_json::Value {
    let lost = || world.records().into_iter().find(|r| r.kind.starts_with("dispatch_"));
    for _ in 0..100_000 {
        if let Some(lost) = lost() {
            return serde_json::json!([lost.kind, lost.detail["cause"]]);
        }
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    panic!("nothing was lost: {:#?}", world.kinds())
}

fn refused() -> serde_json::Value {
    serde_json::json!(["dispatch_lost", "refused"])
}

#[tokio::test]
async fn a_pause_that_cancels_what_runs_burns_no_attempt() {
    let cast = Cast::of([hangs(), Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.gateway.pause(Actor::Local, Some(agent("one")), UnderWay::Cancel).await.expect("it is there");
    world.until("it goes back", |town| town.beads()[&bead("a")].status == BeadStatus::Open).await;
    assert_eq!(attempts(&world, "a"), 0, "{:#?}", world.kinds());
    world.gateway.resume(Actor::Local, Some(agent("one"))).await.expect("it is there");
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_stays_full_burns_no_attempt() {
    let cast = Cast::of([hangs()]);
    let world = World::new(&["one"], &cast, swift()).await;
    let session = SessionId::parse("bead:a").ok();
    let send = || {
        let request =
            SendRequest { session: session.clone(), ..SendRequest::new(agent("one"), "m".to_owned()) };
        let caller = Caller { actor: Actor::Local, channel: Channel::Town, trace: None };
        world.gateway.send(caller, request)
    };
    let mut held = Vec::new();
    while let Ok(accepted) = send() {
        held.push(accepted);
    }
    world.add("a", &[]).await;
    assert_eq!(lost(&world).await, refused());
    assert_eq!(world.count("dispatch_failed"), 0, "{:#?}", world.kinds());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_stop_for_a_dispatch_burns_no_attempt_of_it() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let executor = world.reconciler.inner.executor(&town()).expect("it is kept");
    let (at_work, never) = (DispatchId::parse("before.1").expect("an id"), never_stops("one"));
    executor.runs.run(at_work.clone(), never.clone());
    world.add("a", &[]).await;
    assert_eq!(lost(&world).await, refused());
    let first = DispatchId::parse("a.1").expect("an id");
    assert_eq!(executor.runs.stage(&first), Stage::Unknown, "it waits no more");
    executor.runs.over(&at_work, &never.request);
    world.ends("a", BeadStatus::Closed).await;
    let tries = world.records().into_iter().filter(|record| record.kind == "bead_dispatched");
    assert!(tries.clone().count() > 1 && tries.map(|r| r.detail["attempt"].clone()).all(|n| n == 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dispatch_that_waits_for_somebody_to_stop_goes_back_when_plimsoll_ends() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let executor = world.reconciler.inner.executor(&town()).expect("it is kept");
    executor.runs.run(DispatchId::parse("before.1").expect("an id"), never_stops("one"));
    world.add("a", &[]).await;
    world.until("it is given", |town| town.hooked_to(&bead("a")).next().is_some()).await;
    world.stop().await;
    assert!(world.reconciler.inner.tasks.is_empty(), "nothing is left that has to be cut");
    assert_eq!(lost(&world).await, serde_json::json!(["dispatch_lost", "shutdown"]));
}

#[tokio::test(start_paused = true)]
async fn who_is_still_being_stopped_is_given_nothing() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let executor = world.reconciler.inner.executor(&town()).expect("it is kept");
    let (before, running) = (DispatchId::parse("before.1").expect("an id"), never_stops("one"));
    executor.runs.run(before.clone(), running.clone());
    let stop = Effect::Stop { agent: agent("one"), dispatch_id: before.clone() };
    executor.carry_out(stop, &tracing::Span::none());
    world.add("a", &[]).await;
    world.until("it is given nothing", |town| town.agents()[&agent("one")].status == AgentStatus::Dead).await;
    assert_eq!(world.count("bead_dispatched"), 0);
    executor.runs.over(&before, &running.request);
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dispatch_that_waits_for_somebody_to_stop_is_about_to_start() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let executor = world.reconciler.inner.executor(&town()).expect("it is kept");
    let (before, running) = (DispatchId::parse("a.9").expect("an id"), never_stops("elsewhere"));
    executor.runs.run(before.clone(), running.clone());
    let stop = Effect::Stop { agent: agent("elsewhere"), dispatch_id: before.clone() };
    executor.carry_out(stop, &tracing::Span::none());
    world.add("a", &[]).await;
    world
        .until("it starts", |town| {
            let seen = town.agents()[&agent("one")].container.as_ref();
            seen.is_some_and(|seen| seen.status == ContainerStatus::Starting)
        })
        .await;
    executor.runs.over(&before, &running.request);
    world.ends("a", BeadStatus::Closed).await;
    assert_eq!(world.count("dispatch_lost"), 0);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_happened_to_a_host_is_told_once_the_journal_takes_it() {
    let cast = Cast::of([hangs()]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.until("it is seen", |town| town.agents()[&agent("one")].container.is_some()).await;
    world.journal.refuse(Some("container_status"));
    let exited = NewRecord {
        kind: "exited",
        version: 1,
        actor: Actor::System,
        trace_id: None,
        detail: serde_json::json!({"reason": "killed"}),
    };
    let stream = StreamId::instance(&agent("one"));
    let append = Append { stream, expected_last_seq: None, records: vec![exited] };
    world.journal.append(append).await.expect("it is taken");
    // Ticks that cannot write come and go.
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.journal.refuse(None);
    let statuses = || {
        let seen = world.records().into_iter().filter(|record| record.kind == "container_status");
        seen.map(|record| record.detail["status"].clone()).collect::<Vec<_>>()
    };
    world.until("both are told", |_| statuses() == ["running", "exited", "running"]).await;
    world.stop().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_folded_puts_its_town_aside() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let cell = world.reconciler.cell(&town()).expect("it is there");
    cell.push(Record::example(StreamId::town(&town()), "drain_ended", serde_json::json!({})));
    cell.fold(|_, _| panic!("a bug"));
    let set_aside = || world.reconciler.status(&town()).is_some_and(|status| status.set_aside.is_some());
    world.until("it is put aside", |_| set_aside()).await;
    assert_eq!(world.count("drain_ended"), 0);
    world.stop().await;
}
