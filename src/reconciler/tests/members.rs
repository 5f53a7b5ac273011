//! Agents that are made of a template when they join, and are deleted when they leave: both, or neither.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::world::{Act, Cast, World, agent, joins, swift, template, town};
use crate::gateway::{AGENT_CREATED, AGENT_DELETED, Beside, ChangeError, NewMember};
use crate::ids::TownId;
use crate::journal::{Actor, Append, Journal as _, NewRecord, Scan, StreamId};
use crate::reconciler::{Joining, SubmitError};
use crate::town::event::{TownEvent, VERSION};
use crate::town::words::{BeadStatus, Origin, Role};

const DONE: &str = r#"{"outcome":"done"}"#;

fn cast() -> std::sync::Arc<Cast> {
    Cast::of([Act::Say(DONE)])
}

fn joining(id: &str, of: &str) -> Joining {
    Joining { agent: agent(id), role: Role::Worker, template: template(of), beside: Beside::Refused }
}

async fn join(world: &World, id: &str) -> Result<(), SubmitError> {
    world.reconciler.join(&town(), &Actor::Local, joining(id, "coder")).await.map(drop)
}

/// Whether the gateway and the town have this agent.
fn there(world: &World, id: &str) -> (bool, bool) {
    let in_town = world.reconciler.look(&town(), |town, _| town.agents().contains_key(&agent(id)));
    (world.gateway.has_agent(&agent(id)), in_town.expect("there is a town"))
}

async fn becomes(world: &World, id: &str, expected: (bool, bool)) {
    let waits = async {
        while there(world, id) != expected {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = timeout(Duration::from_secs(30), waits).await;
    assert!(waited.is_ok(), "{id}: {:?} {:#?}", there(world, id), world.kinds());
}

#[tokio::test]
async fn an_agent_of_a_template_works_and_is_gone_with_its_place_in_the_town() {
    let world = World::new(&[], &cast(), swift()).await;
    join(&world, "made").await.expect("it joins");
    assert_eq!(there(&world, "made"), (true, true));
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    let next = World::over(&world.journal, &[], &cast(), swift()).await;
    assert_eq!(there(&next, "made"), (true, true), "a restart keeps both");
    next.add("b", &[]).await;
    next.ends("b", BeadStatus::Closed).await;
    next.submit(TownEvent::AgentRemoved { agent: agent("made") }).await;
    assert_eq!(there(&next, "made"), (false, false), "both are gone once it is answered");
    join(&next, "made").await.expect("and may come again");
    next.stop().await;
}

#[tokio::test]
async fn who_is_collected_or_deleted_is_gone_from_both() {
    let world = World::new(&[], &cast(), swift()).await;
    join(&world, "idle").await.expect("it joins");
    let collected = TownEvent::AgentCollected { agent: agent("idle"), idle_ms: 1 };
    let record = NewRecord {
        kind: collected.kind(),
        version: VERSION,
        actor: Actor::Planner,
        trace_id: None,
        detail: collected.detail(),
    };
    let append = Append { stream: StreamId::town(&town()), expected_last_seq: None, records: vec![record] };
    world.journal.append(append).await.expect("it is taken");
    becomes(&world, "idle", (false, false)).await;
    join(&world, "idle").await.expect("it joins again");
    world.gateway.delete_agent(Actor::Local, agent("idle")).await.expect("it is deleted");
    becomes(&world, "idle", (false, false)).await;
    world.stop().await;
}

#[tokio::test]
async fn that_an_earlier_one_was_deleted_takes_none_away_that_was_made_since() {
    let world = World::new(&[], &cast(), swift()).await;
    join(&world, "made").await.expect("it joins");
    world.submit(TownEvent::AgentRemoved { agent: agent("made") }).await;
    join(&world, "made").await.expect("it joins again");
    // As it is heard late.
    world.reconciler.inner.forget_agent(&agent("made")).await;
    assert_eq!(there(&world, "made"), (true, true));
    world.stop().await;
}

#[tokio::test]
async fn a_kill_between_the_two_leaves_neither() {
    let world = World::new(&[], &cast(), swift()).await;
    // Made, and killed before it joined.
    let member = |id: &str| NewMember {
        agent: agent(id),
        town: town(),
        template: template("coder"),
        beside: Beside::Refused,
    };
    world.gateway.make_of_template(Actor::Local, member("early")).await.expect("it is made");
    // Deleted, and killed before it left; and one that left, and was not deleted.
    world
        .submit(TownEvent::AgentRegistered {
            agent: agent("late"),
            role: Role::Worker,
            origin: Origin::Dynamic,
            nudges: false,
            template: Some(template("coder")),
        })
        .await;
    join(&world, "stays").await.expect("it joins");
    assert_eq!((there(&world, "early"), there(&world, "late")), ((true, false), (false, true)));
    world.reconciler.cut().await;
    let next = World::over(&world.journal, &[], &cast(), swift()).await;
    assert_eq!(there(&next, "late"), (false, false), "before any tick");
    becomes(&next, "early", (false, false)).await;
    assert_eq!(there(&next, "stays"), (true, true));
    next.stop().await;
}

#[tokio::test]
async fn what_the_journal_does_not_take_leaves_neither() {
    let world = World::new(&[], &cast(), swift()).await;
    world.journal.refuse(Some(AGENT_CREATED));
    assert!(matches!(join(&world, "w").await, Err(SubmitError::NotMade(ChangeError::Journal))));
    assert_eq!(there(&world, "w"), (false, false));
    world.journal.refuse(Some("agent_registered"));
    assert!(matches!(join(&world, "w").await, Err(SubmitError::Journal(_))));
    assert_eq!(there(&world, "w"), (false, false), "what was made is deleted again");
    world.journal.refuse(None);
    join(&world, "w").await.expect("it joins");
    world.journal.refuse(Some(AGENT_DELETED));
    world.submit(TownEvent::AgentRemoved { agent: agent("w") }).await;
    assert_eq!(there(&world, "w"), (true, false), "it left, and cannot be deleted yet");
    world.journal.refuse(None);
    becomes(&world, "w", (false, false)).await;
    world.stop().await;
}

#[tokio::test]
async fn who_cannot_join_is_not_made() {
    let world = World::new(&["one"], &cast(), swift()).await;
    let unknown = world.reconciler.join(&town(), &Actor::Local, joining("w", "painter")).await;
    let unknown = unknown.expect_err("there is none").to_string();
    assert_eq!(unknown, "there is no template painter in the configuration: `templates:` has coder");
    world.submit(joins("ext", Role::Worker)).await;
    for (id, expected) in [("one", "there is an agent one"), ("ext", "there is an agent ext")] {
        let refused = join(&world, id).await.expect_err("its name is taken").to_string();
        assert!(refused.starts_with(expected), "{refused}");
    }
    assert!(!world.gateway.has_agent(&agent("ext")));
    let other = TownId::parse("other").expect("an id");
    world.reconciler.create_town(&Actor::Local, other.clone(), swift()).await.expect("it is made");
    let elsewhere = world.reconciler.join(&other, &Actor::Local, joining("ext", "coder")).await;
    assert!(matches!(elsewhere, Err(SubmitError::Elsewhere { .. })), "{elsewhere:?}");
    let all = world.journal.scan(&Scan { limit: 1_000, ..Scan::default() }).expect("readable").records;
    assert!(all.iter().all(|record| record.kind != AGENT_CREATED), "{all:#?}");
    world.stop().await;
}
