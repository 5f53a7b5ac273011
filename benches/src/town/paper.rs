//! A journal on disk to which the events of towns are written.

use std::path::Path;
use std::sync::Arc;

use plimsoll::clock::{Clock, ManualTime, Timestamp};
use plimsoll::ids::TownId;
use plimsoll::journal::{
    self, Actor, Append, Config, Journal as _, JournalDeps, NewRecord, SledJournal, StreamId,
};
use plimsoll::limits::JOURNAL_GROUP_RECORDS_MAX;
use plimsoll::telemetry::Registry;
use plimsoll::telemetry::metric::Definition;
use plimsoll::town::TownEvent;
use plimsoll::town::event::VERSION;
use tokio::runtime::Runtime;

/// Closed when dropped.
pub(super) struct Paper {
    journal: SledJournal,
    runtime: Runtime,
    hand: Arc<ManualTime>,
}

impl Paper {
    /// An empty one, whose clock stands at this time.
    pub(super) fn new(dir: &Path, now: Timestamp) -> Result<Self, String> {
        let catalogue: Vec<Definition> = journal::metrics::CATALOGUE.iter().map(|d| **d).collect();
        let registry = Registry::new(&catalogue).map_err(|error| error.to_string())?;
        let (clock, hand) = Clock::manual(now);
        let deps = JournalDeps { clock, registry, folds: Vec::new() };
        let journal = SledJournal::open(dir, &Config::default(), deps).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Ok(Self { journal, runtime: runtime.map_err(|error| error.to_string())?, hand })
    }

    /// From now on it is this time.
    pub(super) fn set(&self, now: Timestamp) {
        self.hand.set_wall(now);
    }

    /// Durable when it returns.
    pub(super) fn write(&self, stream: &StreamId, records: &[NewRecord]) -> Result<(), String> {
        for records in records.chunks(JOURNAL_GROUP_RECORDS_MAX) {
            let append =
                Append { stream: stream.clone(), expected_last_seq: None, records: records.to_vec() };
            self.runtime.block_on(self.journal.append(append)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        self.journal.close();
    }
}

/// An event as the reconciler journals it.
pub(super) fn record(event: &TownEvent) -> NewRecord {
    NewRecord {
        kind: event.kind(),
        version: VERSION,
        actor: if event.from_outside() { Actor::System } else { Actor::Planner },
        trace_id: None,
        detail: event.detail(),
    }
}

pub(super) fn stream(town: &str) -> StreamId {
    StreamId::town(&TownId::parse(town).expect("a valid id"))
}
