//! How work ends: as an agent says, after reviews, after failures, and when nobody can read what was said.

use std::sync::Arc;

use tokio::sync::Notify;

use super::world::{Act, Cast, World, agent, bead, swift};
use crate::clock::Clock;
use crate::gateway::UnderWay;
use crate::journal::{Actor, MemoryJournal};
use crate::town::words::BeadStatus;

const DONE: Act = Act::Say(r#"{"outcome":"done","summary":"it works"}"#);

#[tokio::test]
async fn beads_are_handed_out_in_the_order_of_their_dependencies_and_close() {
    let cast = Cast::of([DONE]);
    let world = World::new(&["one", "two"], &cast, swift()).await;
    world.add("a", &[]).await;
    world.add("b", &["a"]).await;
    world.add("c", &["b"]).await;
    world.ends("c", BeadStatus::Closed).await;
    let told = cast.told(3).await;
    let order: Vec<_> = told.iter().map(|told| told.split(':').next().expect("a start")).collect();
    assert_eq!(order, ["Task a", "Task b", "Task c"]);
    assert!(told.iter().all(|told| told.contains("with care")), "{told:?}");
    assert_eq!((world.count("bead_dispatched"), world.count("event_rejected")), (3, 0));
    world.stop().await;
}

#[tokio::test]
async fn a_bead_that_always_fails_ends_in_few_tries_and_a_person_is_told() {
    let cast = Cast::of([Act::Fail]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Failed).await;
    assert_eq!(world.count("bead_dispatched"), 5);
    world.until("an escalation", |town| town.beads().contains_key(&bead("a.e1"))).await;
    let why = "the provider failed: the echo provider was configured to fail";
    let shown = world.shown("a");
    assert_eq!((shown["status"].as_str(), shown["failure"].as_str()), (Some("failed"), Some(why)), "{shown}");
    let shown = world.shown("a.e1");
    assert_eq!(shown["summary"].as_str(), Some(why), "{shown}");
    world.stop().await;
}

#[tokio::test]
async fn an_ending_that_cannot_be_read_is_asked_for_once_more_and_then_left_to_a_person() {
    let cast = Cast::of([Act::Say("I am done.")]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    world
        .until("it waits for a person", |town| {
            town.beads().get(&bead("a")).is_some_and(|bead| bead.waits.human.is_some())
        })
        .await;
    let told = cast.told(2).await;
    assert_eq!(told.len(), 2);
    assert!(told[1].starts_with("Your last answer did not say how the work on a ended."), "{told:?}");
    world.stop().await;
}

/// Waits until a person has to say how bead `a` ended, which went out once, and returns what that person is told.
async fn is_left_to_a_person(world: &World) -> String {
    world
        .until("it waits for a person", |town| {
            town.beads().get(&bead("a")).is_some_and(|bead| bead.waits.human.is_some())
        })
        .await;
    assert_eq!(world.count("bead_dispatched"), 1, "{:#?}", world.kinds());
    assert_eq!(world.count("dispatch_lost"), 0, "{:#?}", world.kinds());
    world.shown("a.e1")["summary"].as_str().expect("it is told why").to_owned()
}

#[tokio::test]
async fn work_that_is_done_is_not_done_again_because_a_limit_keeps_the_question_back() {
    let cast = Cast::of([Act::Say("I am done.")]);
    let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
    let world = World::limited(&journal, &["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    let told = is_left_to_a_person(&world).await;
    assert!(told.starts_with("it could not be asked how its work ended: "), "{told}");
    world.stop().await;
}

#[tokio::test]
async fn work_that_is_done_is_not_done_again_because_the_question_fails() {
    let cast = Cast::of([Act::Say("I am done."), Act::Fail]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    let told = is_left_to_a_person(&world).await;
    assert!(told.ends_with("the echo provider was configured to fail"), "{told}");
    world.stop().await;
}

#[tokio::test]
async fn work_that_is_done_is_not_done_again_because_a_pause_cuts_the_question() {
    let cast = Cast::of([Act::Say("I am done."), Act::Work(Arc::new(Notify::new()), "")]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(2).await;
    world.gateway.pause(Actor::Local, Some(agent("one")), UnderWay::Cancel).await.expect("it is there");
    is_left_to_a_person(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn work_that_is_done_is_not_done_again_because_plimsoll_ends_during_the_question() {
    for killed in [false, true] {
        let cast = Cast::of([Act::Say("I am done."), Act::Work(Arc::new(Notify::new()), "")]);
        let world = World::new(&["one"], &cast, swift()).await;
        world.add("a", &[]).await;
        cast.told(2).await;
        if killed {
            world.reconciler.cut().await;
        } else {
            world.stop().await;
        }
        let next = World::over(&world.journal, &["one"], &cast, swift()).await;
        is_left_to_a_person(&next).await;
        next.stop().await;
    }
}

#[tokio::test]
async fn a_second_answer_that_can_be_read_is_enough() {
    let cast = Cast::of([Act::Say("I am done."), DONE]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    assert_eq!(world.count("bead_dispatched"), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_done_task_is_reviewed_and_goes_back_with_what_the_reviewer_says() {
    let mut policy = swift();
    policy.review.enabled = true;
    let changes = Act::Say(r#"{"verdict":"changes","notes":"add a test"}"#);
    let approved = Act::Say(r#"{"verdict":"approved"}"#);
    let cast = Cast::of([DONE, changes, DONE, approved]);
    let world = World::new(&["one", "reviewer"], &cast, policy).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    let told = cast.told(4).await;
    assert!(told[1].starts_with("Review the work on task a: do it"), "{told:?}");
    assert!(told[2].contains("add a test"), "{told:?}");
    assert_eq!((world.count("review_opened"), world.count("event_rejected")), (2, 0));
    world.stop().await;
}

#[tokio::test]
async fn a_verdict_on_a_task_says_nothing() {
    let cast = Cast::of([Act::Say(r#"{"verdict":"approved"}"#), DONE]);
    let world = World::new(&["one"], &cast, swift()).await;
    world.add("a", &[]).await;
    world.ends("a", BeadStatus::Closed).await;
    assert_eq!((cast.told(2).await.len(), world.count("event_rejected")), (2, 0));
    world.stop().await;
}

#[tokio::test]
async fn an_agent_that_hangs_holds_up_no_tick() {
    let never = Arc::new(Notify::new());
    let cast = Cast::of([Act::Work(never, ""), DONE]);
    let world = World::new(&["one", "two"], &cast, swift()).await;
    world.add("a", &[]).await;
    cast.told(1).await;
    for id in ["b", "c", "d"] {
        world.add(id, &[]).await;
        world.ends(id, BeadStatus::Closed).await;
    }
    assert_eq!(world.gateway.active().len(), 1, "the first still works");
    world.stop().await;
}
