//! The one thread that writes: it drains the queue in groups, makes each durable, applies it to the folds, and only then
//! answers. When the disk fails it answers that at once, and opens the store again with back-off until it works.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tracing::Span;

use super::log_writer::{Landed, LogWriter, Trouble};
use super::metrics::Reason;
use super::queue::{Answer, Drained, Groups, Pending};
use super::shared::{Health, Shared};
use super::store::StoreError;
use super::upkeep::Upkeep;
use super::{AppendError, Appended, Config, Fold, Log, Record, StreamId, disk, reserve};
use crate::clock::{Clock, Timestamp};
use crate::ids::Seq;
use crate::limits::JOURNAL_OFFER_LINGER;

/// How long the writer waits for work before it looks after the rest.
const TICK: Duration = Duration::from_millis(100);

/// The first and the longest pause between two tries to open the store again.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is written to see whether the disk takes writes again: more than sled needs to open.
const PROBE_BYTES: usize = 4 << 20;

/// A commit that takes longer leaves a span.
const SLOW_COMMIT: Duration = Duration::from_millis(50);

/// The wall clock may be so much behind the journal's time before that is told.
const BEHIND: Duration = Duration::from_secs(60);

/// The journal's time: never decreases, and goes on by the monotonic clock when the wall clock jumps back. Cheap to clone:
/// all clones tell the same time.
#[derive(Clone)]
pub(super) struct Timeline {
    clock: Clock,
    /// A std mutex suffices: a hold is a few comparisons.
    stamp: Arc<Mutex<Stamp>>,
}

#[derive(Debug)]
struct Stamp {
    last: Timestamp,
    /// When that was, on the monotonic clock.
    at: Duration,
    /// Whether it was told that the wall clock is behind.
    behind: bool,
}

impl Timeline {
    pub(super) fn new(clock: Clock, last: Timestamp) -> Self {
        let stamp = Stamp { last, at: clock.elapsed(), behind: false };
        Self { clock, stamp: Arc::new(Mutex::new(stamp)) }
    }

    /// Now, at least the last answer and the time since: nothing is stamped earlier from here on.
    pub(super) fn now(&self) -> Timestamp {
        let mut stamp = self.stamp();
        let (passed, wall) = (self.passed(&stamp), self.clock.now());
        stamp.last = wall.max(stamp.last.after(passed));
        // What is under a millisecond counts next time.
        stamp.at += passed;
        let behind = stamp.last.since(wall) > BEHIND;
        if behind && !std::mem::replace(&mut stamp.behind, behind) {
            let by_s = stamp.last.since(wall).as_secs();
            tracing::warn!(
                source = "journal",
                by_s,
                "the clock of this machine was set back: until it has caught up, records are stamped by the time that passes"
            );
        }
        stamp.behind = behind;
        stamp.last
    }

    /// What [`Timeline::now`] would say, which binds nobody.
    pub(super) fn peek(&self) -> Timestamp {
        let stamp = self.stamp();
        self.clock.now().max(stamp.last.after(self.passed(&stamp)))
    }

    fn passed(&self, stamp: &Stamp) -> Duration {
        let passed = self.clock.elapsed().saturating_sub(stamp.at);
        Duration::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }

    fn stamp(&self) -> MutexGuard<'_, Stamp> {
        self.stamp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// Set while the store does not work.
struct Broken {
    next_try: Duration,
    pause: Duration,
    /// Unsynced pages may be lost: the partition is not written to again.
    roll: bool,
}

/// The writer's state. `logs` is empty when the journal is open for reading only.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) logs: Vec<LogWriter>,
    pub(super) folds: Vec<Arc<dyn Fold>>,
    pub(super) config: Config,
    pub(super) time: Timeline,
    upkeep: Upkeep,
    broken: Option<Broken>,
}

