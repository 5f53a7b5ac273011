//! Whether a town is what its events make it (invariant 1): looked at after the start, and whenever it was written down.
//! One that is not is made anew from them: they are the truth.
//!
//! The events are folded from before the newest snapshot on, off the runtime, while the town turns on. A snapshot may be
//! wrong itself, taken while the town was: before a town is called wrong, all that is kept is folded.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::executor::Executor;
use super::history::{Folded, History, LastRead, Past};
use super::replay::ReplayError;
use super::turn;
use crate::ids::Seq;
use crate::town::Town;
use crate::town::event::TownEvent;
use crate::town::invariant::{Scope, Violation, check_fold, episodes};

/// How often the fold runs after a town that goes on meanwhile; each time there is less to take in.
const ADOPTIONS_MAX: u32 = 100;

/// The checks of all towns: one at a time, as each copies its town.
#[derive(Debug)]
pub(super) struct Checks {
    place: Semaphore,
    /// What they read, for as long as one of them is under way: a thousand towns stand in one snapshot.
    last_read: Mutex<Weak<LastRead>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { place: Semaphore::new(1), last_read: Mutex::default() }
    }
}

impl Checks {
    /// Waits until none is under way.
    #[cfg(test)]
    pub(super) async fn rest(&self) {
        drop(self.place.acquire().await.expect("nobody closes it"));
    }

    fn last_read(&self) -> Arc<LastRead> {
        let mut last_read = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        last_read.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *last_read = Arc::downgrade(&new);
            new
        })
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The start: the snapshot that it began with may be the last of several wrong ones.
    Start,
    /// A snapshot that was just taken.
    Snapshot,
}

/// A town that is not what its events make it.
struct Differing {
    found: Vec<Violation>,
    /// What they make, up to this record.
    folded: Folded,
    at: Seq,
}

/// Looks once, makes an episode of what does not hold, and ends it.
pub(super) async fn check(executor: Arc<Executor>, occasion: Occasion) {
    let last_read = executor.checks.last_read();
    // Nobody closes it.
    let Ok(_place) = executor.checks.place.acquire().await else { return };
    let looking = Arc::clone(&executor);
    let looked = read(&executor, move || look(&looking, &last_read, occasion)).await;
    let Some(looked) = looked else { return };
    if let Some(Differing { found, folded, at }) = looked {
        for violation in &found {
            tracing::error!(source = "reconciler", town = %executor.cell.id, invariant = violation.invariant, message = %violation.message, "an invariant does not hold");
        }
        tell(&executor, &found).await;
        let adopting = Arc::clone(&executor);
        match read(&executor, move || adopt(&adopting, folded, at)).await {
            Some(true) => {}
            Some(false) => {
                tracing::warn!(source = "reconciler", town = %executor.cell.id, "the town was told too much to be made anew from its events: the next snapshot has it tried again");
                return;
            }
            None => return,
        }
        tracing::warn!(source = "reconciler", town = %executor.cell.id, "the town was made anew from its events");
        executor.cell.wake();
    }
    tell(&executor, &[]).await;
}

/// Reads the journal off the runtime; `None` if that cannot be done now.
async fn read<T: Send + 'static>(
    executor: &Executor,
    look: impl FnOnce() -> Result<T, ReplayError> + Send + 'static,
) -> Option<T> {
    match turn::blocking(look).await {
        Ok(done) => Some(done),
        // What it was made from is not kept any more, or plimsoll ends.
        Err(ReplayError::BeforeHistory { .. } | ReplayError::Stopped) => None,
        Err(error) => {
            tracing::warn!(source = "reconciler", town = %executor.cell.id, %error, "a town could not be checked against its events");
            None
        }
    }
}

async fn tell(executor: &Executor, found: &[Violation]) {
    let events = news(&executor.cell.drained().town, found);
    if !events.is_empty() {
        executor.tell(events).await;
    }
}

