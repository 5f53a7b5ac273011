//! Reports of progress that come faster than they tell anything: one in a while is written, and those in between count as it.
//!
//! What is remembered for that is in memory alone: after a restart the first report is written again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cell::Cell;
use super::desk::{SubmitError, Submitted};
use super::service::Inner;
use crate::ids::{AgentId, DispatchId, IdempotencyKey, Seq};
use crate::journal::Actor;
use crate::limits::{TOWN_COALESCED_KEYS_MAX, TOWN_PROGRESS_EVERY};
use crate::town::event::Report;
use crate::town::state::Rejected;
use crate::town::{Policy, Town, TownEvent};

/// See the module. The std mutexes suffice: a hold is a few map operations.
#[derive(Default)]
pub(super) struct Coalescing {
    /// By agent, what was written last; held by who writes, so that of reports that come at once one is written.
    last: Mutex<BTreeMap<AgentId, Slot>>,
    /// The reports that were not written.
    keys: Mutex<Keys>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Written>>>;

/// A report that was written.
struct Written {
    dispatch_id: DispatchId,
    seq: Seq,
    /// By the monotonic clock.
    at: Duration,
}

#[derive(Default)]
struct Keys {
    known: BTreeMap<Name, (Seq, Arc<str>)>,
    oldest_first: VecDeque<Name>,
}

/// Who reported it, and its own name for it.
type Name = (Arc<str>, IdempotencyKey);

impl Coalescing {
    /// The answer to a report of a key that counted as another's event.
    ///
    /// # Errors
    /// [`Rejected::KeyReused`] when it is another report.
    pub(super) fn known(&self, report: &Report) -> Result<Option<Submitted>, Rejected> {
        let Report { by, key, body } = report;
        match self.keys().known.get(&(by.clone(), key.clone())) {
            None => Ok(None),
            Some((seq, known)) if known == body => {
                Ok(Some(Submitted { seq: *seq, repeated: true, coalesced: true }))
            }
            Some((seq, _)) => Err(Rejected::KeyReused { first: *seq }),
        }
    }

    fn keep(&self, report: &Report, seq: Seq) {
        let Report { by, key, body } = report;
        let name = (by.clone(), key.clone());
        let mut keys = self.keys();
        keys.oldest_first.push_back(name.clone());
        keys.known.insert(name, (seq, body.clone()));
        if keys.oldest_first.len() > TOWN_COALESCED_KEYS_MAX
            && let Some(oldest) = keys.oldest_first.pop_front()
        {
            keys.known.remove(&oldest);
        }
    }

    /// Where it stands what was written last of an agent of this town.
    fn slot(&self, town: &Town, agent: &AgentId) -> Slot {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() > town.agents().len() {
            last.retain(|id, _| town.agents().contains_key(id));
        }
        Arc::clone(last.entry(agent.clone()).or_default())
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Within how long of one report another of the same dispatch says nothing new: often enough that neither the ladder nor the
/// rule of lost agents takes the silence in between for one.
fn window(policy: &Policy) -> Duration {
    TOWN_PROGRESS_EVERY.min(policy.stuck.nudge_after.0 / 3).min(policy.lost.quiet_after.0 / 3)
}

impl Inner {
    /// Takes a report of progress in: written, or counted as the one that was written shortly before.
    pub(super) async fn take_progress(
        &self,
        cell: &Cell,
        actor: &Actor,
        event: &TownEvent,
        (agent, dispatch_id, report): (&AgentId, &DispatchId, &Report),
    ) -> Result<Submitted, SubmitError> {
        let check = |town: &Town| match town.check(self.pen.journal.now(), event) {
            Ok(()) => Ok(None),
            Err(Rejected::Repeated { first }) => Ok(Some(Submitted::again(first))),
            Err(rejected) => Err(SubmitError::from(rejected)),
        };
        let (slot, window) = {
            let book = cell.drained();
            if let Some(again) = check(&book.town)? {
                return Ok(again);
            }
            (cell.coalescing.slot(&book.town, agent), window(book.town.policy()))
        };
        let mut last = slot.lock().await;
        // It may have come twice at once.
        let again = check(&cell.drained().town)?.or(cell.coalescing.known(report)?);
        if let Some(again) = again {
            return Ok(again);
        }
        let now = self.pen.clock.elapsed();
        let recent = last
            .as_ref()
            .filter(|last| last.dispatch_id == *dispatch_id && now.saturating_sub(last.at) < window);
        if let Some(recent) = recent {
            cell.coalescing.keep(report, recent.seq);
            return Ok(Submitted { seq: recent.seq, repeated: false, coalesced: true });
        }
        let submitted = self.pen.submit(cell, actor, event).await?;
        if !submitted.repeated {
            *last = Some(Written { dispatch_id: dispatch_id.clone(), seq: submitted.seq, at: now });
        }
        Ok(submitted)
    }
}
