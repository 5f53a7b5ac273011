//! What is sent more often than it means something: reports of progress, and what had no answer and is sent again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::world::{Act, Cast, Cradle, World, agent, bead, joins, swift, town};
use crate::clock::{Clock, Timestamp};
use crate::ids::{DispatchId, IdempotencyKey, Seq};
use crate::journal::{Actor, MemoryJournal};
use crate::reconciler::{Reconciler, SubmitError, Submitted};
use crate::town::Policy;
use crate::town::event::{Report, TownEvent};
use crate::town::state::Rejected;
use crate::town::words::{Outcome, Role};
use crate::units::Period;

const SECOND: Duration = Duration::from_secs(1);

/// A town in which `ext`, an agent of a runtime elsewhere, works on `a`.
async fn elsewhere(policy: Policy) -> World {
    let world = World::new(&[], &Cast::of([Act::Fail]), policy).await;
    begin_elsewhere(&world).await;
    world
}

async fn begin_elsewhere(world: &World) {
    world.submit(joins("ext", Role::Worker)).await;
    world.add("a", &[]).await;
    holds(world, "a.1").await;
}

async fn holds(world: &World, dispatch: &str) {
    world.until(dispatch, |town| town.holder(&id(dispatch)).is_some()).await;
}

fn id(dispatch: &str) -> DispatchId {
    DispatchId::parse(dispatch).expect("an id")
}

fn mark(key: &str, body: &str) -> Box<Report> {
    let key = IdempotencyKey::parse(key).expect("a key");
    Box::new(Reconciler::report(&Actor::Local, key, body.as_bytes()))
}

fn progress(key: &str, dispatch: &str) -> TownEvent {
    let report = Some(mark(key, &format!("progress {dispatch}")));
    TownEvent::AgentProgress { agent: agent("ext"), dispatch_id: id(dispatch), report }
}

fn done(key: &str, outcome: Outcome) -> TownEvent {
    let report = Some(mark(key, outcome.as_str()));
    TownEvent::AgentDone { agent: agent("ext"), dispatch_id: id("a.1"), outcome, summary: None, report }
}

async fn send(world: &World, event: TownEvent) -> Result<Submitted, SubmitError> {
    world.reconciler.submit(&town(), &Actor::Local, event).await
}

async fn answer(world: &World, event: TownEvent) -> (Seq, bool, bool) {
    let Submitted { seq, repeated, coalesced } = send(world, event).await.expect("it is taken");
    (seq, repeated, coalesced)
}

#[tokio::test]
async fn of_many_reports_of_progress_one_is_written_and_each_key_keeps_its_meaning() {
    let world = elsewhere(swift()).await;
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let answers = join_all(keys.iter().map(|key| answer(&world, progress(key, "a.1")))).await;
    assert_eq!(world.count("agent_progress"), 1, "{:#?}", world.kinds());
    let written: Vec<_> = answers.iter().filter(|(_, _, coalesced)| !coalesced).collect();
    assert_eq!((written.len(), written[0].1), (1, false));
    let first = written[0].0;
    assert!(answers.iter().all(|(seq, repeated, _)| (*seq, *repeated) == (first, false)), "{answers:?}");
    for key in &keys {
        let (seq, repeated, _) = answer(&world, progress(key, "a.1")).await;
        assert_eq!((seq, repeated), (first, true), "{key}");
        let other = send(&world, done(key, Outcome::Failed)).await;
        assert!(matches!(other, Err(SubmitError::Rejected(Rejected::KeyReused { .. }))), "{key} {other:?}");
    }
    assert_eq!(world.count("agent_progress"), 1);
    let (_, repeated, coalesced) = answer(&world, progress("next", "a.2")).await;
    assert_eq!(
        (repeated, coalesced, world.count("agent_progress")),
        (false, false, 2),
        "of another dispatch"
    );
    answer(&world, done("said", Outcome::Done)).await;
    assert_eq!(world.count("agent_done"), 1, "nothing else is coalesced");
    world.stop().await;
}

#[tokio::test]
async fn progress_is_written_again_long_before_its_silence_counts() {
    let mut policy = swift();
    policy.lost.quiet_after = Period::from_secs(1);
    let world = elsewhere(policy).await;
    let clock = Clock::system();
    let began = clock.elapsed();
    let reports = async {
        for n in 0_u32.. {
            answer(&world, progress(&format!("k{n}"), "a.1")).await;
            if world.count("agent_progress") >= 3 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(30), reports).await.expect("it is written again");
    let took = clock.elapsed().saturating_sub(began);
    assert!(took >= Duration::from_millis(600), "a third of a second apart: {took:?}");
    assert_eq!(world.count("dispatch_lost"), 0, "{:#?}", world.kinds());
    world.stop().await;
}

#[tokio::test]
async fn what_was_not_answered_and_is_sent_again_makes_one_bead() {
    let world = World::new(&[], &Cast::of([Act::Fail]), swift()).await;
    let created = |id: &str| TownEvent::BeadCreated {
        bead: bead(id),
        title: "t".into(),
        instructions: "".into(),
        role: Role::Worker,
        priority: 2,
        convoy: None,
        blocked_by: [].into(),
        report: Some(mark("k", "the same call")),
    };
    world.journal.hang();
    let gone = timeout(Duration::from_millis(50), send(&world, created("first"))).await;
    assert!(gone.is_err(), "nobody hears of it while the disk hangs");
    let reconciler = world.reconciler.clone();
    let again = created("second");
    let again = tokio::spawn(async move { reconciler.submit(&town(), &Actor::Local, again).await });
    // Both are on their way before the disk goes on.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.journal.go_on();
    let Submitted { seq, repeated, .. } = again.await.expect("it ends").expect("it is taken");
    assert!(repeated);
    let mark = mark("k", "");
    let made = world.reconciler.bead_made_with(&town(), &mark.by, &mark.key);
    assert_eq!((made, seq), (Some(bead("first")), world.records().last().expect("one").seq));
    let beads = world.reconciler.look(&town(), |town, _| town.beads().keys().cloned().collect::<Vec<_>>());
    assert_eq!(beads, Some(vec![bead("first")]));
    world.stop().await;
}

#[tokio::test]
async fn who_was_heard_in_between_is_not_silent_since_the_report_that_was_written() {
    let (clock, hand) = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    let cradle = Cradle { clock: clock.clone(), ..Cradle::of(&journal, &[]) };
    let world = World::begin(cradle, &Cast::of([Act::Fail]), swift()).await;
    begin_elsewhere(&world).await;
    let passes = async |seconds: u32| {
        // A tick every few seconds, as where there is work.
        for _ in 0..seconds / 5 {
            hand.advance(5 * SECOND);
            world.ticks_at(&hand).await;
        }
    };
    answer(&world, progress("first", "a.1")).await;
    passes(25).await;
    let (.., coalesced) = answer(&world, progress("second", "a.1")).await;
    assert!(coalesced);
    world.journal.refuse(Some("agent_progress"));
    let looks = || world.scraped("plimsoll_reconciler_observe_duration_seconds_count{town=\"main\"}");
    let before = looks();
    hand.advance(10 * SECOND);
    world.reconciler.cell(&town()).expect("it is there").wake();
    world.holds("a look", || looks() > before).await;
    world.journal.refuse(None);
    passes(70).await;
    assert_eq!((world.count("agent_progress"), world.count("dispatch_lost")), (2, 0), "{:#?}", world.kinds());
    passes(30).await;
    let kinds = world.kinds();
    assert_eq!((world.count("agent_progress"), world.count("dispatch_lost")), (2, 1), "{kinds:#?}");
    world.stop().await;
}