fn look(
    executor: &Executor,
    last_read: &LastRead,
    occasion: Occasion,
) -> Result<Option<Differing>, ReplayError> {
    let (town, at) = {
        let book = executor.cell.drained();
        (book.town.clone(), book.at)
    };
    let go_on = || !executor.closing.is_cancelled();
    let past = Past { last_read: Some(last_read), ..past(executor, &go_on) };
    differing(&past, (&town, at), occasion)
}

fn past<'a>(executor: &'a Executor, go_on: &'a dyn Fn() -> bool) -> Past<'a> {
    let history = History::Live(&*executor.pen.journal);
    Past { history, town: &executor.cell.id, go_on, last_read: None }
}

fn differing(
    past: &Past<'_>,
    (town, at): (&Town, Seq),
    occasion: Occasion,
) -> Result<Option<Differing>, ReplayError> {
    let snapshots = match occasion {
        Occasion::Start => 2,
        Occasion::Snapshot => 1,
    };
    if check_fold(town, &past.folded_anew(at.next(), snapshots)?).is_empty() {
        return Ok(None);
    }
    let whole = past.folded_whole(at.next())?;
    let found = check_fold(town, &whole);
    let folded = Folded { town: whole, ..Folded::default() };
    Ok((!found.is_empty()).then_some(Differing { found, folded, at }))
}

/// Puts what the events make in the place of the town; false if the town was always further than the fold.
fn adopt(executor: &Executor, mut folded: Folded, mut at: Seq) -> Result<bool, ReplayError> {
    let go_on = || !executor.closing.is_cancelled();
    let past = past(executor, &go_on);
    for _ in 0..ADOPTIONS_MAX {
        let last = executor.cell.drained().at;
        past.each((at.next(), last.next()), |record| {
            folded.take(record);
            true
        })?;
        at = last;
        if executor.cell.adopt(&folded.town, at) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// At most as many as one append takes: one town differs in one place.
fn news(town: &Town, found: &[Violation]) -> Vec<TownEvent> {
    let mut events = episodes(town, found, Scope::Fold).events;
    events.truncate(crate::limits::JOURNAL_GROUP_RECORDS_MAX);
    events
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::replay::tests::{Told, town};
    use super::*;
    use crate::journal::Journal as _;
    use crate::town::state::tests::Play;

    /// What the journal makes of a town.
    fn made(told: &Told) -> Town {
        let mut folded = Folded::default();
        told.records().iter().for_each(|record| _ = folded.take(record));
        folded.town
    }

    fn wrong(town: &Town) -> Town {
        let mut snapshot = town.snapshot();
        snapshot["town"]["agents"]["w2"]["nudges"] = json!(true);
        Town::restore(&snapshot).expect("readable")
    }

    /// Two snapshots, of which the first is wrong, as after a town was made anew.
    #[test]
    fn a_wrong_snapshot_makes_no_right_town_wrong_and_no_wrong_town_right() {
        let mut play = Play::new();
        play.creates("a").creates("b");
        let told = Told::of(&play);
        told.forge(Some(wrong(&made(&told)).snapshot()));
        told.journal.take_snapshot();
        let cut = play.log.len();
        play.creates("c");
        told.tell(&play, cut..cut + 1);
        told.forge(None);
        told.journal.take_snapshot();
        let id = town();
        let past = Past {
            history: History::Live(&told.journal),
            town: &id,

            go_on: &|| true,
            last_read: Some(&LastRead::default()),
        };
        let (right, at) = (made(&told), told.journal.status().last);
        let is_wrong = |town: &Town, occasion| {
            let differing = differing(&past, (town, at), occasion).expect("readable");
            differing.map(|differing| differing.folded.town == right)
        };
        assert_eq!(is_wrong(&right, Occasion::Snapshot), None, "the snapshot before is wrong");
        assert_eq!(is_wrong(&wrong(&right), Occasion::Start), Some(true), "and here too");
        assert_eq!(is_wrong(&right, Occasion::Start), None);
    }
}
