//! Where events come in: each is looked at first, appended once it fits, and in the town when this answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::cell::Cell;
use crate::clock::{Clock, Timestamp};
use crate::gateway::ChangeError;
use crate::ids::{AgentId, IdempotencyKey, Seq, TownId, TraceId};
use crate::journal::{Actor, Append, AppendError, Journal, NewRecord, StreamId};
use crate::limits::TOWN_PENDING_MAX;
use crate::town::event::{Report, VERSION};
use crate::town::state::Rejected;
use crate::town::{Town, TownEvent};

/// How often something may get in between a look and the append that follows from it.
pub(super) const TRIES_MAX: u32 = 20;

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// There is no such town.
    #[error("there is no town {0}: `plimsoll town list` names those there are")]
    UnknownTown(TownId),
    /// The town cannot accept it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// More events wait for the town's next turn than may.
    #[error(
        "{TOWN_PENDING_MAX} events wait for the town's next turn, which is as many as may: send it again later, and look \
         at `plimsoll town status` for what keeps the town"
    )]
    Full,
    /// Other events came in between, again and again.
    #[error("the town changes faster than this could be looked at: send it again")]
    Busy,
    /// It does not turn any more: what is told it would wait for nobody knows how long.
    #[error(
        "the town {0} was put aside, and takes nothing: `plimsoll town status {0}` and the log say why; restart plimsoll to \
         try again"
    )]
    SetAside(TownId),
    /// The journal cannot write, so nothing was changed.
    #[error("the journal cannot write now: nothing was changed, try again later")]
    Journal(#[source] AppendError),
    /// It takes longer than anybody waits.
    #[error(
        "the journal does not answer, or another change comes first: this is done once it can be, unless plimsoll ends before; look at the town later, or send it again \
         with the same idempotency key if it had one"
    )]
    Late,
    /// A town of this id is there.
    #[error("there is a town {0}: choose another id")]
    TownExists(TownId),
    /// An agent works in one town only.
    #[error(
        "agent {agent} works in the town {town}, and an agent works in one town only: remove it there first"
    )]
    Elsewhere {
        /// Which agent.
        agent: AgentId,
        /// Where.
        town: TownId,
    },
    /// The agent that was to join could not be made.
    #[error(transparent)]
    NotMade(ChangeError),
    /// There are as many towns as may be.
    #[error("there are {0} towns, the most there may be: give the work to one of them")]
    TooManyTowns(usize),
    /// The id is too long.
    #[error("a town id has at most {0} characters: choose a shorter one")]
    TownIdTooLong(usize),
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// Its place in the journal.
    pub seq: Seq,
    /// Whether it came before, with the same key and the same body.
    pub repeated: bool,
    /// Whether it is a report of progress that counts as one that came shortly before.
    pub coalesced: bool,
}

impl Submitted {
    pub(super) fn new(seq: Seq) -> Self {
        Self { seq, repeated: false, coalesced: false }
    }

    /// What came before.
    pub(super) fn again(first: Seq) -> Self {
        Self { seq: first, repeated: true, coalesced: false }
    }
}

/// What is appended to the streams of towns, by whom.
#[derive(Clone)]
pub(super) struct Pen {
    pub(super) journal: Arc<dyn Journal>,
    /// Measures; what towns take for now is the journal's time.
    pub(super) clock: Clock,
    pub(super) heard: Arc<Heard>,
}

/// When the journal was last written to, as far as that was heard.
#[derive(Default)]
pub(super) struct Heard(AtomicU64);

impl Heard {
    pub(super) fn note(&self, at: Timestamp) {
        self.0.fetch_max(at.as_millis(), Ordering::SeqCst);
    }

    pub(super) fn last(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Pen {
    /// Takes one event in.
    ///
    /// # Errors
    /// [`SubmitError`]: nothing was changed.
    pub(super) async fn submit(
        &self,
        cell: &Cell,
        actor: &Actor,
        event: &TownEvent,
    ) -> Result<Submitted, SubmitError> {
        self.submit_with(cell, actor, event, |_| ()).await.map(|(submitted, ())| submitted)
    }

    /// The same with what `prepare` makes of the very state that the event follows.
    ///
    /// # Errors
    /// [`SubmitError`]: nothing was changed.
    pub(super) async fn submit_with<T>(
        &self,
        cell: &Cell,
        actor: &Actor,
        event: &TownEvent,
        prepare: impl Fn(&Town) -> T,
    ) -> Result<(Submitted, T), SubmitError> {
        if cell.is_broken() {
            return Err(SubmitError::SetAside(cell.id.clone()));
        }
        if cell.pending() >= TOWN_PENDING_MAX {
            return Err(SubmitError::Full);
        }
        for _ in 0..TRIES_MAX {
            let (at, prepared) = {
                let book = cell.drained();
                let prepared = prepare(&book.town);
                match book.town.check(self.journal.now(), event) {
                    Ok(()) => {}
                    Err(Rejected::Repeated { first }) => return Ok((Submitted::again(first), prepared)),
                    Err(rejected) => return Err(rejected.into()),
                }
                (book.at, prepared)
            };
            let record = record(event, actor.clone(), None, None);
            let _beside = cell.door.read().await;
            match self.append(&cell.id, Some(at), vec![record]).await {
                Ok(seq) => {
                    cell.drain();
                    return Ok((Submitted::new(seq), prepared));
                }
                Err(AppendError::Conflict { .. }) => {}
                Err(error) => return Err(SubmitError::Journal(error)),
            }
        }
        Err(SubmitError::Busy)
    }

    /// Appends what happened, whatever the town stands at; the first one's seq.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub(super) async fn append(
        &self,
        town: &TownId,
        expected_last_seq: Option<Seq>,
        records: Vec<NewRecord>,
    ) -> Result<Seq, AppendError> {
        let stream = StreamId::town(town);
        let appended = self.journal.append(Append { stream, expected_last_seq, records }).await?;
        Ok(appended.first)
    }
}

/// An event as it is journaled; `now` is what the planner took for the present.
pub(super) fn record(
    event: &TownEvent,
    actor: Actor,
    now: Option<Timestamp>,
    trace_id: Option<TraceId>,
) -> NewRecord {
    let mut detail = event.detail();
    if let (Some(now), Some(detail)) = (now, detail.as_object_mut()) {
        detail.insert("now".to_owned(), now.as_millis().into());
    }
    NewRecord { kind: event.kind(), version: VERSION, actor, trace_id, detail }
}

/// That a report came from `actor` with this key and this body.
pub(super) fn report_of(actor: &Actor, key: IdempotencyKey, body: &[u8]) -> Report {
    let digest = Sha256::digest(body);
    let body: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Report { by: actor.to_string().into(), key, body: body.into() }
}
