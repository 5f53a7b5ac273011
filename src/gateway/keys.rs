//! Idempotency keys: a message that is sent with one runs once, however often it is sent.
//!
//! A key belongs to its caller and agent, and holds for 24 hours. Neither keys nor messages are kept, only hashes of
//! them. What must survive a restart is a fold over `request_accepted`, which is durable before the message runs, and
//! `request_finished`. What never ran leaves its key free. A key whose request was under way when plimsoll died is never forgotten before its time: whether
//! to run the message again is the caller's choice, with another key. Start at [`Keys::claim`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::active::Active;
use super::record::{Outcome, REQUEST_FINISHED};
use super::{Channel, Rejection, SendRequest};
use crate::clock::{Clock, Timestamp};
use crate::ids::{AgentId, IdempotencyKey, RequestId, SessionId, TraceId};
use crate::journal::{Actor, Append, Fold, Journal, NewRecord, Record, RecordHash, StreamId, StreamKind};
use crate::limits::{JOURNAL_APPEND_WAIT, JOURNAL_QUEUE_APPENDS_MAX};
use crate::provider::Speaker;

/// The kind of the record that is durable before a message with a key runs.
pub const REQUEST_ACCEPTED: &str = "request_accepted";

/// The version of its detail.
const REQUEST_ACCEPTED_VERSION: u16 = 1;

/// Nothing runs that is not in the journal.
pub(super) const NOT_ACCEPTED: Rejection =
    Rejection::JournalUnavailable { subject: "a message with an idempotency key" };

/// How long a key holds, from its request's acceptance.
const KEY_HOLDS: Duration = Duration::from_secs(24 * 3_600);

/// A hash that stands for a key or a message: SHA-256, as hexadecimal digits in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(RecordHash);

impl Fingerprint {
    /// Of these parts, each with its length, so that no two lists of parts are alike.
    fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self(RecordHash(hash.finalize().into()))
    }

    /// Of a caller's key for an agent.
    pub(super) fn of_key(actor: &Actor, agent: &AgentId, key: &IdempotencyKey) -> Self {
        Self::of([actor.to_string().as_str(), agent.as_str(), key.as_str()])
    }
}

/// What a caller claims: a key for a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) key: Fingerprint,
    /// Of all that the message says. The key is hashed with it, so that who reads the journal cannot try messages out.
    message: Fingerprint,
}

impl Wanted {
    /// What this request claims, if it has a key.
    pub(super) fn of(actor: &Actor, request: &SendRequest) -> Option<Self> {
        let key = request.idempotency_key.as_ref()?;
        let session = request.session.as_ref().map_or("", SessionId::as_str);
        let mut parts = vec![key.as_str(), session, &request.message];
        parts.push(request.system.as_deref().unwrap_or_default());
        for message in request.history.iter().flatten() {
            let role = match message.role {
                Speaker::User => "user",
                Speaker::Assistant => "assistant",
            };
            parts.extend([role, &*message.text]);
        }
        Some(Self { key: Fingerprint::of_key(actor, &request.agent, key), message: Fingerprint::of(parts) })
    }
}

/// All keys that hold. Register it as a fold of the journal; a std mutex suffices, every hold is a few map operations,
/// or a copy of some pointers for a snapshot.
pub(super) struct Keys {
    keys_max: usize,
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    all: HashMap<Fingerprint, Entry>,
    by_age: BTreeSet<(Duration, [u8; 32])>,
    /// Requests that ended before the journal answered for their acceptance, the oldest first: it may have them yet.
    given_up: VecDeque<RequestId>,
}

struct Entry {
    known: Arc<Known>,
    /// How long it holds, on the monotonic clock: a wall clock that is set makes no key shorter.
    until: Duration,
    /// Whether the journal has it.
    written: bool,
    /// The request, while this process has it under way.
    live: Option<Arc<Active>>,
}

/// What is known of the request that has a key; in snapshots as it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Known {
    key_hash: Fingerprint,
    message_hash: Fingerprint,
    pub(super) request_id: RequestId,
    pub(super) agent: AgentId,
    pub(super) session: SessionId,
    pub(super) accepted_at: Timestamp,
    /// How it ended, as far as that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
}