/// A group on its way: its records, and who is to be told what.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    answers: Vec<(Option<Answer>, Appended)>,
    /// The records that nobody waits for, with their kinds: if they are lost, a counter and the folds hear of it.
    unawaited: Vec<(usize, &'static str)>,
    refused: Vec<(Option<Answer>, AppendError)>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        logs: Vec<LogWriter>,
        folds: Vec<Arc<dyn Fold>>,
        config: Config,
        time: Timeline,
    ) -> Self {
        let upkeep = Upkeep::new(time.clock().elapsed(), shared.last());
        Self { shared, logs, folds, config, time, upkeep, broken: None }
    }

    /// Runs until the queue is closed and drained.
    pub(super) fn run(mut self, mut groups: Groups) {
        loop {
            match groups.next(&self.shared.queue, TICK, JOURNAL_OFFER_LINGER) {
                Drained::Group(group) => self.take(group),
                Drained::Nothing => {}
                Drained::Closed => break,
            }
            self.look_after();
        }
        self.finish();
    }

    fn take(&mut self, group: Vec<Pending>) {
        if self.broken.is_some() || self.logs.is_empty() {
            let cause = self.shared.health().cause().unwrap_or_default();
            for pending in group {
                if pending.answer.is_none() {
                    let each = pending.records.iter();
                    each.for_each(|(new, _)| self.lost(&pending.stream, new.kind, &new.detail));
                }
                answer(pending.answer, Err(AppendError::Unavailable(cause.clone())));
            }
        } else {
            self.commit(group);
        }
    }

    /// Everything besides appends, each part at its own pace.
    fn look_after(&mut self) {
        if self.broken.as_ref().is_some_and(|broken| self.time.clock().elapsed() >= broken.next_try) {
            self.resume(&mut Group::default());
        }
        let mut upkeep = std::mem::take(&mut self.upkeep);
        if let Err(error) = upkeep.run(self) {
            self.fail(error, Group::default());
        }
        self.upkeep = upkeep;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(super) fn log_mut(&mut self, log: Log) -> Option<&mut LogWriter> {
        self.logs.iter_mut().find(|writer| writer.row.log == log)
    }

    /// Makes a group durable and answers it.
    pub(super) fn commit(&mut self, pending: Vec<Pending>) {
        let started = self.time.clock().elapsed();
        let time = self.time.now();
        let mut next = self.shared.last().next();
        let mut group = Group::default();
        for append in pending {
            self.stage(append, time, &mut next, &mut group);
        }
        let written = self.logs.iter_mut().try_for_each(LogWriter::write);
        let took = self.time.clock().elapsed().saturating_sub(started);
        if !group.records.is_empty() {
            self.shared.metrics.commit_duration.record(took.as_secs_f64());
        }
        let span = span_of_commit(group.records.len(), took, &written);
        match written {
            Ok(()) => self.publish(group),
            // What is said of the failure stands in the span's trace.
            Err(error) => span.in_scope(|| self.fail(error, group)),
        }
    }

    fn stage(&mut self, append: Pending, time: Timestamp, next: &mut Seq, group: &mut Group) {
        let Pending { stream, expected_last_seq, records, bodies, answer } = append;
        let Some(log) = self.log_mut(stream.kind().log()) else { return };
        let actual = log.head(&stream);
        if let Some(expected) = expected_last_seq
            && expected != actual
        {
            group.refused.push((answer, AppendError::Conflict { expected, actual }));
            return;
        }
        let first = *next;
        let mut start = 0;
        for (new, end) in records {
            let prev_hash = log.stage(&stream, *next, time, &bodies[start..end]);
            if answer.is_none() {
                group.unawaited.push((group.records.len(), new.kind));
            }
            group.records.push(Record {
                seq: *next,
                time,
                stream: stream.clone(),
                kind: new.kind.to_owned(),
                version: new.version,
                actor: new.actor,
                trace_id: new.trace_id,
                detail: new.detail,
                prev_hash,
            });
            start = end;
            *next = next.next();
        }
        group.answers.push((answer, Appended { first, last: Seq(next.0 - 1), time }));
    }

    /// The group is durable: readers see it, folds take it in, subscribers and callers hear of it. In this order.
    fn publish(&mut self, group: Group) {
        self.logs.iter_mut().for_each(LogWriter::commit);
        let Group { records, answers, unawaited: _, refused } = group;
        if let Some(last) = records.last() {
            self.shared.last.store(last.seq.0, Ordering::Release);
            #[expect(
                clippy::cast_precision_loss,
                reason = "a gauge is a float; 2^53 records are out of reach"
            )]
            self.shared.metrics.last_seq.set(last.seq.0 as f64);
        }
        for record in records {
            self.folds
                .iter()
                .filter(|fold| fold.wants() == record.stream.kind())
                .for_each(|fold| fold.apply(&record));
            self.shared.metrics.appended(record.stream.kind(), 1);
            if self.shared.tail.receiver_count() > 0 {
                // The last subscriber may leave in between, which is normal.
                let _ = self.shared.tail.send(Arc::new(record));
            }
        }
        answers.into_iter().for_each(|(to, appended)| answer(to, Ok(appended)));
        refused.into_iter().for_each(|(to, error)| answer(to, Err(error)));
        if let Err(error) = self.logs.iter().try_for_each(LogWriter::write_index_if_long) {
            self.fail(error, Group::default());
        }
    }

    /// The store failed. The group may have landed: it is read back if the disk works again at once, else it counts as
    /// not appended, and is cut before anything else is written.
    fn fail(&mut self, error: StoreError, mut group: Group) {
        self.degrade(&error);
        if matches!(error, StoreError::Sync { .. }) {
            self.logs.iter_mut().for_each(LogWriter::undo);
        }
        self.resume(&mut group);
        if self.broken.is_some() || !group.answers.is_empty() {
            self.logs.iter_mut().for_each(LogWriter::undo);
            for (index, kind) in group.unawaited {
                let Record { stream, detail, .. } = &group.records[index];
                self.lost(stream, kind, detail);
            }
            let unavailable = AppendError::Unavailable(error.to_string());
            group.answers.into_iter().for_each(|(to, _)| answer(to, Err(unavailable.clone())));
        }
        group.refused.into_iter().for_each(|(to, error)| answer(to, Err(error)));
    }

    /// A record that nobody waited for is lost.
    fn lost(&self, stream: &StreamId, kind: &'static str, detail: &Value) {
        self.shared.metrics.lost(kind);
        self.folds
            .iter()
            .filter(|fold| fold.wants() == stream.kind())
            .for_each(|fold| fold.lost(kind, detail));
    }

    /// Takes no appends until the store was opened again, which is tried at once.
    pub(super) fn degrade(&mut self, error: &StoreError) {
        self.shared.metrics.failed(reason(error));
        tracing::error!(source = "journal", cause = %error, "the journal cannot write");
        self.shared.set_health(Health::Degraded(format!("{error}: plimsoll tries again by itself")));
        let roll = matches!(error, StoreError::Sync { .. });
        self.broken = Some(Broken { next_try: Duration::ZERO, pause: BACKOFF.0, roll });
    }

    /// Tries to open the store again. Publishes `group` if it turns out to be durable.
    fn resume(&mut self, group: &mut Group) {
        let Some(broken) = self.broken.take() else { return };
        match self.reopen(&broken) {
            Ok(landed) => {
                self.shared.set_health(Health::Writing);
                tracing::info!("the journal can write again");
                if landed == Landed::Yes {
                    self.publish(std::mem::take(group));
                }
            }
            Err(Trouble::Damaged(what)) => {
                self.shared.metrics.failed(Reason::Damaged);
                tracing::error!(source = "journal", cause = what, "the journal is damaged");
                self.shared.set_health(Health::ReadOnly(what));
                self.logs.clear();
            }
            Err(Trouble::Store(error)) => {
                self.shared.metrics.failed(reason(&error));
                let next_try = self.time.clock().elapsed() + broken.pause;
                let pause = (broken.pause * 2).min(BACKOFF.1);
                self.broken = Some(Broken { next_try, pause, ..broken });
            }
        }
    }

    /// Until the disk takes writes, the failed store stays open: what it has synced can still be read.
    fn reopen(&mut self, broken: &Broken) -> Result<Landed, Trouble> {
        reserve::keep(self.shared.data_dir.path())?;
        let probe = self.shared.journal_dir.join("probe");
        let probed = disk::probe(&probe, PROBE_BYTES);
        probed.map_err(|source| StoreError::Io { doing: "trying whether the disk takes writes", source })?;
        let shared = Arc::clone(&self.shared);
        let _alone = shared.alone();
        self.shared.rows.iter().for_each(|row| row.close());
        self.logs.iter_mut().for_each(LogWriter::close);
        let first = self.shared.last().next();
        let mut staged = 0;
        let mut missing = 0;
        for log in &mut self.logs {
            let landed = log.reopen(first)?;
            staged += usize::from(log.has_staged());
            missing += usize::from(log.has_staged() && landed == Landed::No);
        }
        let landed = if staged > 0 && missing == 0 { Landed::Yes } else { Landed::No };
        self.logs.iter_mut().try_for_each(|log| log.settle(landed))?;
        if broken.roll {
            self.logs.iter_mut().try_for_each(|log| log.roll(first))?;
        }
        Ok(landed)
    }

    fn finish(&mut self) {
        let mut upkeep = std::mem::take(&mut self.upkeep);
        upkeep.close(self);
        self.logs.iter_mut().for_each(LogWriter::close);
        self.shared.rows.iter().for_each(|row| row.close());
        self.shared.set_health(Health::Closed);
    }
}

