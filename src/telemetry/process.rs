//! Metrics of the process and of its runtime, read from the system when somebody scrapes.

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::PrometheusRecorder;
use metrics_process::Collector;
use tokio_metrics::{RuntimeIntervals, RuntimeMonitor};

use super::metric::{Counter, Definition, Gauge};
use super::registry::Registry;

static CPU: Counter<0> =
    Counter::new("process_cpu_seconds_total", &[], "Processor time used, in whole seconds.").internal();
static OPEN_FDS: Gauge<0> = Gauge::new("process_open_fds", &[], "Open file descriptors.").internal();
static MAX_FDS: Gauge<0> =
    Gauge::new("process_max_fds", &[], "File descriptors that may be open at once.").internal();
static VIRTUAL: Gauge<0> =
    Gauge::new("process_virtual_memory_bytes", &[], "Virtual memory in bytes.").internal();
static VIRTUAL_MAX: Gauge<0> =
    Gauge::new("process_virtual_memory_max_bytes", &[], "Virtual memory that may be used, in bytes.")
        .internal();
static RESIDENT: Gauge<0> =
    Gauge::new("process_resident_memory_bytes", &[], "Resident memory in bytes.").internal();
static START_TIME: Gauge<0> =
    Gauge::new("process_start_time_seconds", &[], "When the process started, in seconds since 1970.")
        .internal();
static THREADS: Gauge<0> = Gauge::new("process_threads", &[], "Threads of the operating system.").internal();

static WORKERS: Gauge<0> =
    Gauge::new("plimsoll_runtime_workers", &[], "Threads that run asynchronous tasks.").internal();
static TASKS: Gauge<0> =
    Gauge::new("plimsoll_runtime_tasks", &[], "Asynchronous tasks that have not ended.").internal();
static QUEUE: Gauge<0> = Gauge::new(
    "plimsoll_runtime_queue_depth",
    &[],
    "Asynchronous tasks that are ready and wait for a thread, in the queue all threads share.",
)
.internal();
static BUSY: Gauge<0> = Gauge::new(
    "plimsoll_runtime_busy_ratio",
    &[],
    "Share of time that the threads of the runtime were busy since the scrape before, 0 to 1.",
)
.internal();

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[
    &CPU.0,
    &OPEN_FDS.0,
    &MAX_FDS.0,
    &VIRTUAL.0,
    &VIRTUAL_MAX.0,
    &RESIDENT.0,
    &START_TIME.0,
    &THREADS.0,
    &WORKERS.0,
    &TASKS.0,
    &QUEUE.0,
    &BUSY.0,
];

/// Reads what is about the whole process. Only made when somebody scrapes.
pub(super) struct ProcessObserver {
    collector: Collector,
    /// A std mutex suffices: it is held for microseconds, by scrapes only.
    runtime: Mutex<Option<RuntimeObserver>>,
}

struct RuntimeObserver {
    intervals: RuntimeIntervals,
    gauges: [metrics::Gauge; 4],
}

impl ProcessObserver {
    pub(super) fn new() -> Self {
        Self { collector: Collector::default(), runtime: Mutex::new(None) }
    }

    /// Brings the metrics up to date. Those of the runtime only if called from one.
    pub(super) fn observe(&self, recorder: &PrometheusRecorder, registry: &Registry) {
        metrics::with_local_recorder(recorder, || self.collector.collect());
        let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let observer = runtime.get_or_insert_with(|| RuntimeObserver {
            intervals: RuntimeMonitor::new(&handle).intervals(),
            gauges: [&WORKERS, &TASKS, &QUEUE, &BUSY].map(|gauge| registry.gauges(gauge).handle()),
        });
        let Some(interval) = observer.intervals.next() else { return };
        let [workers, tasks, queue, busy] = &observer.gauges;
        #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^53 of each")]
        for (gauge, count) in [
            (workers, interval.workers_count),
            (tasks, interval.live_tasks_count),
            (queue, interval.global_queue_depth),
        ] {
            gauge.set(count as f64);
        }
        busy.set(interval.busy_ratio().clamp(0.0, 1.0));
    }
}
