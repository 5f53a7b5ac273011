//! Metrics of instances.

use std::collections::BTreeMap;

use serde_json::Value;

use super::machine::{FailureKind, State};
use super::record::EventKind;
use crate::ids::AgentId;
use crate::telemetry::Registry;
use crate::telemetry::metric::{Counter, Counters, Definition, Gauge, Gauges, Histogram, Histograms};

/// Each instance has a series for each kind of event (8) and for each sort of failure (13): enough for 125 and for 76 of
/// them; later ones become `other`.
const SERIES_MAX: usize = 1_000;

/// What happened to instances.
pub static LIFECYCLE_EVENTS: Counter<2> = Counter::new(
    "plimsoll_lifecycle_events_total",
    &["agent_instance", "event"],
    "What happened to an instance, by kind of its record in the journal; counted on over restarts, from the durable record.",
)
.series_max(SERIES_MAX);

/// What went wrong with instances.
pub static INSTANCE_FAILURES: Counter<2> = Counter::new(
    "plimsoll_instance_failures_total",
    &["agent_instance", "reason"],
    "Starts and stops of an instance that failed since plimsoll started, by what sort of thing went wrong.",
)
.series_max(SERIES_MAX);

/// How long starts take.
pub static INSTANCE_START_SECONDS: Histogram<1> = Histogram::new(
    "plimsoll_instance_start_seconds",
    &["agent_instance"],
    "From the order to start an instance until it was ready.",
    (
        &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0],
        "from a small process to a model server that loads its weights",
    ),
);

/// Instances, by state.
pub static INSTANCES: Gauge<1> = Gauge::new(
    "plimsoll_instances",
    &["state"],
    "Instances, by what they do: cold, starting, ready, idle, stopping, failed.",
);

/// Requests that wait for an instance.
pub static START_WAITERS: Gauge<0> =
    Gauge::new("plimsoll_start_waiters", &[], "Requests that wait until their instance is up.");

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] =
    &[&LIFECYCLE_EVENTS.0, &INSTANCE_FAILURES.0, &INSTANCE_START_SECONDS.0, &INSTANCES.0, &START_WAITERS.0];

/// The handles. Cheap to clone.
#[derive(Clone)]
pub(super) struct Metrics {
    events: Counters<2>,
    failures: Counters<2>,
    start_seconds: Histograms<1>,
    instances: Gauges<1>,
    waiters: metrics::Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            events: registry.counters(&LIFECYCLE_EVENTS),
            failures: registry.counters(&INSTANCE_FAILURES),
            start_seconds: registry.histograms(&INSTANCE_START_SECONDS),
            instances: registry.gauges(&INSTANCES),
            waiters: registry.gauges(&START_WAITERS).handle(),
        };
        metrics.show(&BTreeMap::new(), 0);
        metrics
    }

    /// Counts so many more.
    pub(super) fn happened(&self, instance: &AgentId, event: &str, count: u64) {
        self.events.with([instance.as_str(), event]).increment(count);
    }

    /// Counts what a record says.
    pub(super) fn step(&self, instance: &AgentId, kind: EventKind, detail: &Value) {
        if kind.is_counted() {
            self.happened(instance, kind.as_str(), 1);
        }
        let failed = |reason: &str| self.failures.with([instance.as_str(), reason]).increment(1);
        match kind {
            EventKind::LazyStart => {
                let millis = detail["latency_ms"].as_f64().unwrap_or_default();
                self.start_seconds.with([instance.as_str()]).record(millis / 1e3);
            }
            EventKind::LazyStartFailed => {
                let kinds = FailureKind::ALL.into_iter().map(FailureKind::as_str);
                kinds.filter(|kind| detail["kind"] == *kind).for_each(failed);
            }
            EventKind::LazyStopFailed => failed(FailureKind::NotStopped.as_str()),
            EventKind::LazyStop
            | EventKind::Exited
            | EventKind::CrashLoop
            | EventKind::Adopted
            | EventKind::Lost
            | EventKind::ContainerPlanned
            | EventKind::ContainerStarting
            | EventKind::ContainerRemoved
            | EventKind::Removed => {}
        }
    }

    /// Makes all series of an instance, at 0 where nothing was counted.
    pub(super) fn expect(&self, instance: &AgentId) {
        for kind in EventKind::ALL.into_iter().filter(|kind| kind.is_counted()) {
            self.happened(instance, kind.as_str(), 0);
        }
        for kind in FailureKind::ALL {
            let _born_at_zero = self.failures.with([instance.as_str(), kind.as_str()]);
        }
        let _born_at_zero = self.start_seconds.with([instance.as_str()]);
    }

    pub(super) fn show(&self, states: &BTreeMap<State, usize>, waiting: usize) {
        for state in State::ALL {
            let count = states.get(&state).copied().unwrap_or_default();
            self.instances.with([state.as_str()]).set(count as f64);
        }
        self.waiters.set(waiting as f64);
    }
}
