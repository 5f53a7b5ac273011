//! The durable journal: opens the data directory, recovers both logs, restores the folds, and starts the writer.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};

use super::data_dir::{DataDir, OpenError};
use super::log_writer::{LogWriter, Recovered, Trouble};
use super::metrics::{Metrics, Reason};
use super::partition::Partition;
use super::queue::{Groups, Pending, Queue, Urgency};
use super::row::LogRow;
use super::shared::{Health, Shared};
use super::sidecar::Acknowledged;
use super::store::StoreError;
use super::upkeep::{dropped_detail, own_record};
use super::verify::Check;
use super::writer::{Timeline, Writer};
use super::{
    Append, AppendError, Appended, Config, Fold, Head, Journal, Log, Page, ReadError, Record, Scan, Status,
    StreamId, Verified, VerifyError, disk, kinds, reserve, scan, snapshot, verify,
};
use crate::clock::{Clock, Timestamp};
use crate::ids::Seq;
use crate::limits::JOURNAL_TAIL_RECORDS_MAX;
use crate::telemetry::Registry;

/// What a journal needs besides its directory and its configuration.
#[derive(Clone)]
pub struct JournalDeps {
    /// Where time comes from.
    pub clock: Clock,
    /// Where its metrics go.
    pub registry: Registry,
    /// The state that it keeps up to date.
    pub folds: Vec<Arc<dyn Fold>>,
}

/// The journal on disk.
pub struct SledJournal {
    shared: Arc<Shared>,
    time: Timeline,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SledJournal {
    /// Opens the journal in a data directory, which is made if need be and locked until [`Journal::close`].
    ///
    /// Damage does not fail it: the journal is then open for reading only, and [`Status::degraded`] says what to do.
    /// Blocks on IO.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(data_dir: &Path, config: &Config, deps: JournalDeps) -> Result<Self, OpenError> {
        Self::open_in(Arc::new(DataDir::open(data_dir)?), config, deps)
    }

    /// The same in a directory that is locked already.
    pub(super) fn open_in(
        data_dir: Arc<DataDir>,
        config: &Config,
        deps: JournalDeps,
    ) -> Result<Self, OpenError> {
        let io = |path: &Path, doing| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, doing, source }
        };
        let path = data_dir.path().to_owned();
        let journal_dir = path.join("journal");
        let (mut rows, mut broken) = (Vec::new(), Vec::new());
        for log in Log::ALL {
            let made = fs::create_dir_all(journal_dir.join(log.as_str()));
            made.map_err(io(&path, "making the journal's folder"))?;
            let (row, unreadable) =
                LogRow::load(log, &journal_dir).map_err(io(&path, "listing the journal"))?;
            row.remove_half_made().map_err(io(&path, "deleting a partition that was half made"))?;
            rows.push(Arc::new(row));
            broken.extend(unreadable.into_iter().map(|what| (log, what)));
        }
        for dir in [&journal_dir, &path] {
            disk::sync_dir(dir).map_err(io(&path, "syncing the journal's folder"))?;
        }
        let rows = [Arc::clone(&rows[0]), Arc::clone(&rows[1])];
        let (queue, receiver) = Queue::new();
        let tail = broadcast::channel(JOURNAL_TAIL_RECORDS_MAX).0;
        let shared = Arc::new(Shared::new(data_dir, rows, (queue, tail), Metrics::new(&deps.registry)));
        let mut opening = Opening { shared: Arc::clone(&shared), notes: Vec::new(), damaged: Vec::new() };
        let (logs, shortage) = opening.logs_in_need(&broken, deps.clock.now()).map_err(|error| {
            let source = std::io::Error::new(error.io_kind(), error.to_string());
            OpenError::Io { path: path.clone(), doing: "opening the journal", source }
        })?;
        let logs = if opening.restore(&deps.folds) { logs } else { Vec::new() };
        let time = logs.iter().map(|log| log.position().time).max().unwrap_or_default();
        let time = Timeline::new(deps.clock, time);
        let mut writer = Writer::new(Arc::clone(&shared), logs, deps.folds, *config, time.clone());
        opening.settle(&mut writer).map_err(io(&path, "deleting dropped partitions"))?;
        let shortage = shortage.or_else(|| reserve::keep(&path).err());
        if let Some(error) = shortage.filter(|_| !writer.logs.is_empty()) {
            writer.degrade(&error);
        }
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || run(writer, Groups::new(receiver)))
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self { shared, time, writer: Mutex::new(Some(thread)) })
    }

    /// The random id of the data directory.
    #[must_use]
    pub fn data_dir_id(&self) -> &str {
        self.shared.data_dir.id()
    }
}

