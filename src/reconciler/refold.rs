//! Whether a town is what its events make it (invariant 1): looked at after the start, and whenever it was written down.
//!
//! The events are folded from before the newest snapshot on, off the runtime, while the town turns on.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::executor::Executor;
use super::history::{History, Past};
use super::replay::ReplayError;
use crate::limits::REPLAY_EVENTS_MAX;
use crate::town::Town;
use crate::town::event::TownEvent;
use crate::town::invariant::{Scope, Violation, check_fold, episodes};

/// Looks once, and makes an episode of what does not hold.
pub(super) async fn check(executor: Arc<Executor>) {
    // Nobody closes it.
    let Ok(_place) = executor.checks.acquire().await else { return };
    let looking = Arc::clone(&executor);
    let found = spawn_blocking(move || differences(&looking)).await;
    let found = match found.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic())) {
        Ok(found) => found,
        // What it was made from is not kept any more, or plimsoll ends.
        Err(ReplayError::BeforeHistory { .. } | ReplayError::Stopped) => return,
        Err(error) => {
            tracing::warn!(source = "reconciler", town = %executor.cell.id, %error, "a town could not be checked against its events");
            return;
        }
    };
    for violation in &found {
        tracing::error!(source = "reconciler", town = %executor.cell.id, invariant = violation.invariant, message = %violation.message, "an invariant does not hold");
    }
    let events = news(&executor.cell.drained().town, &found);
    if !events.is_empty() {
        executor.tell(events).await;
    }
}

fn differences(executor: &Executor) -> Result<Vec<Violation>, ReplayError> {
    let (town, at) = {
        let book = executor.cell.drained();
        (book.town.clone(), book.at)
    };
    let journal = &*executor.pen.journal;
    let go_on = || !executor.closing.is_cancelled();
    let past = Past {
        history: History::Live(journal),
        town: &executor.cell.id,
        events_max: REPLAY_EVENTS_MAX,
        go_on: &go_on,
    };
    Ok(check_fold(&town, &past.folded_anew(at.next())?))
}

/// At most as many as one append takes: one town differs in one place.
fn news(town: &Town, found: &[Violation]) -> Vec<TownEvent> {
    let mut events = episodes(town, found, Scope::Fold).events;
    events.truncate(crate::limits::JOURNAL_GROUP_RECORDS_MAX);
    events
}
