//! Agents that are paused, leave, and move between towns; drills; and what there is no room for.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::world::{Act, Cast, Cradle, World, agent, bead, joins, swift, town};
use crate::clock::Clock;
use crate::gateway::UnderWay;
use crate::ids::{DispatchId, RequestId, TownId};
use crate::journal::{Actor, Fold as _, Journal as _, MemoryJournal, Scan, StreamId};
use crate::limits::TOWN_SIGHTS_MAX;
use crate::reconciler::Towns;
use crate::reconciler::desk::record;
use crate::reconciler::hosts::Happened;
use crate::reconciler::runs::Running;
use crate::town::event::TownEvent;
use crate::town::words::{AgentStatus, BeadStatus, ContainerStatus, Origin, Role};

const DONE: &str = r#"{"outcome":"done"}"#;

fn other() -> TownId {
    TownId::parse("other").expect("an id")
}

#[tokio::test]
async fn a_paused_agent_that_keeps_beads_waiting_lets_its_town_rest_and_the_end_of_the_pause_wakes_it() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.gateway.pause(Actor::Local, Some(agent("one")), UnderWay::Finish).await.expect("it is there");
    world.add("a", &[]).await;
    let rests = || {
        let status = world.reconciler.status(&town()).expect("a town");
        status.waits.len() == 1
            && status.agents.get(&AgentStatus::Dead) == Some(&1)
            && status.cadence.every_ms == 300_000
    };
    world.holds("it rests", rests).await;
    world.gateway.resume(Actor::Local, Some(agent("one"))).await.expect("it is there");
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
}

#[tokio::test]
async fn an_agent_of_plimsolls_own_that_is_no_more_leaves_its_town_and_one_of_elsewhere_stays() {
    let cast = Cast::of([Act::Say(DONE)]);
    let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
    let world =
        World::begin(Cradle { spare: &["two"], ..Cradle::of(&journal, &["one"]) }, &cast, swift()).await;
    world.submit(joins("two", Role::Worker)).await;
    world.submit(joins("elsewhere", Role::Worker)).await;
    world.stop().await;
    let next = World::over(&journal, &["one"], &cast, swift()).await;
    next.until("it left", |town| !town.agents().contains_key(&agent("two"))).await;
    let stays = next.reconciler.look(&town(), |town, _| town.agents()[&agent("elsewhere")].origin);
    assert_eq!(stays, Some(Origin::External));
    next.stop().await;
}

#[tokio::test]
async fn an_agent_that_the_configuration_has_in_another_town_leaves_the_one_that_it_joined() {
    let go_on = Arc::new(Notify::new());
    let cast = Cast::of([Act::Work(go_on, DONE), Act::Say(DONE)]);
    let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
    let world =
        World::begin(Cradle { spare: &["two"], ..Cradle::of(&journal, &["one"]) }, &cast, swift()).await;
    world.reconciler.create_town(&Actor::Local, other(), swift()).await.expect("it is made");
    world.reconciler.submit(&other(), &Actor::Local, joins("two", Role::Worker)).await.expect("it joins");
    let created = TownEvent::BeadCreated {
        bead: bead("a"),
        title: "do it".into(),
        instructions: "with care".into(),
        role: Role::Worker,
        priority: 2,
        convoy: None,
        blocked_by: [].into(),
        report: None,
    };
    world.reconciler.submit(&other(), &Actor::Local, created).await.expect("it is taken");
    cast.told(1).await;
    world.reconciler.cut().await;
    let next = World::over(&journal, &["one", "two"], &cast, swift()).await;
    next.until("it moved", |town| town.agents().contains_key(&agent("two"))).await;
    let left = next
        .reconciler
        .look(&other(), |town, _| (town.agents().len(), town.beads()[&bead("a")].tries.attempts));
    assert_eq!(left, Some((0, 0)), "it works there no more, and the attempt does not count");
    let scan = |stream| {
        let query = Scan { stream: Some(StreamId::town(&stream)), limit: 1_000, ..Scan::default() };
        journal.scan(&query).expect("readable").records
    };
    let gone = scan(other()).iter().find(|record| record.kind == "agent_removed").map(|record| record.seq);
    let come = scan(town()).iter().rev().find(|r| r.kind == "agent_registered").map(|record| record.seq);
    assert!(gone.is_some() && gone < come, "{gone:?} {come:?}");
    next.stop().await;
}

#[tokio::test]
async fn a_drill_violates_an_invariant_by_an_event_and_leaves_the_town_as_its_events_make_it() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    assert!(world.reconciler.drill().damage(&town()).await);
    world.holds("it is over", || world.count("violation_resolved") == 1).await;
    let opened = world.records().into_iter().find(|record| record.kind == "violation_opened");
    assert_eq!(opened.map(|record| record.detail["invariant"].clone()), Some(7.into()));
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
    let anew = Towns::default();
    world.records().iter().for_each(|record| anew.apply(record));
    let hash = |town: &crate::town::Town| town.hash();
    let folded = hash(&anew.get(&town()).expect("it is there").drained().town);
    assert_eq!(world.reconciler.look(&town(), |town, _| hash(town)), Some(folded));
    assert_eq!(world.count("event_rejected"), 0);
}

#[tokio::test]
async fn a_change_of_an_instance_for_which_there_is_no_room_is_counted() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    // No tick takes them out meanwhile: nothing here waits.
    for _ in 0..TOWN_SIGHTS_MAX + 3 {
        let (agent, status) = (agent("one"), ContainerStatus::Running);
        world.reconciler.happens(&town(), Happened { agent, status, reason: None });
    }
    let lines = world.registry.render();
    let counted = r#"plimsoll_dropped_total{what="instance_change",reason="queue_full"} 3"#;
    assert!(lines.contains(counted), "{lines}");
    world.stop().await;
}

/// The turn gives it a bead between the look at what it does and the event that it leaves.
#[tokio::test]
async fn an_agent_that_is_removed_while_it_is_given_a_bead_is_stopped() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.journal.refuse(Some("bead_dispatched"));
    world.add("a", &[]).await;
    let executor = world.reconciler.inner.executor(&town()).expect("it is kept");
    let dispatch_id = DispatchId::parse("a.1").expect("an id");
    let request = RequestId::parse("given").expect("an id");
    let running = Running { agent: agent("one"), request: request.clone(), over: CancellationToken::new() };
    let given = record(
        &TownEvent::BeadDispatched {
            bead: bead("a"),
            agent: agent("one"),
            dispatch_id: dispatch_id.clone(),
            attempt: 1,
        },
        Actor::Planner,
        None,
        None,
    );
    let mut given = Some((given, Arc::clone(&executor), dispatch_id.clone(), running));
    world.journal.cross(move |append| {
        if append.records[0].kind != "agent_removed" {
            return None;
        }
        let (given, executor, dispatch_id, running) = given.take()?;
        executor.runs.run(dispatch_id, running);
        Some(given)
    });
    world.submit(TownEvent::AgentRemoved { agent: agent("one") }).await;
    assert_eq!(world.count("bead_dispatched"), 1, "{:#?}", world.kinds());
    world.holds("it is told to stop", || executor.runs.is_cut(&agent("one"))).await;
    executor.runs.over(&dispatch_id, &request);
    world.stop().await;
}
