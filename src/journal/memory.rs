//! A journal in memory, for tests: the same contract, nothing on disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{broadcast, oneshot};

use super::encoding::{self, HEADER_BYTES};
use super::queue::Pending;
use super::writer::Timeline;
use super::{
    Append, AppendError, Appended, Fold, Head, Journal, Log, NewRecord, Page, ReadError, Record, RecordHash,
    Scan, Status, StreamId, Verified, VerifyError,
};
use crate::clock::{Clock, Timestamp};
use crate::ids::Seq;
use crate::limits::JOURNAL_TAIL_RECORDS_MAX;

/// Keeps all records in a vector. A std mutex suffices: nothing waits while it is held.
pub struct MemoryJournal {
    state: Mutex<State>,
    tail: broadcast::Sender<Arc<Record>>,
}

type Answer = Result<Appended, AppendError>;
type Crossing = Box<dyn FnMut(&Append) -> Option<NewRecord> + Send>;

struct State {
    time: Timeline,
    records: Vec<Record>,
    /// The last record of each stream, also of one whose records were dropped.
    ends: BTreeMap<StreamId, Seq>,
    folds: Vec<Arc<dyn Fold>>,
    /// Of which fold, up to which record.
    snapshots: Vec<(&'static str, Seq, Value)>,
    kept_from: Seq,
    heads: [Head; 2],
    closed: bool,
    /// The kind of record that it refuses.
    refused: Option<&'static str>,
    /// Asked what comes before an append that expects where its stream ends.
    crossing: Option<Crossing>,
    /// What waits for the disk while it hangs.
    hanging: Option<Vec<(Append, oneshot::Sender<Answer>)>>,
}

impl State {
    fn last(&self) -> Seq {
        self.records.last().map_or(Seq(self.kept_from.0 - 1), |r| r.seq)
    }

    fn head_mut(&mut self, log: Log) -> &mut Head {
        let [audit, work] = &mut self.heads;
        match log {
            Log::Audit => audit,
            Log::Work => work,
        }
    }
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new(clock: Clock, folds: Vec<Arc<dyn Fold>>) -> Self {
        let (tail, _) = broadcast::channel(JOURNAL_TAIL_RECORDS_MAX);
        let heads = Log::ALL.map(|log| Head { log, seq: Seq(0), hash: RecordHash::default() });
        let time = Timeline::new(clock, Timestamp::default());
        let state = State {
            time,
            records: Vec::new(),
            ends: BTreeMap::new(),
            folds,
            snapshots: Vec::new(),
            kept_from: Seq(1),
            heads,
            closed: false,
            refused: None,
            crossing: None,
            hanging: None,
        };
        Self { state: Mutex::new(state), tail }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets appends wait from now on, as a disk does that hangs.
    pub fn hang(&self) {
        self.state().hanging.get_or_insert_default();
    }

    /// Ends that: what waits is written, in order, also what nobody waits for any more.
    pub fn go_on(&self) {
        let waiting = self.state().hanging.take();
        for (append, answer) in waiting.into_iter().flatten() {
            let _ = answer.send(self.append_now(append));
        }
    }

    /// Refuses every record of this kind from now on, or none.
    pub fn refuse(&self, kind: Option<&'static str>) {
        self.state().refused = kind;
    }

    /// Has what `crossing` answers come in between, in the same stream and whatever is refused, whenever something is appended
    /// that expects where its stream ends.
    pub fn cross(&self, crossing: impl FnMut(&Append) -> Option<NewRecord> + Send + 'static) {
        self.state().crossing = Some(Box::new(crossing));
    }

    /// Has other folds, as after a restart: they hear of what there is after this record, and of what comes. What waits
    /// for the disk is lost.
    pub fn reopen(&self, after: Seq, folds: Vec<Arc<dyn Fold>>) {
        let mut state = self.state();
        for record in state.records.iter().filter(|record| record.seq > after) {
            folds.iter().filter(|f| f.wants() == record.stream.kind()).for_each(|f| f.apply(record));
        }
        (state.folds, state.hanging) = (folds, None);
    }

    /// Takes a snapshot of every fold, which stays.
    pub fn take_snapshot(&self) {
        let mut state = self.state();
        let last = state.last();
        let taken: Vec<_> = state.folds.iter().map(|fold| (fold.name(), last, fold.snapshot())).collect();
        state.snapshots.extend(taken);
    }

    /// Drops the records before this one, as retention does.
    pub fn drop_before(&self, seq: Seq) {
        let mut state = self.state();
        let end = state.last().next();
        state.records.retain(|record| record.seq >= seq);
        state.kept_from = seq.max(state.kept_from).min(end);
    }

    /// Keeps it for later where the disk hangs.
    fn append_when_it_goes(&self, append: Append) -> Result<Answer, oneshot::Receiver<Answer>> {
        if let Some(hanging) = &mut self.state().hanging {
            let (answer, waits) = oneshot::channel();
            hanging.push((append, answer));
            return Err(waits);
        }
        Ok(self.append_now(append))
    }

    fn append_now(&self, append: Append) -> Answer {
        if append.expected_last_seq.is_some() {
            // Not under the lock: it may look at what there is.
            let crossing = self.state().crossing.take();
            if let Some(mut crossing) = crossing {
                let between = crossing(&append);
                self.state().crossing = Some(crossing);
                let stream = append.stream.clone();
                let append = |record| Append { stream, expected_last_seq: None, records: vec![record] };
                if let Some(between) = between.map(append) {
                    self.write(between)?;
                }
            }
        }
        if append.records.iter().any(|new| self.state().refused == Some(new.kind)) {
            return Err(AppendError::Unavailable("it refuses this kind".to_owned()));
        }
        self.write(append)
    }

    fn write(&self, append: Append) -> Answer {
        let Pending { stream, expected_last_seq, records: new, bodies, answer: _ } =
            Pending::new(append, None)?;
        let mut state = self.state();
        if state.closed {
            return Err(AppendError::Closed);
        }
        let actual = state.ends.get(&stream).copied().unwrap_or_default();
        if let Some(expected) = expected_last_seq
            && expected != actual
        {
            return Err(AppendError::Conflict { expected, actual });
        }
        let time = state.time.now();
        let first = state.last().next();
        let (mut seq, mut start, mut frame) = (first, 0, Vec::new());
        for (new, end) in new {
            frame.clear();
            let head = state.head_mut(stream.kind().log());
            let prev_hash = head.hash;
            head.hash = encoding::frame(&prev_hash, seq, time, &bodies[start..end], &mut frame);
            head.seq = seq;
            let record = encoding::decode(&frame[HEADER_BYTES..]).map_err(AppendError::Invalid)?;
            debug_assert_eq!(record.detail, new.detail, "what is stored is what was given");
            state.folds.iter().filter(|f| f.wants() == record.stream.kind()).for_each(|f| f.apply(&record));
            // Nobody listening is normal.
            let _ = self.tail.send(Arc::new(record.clone()));
            state.records.push(record);
            state.ends.insert(stream.clone(), seq);
            start = end;
            seq = seq.next();
        }
        Ok(Appended { first, last: Seq(seq.0 - 1), time })
    }
}

impl Journal for MemoryJournal {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        match self.append_when_it_goes(append) {
            Ok(done) => Box::pin(std::future::ready(done)),
            Err(waits) => Box::pin(async { waits.await.unwrap_or(Err(AppendError::Closed)) }),
        }
    }

