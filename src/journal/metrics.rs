//! Metrics of the journal.

use super::{Log, StreamKind};
use crate::telemetry::metric::{Counter, Counters, Definition, Gauge, Gauges, Histogram};
use crate::telemetry::{Registry, Shared};

/// Records appended, by kind of stream.
pub static APPENDS: Counter<1> =
    Counter::new("plimsoll_journal_appends_total", &["stream"], "Records made durable, by kind of stream.");

/// How long a group took from its first write to being durable.
pub static COMMIT_DURATION: Histogram<0> = Histogram::new(
    "plimsoll_journal_commit_duration_seconds",
    &[],
    "Time from the first write of a group of records until it was durable.",
    (
        &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0],
        "a fast disk syncs in 0.2 ms, a full group takes 10 ms, over 50 ms the disk is in trouble",
    ),
);

/// Bytes on disk.
pub static SIZE: Gauge<1> = Gauge::new(
    "plimsoll_journal_size_bytes",
    &["log"],
    "Bytes that the journal takes up on the disk, by log.",
);

/// What went wrong.
pub static ERRORS: Counter<1> = Counter::new(
    "plimsoll_journal_errors_total",
    &["reason"],
    "Failures of the journal: disk_full, read_only, io, sync, damaged, queue_full, snapshot.",
);

/// The newest durable record.
pub static LAST_SEQ: Gauge<0> =
    Gauge::new("plimsoll_journal_last_seq", &[], "The seq of the newest durable record.");

/// Whether appends are refused.
pub static DEGRADED: Gauge<0> =
    Gauge::new("plimsoll_journal_degraded", &[], "1 while the journal cannot write, else 0.");

/// Records cut at start.
pub static CUT: Counter<0> = Counter::new(
    "plimsoll_journal_cut_records_total",
    &[],
    "Torn ends that were cut off: records that nobody had been told were durable.",
)
.internal();

/// Partitions dropped.
pub static DROPPED: Counter<1> = Counter::new(
    "plimsoll_journal_partitions_dropped_total",
    &["log"],
    "Partitions deleted because their log had reached its age or its size.",
)
.internal();

/// Space left.
pub static FREE: Gauge<0> = Gauge::new(
    "plimsoll_data_dir_free_bytes",
    &[],
    "Bytes that may still be written where the data directory lies.",
);

/// Space there is, used or not.
pub static CAPACITY: Gauge<0> = Gauge::new(
    "plimsoll_data_dir_capacity_bytes",
    &[],
    "Bytes that the file system where the data directory lies has in all, used and free.",
);

/// Space that is used.
pub static SIZE_DIR: Gauge<0> =
    Gauge::new("plimsoll_data_dir_size_bytes", &[], "Bytes that the data directory takes up on the disk.");

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[
    &APPENDS.0,
    &COMMIT_DURATION.0,
    &SIZE.0,
    &ERRORS.0,
    &LAST_SEQ.0,
    &DEGRADED.0,
    &CUT.0,
    &DROPPED.0,
    &FREE.0,
    &CAPACITY.0,
    &SIZE_DIR.0,
];

/// Why something failed, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    DiskFull,
    ReadOnly,
    Io,
    Sync,
    Damaged,
    QueueFull,
    Snapshot,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::DiskFull,
        Self::ReadOnly,
        Self::Io,
        Self::Sync,
        Self::Damaged,
        Self::QueueFull,
        Self::Snapshot,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::Io => "io",
            Self::Sync => "sync",
            Self::Damaged => "damaged",
            Self::QueueFull => "queue_full",
            Self::Snapshot => "snapshot",
        }
    }
}

/// The journal's handles.
pub(super) struct Metrics {
    appends: [metrics::Counter; StreamKind::ALL.len()],
    errors: Counters<1>,
    size: Gauges<1>,
    dropped: Counters<1>,
    shared: Shared,
    pub(super) commit_duration: metrics::Histogram,
    pub(super) last_seq: metrics::Gauge,
    pub(super) degraded: metrics::Gauge,
    pub(super) cut: metrics::Counter,
    pub(super) free: metrics::Gauge,
    pub(super) capacity: metrics::Gauge,
    pub(super) size_dir: metrics::Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let appends = registry.counters(&APPENDS);
        let metrics = Self {
            appends: StreamKind::ALL.map(|kind| appends.with([kind.as_str()])),
            errors: registry.counters(&ERRORS),
            size: registry.gauges(&SIZE),
            dropped: registry.counters(&DROPPED),
            shared: Shared::new(registry),
            commit_duration: registry.histograms(&COMMIT_DURATION).handle(),
            last_seq: registry.gauges(&LAST_SEQ).handle(),
            degraded: registry.gauges(&DEGRADED).handle(),
            cut: registry.counters(&CUT).handle(),
            free: registry.gauges(&FREE).handle(),
            capacity: registry.gauges(&CAPACITY).handle(),
            size_dir: registry.gauges(&SIZE_DIR).handle(),
        };
        metrics.appends.iter().for_each(|counter| counter.increment(0));
        metrics.cut.increment(0);
        Reason::ALL.iter().for_each(|reason| metrics.errors.with([reason.as_str()]).increment(0));
        Log::ALL.iter().for_each(|log| metrics.dropped.with([log.as_str()]).increment(0));
        metrics
    }

    pub(super) fn appended(&self, kind: StreamKind, records: u64) {
        for (other, counter) in StreamKind::ALL.iter().zip(&self.appends) {
            if *other == kind {
                counter.increment(records);
            }
        }
    }

    pub(super) fn failed(&self, reason: Reason) {
        self.errors.with([reason.as_str()]).increment(1);
    }

    /// Counts a record that nobody waits for and that was not appended.
    pub(super) fn lost(&self, kind: &'static str) {
        self.shared.dropped(kind, "unavailable", 1);
    }

    pub(super) fn dropped(&self, log: Log) {
        self.dropped.with([log.as_str()]).increment(1);
    }

    pub(super) fn size(&self, log: Log, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are 8 PiB")]
        self.size.with([log.as_str()]).set(bytes as f64);
    }
}
