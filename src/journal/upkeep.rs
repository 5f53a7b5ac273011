//! What the writer does besides appending: rolls partitions, drops old ones, takes snapshots, writes down what was
//! acknowledged, measures sizes, and puts the heads into the log.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::log_writer::LogWriter;
use super::metrics::Reason;
use super::partition::Partition;
use super::queue::Pending;
use super::row::LogRow;
use super::sidecar::{Acknowledged, LogEnd};
use super::snapshot::{self, Occasion};
use super::store::StoreError;
use super::writer::Writer;
use super::{Actor, Append, Log, NewRecord, Retention, StreamId, disk, kinds};
use crate::ids::Seq;
use crate::limits::JOURNAL_SNAPSHOT_RECORDS_MAX;

const SIDECAR_EVERY: Duration = Duration::from_secs(1);
const SIZES_EVERY: Duration = Duration::from_secs(5);
const RETENTION_EVERY: Duration = Duration::from_secs(60);
const HEADS_EVERY: Duration = Duration::from_secs(3_600);

/// When each part is due, and how far it got.
#[derive(Default)]
pub(super) struct Upkeep {
    sidecar_due: Duration,
    sizes_due: Duration,
    retention_due: Duration,
    heads_due: Duration,
    written_down: Seq,
    snapshot_at: Seq,
    /// Bytes of the newest partition of each log.
    newest_bytes: [u64; 2],
}

impl Upkeep {
    pub(super) fn new(now: Duration, last: Seq) -> Self {
        Self { heads_due: now + HEADS_EVERY, snapshot_at: last, ..Self::default() }
    }

    /// Does what is due.
    pub(super) fn run(&mut self, writer: &mut Writer) -> Result<(), StoreError> {
        let now = writer.time.clock().elapsed();
        if now >= self.sizes_due {
            self.sizes_due = now + SIZES_EVERY;
            self.measure(writer);
        }
        if writer.is_broken() || writer.logs.is_empty() {
            return Ok(());
        }
        if now >= self.sidecar_due && self.written_down != writer.shared.last() {
            self.sidecar_due = now + SIDECAR_EVERY;
            self.write_down(writer);
        }
        if self.roll(writer)? || now >= self.retention_due {
            self.retention_due = now + RETENTION_EVERY;
            for log in Log::ALL {
                retain(writer, log)?;
            }
        }
        if writer.shared.last().0 - self.snapshot_at.0 >= JOURNAL_SNAPSHOT_RECORDS_MAX {
            self.snapshot(writer, Occasion::Kept);
        }
        if now >= self.heads_due {
            self.heads_due = now + HEADS_EVERY;
            for log in &writer.logs {
                let position = log.position();
                let (log, seq, hash) = (log.row.log, position.seq, position.hash);
                tracing::info!(head = %super::Head { log, seq, hash }, "the journal's head");
            }
        }
        Ok(())
    }

    /// The last things before the stores close. Failures are logged: the next start does without.
    pub(super) fn close(&mut self, writer: &mut Writer) {
        if writer.is_broken() || writer.logs.is_empty() {
            return;
        }
        for log in &writer.logs {
            if let Err(error) = log.write_index(1).and_then(|()| log.flush()) {
                tracing::warn!(cause = %error, "the journal's index was not written at close");
            }
        }
        self.snapshot(writer, Occasion::Closing);
        self.write_down(writer);
    }

