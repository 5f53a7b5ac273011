//! Journals to test with: how they are made, filled and read.

use std::path::Path;
use std::sync::{Arc, Mutex};

use plimsoll::clock::{Clock, Timestamp};
use plimsoll::ids::{AgentId, Seq};
use plimsoll::journal::{
    Actor, Append, Config, Fold, Journal, JournalDeps, NewRecord, OpenError, Record, Scan, SledJournal,
    StreamId, StreamKind, metrics,
};
use plimsoll::telemetry::Registry;
use plimsoll::telemetry::metric::Definition;
use serde_json::{Value, json};

pub(crate) fn registry() -> Registry {
    let catalogue: Vec<Definition> = metrics::CATALOGUE.iter().map(|d| **d).collect();
    Registry::new(&catalogue).expect("the catalogue is whole")
}

pub(crate) fn deps(clock: Clock) -> JournalDeps {
    JournalDeps { clock, registry: registry(), folds: Vec::new() }
}

pub(crate) fn open(dir: &Path) -> SledJournal {
    try_open(dir).expect("the journal opens")
}

pub(crate) fn try_open(dir: &Path) -> Result<SledJournal, OpenError> {
    SledJournal::open(dir, &Config::default(), deps(Clock::system()))
}

pub(crate) fn record(number: u64) -> NewRecord {
    NewRecord {
        kind: "noted",
        version: 1,
        actor: Actor::System,
        trace_id: None,
        detail: json!({ "number": number }),
    }
}

pub(crate) fn append(stream: &StreamId, numbers: impl IntoIterator<Item = u64>) -> Append {
    let records = numbers.into_iter().map(record).collect();
    Append { stream: stream.clone(), expected_last_seq: None, records }
}

pub(crate) fn instance(name: &str) -> StreamId {
    StreamId::instance(&AgentId::parse(name).expect("valid"))
}

pub(crate) fn number(record: &Record) -> u64 {
    record.detail["number"].as_u64().unwrap_or(0)
}

/// Every record that a query finds, page by page.
pub(crate) fn scan_all(journal: &dyn Journal, mut query: Scan) -> Vec<Record> {
    let mut found = Vec::new();
    loop {
        let page = journal.scan(&query).expect("readable");
        found.extend(page.records);
        let Some(next) = page.next else { return found };
        if query.newest_first {
            query.before = Some(next);
        } else {
            query.from = next;
        }
    }
}

pub(crate) fn all(journal: &dyn Journal) -> Vec<Record> {
    scan_all(journal, Scan { limit: 1_000, ..Scan::default() })
}

pub(crate) fn a_time() -> Timestamp {
    Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").expect("valid")
}

/// Adds up the numbers of every record of one kind of stream, and remembers the seqs it saw.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) state: Mutex<(u64, u64)>,
    pub(crate) applied: Mutex<Vec<Seq>>,
}

impl Sum {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many records, and their sum.
    pub(crate) fn value(&self) -> (u64, u64) {
        *self.state.lock().expect("no panic")
    }
}

impl Fold for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Request
    }

    fn apply(&self, record: &Record) {
        let mut state = self.state.lock().expect("no panic");
        *state = (state.0 + 1, state.1 + number(record));
        self.applied.lock().expect("no panic").push(record.seq);
    }

    fn snapshot(&self) -> Value {
        let (count, sum) = self.value();
        json!([count, sum])
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let part = |i: usize| snapshot[i].as_u64().ok_or("not two numbers");
        *self.state.lock().expect("no panic") = (part(0)?, part(1)?);
        Ok(())
    }

    fn records_lost(&self) {}
}
