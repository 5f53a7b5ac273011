//! Ticks that go wrong: one that panics, one that cannot write, one whose plan is crossed, and one that the town refuses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::{Act, Cast, World, bead, joins, swift, town};
use crate::ids::TownId;
use crate::journal::{Actor, Append, NewRecord};
use crate::reconciler::cadence::BUSY;
use crate::reconciler::cell::Fault;
use crate::reconciler::desk::record;
use crate::town::event::TownEvent;
use crate::town::words::{BeadStatus, Role};

const DONE: &str = r#"{"outcome":"done"}"#;
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_tick_that_panics_puts_its_town_aside_until_the_next_start_and_the_others_go_on() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let other = TownId::parse("other").expect("an id");
    world.reconciler.create_town(&Actor::Local, other.clone(), swift()).await.expect("it is made");
    let cell = world.reconciler.cell(&town()).expect("it is there");
    cell.break_down(Some(Fault::PlanPanics));
    cell.wake();
    world.holds("it is put aside", || world.reconciler.is_set_aside(&town())).await;
    world.holds("an episode says so", || world.count("violation_opened") == 1).await;
    let series = |what| {
        format!(r#"plimsoll_invariant_violations_{what}{{town="main",invariant="9_open_bead_stranded"}}"#)
    };
    assert_eq!((world.scraped(&series("total")), world.scraped(&series("open"))), (1, 1));
    let status = world.reconciler.status(&town()).expect("it is there");
    assert!(status.set_aside.is_some_and(|why| why.contains("panicked")));
    assert_eq!(status.violations.iter().map(|found| found.invariant).collect::<Vec<_>>(), [9]);
    let drained = || {
        let status = world.reconciler.status(&other).expect("it is there");
        status.last_tick.filter(|tick| tick.events_drained > 0).is_some_and(|_| status.draining)
    };
    let drain = TownEvent::DrainStarted { reason: None };
    world.reconciler.submit(&other, &Actor::Local, drain).await.expect("it is taken");
    world.holds("the other one turns", drained).await;
    world.stop().await;
    let next = World::over(&world.journal, &["one"], &cast, swift()).await;
    next.holds("it is over", || next.count("violation_resolved") == 1).await;
    next.add("a", &[]).await;
    next.ends("a", BeadStatus::Closed).await;
    assert_eq!((next.count("violation_opened"), next.reconciler.is_set_aside(&town())), (1, false));
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_town_whose_every_tick_fails_says_since_when_and_why_and_is_overdue() {
    let cast = Cast::of([Act::Say(DONE)]);
    let (world, hand) = World::timed(&["one"], &cast, swift()).await;
    let status = || world.reconciler.status(&town()).expect("it is there");
    let overdue = || world.scraped(r#"plimsoll_reconciler_tick_overdue_seconds{town="main"}"#);
    let drained = || world.scraped(r#"plimsoll_reconciler_events_drained_total{town="main"}"#);
    world.holds("a tick", || status().last_tick.is_some()).await;
    let (began, before) = (crate::journal::Journal::now(&*world.journal), drained());
    world.journal.refuse(Some("bead_dispatched"));
    world.add("a", &[]).await;
    world.holds("it fails", || status().failing.is_some()).await;
    assert!(drained() > before, "what it took in is counted");
    for _ in 0..7 {
        hand.advance(MINUTE / 6);
        // Ticks that cannot write come and go.
        tokio::time::sleep(MINUTE / 6).await;
    }
    let failing = status().failing.expect("it fails");
    assert_eq!(failing.since, began);
    assert!(failing.why.contains("refuses this kind"), "{}", failing.why);
    assert!(overdue() >= 60, "{}", overdue());
    world.journal.refuse(None);
    world.ends("a", BeadStatus::Closed).await;
    world.holds("it is well again", || status().failing.is_none() && overdue() == 0).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_rejected_is_counted_once_also_while_nobody_can_be_told() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let rejected = || world.scraped(r#"plimsoll_reconciler_rejected_events_total{town="main"}"#);
    world.journal.refuse(Some("event_rejected"));
    world.write(&TownEvent::BeadReleased { bead: bead("nobody") }).await;
    let failing = || world.reconciler.status(&town()).is_some_and(|status| status.failing.is_some());
    world.holds("it cannot be told", failing).await;
    tokio::time::sleep(MINUTE).await;
    world.journal.refuse(None);
    world.holds("it is told", || world.count("event_rejected") == 1).await;
    world.ticks().await;
    assert_eq!(rejected(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_town_that_refuses_its_own_plan_is_asked_again_after_a_while() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let cell = world.reconciler.cell(&town()).expect("it is there");
    // Its check against its events has come to its end: it would make the town anew.
    world.ticks().await;
    world.ticks().await;
    world.reconciler.inner.executor(&town()).expect("it is kept").checks.rest().await;
    cell.break_down(Some(Fault::PlanRefused));
    world.add("a", &[]).await;
    let again = world.holds("it tries again", || world.count("bead_dispatched") >= 4);
    assert!(tokio::time::timeout(2 * BUSY, again).await.is_err(), "{:#?}", world.kinds());
    world.holds("it tries on", || world.count("bead_dispatched") >= 2).await;
    cell.break_down(None);
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
}

/// An event as an agent, a person or another town's end may have it written.
fn told(event: &TownEvent) -> NewRecord {
    record(event, Actor::System, None, None)
}

fn dispatches(append: &Append) -> bool {
    append.records.iter().any(|record| record.kind == "bead_dispatched")
}

#[tokio::test]
async fn a_plan_that_something_comes_before_is_not_written_and_the_town_plans_anew() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&["one"], &cast, swift()).await;
    let mut drain = Some(told(&TownEvent::DrainStarted { reason: None }));
    world.journal.cross(move |append| drain.take_if(|_| dispatches(append)));
    world.add("a", &[]).await;
    world.until("it drains", |town| town.draining().is_some()).await;
    world.ticks().await;
    world.ticks().await;
    assert_eq!(
        (world.count("bead_dispatched"), world.count("event_rejected")),
        (0, 0),
        "{:#?}",
        world.kinds()
    );
    world.submit(TownEvent::DrainEnded {}).await;
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
}

#[tokio::test]
async fn a_turn_that_is_crossed_again_and_again_keeps_others_out_and_then_leaves_it_to_the_next() {
    let cast = Cast::of([Act::Say(DONE)]);
    let world = World::new(&[], &cast, swift()).await;
    world.submit(joins("ext", Role::Worker)).await;
    let cell = world.reconciler.cell(&town()).expect("it is there");
    let alone = Arc::<Mutex<Vec<bool>>>::default();
    let seen = Arc::clone(&alone);
    // Each more urgent than the one before.
    let mut beads = (1..=5_u32).map(|number| TownEvent::BeadCreated {
        bead: bead(&format!("b{number}")),
        title: "do it".into(),
        instructions: "with care".into(),
        role: Role::Worker,
        priority: if number == 5 { 0 } else { 1 },
        convoy: None,
        blocked_by: [].into(),
        report: None,
    });
    world.journal.cross(move |append| {
        if !dispatches(append) {
            return None;
        }
        seen.lock().expect("no panic").push(cell.door.try_read().is_err());
        beads.next().map(|created| told(&created))
    });
    world.add("a", &[]).await;
    world.until("somebody holds a bead", |town| town.hooked().next().is_some()).await;
    let held = world.reconciler.look(&town(), |town, _| town.hooked_to(&bead("b5")).count());
    assert_eq!(held, Some(1), "the plan that counts knew of all that came before: {:#?}", world.kinds());
    assert_eq!(*alone.lock().expect("no panic"), [false, false, false, true, false, false]);
    assert_eq!((world.count("bead_dispatched"), world.count("event_rejected")), (1, 0));
    world.stop().await;
}
