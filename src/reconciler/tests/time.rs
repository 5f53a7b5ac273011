//! Town time: what counts, and what does not, while the clock is set and plimsoll is not there.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Act, Cast, Cradle, World, agent, bead, joins, swift, town};
use crate::clock::{Clock, ManualTime, Timestamp};
use crate::ids::DispatchId;
use crate::journal::{Actor, Append, Journal as _, MemoryJournal, NewRecord, StreamId, kinds};
use crate::notify::ALARMS_TOLD;
use crate::reconciler::Held;
use crate::town::event::TownEvent;
use crate::town::plan::Wait;
use crate::town::words::{BeadStatus, ContainerStatus, Role};
use crate::units::Period;

const DONE: &str = r#"{"outcome":"done"}"#;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A clock that stands, and a journal by it.
fn by_hand() -> (Clock, Arc<ManualTime>, Arc<MemoryJournal>) {
    let (clock, hand) = Clock::manual(START);
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    (clock, hand, journal)
}

/// How much each `time_skipped` leaves out, in milliseconds.
fn skipped(world: &World) -> Vec<u64> {
    let records = world.records();
    let skipped = records.iter().filter(|record| record.kind == "time_skipped");
    skipped.map(|record| record.detail["ms"].as_u64().expect("a number")).collect()
}

/// An agent of a runtime elsewhere works on `a`.
async fn works_elsewhere(clock: &Clock, journal: &Arc<MemoryJournal>, cast: &Arc<Cast>) -> World {
    let cradle = Cradle { clock: clock.clone(), ..Cradle::of(journal, &[]) };
    let world = World::begin(cradle, cast, swift()).await;
    world.submit(joins("ext", Role::Worker)).await;
    world.add("a", &[]).await;
    world.until("it is dispatched", |town| town.hooked_to(&bead("a")).next().is_some()).await;
    world
}

/// How long ago the dispatch began that `ext` holds, on the town's clock; none if it holds none.
fn age(world: &World) -> Option<Duration> {
    let now = world.journal.now();
    let age = world.reconciler.look(&town(), |town, _| {
        let hook = town.agents().get(&agent("ext"))?.hook.as_ref()?;
        Some(town.clock(now).since(hook.since))
    });
    age.expect("there is a town")
}

#[tokio::test]
async fn a_clock_that_is_set_ahead_and_back_leaves_ages_as_they_were_and_back_offs_end() {
    let (clock, hand, journal) = by_hand();
    let cast = Cast::of([Act::Fail, Act::Say(DONE)]);
    let mut policy = swift();
    policy.dispatch.backoff = vec![Period(90 * Duration::from_secs(1))];
    let cradle = Cradle { clock: clock.clone(), ..Cradle::of(&journal, &["one"]) };
    let world = World::begin(cradle, &cast, policy).await;
    world.add("a", &[]).await;
    world.until("it failed", |town| town.beads()[&bead("a")].tries.failed_at.is_some()).await;
    hand.set_wall(START.after(10 * HOUR));
    world.ticks_at(&hand).await;
    assert_eq!(skipped(&world), [10 * 3_600_000], "ages leave the jump out");
    assert_eq!(world.count("bead_dispatched"), 1);
    hand.set_wall(START);
    for _ in 0..4 {
        hand.advance(MINUTE / 2);
        world.ticks_at(&hand).await;
    }
    world.ends("a", BeadStatus::Closed).await;
    assert_eq!(skipped(&world).iter().sum::<u64>(), 10 * 3_600_000);
    world.stop().await;
}

#[tokio::test]
async fn the_time_in_which_plimsoll_was_down_does_not_count_whatever_the_start_wrote() {
    for (down, cut) in [(10 * MINUTE, false), (10 * HOUR, false), (10 * HOUR, true)] {
        let (clock, hand, journal) = by_hand();
        let cast = Cast::of([Act::Say(DONE)]);
        let world = works_elsewhere(&clock, &journal, &cast).await;
        world.reconciler.cut().await;
        hand.advance(down);
        if cut {
            // What the journal does when it opens after a kill.
            let detail = serde_json::json!({"log": "work", "seq": 1, "cause": "torn"});
            let (kind, actor) = (kinds::END_CUT, Actor::System);
            let records = vec![NewRecord { kind, version: 1, actor, trace_id: None, detail }];
            let append = Append { stream: StreamId::operator(), expected_last_seq: None, records };
            journal.append(append).await.expect("it is taken");
        }
        let cradle = Cradle { clock: clock.clone(), ..Cradle::of(&journal, &[]) };
        let next = World::begin(cradle, &cast, swift()).await;
        next.ticks_at(&hand).await;
        let left: u64 = skipped(&next).iter().sum();
        assert!(u128::from(left).abs_diff(down.as_millis()) <= MINUTE.as_millis(), "{left} of {down:?}");
        assert!(age(&next).is_some_and(|age| age < MINUTE), "{:?} {:#?}", age(&next), next.kinds());
        next.stop().await;
    }
}

