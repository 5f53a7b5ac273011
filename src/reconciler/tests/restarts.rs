//! What a cancel, an end of plimsoll, and the start after it do to work that is under way.

use std::sync::Arc;

use tokio::sync::Notify;

use super::world::{Act, Cast, World, agent, bead, joins, swift, town};
use crate::gateway::UnderWay;
use crate::ids::{DispatchId, TownId};
use crate::journal::{Actor, Fold as _, Journal as _};
use crate::reconciler::{SubmitError, Towns};
use crate::town::event::TownEvent;
use crate::town::words::{AgentStatus, BeadStatus, CancelStatus, Outcome, Role};

const DONE: &str = r#"{"outcome":"done"}"#;

fn working() -> (Arc<Notify>, Act) {
    let go_on = Arc::new(Notify::new());
    (Arc::clone(&go_on), Act::Work(go_on, DONE))
}

#[tokio::test]
async fn cancelling_a_bead_stops_who_works_on_it_at_once() {
    let (_never, work) = working();
    let cast = Cast::of([work]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    let (bead, cancel_status) = (bead("a"), CancelStatus::Closed);
    world.submit(TownEvent::BeadCancelled { bead, cancel_status, reason: None }).await;
    world.ends("a", BeadStatus::Closed).await;
    world.until("nothing is under way", |_| world.gateway.active().is_empty()).await;
    world.stop().await;
}

#[tokio::test]
async fn an_end_of_plimsoll_burns_no_attempt_and_the_next_start_works_on() {
    let (_never, work) = working();
    let cast = Cast::of([work, Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.stop().await;
    assert_eq!(world.count("dispatch_lost"), 1, "{:?}", world.kinds());
    let next = World::over(&world.journal, &["one"], &cast, swift()).await;
    next.ends("a", BeadStatus::Closed).await;
    let dispatched: Vec<_> = next.records().into_iter().filter(|r| r.kind == "bead_dispatched").collect();
    let attempts: Vec<_> =
        dispatched.iter().map(|r| (r.detail["dispatch_id"].clone(), r.detail["attempt"].clone())).collect();
    assert_eq!(attempts, [("a.1".into(), 1.into()), ("a.2".into(), 1.into())]);
    next.stop().await;
}

#[tokio::test]
async fn a_crash_burns_no_attempt_either() {
    let (_never, work) = working();
    let cast = Cast::of([work, Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    // Nothing of the first life writes any more, as after a kill.
    world.reconciler.cut().await;
    let next = World::over(&world.journal, &["one"], &cast, swift()).await;
    next.ends("a", BeadStatus::Closed).await;
    let lost: Vec<_> = next.records().into_iter().filter(|r| r.kind == "dispatch_lost").collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].detail["cause"], "restart");
    next.stop().await;
}

#[tokio::test]
async fn a_snapshot_and_what_came_after_it_are_the_town_that_lived() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    let (kept, at) = (world.reconciler.fold().snapshot(), world.journal.status().last);
    world.add("b", &[]).await;
    world.ends("b", BeadStatus::Closed).await;
    world.stop().await;
    let again = Towns::default();
    again.restore(&kept).expect("its own snapshot");
    world.records().iter().filter(|record| record.seq > at).for_each(|record| again.apply(record));
    let lived = world.reconciler.look(&town(), |town, _| town.hash()).expect("there is a town");
    assert_eq!(again.get(&town()).expect("it is there").drained().town.hash(), lived);
    let whole = Towns::default();
    world.records().iter().for_each(|record| whole.apply(record));
    assert_eq!(whole.get(&town()).expect("it is there").drained().town.hash(), lived);
}

#[tokio::test]
async fn a_paused_agent_gets_nothing_and_burns_no_attempt() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let finish = UnderWay::Finish;
    world.gateway.pause(Actor::Local, Some(agent("one")), finish).await.expect("it is there");
    world.add("a", &[]).await;
    world
        .until("it is told unusable", |town| {
            let one = town.agents().get(&agent("one"));
            one.is_some_and(|agent| agent.status == AgentStatus::Dead)
        })
        .await;
    assert_eq!(world.count("bead_dispatched"), 0);
    world.gateway.resume(Actor::Local, Some(agent("one"))).await.expect("it is there");
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
}

#[tokio::test]
async fn a_town_that_is_as_configured_is_told_nothing_at_the_next_start() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one", "two"], &cast, swift()).await;
    world.stop().await;
    let before = world.records().len();
    let next = World::over(&world.journal, &["one", "two"], &cast, swift()).await;
    let ticked = || next.reconciler.status(&town()).is_some_and(|status| status.last_tick.is_some());
    next.until("a tick", |_| ticked()).await;
    next.stop().await;
    assert_eq!(next.records().len(), before);
    let third = World::over(&next.journal, &["one"], &cast, swift()).await;
    third.until("it left", |town| !town.agents().contains_key(&agent("two"))).await;
    third.stop().await;
    assert_eq!(third.count("agent_removed"), 1);
}