/// The detail of `request_accepted`, version 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestAccepted {
    request_id: RequestId,
    agent: AgentId,
    session: SessionId,
    channel: Channel,
    key_hash: Fingerprint,
    message_hash: Fingerprint,
}

/// What a claim comes to.
pub(super) enum Claimed {
    /// The key is new: the message runs.
    New(Claim),
    /// The same message is under way.
    UnderWay(Arc<Active>),
    /// The same message ran.
    Ended(RequestId, Outcome),
}

/// What [`Keys::find`] knows of a key.
pub(super) enum Found {
    /// Its request is under way.
    UnderWay(Arc<Active>),
    /// It ended, or was cut off by the end of an earlier process.
    Before(Known),
}

impl Keys {
    pub(super) fn new(keys_max: usize, clock: Clock) -> Self {
        Self { keys_max, state: Mutex::default(), clock }
    }

    /// Takes a key for a request that is about to be admitted.
    ///
    /// # Errors
    /// [`Rejection::Conflict`] where the key stands for another message, or its request was cut off by the end of an
    /// earlier process; [`Rejection::KeysFull`] where there are too many keys.
    pub(super) fn claim(
        self: &Arc<Self>,
        wanted: Wanted,
        active: &Arc<Active>,
    ) -> Result<Claimed, Rejection> {
        let now = active.accepted;
        let mut state = self.state();
        state.expire(now);
        if let Some(Entry { known, live, .. }) = state.all.get(&wanted.key) {
            let conflict = |cause, problem: String| {
                Err(Rejection::Conflict { cause, problem, request_id: known.request_id.clone() })
            };
            return match (live, known.outcome) {
                _ if known.message_hash != wanted.message => conflict(
                    "other_message",
                    "another message was sent with this key in the last 24 hours: take a new key".to_owned(),
                ),
                (Some(live), _) => Ok(Claimed::UnderWay(Arc::clone(live))),
                (None, Some(outcome)) => Ok(Claimed::Ended(known.request_id.clone(), outcome)),
                (None, None) => conflict(
                    "interrupted",
                    "plimsoll ended while this message was under way, so that it may have run in part or \
                     whole: look at what it did, and send it with a new key to run it again"
                        .to_owned(),
                ),
            };
        }
        if state.all.len() >= self.keys_max {
            let oldest = state.by_age.first().map_or(now, |(until, _)| *until);
            return Err(Rejection::KeysFull { retry_after: oldest.saturating_sub(now) });
        }
        let known = Known {
            key_hash: wanted.key,
            message_hash: wanted.message,
            request_id: active.id.clone(),
            agent: active.agent.clone(),
            session: active.session.clone(),
            accepted_at: active.accepted_at,
            outcome: None,
        };
        let (known, until) = (Arc::new(known), now + KEY_HOLDS);
        state.insert(Entry { known, until, written: false, live: Some(Arc::clone(active)) });
        Ok(Claimed::New(Claim {
            keys: Arc::clone(self),
            wanted,
            active: Arc::clone(active),
            stage: Stage::Taken,
        }))
    }

    /// What is known of a key. `now` is monotonic.
    pub(super) fn find(&self, key: Fingerprint, now: Duration) -> Option<Found> {
        let mut state = self.state();
        state.expire(now);
        let entry = state.all.get(&key)?;
        Some(match &entry.live {
            Some(active) => Found::UnderWay(Arc::clone(active)),
            None => Found::Before(Known::clone(&entry.known)),
        })
    }

    /// Until when an acceptance of an earlier process holds, if it still does. Where the wall clock was set back since,
    /// that is longer than a day, never shorter.
    fn holds_until(&self, accepted_at: Timestamp) -> Option<Duration> {
        let left = KEY_HOLDS.saturating_sub(self.clock.now().since(accepted_at));
        (!left.is_zero()).then(|| self.clock.elapsed() + left)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, entry: Entry) {
        self.by_age.insert((entry.until, entry.known.key_hash.0.0));
        self.all.insert(entry.known.key_hash, entry);
    }