    fn measure(&mut self, writer: &Writer) {
        let shared = &writer.shared;
        let mut total = 0;
        for (row, newest) in shared.rows.iter().zip(&mut self.newest_bytes) {
            let bytes = disk::bytes_of(&row.dir);
            *newest = row.partitions().last().map_or(0, |p| disk::bytes_of(&p.dir));
            shared.metrics.size(row.log, bytes);
            total += bytes;
        }
        shared.bytes.store(total, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are 8 PiB")]
        {
            shared.metrics.size_dir.set(disk::bytes_of(shared.data_dir.path()) as f64);
            if let Ok(disk::Space { free, capacity }) = disk::space(shared.data_dir.path()) {
                shared.metrics.free.set(free as f64);
                shared.metrics.capacity.set(capacity as f64);
            }
        }
    }

    fn write_down(&mut self, writer: &Writer) {
        let end = |log: &LogWriter| {
            (log.row.log, LogEnd { seq: log.position().seq, partition: log.partition().name() })
        };
        let seq = writer.shared.last();
        let acknowledged = Acknowledged { seq, logs: writer.logs.iter().map(end).collect() };
        match acknowledged.write(&writer.shared.journal_dir) {
            Ok(()) => self.written_down = seq,
            Err(error) => {
                writer.shared.metrics.failed(Reason::Io);
                tracing::warn!(cause = %error, "cannot write down what was acknowledged");
            }
        }
    }

    fn snapshot(&mut self, writer: &Writer, occasion: Occasion) {
        let seq = writer.shared.last();
        if occasion == Occasion::Closing && seq == self.snapshot_at {
            return;
        }
        self.snapshot_at = seq;
        let Some(log) = writer.logs.iter().max_by_key(|log| log.position().seq) else { return };
        take_snapshot(writer, log.partition(), occasion);
    }

    /// Begins new partitions where the newest is full or old. Answers whether it did.
    fn roll(&mut self, writer: &mut Writer) -> Result<bool, StoreError> {
        let now = writer.time.now();
        let config = writer.config;
        let first = writer.shared.last().next();
        let mut rolled = Vec::new();
        for (log, newest_bytes) in writer.logs.iter_mut().zip(&mut self.newest_bytes) {
            let position = log.position();
            let retention = retention(&config, log.row.log);
            // A log's cap must be reachable by dropping whole partitions.
            let bytes_max = config.partition_bytes_max.0.min(retention.bytes_max.0 / 4);
            let age = now.since(log.partition().manifest().first_time);
            let full = position.records >= config.partition_records_max
                || position.bytes.max(*newest_bytes) >= bytes_max
                || age >= config.partition_age_max.0.min(retention.age_max.0);
            if position.records > 0 && full {
                log.roll(first)?;
                *newest_bytes = 0;
                rolled.push(Arc::clone(log.partition()));
            }
        }
        for partition in &rolled {
            self.snapshot_at = writer.shared.last();
            take_snapshot(writer, partition, Occasion::Kept);
        }
        if !rolled.is_empty() {
            self.write_down(writer);
        }
        Ok(!rolled.is_empty())
    }
}

fn retention(config: &super::Config, log: Log) -> Retention {
    match log {
        Log::Audit => config.audit,
        Log::Work => config.work,
    }
}

fn take_snapshot(writer: &Writer, partition: &Partition, occasion: Occasion) {
    if let Err(error) = snapshot::write(&partition.dir, &writer.folds, writer.shared.last(), occasion) {
        writer.shared.metrics.failed(Reason::Snapshot);
        tracing::warn!(cause = %error, "a snapshot was not taken, the next start reads more records");
    }
}

/// Drops the oldest partitions of a log while it is over its age or its size.
fn retain(writer: &mut Writer, log: Log) -> Result<(), StoreError> {
    let Some(row) = writer.logs.iter().find(|w| w.row.log == log).map(|w| Arc::clone(&w.row)) else {
        return Ok(());
    };
    let retention = retention(&writer.config, log);
    let now = writer.time.now();
    let partitions = row.partitions();
    let mut sizes: Vec<u64> = partitions.iter().map(|p| disk::bytes_of(&p.dir)).collect();
    for (partition, newer) in partitions.iter().zip(1..partitions.len()) {
        let total: u64 = sizes.iter().sum();
        let Some(seal) = partition.manifest().sealed else { break };
        let too_old = now.since(seal.last_time) > retention.age_max.0;
        if !too_old && total <= retention.bytes_max.0 {
            break;
        }
        if !dispensable(writer, log, partition, seal.last_seq) {
            break;
        }
        drop_oldest(writer, &row, partition)?;
        if writer.is_broken() {
            break;
        }
        sizes[newer - 1] = 0;
    }
    Ok(())
}

/// Whether every fold has a snapshot that is later than the partition and outside it; takes one if not.
fn dispensable(writer: &Writer, log: Log, partition: &Partition, last: Seq) -> bool {
    let name = partition.name();
    let covered = || snapshot::covered_without(writer.shared.rows(), &writer.folds, (log, &name), last);
    if covered() {
        return true;
    }
    if let Some(newest) = writer.logs.iter().find(|w| w.row.log == log) {
        take_snapshot(writer, newest.partition(), Occasion::Kept);
    }
    covered()
}

fn drop_oldest(writer: &mut Writer, row: &LogRow, partition: &Partition) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { doing: "dropping a partition", source };
    let detail = dropped_detail(partition);
    let Some(hidden) = row.take_oldest().map_err(io)? else { return Ok(()) };
    writer.shared.metrics.dropped(row.log);
    writer.commit(vec![own_record(kinds::PARTITION_DROPPED, detail)]);
    if !writer.is_broken() {
        fs::remove_dir_all(&hidden).map_err(io)?;
    }
    Ok(())
}

/// What the record of a dropped partition says.
pub(super) fn dropped_detail(partition: &Partition) -> serde_json::Value {
    let manifest = partition.manifest();
    let seal = manifest.sealed;
    json!({
        "log": manifest.log,
        "partition": format!("{:020}", manifest.first_seq.0),
        "first_seq": manifest.first_seq,
        "last_seq": seal.map(|s| s.last_seq),
        "last_hash": seal.map(|s| s.last_hash),
        "records": seal.map(|s| s.records),
    })
}

/// A record that the journal appends by itself.
pub(super) fn own_record(kind: &'static str, detail: serde_json::Value) -> Pending {
    let record = NewRecord { kind, version: 1, actor: Actor::System, trace_id: None, detail };
    let append = Append { stream: StreamId::operator(), expected_last_seq: None, records: vec![record] };
    Pending::new(append, None).expect("the journal's own records are small objects")
}
