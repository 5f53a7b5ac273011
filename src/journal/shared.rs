//! What the journal's callers and its writer both see.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::broadcast;

use super::data_dir::DataDir;
use super::metrics::Metrics;
use super::queue::Queue;
use super::row::LogRow;
use super::{Record, Status};
use crate::ids::Seq;

/// Whether appends are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    Writing,
    /// Not now; the writer tries again by itself.
    Degraded(String),
    /// Not before an operator did something.
    ReadOnly(String),
    Closed,
}

impl Health {
    /// Why nothing can be appended.
    pub(super) fn cause(&self) -> Option<String> {
        match self {
            Self::Writing => None,
            Self::Degraded(cause) | Self::ReadOnly(cause) => Some(cause.clone()),
            Self::Closed => Some("the journal is closed".to_owned()),
        }
    }
}

/// See the module.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) rows: [Arc<LogRow>; 2],
    /// The newest durable seq.
    pub(super) last: AtomicU64,
    /// Bytes on disk, as last measured.
    pub(super) bytes: AtomicU64,
    health: Mutex<Health>,
    /// Held by readers while they read, and by the writer while it opens the stores again after a failure.
    gate: RwLock<()>,
    gate_wanted: AtomicBool,
    pub(super) tail: broadcast::Sender<Arc<Record>>,
    pub(super) metrics: Metrics,
    pub(super) journal_dir: PathBuf,
    pub(super) data_dir: Arc<DataDir>,
}

impl Shared {
    pub(super) fn new(
        data_dir: Arc<DataDir>,
        rows: [Arc<LogRow>; 2],
        (queue, tail): (Queue, broadcast::Sender<Arc<Record>>),
        metrics: Metrics,
    ) -> Self {
        Self {
            queue,
            rows,
            last: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            health: Mutex::new(Health::Writing),
            gate: RwLock::new(()),
            gate_wanted: AtomicBool::new(false),
            tail,
            metrics,
            journal_dir: data_dir.path().join("journal"),
            data_dir,
        }
    }

    pub(super) fn last(&self) -> Seq {
        Seq(self.last.load(Ordering::Acquire))
    }

    pub(super) fn rows(&self) -> [&LogRow; 2] {
        [&self.rows[0], &self.rows[1]]
    }

    /// For as long as the answer lives, no store is closed under the reader.
    pub(super) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the writer waits for its readers: one that reads for long makes way.
    pub(super) fn is_gate_wanted(&self) -> bool {
        self.gate_wanted.load(Ordering::Relaxed)
    }

    /// Waits until nobody reads. For as long as the answer lives, nobody does.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate_wanted.store(true, Ordering::Relaxed);
        let alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.gate_wanted.store(false, Ordering::Relaxed);
        alone
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_health(&self, health: Health) {
        let writing = match health {
            Health::Writing | Health::Closed => 0.0,
            Health::Degraded(_) | Health::ReadOnly(_) => 1.0,
        };
        self.metrics.degraded.set(writing);
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// What readers see ends before this seq: what is not durable yet is not there. A damaged journal shows all it has.
    pub(super) fn until(&self) -> Seq {
        match self.health() {
            Health::Writing | Health::Degraded(_) | Health::Closed => self.last().next(),
            Health::ReadOnly(_) => Seq(u64::MAX),
        }
    }

    pub(super) fn status(&self) -> Status {
        let (last, health) = (self.last(), self.health());
        let firsts = self.rows.iter().filter_map(|row| Some(row.partitions().first()?.manifest().first_seq));
        Status {
            first: firsts.min().unwrap_or(last.next()).min(last.next()),
            last,
            degraded: health.cause(),
            damaged: matches!(health, Health::ReadOnly(_)),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
