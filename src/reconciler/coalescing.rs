//! Reports of progress that come faster than they tell anything: one in a while is written, and those in between count as it.
//! A tick writes for all of them that the agent was heard since, so that no silence seems longer than it is.
//!
//! What is remembered for that is in memory alone: after a restart the first report is written again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::cell::Cell;
use super::desk::{SubmitError, Submitted};
use super::service::Inner;
use crate::clock::Timestamp;
use crate::ids::{AgentId, DispatchId, IdempotencyKey, Seq};
use crate::journal::Actor;
use crate::limits::{JOURNAL_APPEND_WAIT, TOWN_COALESCED_KEYS_MAX, TOWN_KEY_AGE_MAX, TOWN_PROGRESS_EVERY};
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
    /// Whether reports came since that were not written.
    heard: bool,
}

/// An agent that was heard since its last progress was written.
pub(super) struct Heard {
    agent: AgentId,
    dispatch_id: DispatchId,
    /// When that was written.
    at: Duration,
}

impl Heard {
    pub(super) fn event(&self) -> TownEvent {
        let Self { agent, dispatch_id, .. } = self;
        TownEvent::AgentProgress { agent: agent.clone(), dispatch_id: dispatch_id.clone(), report: None }
    }
}

#[derive(Default)]
struct Keys {
    known: BTreeMap<Name, Counted>,
    oldest_first: VecDeque<Name>,
}

/// Who reported it, and its own name for it.
type Name = (Arc<str>, IdempotencyKey);

/// A report that counted as another's event.
struct Counted {
    seq: Seq,
    body: Arc<str>,
    /// In journal time, as the town keeps the other keys.
    at: Timestamp,
}

impl Coalescing {
    /// The answer to a report of a key that counted as another's event.
    ///
    /// # Errors
    /// [`Rejected::KeyReused`] when it is another report.
    pub(super) fn known(&self, report: &Report, now: Timestamp) -> Result<Option<Submitted>, Rejected> {
        let Report { by, key, body } = report;
        match self.keys().known.get(&(by.clone(), key.clone())) {
            Some(known) if now.since(known.at) > TOWN_KEY_AGE_MAX => Ok(None),
            Some(known) if known.body == *body => {
                Ok(Some(Submitted { seq: known.seq, repeated: true, coalesced: true }))
            }
            Some(known) => Err(Rejected::KeyReused { first: known.seq }),
            None => Ok(None),
        }
    }

    fn keep(&self, report: &Report, seq: Seq, at: Timestamp) {
        let Report { by, key, body } = report;
        let name = (by.clone(), key.clone());
        let mut keys = self.keys();
        let counted = Counted { seq, body: body.clone(), at };
        if keys.known.insert(name.clone(), counted).is_none() {
            keys.oldest_first.push_back(name);
        }
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

    /// Who was heard after what is written of it, once that is a while ago and the dispatch is still its own. Each is told
    /// once: it is to be written now, or [put back](Self::put_back).
    pub(super) fn take_unwritten(&self, town: &Town, now: Duration) -> Vec<Heard> {
        let window = window(town.policy());
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |(agent, slot): (&AgentId, &Slot)| {
            // Who holds it writes right now.
            let mut written = slot.try_lock().ok()?;
            let written = written.as_mut().filter(|written| written.heard)?;
            if now.saturating_sub(written.at) < window {
                return None;
            }
            let at = std::mem::replace(&mut written.at, now);
            written.heard = false;
            let own = &town.agents().get(agent)?.hook.as_ref()?.dispatch_id;
            let heard = || Heard { agent: agent.clone(), dispatch_id: own.clone(), at };
            (*own == written.dispatch_id).then(heard)
        };
        last.iter().filter_map(take).collect()
    }

    /// They were not written: the next tick tries again.
    pub(super) fn put_back(&self, heard: &[Heard]) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for Heard { agent, at, .. } in heard {
            if let Some(Ok(mut written)) = last.get(agent).map(|slot| slot.try_lock())
                && let Some(written) = written.as_mut()
            {
                (written.heard, written.at) = (true, *at);
            }
        }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Within how long of one report another of the same dispatch is not written: a third of what the ladder and the rule of lost
/// agents bear, so that a tick writes in time for those that came since.
fn window(policy: &Policy) -> Duration {
    TOWN_PROGRESS_EVERY.min(policy.stuck.nudge_after.0 / 3).min(policy.lost.quiet_after.0 / 3)
}

impl Inner {
    /// Takes an event in: written, or, if it is a report of progress, counted as the one that was written shortly before.
    pub(super) async fn take_in(
        &self,
        cell: &Cell,
        actor: &Actor,
        event: &TownEvent,
    ) -> Result<Submitted, SubmitError> {
        let TownEvent::AgentProgress { agent, dispatch_id, report: Some(report) } = event else {
            return self.pen.submit(cell, actor, event).await;
        };
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
        // No longer than who asked waits: while the journal hangs, nobody piles up here.
        let Ok(mut last) = timeout(JOURNAL_APPEND_WAIT, slot.lock()).await else {
            return Err(SubmitError::Busy);
        };
        // It may have come twice at once.
        let present = self.pen.journal.now();
        let again = check(&cell.drained().town)?.or(cell.coalescing.known(report, present)?);
        if let Some(again) = again {
            return Ok(again);
        }
        let now = self.pen.clock.elapsed();
        let recent = last
            .as_mut()
            .filter(|last| last.dispatch_id == *dispatch_id && now.saturating_sub(last.at) < window);
        if let Some(recent) = recent {
            recent.heard = true;
            cell.coalescing.keep(report, recent.seq, present);
            return Ok(Submitted { seq: recent.seq, repeated: false, coalesced: true });
        }
        let submitted = self.pen.submit(cell, actor, event).await?;
        if !submitted.repeated {
            let (dispatch_id, seq) = (dispatch_id.clone(), submitted.seq);
            *last = Some(Written { dispatch_id, seq, at: now, heard: false });
        }
        Ok(submitted)
    }
}