/// A root span for a commit that was slow or failed; none for the many others. It is made afterwards, so `ms` tells how
/// long the commit took and its own end does not.
fn span_of_commit(records: usize, took: Duration, written: &Result<(), StoreError>) -> Span {
    let (records, ms) = (records as u64, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match written {
        Ok(()) if took <= SLOW_COMMIT => Span::none(),
        Ok(()) => tracing::info_span!(parent: None, "journal.commit", records, ms),
        Err(_) => {
            tracing::info_span!(parent: None, "journal.commit", records, ms, otel.status_code = "ERROR")
        }
    }
}

fn answer(to: Option<Answer>, result: Result<Appended, AppendError>) {
    if let Some(to) = to {
        // The caller may have stopped waiting, which is normal.
        let _ = to.send(result);
    }
}

fn reason(error: &StoreError) -> Reason {
    match error {
        StoreError::Io { source, .. } => match source.kind() {
            kind if disk::is_full(kind) => Reason::DiskFull,
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => Reason::ReadOnly,
            _ => Reason::Io,
        },
        StoreError::Sync { .. } => Reason::Sync,
        StoreError::Damaged { .. } => Reason::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slow_or_failed_commit_has_a_span() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let failed = || StoreError::Sync { source: std::io::Error::other("no space") };
            assert!(span_of_commit(3, Duration::from_millis(50), &Ok(())).is_none());
            let spans = [
                span_of_commit(3, Duration::from_millis(51), &Ok(())),
                span_of_commit(3, Duration::from_millis(1), &Err(failed())),
            ];
            for span in spans {
                let metadata = span.metadata().expect("recorded");
                assert_eq!(metadata.name(), "journal.commit");
                let fields: Vec<_> = metadata.fields().iter().map(|field| field.name()).collect();
                assert!(fields.starts_with(&["records", "ms"]), "{fields:?}");
            }
        });
    }
}