/// Letters that go out while plimsoll ends are the last that it writes; what the journal tells at a start may be much more.
#[tokio::test]
async fn the_time_in_which_plimsoll_was_down_does_not_count_however_many_letters_it_sent_at_its_end() {
    for dropped in [0, 150] {
        let (clock, hand, journal) = by_hand();
        let cast = Cast::of([Act::Say(DONE)]);
        let world = works_elsewhere(&clock, &journal, &cast).await;
        world.reconciler.cut().await;
        let write = async |kind, times| {
            for _ in 0..times {
                let (detail, actor) = (serde_json::json!({}), Actor::System);
                let records = vec![NewRecord { kind, version: 1, actor, trace_id: None, detail }];
                let append = Append { stream: StreamId::operator(), expected_last_seq: None, records };
                journal.append(append).await.expect("it is taken");
            }
        };
        write(ALARMS_TOLD, 30).await;
        hand.advance(10 * HOUR);
        write(kinds::PARTITION_DROPPED, dropped).await;
        let cradle = Cradle { clock: clock.clone(), ..Cradle::of(&journal, &[]) };
        let next = World::begin(cradle, &cast, swift()).await;
        next.ticks_at(&hand).await;
        let left: u64 = skipped(&next).iter().sum();
        assert!(u128::from(left).abs_diff((10 * HOUR).as_millis()) <= MINUTE.as_millis(), "{left}");
        next.stop().await;
    }
}

/// What is asked of a town has one clock, wherever it is asked.
#[tokio::test]
async fn while_the_clock_stands_behind_every_answer_has_the_time_of_the_journal() {
    let (clock, hand, journal) = by_hand();
    let cast = Cast::of([Act::Say(DONE)]);
    let world = works_elsewhere(&clock, &journal, &cast).await;
    hand.advance(MINUTE / 2);
    world.ticks_at(&hand).await;
    world.submit(TownEvent::DrainStarted { reason: None }).await;
    hand.set_wall(START);
    world.ticks_at(&hand).await;
    let status = world.reconciler.status(&town()).expect("there is a town");
    assert_eq!(status.last_tick.as_ref().map(|tick| tick.at), Some(journal.now()));
    let Wait::Dispatched { for_ms: in_status, .. } = status.waits[0].wait else { panic!("{status:?}") };
    let Some(Held::Work(held)) = world.reconciler.held(&town(), &agent("ext")) else { panic!("it holds it") };
    let age = u64::try_from(age(&world).expect("it holds it").as_millis()).expect("small");
    assert_eq!((in_status, held.for_ms), (age, age));
    world.stop().await;
}

#[tokio::test]
async fn the_time_in_which_plimsoll_was_there_counts_although_nothing_was_written() {
    let (clock, hand, journal) = by_hand();
    let cast = Cast::of([Act::Say(DONE)]);
    let world = works_elsewhere(&clock, &journal, &cast).await;
    let running = TownEvent::ContainerStatus {
        agent: agent("ext"),
        dispatch_id: DispatchId::parse("a.1").ok(),
        status: ContainerStatus::Running,
        exit_reason: None,
        report: None,
    };
    world.submit(running).await;
    for _ in 0..12 {
        hand.advance(50 * Duration::from_secs(1));
        world.ticks_at(&hand).await;
    }
    world.reconciler.cut().await;
    let cradle = Cradle { clock: clock.clone(), ..Cradle::of(&journal, &[]) };
    let next = World::begin(cradle, &cast, swift()).await;
    next.ticks_at(&hand).await;
    assert!(age(&next).is_some_and(|age| age > 9 * MINUTE), "{:?} {:#?}", age(&next), next.kinds());
    assert!(skipped(&next).len() <= 8, "a sign of life a minute at most: {:?}", skipped(&next));
    next.stop().await;
}

#[tokio::test]
async fn a_town_in_which_nothing_grows_older_gives_no_sign_of_life() {
    let (clock, hand, journal) = by_hand();
    let cast = Cast::of([Act::Say(DONE)]);
    let cradle = Cradle { clock: clock.clone(), ..Cradle::of(&journal, &["one"]) };
    let world = World::begin(cradle, &cast, swift()).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    let every = || world.reconciler.status(&town()).expect("a town").cadence.every_ms;
    world.holds("it rests", || every() == 300_000).await;
    let before = world.records().len();
    for _ in 0..3 {
        hand.advance(5 * MINUTE);
        world.ticks_at(&hand).await;
    }
    assert_eq!(world.records().len(), before, "{:#?}", world.kinds());
    world.stop().await;
}
