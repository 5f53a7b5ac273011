//! A journal in memory, for tests: the same contract, nothing on disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;

use super::{
    Append, AppendError, Appended, Fold, Journal, Page, ReadError, Record, RecordHash, Scan, Status,
};
use crate::clock::{Clock, Timestamp};
use crate::ids::Seq;
use crate::limits::{JOURNAL_GROUP_RECORDS_MAX, JOURNAL_TAIL_RECORDS_MAX};

/// Keeps all records in a vector. A std mutex suffices: nothing waits while it is held.
pub struct MemoryJournal {
    clock: Clock,
    records: Mutex<Vec<Record>>,
    folds: Vec<Arc<dyn Fold>>,
    tail: broadcast::Sender<Arc<Record>>,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new(clock: Clock, folds: Vec<Arc<dyn Fold>>) -> Self {
        let (tail, _) = broadcast::channel(JOURNAL_TAIL_RECORDS_MAX);
        Self { clock, records: Mutex::new(Vec::new()), folds, tail }
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, append: Append) -> Result<Appended, AppendError> {
        let count = append.records.len();
        if count == 0 || count > JOURNAL_GROUP_RECORDS_MAX {
            return Err(AppendError::Invalid(format!(
                "{count} records, expected 1 to {JOURNAL_GROUP_RECORDS_MAX}"
            )));
        }
        let mut records = self.records();
        let last = records.iter().rev().find(|r| r.stream == append.stream).map_or(Seq(0), |r| r.seq);
        if let Some(expected) = append.expected_last_seq
            && expected != last
        {
            return Err(AppendError::Conflict { expected, actual: last });
        }
        let time = records.last().map_or(Timestamp::default(), |r| r.time).max(self.clock.now());
        let first = records.last().map_or(Seq(0), |r| r.seq).next();
        let mut seq = first;
        for new in append.records {
            let record = Record {
                seq,
                time,
                stream: append.stream.clone(),
                kind: new.kind.to_owned(),
                version: new.version,
                actor: new.actor,
                trace_id: new.trace_id,
                detail: new.detail,
                prev_hash: RecordHash::default(),
            };
            self.folds.iter().filter(|f| f.wants(&record.stream)).for_each(|f| f.apply(&record));
            // Nobody listening is normal.
            let _ = self.tail.send(Arc::new(record.clone()));
            records.push(record);
            seq = seq.next();
        }
        Ok(Appended { first, last: Seq(seq.0 - 1), time })
    }
}

impl Journal for MemoryJournal {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(std::future::ready(self.append_now(append)))
    }

    fn offer(&self, append: Append) -> Result<(), AppendError> {
        self.append_now(append).map(drop)
    }

    fn scan(&self, query: &Scan) -> Result<Page, ReadError> {
        let records = self.records();
        let wanted = |r: &&Record| {
            query.stream.as_ref().is_none_or(|s| *s == r.stream)
                && query.kind.as_ref().is_none_or(|k| *k == r.kind)
                && r.seq >= query.from
                && query.before.is_none_or(|b| r.seq < b)
        };
        let mut found: Vec<Record> = if query.newest_first {
            records.iter().rev().filter(wanted).take(query.limit + 1).cloned().collect()
        } else {
            records.iter().filter(wanted).take(query.limit + 1).cloned().collect()
        };
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let last = found.last().map(|r| if query.newest_first { r.seq } else { r.seq.next() });
        Ok(Page { next: if more { last } else { None }, records: found })
    }

    fn seq_at(&self, time: Timestamp) -> Result<Seq, ReadError> {
        let records = self.records();
        let index = records.partition_point(|r| r.time < time);
        Ok(records.get(index).map_or_else(|| records.last().map_or(Seq(0), |r| r.seq).next(), |r| r.seq))
    }

    fn tail(&self) -> broadcast::Receiver<Arc<Record>> {
        self.tail.subscribe()
    }

    fn status(&self) -> Status {
        let records = self.records();
        let last = records.last().map_or(Seq(0), |r| r.seq);
        let first = records.first().map_or(last.next(), |r| r.seq);
        Status { first, last, degraded: None, bytes: 0 }
    }

    fn close(&self) {}
}