/// The writer's thread. A panic there is a bug, in the journal or in a fold: nothing more is appended, and it is said.
fn run(writer: Writer, groups: Groups) {
    let shared = Arc::clone(&writer.shared);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run(groups)));
    if ended.is_err() {
        shared.queue.close();
        shared.set_health(Health::Degraded(
            "the journal's writer ended in a panic: restart plimsoll".to_owned(),
        ));
        tracing::error!(source = "journal", "the journal's writer ended in a panic");
    }
}

/// The steps of opening that concern both logs.
struct Opening {
    shared: Arc<Shared>,
    /// Records to append about what was found.
    notes: Vec<Pending>,
    /// Logs of which not every record may be there.
    damaged: Vec<Log>,
}

impl Opening {
    /// The same as [`Opening::logs`]; on a full disk with the space that was kept for that, and then with the error.
    fn logs_in_need(
        &mut self,
        broken: &[(Log, String)],
        now: Timestamp,
    ) -> Result<(Vec<LogWriter>, Option<StoreError>), StoreError> {
        match self.logs(broken, now) {
            Ok(logs) => Ok((logs, None)),
            Err(error) if error.is_full() && reserve::release(self.shared.data_dir.path()) => {
                self.shared.rows.iter().for_each(|row| row.close());
                self.notes.clear();
                let logs = self.logs(broken, now);
                reserve::keep_what_fits(self.shared.data_dir.path());
                Ok((logs?, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// The writing ends of both logs; none if something is damaged.
    fn logs(&mut self, broken: &[(Log, String)], now: Timestamp) -> Result<Vec<LogWriter>, StoreError> {
        let acknowledged = Acknowledged::load(&self.shared.journal_dir);
        self.set_last(&[], acknowledged.seq);
        for (log, what) in broken {
            self.read_only(
                *log,
                format!(
                    "a partition's manifest cannot be read ({what}): nothing is appended, the rest can be read; put \
                     the file back from a backup, or move its folder away to go on without it"
                ),
            );
        }
        if !broken.is_empty() {
            return Ok(Vec::new());
        }
        let mut logs = Vec::new();
        let newest = self.shared.rows.iter().filter_map(|row| Some(row.partitions().last()?.manifest()));
        let sealed = newest.map(|m| m.sealed.map_or(m.first_seq.0 - 1, |seal| seal.last_seq.0)).max();
        let mut next = Seq(acknowledged.seq.0.max(sealed.unwrap_or(0))).next();
        for row in self.shared.rows.clone() {
            let log = row.log;
            match LogWriter::recover(row, acknowledged.logs.get(&log), next, now) {
                Ok((writer, recovered)) => {
                    next = next.max(writer.position().seq.next());
                    self.note(log, &recovered);
                    logs.push(writer);
                }
                Err(Trouble::Damaged(what)) => {
                    self.read_only(log, what);
                    return Ok(Vec::new());
                }
                Err(Trouble::Store(error)) => return Err(error),
            }
        }
        self.set_last(&logs, acknowledged.seq);
        Ok(logs)
    }

    fn set_last(&self, logs: &[LogWriter], acknowledged: Seq) {
        let last = logs.iter().map(|log| log.position().seq).max().unwrap_or_default().max(acknowledged);
        self.shared.last.store(last.0, std::sync::atomic::Ordering::Release);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 records are out of reach")]
        self.shared.metrics.last_seq.set(last.0 as f64);
    }

    fn note(&mut self, log: Log, recovered: &Recovered) {
        if let Some((seq, cause)) = &recovered.cut {
            self.shared.metrics.cut.increment(1);
            tracing::warn!(%log, %seq, cause, "the torn end of a log was cut");
            self.notes.push(own_record(kinds::END_CUT, json!({"log": log, "seq": seq, "cause": cause})));
        }
        if let Some(end) = &recovered.lost {
            tracing::warn!(%log, partition = end.partition, "a partition is gone, a new one was begun");
            let detail = json!({"log": log, "partition": end.partition, "last_seq": end.seq});
            self.notes.push(own_record(kinds::PARTITION_LOST, detail));
        }
    }

    fn read_only(&mut self, log: Log, what: String) {
        self.damaged.push(log);
        self.shared.metrics.failed(Reason::Damaged);
        tracing::error!(source = "journal", cause = what, "the journal is open for reading only");
        self.shared.set_health(Health::ReadOnly(what));
    }

    /// Whether the folds stand at the journal's end. Those of a damaged log are told.
    fn restore(&mut self, folds: &[Arc<dyn Fold>]) -> bool {
        for (log, error) in snapshot::restore(self.shared.rows(), folds, self.shared.until()) {
            self.read_only(log, error.to_string());
        }
        let damaged = folds.iter().filter(|fold| self.damaged.contains(&fold.wants().log()));
        damaged.for_each(|fold| fold.records_lost());
        self.damaged.is_empty()
    }

    /// Ends the dropping of partitions that a crash cut short, and appends what was found.
    fn settle(mut self, writer: &mut Writer) -> std::io::Result<()> {
        if writer.logs.is_empty() {
            return Ok(());
        }
        let mut notes = std::mem::take(&mut self.notes);
        let mut hidden = Vec::new();
        for row in &self.shared.rows {
            for folder in row.half_dropped()? {
                // Without a manifest its deletion had begun, so its record was there.
                if let Ok(Some(partition)) = Partition::load(folder.clone()) {
                    let detail = dropped_detail(&partition);
                    if !self.already_told(&detail) {
                        notes.push(own_record(kinds::PARTITION_DROPPED, detail));
                    }
                }
                hidden.push(folder);
            }
        }
        if !notes.is_empty() {
            writer.commit(notes);
        }
        if !writer.is_broken() {
            hidden.iter().try_for_each(fs::remove_dir_all)?;
        }
        Ok(())
    }

    fn already_told(&self, detail: &serde_json::Value) -> bool {
        let query = Scan {
            stream: Some(StreamId::operator()),
            kind: Some(kinds::PARTITION_DROPPED.to_owned()),
            limit: 10,
            newest_first: true,
            ..Scan::default()
        };
        let page = scan::page(self.shared.rows(), &query, self.shared.until());
        page.is_ok_and(|page| page.records.iter().any(|record| record.detail == *detail))
    }
}

impl Journal for SledJournal {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        let (to, answer) = oneshot::channel();
        let pushed = Pending::new(append, Some(to))
            .and_then(|pending| self.shared.queue.push(pending, Urgency::Awaited));
        Box::pin(async move {
            self.counted(pushed)?;
            answer.await.unwrap_or(Err(AppendError::Closed))
        })
    }

    fn offer(&self, append: Append) -> Result<(), AppendError> {
        let pending = Pending::new(append, None)?;
        self.counted(self.shared.queue.push(pending, Urgency::Offered))
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        let (to, done) = oneshot::channel();
        // A full queue has so much to do that it hurries, and a closed one has nothing left.
        let pushed = self.shared.queue.push(Pending::nothing(to), Urgency::Awaited);
        Box::pin(async move {
            if pushed.is_ok() {
                // Whatever became of it, its turn has come.
                let _ = done.await;
            }
        })
    }

    fn scan(&self, query: &Scan) -> Result<Page, ReadError> {
        let _reading = self.shared.reading();
        scan::page(self.shared.rows(), query, self.shared.until())
    }

    fn seq_at(&self, time: Timestamp) -> Result<Seq, ReadError> {
        let _reading = self.shared.reading();
        scan::seq_at(self.shared.rows(), time, self.shared.last().next())
    }

    fn kept_from(&self, log: Log) -> Result<Seq, ReadError> {
        Ok(scan::row_of(self.shared.rows(), log).kept_from())
    }

    fn snapshots(&self, fold: &str) -> Result<Vec<Seq>, ReadError> {
        Ok(snapshot::seqs(self.shared.rows(), fold))
    }

    fn snapshot_before(&self, fold: &str, before: Seq) -> Result<Option<(Seq, Value)>, ReadError> {
        Ok(snapshot::before(self.shared.rows(), fold, before.min(self.shared.until())))
    }

    fn tail(&self) -> broadcast::Receiver<Arc<Record>> {
        self.shared.tail.subscribe()
    }

    fn now(&self) -> Timestamp {
        self.time.peek()
    }

    fn status(&self) -> Status {
        self.shared.status()
    }

    fn head(&self, log: Log) -> Result<Head, ReadError> {
        let _reading = self.shared.reading();
        verify::head(self.shared.rows(), log, self.shared.until())
    }

    fn verify_while(
        &self,
        log: Log,
        expected: &[Head],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Verified, VerifyError> {
        let _reading = self.shared.reading();
        let go_on = || go_on() && !self.shared.is_gate_wanted();
        let check = Check { log, expected, until: self.shared.until(), go_on: &go_on };
        verify::verify(self.shared.rows(), &check)
    }

    fn close(&self) {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its panics were caught and told.
        let _ = writer.map(JoinHandle::join);
    }
}

impl SledJournal {
    fn counted<T>(&self, result: Result<T, AppendError>) -> Result<T, AppendError> {
        if matches!(result, Err(AppendError::QueueFull)) {
            self.shared.metrics.failed(Reason::QueueFull);
        }
        result
    }
}

impl Drop for SledJournal {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Actor, NewRecord};
    use super::*;

    fn requests(count: usize) -> Append {
        let record = NewRecord {
            kind: "request_finished",
            version: 1,
            actor: Actor::System,
            trace_id: None,
            detail: json!({}),
        };
        Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record; count] }
    }

    /// The moment between the drop and its record, held still.
    #[test]
    fn a_partition_that_goes_before_its_record_stands_is_no_damage() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let config = Config { partition_records_max: 10, ..Config::default() };
        let registry = Registry::new(&crate::catalogue::all()).expect("a registry");
        let deps = JournalDeps { clock: Clock::system(), registry, folds: Vec::new() };
        let journal = SledJournal::open(dir.path(), &config, deps).expect("opens");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let work = Log::ALL.iter().position(|log| *log == Log::Work).expect("listed");
        let row = journal.shared.rows()[work];
        while row.partitions().len() < 3 {
            runtime.block_on(journal.append(requests(10))).expect("appended");
        }
        // One that was dropped long ago, with its record.
        let mut told = requests(1);
        told.stream = StreamId::operator();
        told.records[0].kind = kinds::PARTITION_DROPPED;
        told.records[0].detail = dropped_detail(&row.partitions()[0]);
        row.take_oldest().expect("renamed");
        runtime.block_on(journal.append(told)).expect("appended");
        row.take_oldest().expect("renamed");
        journal.verify(Log::Work, None).expect("no damage");
    }
}
