//! Starts from a snapshot that holds a town that cannot be read.

use serde_json::{Value, json};

use super::world::{Act, Cast, Cradle, World, bead, swift, town};
use crate::ids::{Seq, TownId};
use crate::journal::{Actor, Append, Journal as _, NewRecord, StreamId};
use crate::reconciler::SubmitError;
use crate::town::event::TownEvent;
use crate::town::words::{AgentStatus, BeadStatus};

const DONE: &str = r#"{"outcome":"done"}"#;

fn other() -> TownId {
    TownId::parse("other").expect("an id")
}

/// A life that ended with a bead closed and a second town; the town was written down before that, and its last snapshot is
/// that of another plimsoll.
async fn life(cast: &std::sync::Arc<Cast>) -> (World, Value) {
    let world = World::new(&["one"], cast, swift()).await;
    world.reconciler.create_town(&Actor::Local, other(), swift()).await.expect("it is made");
    world.journal.take_snapshot();
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    world.stop().await;
    let mut kept = world.reconciler.fold().snapshot();
    kept["main"]["town"]["version"] = 99.into();
    (world, kept)
}

#[tokio::test]
async fn a_town_whose_snapshot_cannot_be_read_is_made_anew_from_an_older_one() {
    let cast = Cast::of([Act::Say(DONE)]);
    let (world, forged) = life(&cast).await;
    let next = World::from(&world.journal, Some(&forged), &["one"], &cast, swift()).await;
    next.add("b", &[]).await;
    next.ends("b", BeadStatus::Closed).await;
    let closed = next.reconciler.look(&town(), |town, _| town.closed().contains_key(&bead("a")));
    assert_eq!(closed, Some(true), "what was done is known");
    assert_eq!((next.count("town_created"), next.count("violation_opened")), (1, 0), "{:#?}", next.kinds());
    assert!(!next.reconciler.is_set_aside(&town()));
    next.stop().await;
}

#[tokio::test]
async fn a_town_that_a_later_plimsoll_went_on_with_is_not_made_anew_without_that() {
    let cast = Cast::of([Act::Say(DONE)]);
    let (world, forged) = life(&cast).await;
    let detail = json!({"bead": "a"});
    let record = NewRecord { kind: "bead_praised", version: 1, actor: Actor::Local, trace_id: None, detail };
    let append = Append { stream: StreamId::town(&town()), expected_last_seq: None, records: vec![record] };
    world.journal.append(append).await.expect("it is taken");
    let next = World::from(&world.journal, Some(&forged), &["one"], &cast, swift()).await;
    next.holds("it is put aside", || next.reconciler.is_set_aside(&town())).await;
    next.stop().await;
    assert_eq!(next.reconciler.fold().snapshot()["main"]["town"], forged["main"]["town"]);
}

#[tokio::test]
async fn a_town_that_nothing_readable_is_left_of_is_put_aside_and_the_others_go_on() {
    let cast = Cast::of([Act::Say(DONE)]);
    let (world, forged) = life(&cast).await;
    // Its first events are gone, and so is every snapshot but the last.
    let journal = &world.journal;
    journal.drop_before(Seq(journal.status().last.0));
    let mut next = World::from(journal, Some(&forged), &["one"], &cast, swift()).await;
    for life in 1..3 {
        let aside = || next.reconciler.is_set_aside(&town());
        next.holds("it is put aside", aside).await;
        next.holds("an episode says so", || next.count("violation_opened") == 1).await;
        let status = next.reconciler.status(&town()).expect("it is there");
        assert!(status.set_aside.is_some_and(|why| why.contains("cannot be read")));
        let refused = next.reconciler.submit(&town(), &Actor::Local, TownEvent::DrainEnded {}).await;
        assert!(matches!(refused, Err(SubmitError::SetAside(_))), "{refused:?}");
        assert!(next.reconciler.look(&town(), |_, _| ()).is_none());
        assert!(matches!(next.reconciler.absence(&town()), SubmitError::SetAside(_)));
        assert_eq!(next.reconciler.towns(), [town(), other()]);
        next.reconciler
            .submit(&other(), &Actor::Local, TownEvent::DrainStarted { reason: None })
            .await
            .expect("taken");
        let ticked = || {
            let status = next.reconciler.status(&other()).expect("it is there");
            status.draining && status.last_tick.is_some_and(|tick| tick.events_drained > 0)
        };
        next.holds("the other one turns", ticked).await;
        next.stop().await;
        let kept = next.reconciler.fold().snapshot();
        assert_eq!(kept["main"]["town"], forged["main"]["town"], "life {life}");
        assert_eq!(next.count("town_created"), 0, "{:#?}", next.kinds());
        let ended = TownEvent::DrainEnded {};
        let cradle = Cradle { snapshot: Some(&kept), ..Cradle::of(journal, &["one"]) };
        next = World::begin(cradle, &cast, swift()).await;
        next.reconciler.submit(&other(), &Actor::Local, ended).await.expect("taken");
    }
    next.stop().await;
}

#[tokio::test]
async fn violations_are_counted_on_after_a_restart_with_and_without_a_snapshot() {
    for with_snapshot in [false, true] {
        let cast = Cast::of([Act::Say(DONE)]);
        let world = World::new(&["one"], &cast, swift()).await;
        let opened = |world: &World| {
            world.scraped(
                r#"plimsoll_invariant_violations_total{town="main",invariant="7_working_without_hook"}"#,
            )
        };
        for times in 1..3 {
            assert!(world.reconciler.drill().damage(&town()).await);
            world.holds("it is over", || world.count("violation_resolved") == times).await;
        }
        world.stop().await;
        assert_eq!(opened(&world), 2);
        let kept = with_snapshot.then(|| world.reconciler.fold().snapshot());
        let next = World::from(&world.journal, kept.as_ref(), &["one"], &cast, swift()).await;
        assert_eq!(opened(&next), 2, "with a snapshot: {with_snapshot}");
        next.until("it is idle", |town| town.agent_count(AgentStatus::Idle) == 1).await;
        assert!(next.reconciler.drill().damage(&town()).await);
        next.holds("it is counted", || opened(&next) == 3).await;
        next.stop().await;
    }
}
