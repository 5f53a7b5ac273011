//! The journal: the durable, append-only log of every fact that must survive a restart.
//!
//! Records of many streams stand in one total order. What was acknowledged is durable, through `kill -9` and through
//! power loss. State that survives a restart is a [`Fold`] over the records. The journal does not know what a record
//! means, and nobody but the store in this module knows sled. Start at [`Journal`].

mod config;
mod cursor;
mod data_dir;
mod disk;
mod encoding;
mod index;
pub mod kinds;
mod late;
mod log_writer;
mod memory;
pub mod metrics;
pub mod offline;
mod partition;
mod queue;
mod record;
mod reserve;
mod row;
mod scan;
mod shared;
mod sidecar;
mod sled_journal;
mod snapshot;
mod store;
mod upkeep;
mod verify;
mod writer;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::clock::Timestamp;
use crate::ids::Seq;

pub use config::{Config, Retention};
pub use data_dir::{DataDir, FORMAT, OpenError, check_free};
pub use encoding::decode_frame;
pub use late::LateJournal;
pub use memory::MemoryJournal;
pub use record::{
    Actor, Append, Appended, Log, NewRecord, Record, RecordHash, StreamId, StreamKind, UnknownStream,
};
pub use sled_journal::{JournalDeps, SledJournal};
pub use verify::{Head, Verdict, Verified, VerifyError};

/// A durable, totally ordered log of facts.
pub trait Journal: Send + Sync {
    /// Appends records to one stream, all or none. When this returns `Ok`, they are durable.
    ///
    /// # Errors
    /// See [`AppendError`]; after any of them the caller may not act on the records.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Hands records over without waiting; they become durable soon, or are counted as lost. For facts that nobody acts
    /// on.
    ///
    /// # Errors
    /// [`AppendError::QueueFull`], [`AppendError::Invalid`] or [`AppendError::Closed`]: nothing was taken.
    fn offer(&self, append: Append) -> Result<(), AppendError>;

    /// Waits until what was offered before is durable or lost, so that who reads next misses nothing.
    fn catch_up(&self) -> BoxFuture<'_, ()>;

    /// Records by seq, oldest first. Blocks on IO: call it off the runtime.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn scan(&self, query: &Scan) -> Result<Page, ReadError>;

    /// The first seq at or after `time`; the seq after the last record if there is none. Blocks on IO.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn seq_at(&self, time: Timestamp) -> Result<Seq, ReadError>;

    /// Where the kept past of a log begins: every record of it from this seq on is still there. 1 if none was dropped.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn kept_from(&self, log: Log) -> Result<Seq, ReadError>;

    /// Up to which seqs there are snapshots of the fold of this name, in order. Blocks on IO.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn snapshots(&self, fold: &str) -> Result<Vec<Seq>, ReadError>;

    /// The newest snapshot of the fold of this name that was taken before the record `before` and can be read, with the
    /// seq up to which the fold had taken records in. Blocks on IO.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn snapshot_before(&self, fold: &str, before: Seq) -> Result<Option<(Seq, Value)>, ReadError>;

    /// Every record from now on, in seq order, after it became durable. A receiver that lags is told so and reads
    /// back what it missed with [`Journal::scan`].
    fn tail(&self) -> broadcast::Receiver<Arc<Record>>;

    /// The time of a record that were appended now: it never goes back, and goes on by the monotonic clock where the wall
    /// clock was set back. No record lies behind it.
    fn now(&self) -> Timestamp;

    /// What can be told without IO.
    fn status(&self) -> Status;

    /// The end of a log. Blocks on IO.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn head(&self, log: Log) -> Result<Head, ReadError>;

    /// Checks a whole log, and that it contains every head of `expected`. Reads every record: blocks for seconds, and
    /// asks `go_on` every millisecond or so whether that is still wanted.
    ///
    /// # Errors
    /// See [`VerifyError`], which names the first bad record.
    fn verify_while(
        &self,
        log: Log,
        expected: &[Head],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Verified, VerifyError>;

    /// The same to its end.
    ///
    /// # Errors
    /// See [`VerifyError`], which names the first bad record.
    fn verify(&self, log: Log, expected: Option<Head>) -> Result<Verified, VerifyError> {
        self.verify_while(log, expected.as_slice(), &|| true)
    }

    /// Ends the writer: what was queued is committed, then everything is closed. Blocks; idempotent.
    fn close(&self);
}

/// State that survives a restart, as a function of the records of some streams.
///
/// A fold is registered when the journal is opened. The journal restores it from its newest snapshot, applies what came
/// after, and from then on applies each record once, in seq order, after it became durable and before its append is
/// acknowledged. Interior mutability is the fold's own affair: `apply` is never called twice at the same time.
pub trait Fold: Send + Sync {
    /// A stable name for its snapshots.
    fn name(&self) -> &'static str;

    /// The streams whose records concern it; only their log is read for it.
    fn wants(&self) -> StreamKind;

    /// Takes one record in. Total: what it cannot read it counts and passes over.
    fn apply(&self, record: &Record);

    /// A record that was [offered](Journal::offer) and taken is lost: it will not be applied.
    fn lost(&self, _kind: &str, _detail: &Value) {}

    /// Its whole state.
    fn snapshot(&self) -> Value;

    /// Replaces its state by that of a snapshot.
    ///
    /// # Errors
    /// Says why the snapshot cannot be used; the journal then takes an older one, or begins from nothing.
    fn restore(&self, snapshot: &Value) -> Result<(), String>;

    /// Its log is damaged: once restored, its state may lack any record. Called before the journal is open.
    fn records_lost(&self);
}

/// Which records are asked for. All conditions hold at once.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Only this stream.
    pub stream: Option<StreamId>,
    /// Only this kind.
    pub kind: Option<String>,
    /// From this seq on.
    pub from: Seq,
    /// Before this seq.
    pub before: Option<Seq>,
    /// At most this many, at least 1. A page may hold fewer although there are more, down to none, when many records
    /// had to be passed over: only [`Page::next`] tells the end.
    pub limit: usize,
    /// The newest first, from `before` (or the end) backwards.
    pub newest_first: bool,
}

/// An answer to a [`Scan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The records, in the order asked for.
    pub records: Vec<Record>,
    /// Where to go on (`from`, or `before` if the newest came first), unless this was the end.
    pub next: Option<Seq>,
}

/// What a journal says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The oldest record still kept; the one after `last` if there is none.
    pub first: Seq,
    /// The newest durable record; 0 if there is none.
    pub last: Seq,
    /// Why nothing can be appended now, in words for the operator.
    pub degraded: Option<String>,
    /// Whether that is because something is damaged, so that it does not mend by itself.
    pub damaged: bool,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Why records were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The stream's last seq is another one: look again, decide again.
    #[error("the stream changed in between: its last record is {actual}, not {expected}")]
    Conflict {
        /// The seq the caller had seen.
        expected: Seq,
        /// The stream's last seq.
        actual: Seq,
    },
    /// The writer's queue is full.
    #[error("the journal's queue is full: the disk is slower than the work, try again in a moment")]
    QueueFull,
    /// Too many records, none at all, or a detail over its limit.
    #[error("the records cannot be appended: {0}")]
    Invalid(String),
    /// The disk is full, read-only or failing.
    #[error("the journal cannot write now: {0}")]
    Unavailable(String),
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A record is damaged.
    #[error("record {seq} is damaged: {what}")]
    Damaged {
        /// The first damaged record.
        seq: Seq,
        /// What is wrong with it.
        what: String,
    },
    /// The store does not answer.
    #[error("the journal cannot be read now: {0}")]
    Unavailable(String),
}