#[tokio::test]
async fn an_agent_that_is_asked_too_often_burns_no_attempt() {
    let cast = Cast::of([Act::Say(DONE)]);
    let mut world = World::new(&["one"], &cast, swift()).await;
    world.stop().await;
    world = World::limited(&world.journal, &["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    world.add("b", &[]).await;
    world
        .until("it takes no work", |town| {
            town.agents().get(&agent("one")).is_some_and(|agent| agent.status == AgentStatus::Dead)
        })
        .await;
    assert_eq!(world.count("dispatch_failed"), 0, "{:#?}", world.kinds());
    let tries = world.reconciler.look(&town(), |town, _| town.beads()[&bead("b")].tries.clone());
    assert_eq!(tries.expect("there is a town").attempts, 0);
    world.stop().await;
}

#[tokio::test]
async fn an_agent_that_leaves_stops_before_its_bead_goes_to_another() {
    let (_never, work) = working();
    let cast = Cast::of([work, Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.submit(TownEvent::AgentRemoved { agent: agent("one") }).await;
    world.until("nothing is under way", |_| world.gateway.active().is_empty()).await;
    world.submit(joins("one", Role::Worker)).await;
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
}

#[tokio::test]
async fn who_says_over_the_api_that_it_failed_and_works_on_is_stopped_before_the_next_begins() {
    let (_never, work) = working();
    let cast = Cast::of([work, Act::Say(DONE)]);
    let world = World::new(&["one", "two"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    let holder = world.reconciler.look(&town(), |town, _| {
        let (id, _) = town.hooked_to(&bead("a")).next().expect("somebody holds it");
        id.clone()
    });
    let said = TownEvent::AgentDone {
        agent: holder.expect("there is a town"),
        dispatch_id: DispatchId::parse("a.1").expect("an id"),
        outcome: Outcome::Failed,
        summary: None,
        report: None,
    };
    world.submit(said).await;
    world.ends("a", BeadStatus::Closed).await;
    world.until("nothing is under way", |_| world.gateway.active().is_empty()).await;
    assert_eq!(cast.told(2).await.len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_town_is_made_once_and_turns_at_once() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let other = TownId::parse("other").expect("an id");
    let create = || world.reconciler.create_town(&Actor::Local, other.clone(), swift());
    create().await.expect("it is made");
    assert!(matches!(create().await, Err(SubmitError::TownExists(_))));
    world.journal.refuse(Some("town_created"));
    let refused = TownId::parse("refused").expect("an id");
    let made = world.reconciler.create_town(&Actor::Local, refused.clone(), swift()).await;
    assert!(matches!(made, Err(SubmitError::Journal(_))), "{made:?}");
    assert_eq!(world.reconciler.towns(), [town(), other.clone()], "nothing of it is left");
    let ticked = || world.reconciler.status(&other).is_some_and(|status| status.last_tick.is_some());
    world.until("a tick", |_| ticked()).await;
    world.stop().await;
}

/// A snapshot that says what no event did: the fault of a disk, or of a plimsoll before this one.
#[tokio::test]
async fn a_town_that_its_events_did_not_make_is_made_anew_from_them() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
    let mut wrong = world.reconciler.fold().snapshot();
    wrong["main"]["town"]["town"]["closed"]["a"]["status"] = "failed".into();
    let next = World::from(&world.journal, Some(&wrong), &["one"], &cast, swift()).await;
    next.until("its violation is resolved", |_| next.count("violation_resolved") == 1).await;
    next.add("b", &[]).await;
    next.ends("b", BeadStatus::Closed).await;
    assert_eq!((next.count("violation_opened"), next.count("violation_resolved")), (1, 1));
    assert_eq!(next.reconciler.fold().snapshot()["main"]["opened"]["1"], 1);
    next.stop().await;
    let lived = next.reconciler.look(&town(), |town, _| town.hash()).expect("there is a town");
    let whole = Towns::default();
    next.records().iter().for_each(|record| whole.apply(record));
    assert_eq!(whole.get(&town()).expect("it is there").drained().town.hash(), lived);
}
