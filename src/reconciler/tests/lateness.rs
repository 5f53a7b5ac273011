//! Ticks that come late.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::world::{Act, Cast, World, swift};
use crate::clock::Clock;
use crate::journal::MemoryJournal;
use crate::reconciler::cadence::BUSY;
use crate::town::words::BeadStatus;

/// A disk that takes the skip and not the plan behind it, tick after tick.
#[tokio::test(start_paused = true)]
async fn time_is_skipped_once_however_often_the_tick_fails_after_that() {
    let (clock, hand) = Clock::manual(Clock::system().now());
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    let cast = Cast::of([Act::Say(r#"{"outcome":"done"}"#)]);
    let world = World::over(&journal, &["one"], &cast, swift()).await;
    world.until("it turns", |town| !town.agents().is_empty()).await;
    journal.refuse(Some("bead_dispatched"));
    hand.set_wall(clock.now().after(Duration::from_secs(3_600)));
    world.add("a", &[]).await;
    sleep(4 * BUSY).await;
    assert_eq!(world.count("time_skipped"), 1, "{:?}", world.kinds());
    journal.refuse(None);
    world.ends("a", BeadStatus::Closed).await;
    assert_eq!(world.count("time_skipped"), 1, "{:?}", world.kinds());
    world.stop().await;
}