    fn offer(&self, append: Append) -> Result<(), AppendError> {
        self.append_when_it_goes(append).map_or(Ok(()), |done| done.map(drop))
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn scan(&self, query: &Scan) -> Result<Page, ReadError> {
        let state = self.state();
        let limit = query.limit.max(1);
        let wanted = |r: &&Record| {
            query.stream.as_ref().is_none_or(|s| *s == r.stream)
                && query.kind.as_ref().is_none_or(|k| *k == r.kind)
                && r.seq >= query.from
                && query.before.is_none_or(|b| r.seq < b)
        };
        let mut found: Vec<Record> = if query.newest_first {
            state.records.iter().rev().filter(wanted).take(limit + 1).cloned().collect()
        } else {
            state.records.iter().filter(wanted).take(limit + 1).cloned().collect()
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().map(|r| if query.newest_first { r.seq } else { r.seq.next() });
        Ok(Page { next: if more { last } else { None }, records: found })
    }

    fn seq_at(&self, time: Timestamp) -> Result<Seq, ReadError> {
        let state = self.state();
        let index = state.records.partition_point(|r| r.time < time);
        Ok(state.records.get(index).map_or_else(|| state.last().next(), |r| r.seq))
    }

    fn kept_from(&self, _log: Log) -> Result<Seq, ReadError> {
        Ok(self.state().kept_from)
    }

    fn snapshots(&self, fold: &str) -> Result<Vec<Seq>, ReadError> {
        let state = self.state();
        Ok(state.snapshots.iter().filter(|(name, ..)| *name == fold).map(|(_, seq, _)| *seq).collect())
    }

    fn snapshot_before(&self, fold: &str, before: Seq) -> Result<Option<(Seq, Value)>, ReadError> {
        let state = self.state();
        let found = state.snapshots.iter().rev().find(|(name, seq, _)| *name == fold && *seq < before);
        Ok(found.map(|(_, seq, snapshot)| (*seq, snapshot.clone())))
    }

    fn tail(&self) -> broadcast::Receiver<Arc<Record>> {
        self.tail.subscribe()
    }

    fn now(&self) -> Timestamp {
        self.state().time.peek()
    }

    fn status(&self) -> Status {
        let state = self.state();
        let last = state.last();
        let first = state.records.first().map_or(last.next(), |r| r.seq);
        let degraded = state.closed.then(|| AppendError::Closed.to_string());
        Status { first, last, degraded, damaged: false, bytes: 0 }
    }

    fn head(&self, log: Log) -> Result<Head, ReadError> {
        Ok(*self.state().head_mut(log))
    }

    fn verify_while(
        &self,
        log: Log,
        expected: &[Head],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Verified, VerifyError> {
        if !go_on() {
            return Err(VerifyError::Stopped);
        }
        let mut state = self.state();
        let head = *state.head_mut(log);
        let of_log: Vec<&Record> = state.records.iter().filter(|r| r.stream.kind().log() == log).collect();
        let empty = Head { log, seq: Seq(0), hash: RecordHash::default() };
        for &expected in expected.iter().filter(|head| **head != empty) {
            // The record after it holds the hash of the one that is expected.
            let at = of_log.iter().position(|r| r.seq == expected.seq);
            let hash = at.map(|i| of_log.get(i + 1).map_or(head.hash, |next| next.prev_hash));
            if hash != Some(expected.hash) {
                let what = format!("it ends at record {}", head.seq);
                return Err(VerifyError::OtherHead { expected, what });
            }
        }
        Ok(Verified { records: of_log.len() as u64, first: of_log.first().map(|r| r.seq), head })
    }

    fn close(&self) {
        self.state().closed = true;
    }
}
