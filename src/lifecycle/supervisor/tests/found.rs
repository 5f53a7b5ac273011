//! What runs of an instance that this plimsoll did not start, or was not told of.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_that_was_left_running_is_kept_without_a_start_and_stops_when_it_is_idle() {
    let stand = Stand::new(POLICY, Script { finds: [Find::Running].into(), ..Script::default() });
    stand.settle().await;
    assert_eq!(stand.state(), State::Idle);
    drop(stand.acquire().await.expect("up"));
    stand.pass(secs(60)).await;
    assert_eq!((stand.state(), stand.starts()), (State::Cold, 0));
    assert_eq!(stand.kinds(), ["adopted", "lazy_stop"]);
    assert!(stand.acquire().await.is_ok());
    assert_eq!((stand.starts(), stand.kinds().pop()), (1, Some("lazy_start".into())));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_left_running_serves_a_hot_start_and_its_end_is_seen() {
    let policy = Policy { start: Start::Hot, ..POLICY };
    let stand = Stand::new(policy, Script { finds: [Find::Running].into(), ..Script::default() });
    stand.pass(secs(40)).await;
    assert_eq!((stand.state(), stand.starts()), (State::Idle, 0));
    stand.runner.exit(Exit { code: Some(3), ..Exit::default() });
    stand.settle().await;
    assert_eq!(stand.kinds(), ["adopted", "exited", "lazy_start"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_left_running_is_looked_for_until_the_engine_can_tell() {
    let fails = Find::Fails(Failure { kind: FailureKind::Engine, error: "nothing listens".into() });
    let finds = [fails.clone(), fails.clone(), Find::Running].into();
    let stand = Stand::new(POLICY, Script { finds, ..Script::default() });
    stand.settle().await;
    assert_eq!(stand.state(), State::Cold);
    assert!(stand.kinds().is_empty());
    stand.pass(secs(3)).await;
    assert_eq!((stand.state(), stand.starts(), stand.kinds()), (State::Idle, 0, vec!["adopted".into()]));
    let stand = Stand::new(POLICY, Script { finds: [fails, Find::Stopped].into(), ..Script::default() });
    stand.settle().await;
    assert!(stand.acquire().await.is_ok(), "a start looks first, and does not wait for its time");
    assert_eq!(stand.kinds(), ["lost", "lazy_start"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_while_it_may_be_running_already() {
    let fails = Find::Fails(Failure { kind: FailureKind::Engine, error: "nothing listens".into() });
    let finds = [fails.clone(), fails, Find::Running].into();
    let stand = Stand::new(POLICY, Script { finds, ..Script::default() });
    stand.settle().await;
    let refused = stand.acquire().await;
    assert!(
        matches!(&refused, Err(Unavailable::Failed { failure, .. }) if failure.kind == FailureKind::Engine)
    );
    stand.pass(secs(3)).await;
    assert_eq!((stand.state(), stand.starts()), (State::Idle, 0));
    assert_eq!(stand.kinds(), ["lazy_start_failed", "adopted"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_stopped_leaves_its_row_although_the_rest_cannot_be_told_yet() {
    let failure = Failure { kind: FailureKind::Engine, error: "it does not answer".into() };
    let finds = [Find::StoppedAndFails(failure), Find::Running].into();
    let stand = Stand::new(POLICY, Script { finds, ..Script::default() });
    stand.settle().await;
    assert_eq!((stand.state(), stand.kinds()), (State::Cold, vec!["lost".into()]));
    stand.pass(secs(2)).await;
    assert_eq!((stand.state(), stand.kinds()), (State::Idle, vec!["lost".into(), "adopted".into()]));
}

#[tokio::test(start_paused = true)]
async fn what_was_left_running_is_looked_for_once_more_at_the_end_and_stopped() {
    let fails = Find::Fails(Failure { kind: FailureKind::Engine, error: "nothing listens".into() });
    let finds = [fails.clone(), Find::Running].into();
    let stand = Stand::new(POLICY, Script { finds, ..Script::default() });
    stand.settle().await;
    stand.instances.shut_down().await;
    assert_eq!((stand.state(), stand.kinds()), (State::Cold, vec!["lost".into()]));
    let stand = Stand::new(POLICY, Script { finds: [fails.clone(), fails].into(), ..Script::default() });
    stand.settle().await;
    stand.instances.shut_down().await;
    assert!(stand.kinds().is_empty(), "an engine that is away keeps nobody");
}

#[tokio::test(start_paused = true)]
async fn one_that_came_up_although_the_engine_did_not_say_so_is_found_and_kept() {
    let failure = Failure { kind: FailureKind::Engine, error: "it does not answer".into() };
    let starts = [Act { takes: secs(1), fails: Some(failure) }].into();
    let finds = [Find::Nothing, Find::Running].into();
    let stand = Stand::new(POLICY, Script { starts, finds, ..Script::default() });
    let (refused, ()) = tokio::join!(stand.acquire(), stand.pass(secs(1)));
    assert!(refused.is_err());
    stand.pass(secs(3)).await;
    assert_eq!((stand.state(), stand.starts()), (State::Idle, 1));
    assert_eq!(stand.kinds(), ["lazy_start_failed", "adopted"]);
}
