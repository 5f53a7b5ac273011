//! Trouble that other reconcilers met, as far as it needs a journal and agents that run: each test falls without the rule
//! that keeps it away.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;

use super::world::{Act, Cast, Cradle, World, agent, bead, swift, town};
use crate::clock::{Clock, Timestamp};
use crate::gateway::{self, AgentConfig, Caller, Channel, SendRequest};
use crate::ids::{DispatchId, SessionId};
use crate::journal::{Actor, Append, Journal as _, MemoryJournal, NewRecord, StreamId};
use crate::lifecycle::{Act as HostAct, InstanceConfig, Script, ScriptedHost, ScriptedRunner};
use crate::town::event::{TownEvent, VERSION};
use crate::town::words::BeadStatus;
use crate::units::Period;

const DONE: &str = r#"{"outcome":"done"}"#;

/// Work that nothing ends but a stop.
fn endless() -> Act {
    Act::Work(Arc::new(Notify::new()), DONE)
}

fn dispatch(id: &str) -> DispatchId {
    DispatchId::parse(id).expect("an id")
}

/// Of every dispatch its id and its attempt.
fn dispatched(world: &World) -> Vec<(String, u64)> {
    let records = world.records().into_iter().filter(|record| record.kind == "bead_dispatched");
    let told = |value: &serde_json::Value| value.as_str().expect("an id").to_owned();
    records
        .map(|record| {
            (told(&record.detail["dispatch_id"]), record.detail["attempt"].as_u64().expect("a number"))
        })
        .collect()
}