    fn remove(&mut self, key: Fingerprint) {
        if let Some(entry) = self.all.remove(&key) {
            self.by_age.remove(&(entry.until, key.0.0));
        }
    }

    /// Forgets what is older than a key holds, but nothing that is under way.
    fn expire(&mut self, now: Duration) {
        let old = self.by_age.iter().take_while(|(until, _)| *until <= now);
        let old = old.map(|(_, hash)| Fingerprint(RecordHash(*hash)));
        let old: Vec<_> = old.filter(|key| self.all[key].live.is_none()).collect();
        old.into_iter().for_each(|key| self.remove(key));
    }

    /// Takes a record in: of this process, or of an earlier one.
    fn accepted(&mut self, detail: RequestAccepted, at: Timestamp, until: Option<Duration>) {
        let RequestAccepted { request_id, agent, session, channel: _, key_hash, message_hash } = detail;
        if let Some(entry) = self.all.get_mut(&key_hash) {
            if entry.known.request_id == request_id {
                // One of this process was there before its record.
                Arc::make_mut(&mut entry.known).accepted_at = at;
                entry.written = true;
                return;
            }
            if entry.live.is_some() {
                return;
            }
        }
        if let Some(index) = self.given_up.iter().position(|id| *id == request_id) {
            self.given_up.remove(index);
            return;
        }
        self.remove(key_hash);
        let Some(until) = until else { return };
        let known =
            Known { key_hash, message_hash, request_id, agent, session, accepted_at: at, outcome: None };
        self.insert(Entry { known: Arc::new(known), until, written: true, live: None });
    }

    fn finished(&mut self, key: Fingerprint, request: &RequestId, outcome: Outcome, ran: bool) {
        let entry = self.all.get_mut(&key).filter(|entry| entry.known.request_id == *request);
        let Some(entry) = entry else { return };
        if ran && outcome != Outcome::Refused {
            Arc::make_mut(&mut entry.known).outcome = Some(outcome);
        } else if entry.live.is_none() {
            // Nothing ran: whoever sends it again is asked again.
            self.remove(key);
        }
    }

    /// The journal may have its acceptance yet. There are no more of these than appends wait for its writer.
    fn give_up(&mut self, request: RequestId) {
        if self.given_up.len() >= JOURNAL_QUEUE_APPENDS_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back(request);
    }
}

impl Fold for Keys {
    fn name(&self) -> &'static str {
        "idempotency_keys"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Request
    }

    fn apply(&self, record: &Record) {
        let detail = &record.detail;
        match record.kind.as_str() {
            REQUEST_ACCEPTED => match RequestAccepted::deserialize(detail) {
                Ok(accepted) => {
                    let until = self.holds_until(record.time);
                    self.state().accepted(accepted, record.time, until);
                }
                Err(_) => unreadable(record),
            },
            REQUEST_FINISHED => {
                // Most have no key.
                let Some(key) = detail.get("keyHash") else { return };
                let read = (
                    Fingerprint::deserialize(key),
                    RequestId::deserialize(&detail["requestId"]),
                    Outcome::deserialize(&detail["outcome"]),
                );
                match read {
                    (Ok(key), Ok(request), Ok(outcome)) => {
                        let ran = detail.get("ran") != Some(&Value::Bool(false));
                        self.state().finished(key, &request, outcome, ran);
                    }
                    _ => unreadable(record),
                }
            }
            _ => {}
        }
    }

    fn snapshot(&self) -> Value {
        let written = |entry: &&Entry| entry.written;
        let mut written: Vec<_> =
            self.state().all.values().filter(written).map(|entry| Arc::clone(&entry.known)).collect();
        // Nobody waits for this: the lock is free again.
        written.sort_by_key(|known| (known.accepted_at, known.key_hash.0.0));
        let written: Vec<&Known> = written.iter().map(Arc::as_ref).collect();
        serde_json::to_value(written).expect("ids, hashes and times are JSON")
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let written = Vec::<Known>::deserialize(snapshot).map_err(|error| error.to_string())?;
        let mut state = self.state();
        *state = State::default();
        for known in written {
            let Some(until) = self.holds_until(known.accepted_at) else { continue };
            state.insert(Entry { known: Arc::new(known), until, written: true, live: None });
        }
        Ok(())
    }

    /// Nothing runs with a key then: a damaged journal takes no `request_accepted`.
    fn records_lost(&self) {
        tracing::error!(
            source = "gateway",
            "the journal may lack idempotency keys: none is taken until it is mended"
        );
    }
}