#[tokio::test]
async fn a_dispatch_that_times_out_though_its_agent_works_is_not_worked_on_twice() {
    let cast = Cast::of([endless(), Act::Say(DONE)]);
    let world = World::new(&["one", "two"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    let dispatch_id = dispatch("a.1");
    world.write(&TownEvent::DispatchFailed { dispatch_id, error: "it timed out".into() }).await;
    world.ends("a", BeadStatus::Closed).await;
    world.until("the first is stopped", |_| world.gateway.active().is_empty()).await;
    assert_eq!(cast.told(2).await.len(), 2);
    assert_eq!(dispatched(&world), [("a.1".to_owned(), 1), ("a.2".to_owned(), 2)]);
    world.stop().await;
}

#[tokio::test]
async fn a_poison_event_is_told_of_once_and_holds_up_nothing() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let (actor, detail) = (Actor::Local, json!({"bead": 1}));
    world
        .write_record(NewRecord { kind: "bead_created", version: VERSION, actor, trace_id: None, detail })
        .await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    assert_eq!(world.count("event_rejected"), 1, "{:?}", world.kinds());
    assert_eq!(world.scraped("plimsoll_reconciler_rejected_events_total{town=\"main\"}"), 1);
    world.stop().await;
}

/// Of `a` the effect had begun; of `b` the plan was appended, and nothing was done yet.
#[tokio::test]
async fn a_restart_in_the_middle_of_apply_and_effects_loses_nothing_and_burns_no_attempt() {
    let cast = Cast::of([endless(), Act::Say(DONE)]);
    let world = World::new(&["one", "two"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.reconciler.cut().await;
    world.add("b", &[]).await;
    let (agent, dispatch_id) = (agent("two"), dispatch("b.1"));
    world.write(&TownEvent::BeadDispatched { bead: bead("b"), agent, dispatch_id, attempt: 1 }).await;
    let next = World::over(&world.journal, &["one", "two"], &cast, swift()).await;
    next.ends("a", BeadStatus::Closed).await;
    next.ends("b", BeadStatus::Closed).await;
    let mut dispatched = dispatched(&next);
    dispatched.sort();
    assert_eq!(dispatched, ["a.1", "a.2", "b.1", "b.2"].map(|id| (id.to_owned(), 1)));
    assert_eq!(cast.told(3).await.len(), 3, "each is worked on once more");
    next.stop().await;
}

/// The clock runs ahead for a while, and is set right: nothing waits until it is where it was.
#[tokio::test]
async fn a_clock_that_jumps_both_ways_ends_no_work_and_holds_up_no_wait() {
    let cast = Cast::of([Act::Fail, Act::Say(DONE)]);
    let mut policy = swift();
    policy.dispatch.backoff = vec![Period::from_secs(30)];
    let (world, hand) = World::timed(&["one"], &cast, policy).await;
    let begin = Timestamp::from_millis(1_800_000_000_000);
    hand.set_wall(begin.after(Duration::from_secs(8 * 3_600)));
    world.add("a", &[]).await;
    world
        .until("a failed attempt", |town| {
            town.beads().get(&bead("a")).is_some_and(|bead| bead.tries.failed_at.is_some())
        })
        .await;
    let skipped = world.count("time_skipped");
    hand.set_wall(begin);
    for _ in 0..3 {
        hand.advance(Duration::from_secs(9));
        world.ticks().await;
    }
    assert_eq!(dispatched(&world).len(), 1, "27 seconds are not 30");
    hand.advance(Duration::from_secs(9));
    world.ticks().await;
    world.ends("a", BeadStatus::Closed).await;
    assert_eq!(world.count("time_skipped"), skipped, "the town turned all the while");
    world.stop().await;
}

/// One effect waits for room in the gateway, another for an instance that takes 30 s to start.
#[tokio::test]
async fn a_cold_start_and_an_effect_that_hangs_leave_the_wall_clock_of_ticks_where_it_was() {
    let cast = Cast::of([endless()]);
    let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
    let starts = [HostAct { takes: Duration::from_secs(30), fails: None }].into();
    let cold = Arc::new(ScriptedRunner::new(Script { starts, ..Script::default() }));
    let warm = || Arc::new(ScriptedRunner::new(Script::default()));
    let hour = Period::from_secs(3_600);
    let instance = Some(InstanceConfig::scripted(hour, ScriptedHost::default()));
    let cradle = Cradle {
        gateway: gateway::Config { running_max: 1, queued_max: 1, ..gateway::Config::default() },
        entry: AgentConfig { instance, ..AgentConfig::of_provider("p") },
        hosts: vec![("cold", Arc::clone(&cold)), ("three", warm()), ("two", warm())],
        ..Cradle::of(&journal, &["cold", "three", "two"])
    };
    let world = World::begin(cradle, &cast, swift()).await;
    world.add("a", &[]).await;
    world.until("the cold start", |_| !cold.calls().is_empty()).await;
    // Somebody else takes all the room that there is.
    let take_room = |n: u32| {
        let caller = Caller { actor: Actor::Local, channel: Channel::Http, trace: None };
        let session = SessionId::parse(&format!("s{n}")).ok();
        let request = SendRequest { session, ..SendRequest::new(agent("three"), "work".to_owned()) };
        world.gateway.send(caller, request).is_ok()
    };
    assert!((0..9).any(|n| !take_room(n)), "there is room without end");
    let effects = |outcome: &str| {
        world.scraped(&format!("plimsoll_reconciler_effects_total{{town=\"main\",outcome=\"{outcome}\"}}"))
    };
    let ended = effects("succeeded");
    world.add("b", &[]).await;
    world.until("an effect that hangs", |_| effects("attempted") > ended).await;
    for _ in 0..20 {
        world.ticks().await;
        let tick = world.reconciler.status(&town()).expect("there is a town").last_tick.expect("it ticked");
        assert!(tick.wall_clock_ms < 1_000.0, "{tick:?}");
    }
    assert_eq!((effects("succeeded"), effects("failed")), (ended, 0), "it still hangs");
    let calls: Vec<_> = cold.calls().into_iter().map(|(call, _)| call).collect();
    assert_eq!(calls, ["start"], "it still starts");
    world.stop().await;
}

/// Between two looks what hosts the agent ended, came back, and ended again.
#[tokio::test]
async fn exited_running_exited_between_two_looks_leaves_both_exits() {
    let cast = Cast::of([endless()]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    world.until("it is seen", |town| town.agents()[&agent("one")].container.is_some()).await;
    let record = |kind, reason: &str| NewRecord {
        kind,
        version: 1,
        actor: Actor::System,
        trace_id: None,
        detail: json!({"reason": reason}),
    };
    let records = vec![record("exited", "first"), record("lazy_start", ""), record("exited", "second")];
    let stream = StreamId::instance(&agent("one"));
    world.journal.append(Append { stream, expected_last_seq: None, records }).await.expect("appended");
    let exits = || -> Vec<_> {
        let records = world.records().into_iter().filter(|record| record.kind == "container_status");
        let exits = records.filter(|record| record.detail["status"] == "exited");
        exits.map(|record| record.detail["exit_reason"].clone()).collect()
    };
    world.ticks().await;
    world.until("both exits", |_| exits().len() == 2).await;
    assert_eq!(exits(), [json!("first"), json!("second")]);
    world.stop().await;
}