fn unreadable(record: &Record) {
    tracing::warn!(seq = record.seq.0, kind = record.kind, "a record of an idempotency key cannot be read");
}

/// A key that was taken for a request of this process.
pub(super) struct Claim {
    keys: Arc<Keys>,
    wanted: Wanted,
    active: Arc<Active>,
    stage: Stage,
}

/// How far the journal is with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It was not asked, or has refused: nothing ran.
    Taken,
    /// It was asked and has not answered, so that it may have the record.
    Asked,
    /// It has the record.
    Accepted,
    /// The request ended.
    Ended,
}

impl Claim {
    /// Makes the acceptance durable. The message may run only after this returns `Ok`.
    ///
    /// # Errors
    /// [`Rejection::JournalUnavailable`], also where the journal does not answer for [`JOURNAL_APPEND_WAIT`]: nothing
    /// may run, and the key is free once this claim ends.
    pub(super) async fn accept(
        &mut self,
        journal: &dyn Journal,
        actor: &Actor,
        trace_id: TraceId,
    ) -> Result<(), Rejection> {
        let Active { id, agent, session, channel, .. } = &*self.active;
        let detail = RequestAccepted {
            request_id: id.clone(),
            agent: agent.clone(),
            session: session.clone(),
            channel: *channel,
            key_hash: self.wanted.key,
            message_hash: self.wanted.message,
        };
        let record = NewRecord {
            kind: REQUEST_ACCEPTED,
            version: REQUEST_ACCEPTED_VERSION,
            actor: actor.clone(),
            trace_id: Some(trace_id),
            detail: serde_json::to_value(detail).expect("ids and hashes are JSON"),
        };
        let append = Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record] };
        self.stage = Stage::Asked;
        let appended = tokio::time::timeout(JOURNAL_APPEND_WAIT, journal.append(append)).await;
        let Ok(answered) = appended else { return Err(NOT_ACCEPTED) };
        // An append that failed is known not to have landed.
        self.stage = if answered.is_ok() { Stage::Accepted } else { Stage::Taken };
        answered.map(drop).map_err(|_| NOT_ACCEPTED)
    }

    /// Whether the journal may know of it, so that it must hear of the end too.
    pub(super) fn asked(&self) -> bool {
        self.stage != Stage::Taken
    }

    /// Closes the key: its request ended so. One of which nothing ran is free again.
    pub(super) fn end(mut self, outcome: Outcome, ran: bool) -> Closed {
        if self.stage == Stage::Taken {
            return Closed;
        }
        let asked = std::mem::replace(&mut self.stage, Stage::Ended) == Stage::Asked;
        let mut state = self.keys.state();
        if let Some(entry) = state.all.get_mut(&self.wanted.key) {
            entry.live = None;
        }
        state.finished(self.wanted.key, &self.active.id, outcome, ran);
        if asked {
            state.give_up(self.active.id.clone());
        }
        drop(state);
        Closed
    }
}

/// A key is closed here, and its record is on its way to the journal.
pub(super) struct Closed;

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.keys.state();
        match self.stage {
            Stage::Taken => state.remove(self.wanted.key),
            // Its task was dropped in the middle: whoever sends it again hears that it was interrupted.
            Stage::Asked | Stage::Accepted => {
                if let Some(entry) = state.all.get_mut(&self.wanted.key) {
                    entry.live = None;
                }
            }
            Stage::Ended => {}
        }
    }
}

#[cfg(test)]
mod tests;
