//! Metrics about telemetry itself, and those that every module steps.

use super::metric::{Counter, Definition, Gauge};

/// Steps when a label set was folded into `other`.
pub static SERIES_OVERFLOW: Counter<1> = Counter::new(
    "plimsoll_series_overflow_total",
    &["metric"],
    "Observations that were counted under `other` because the metric had reached its cap of series.",
);

/// Steps when a limit refused something.
pub static LIMIT_HITS: Counter<1> =
    Counter::new("plimsoll_limit_hits_total", &["limit"], "Refusals, by the limit that was hit.");

/// Steps when something was lost.
pub static DROPPED: Counter<2> = Counter::new(
    "plimsoll_dropped_total",
    &["what", "reason"],
    "Things that were lost, by what they were and why: nothing is dropped without being counted here.",
);

/// Whether each component does its work.
pub static COMPONENT_UP: Gauge<1> = Gauge::new(
    "plimsoll_component_up",
    &["component"],
    "1 while the component does its work, 0 while it does not.",
);

/// Log events, by level.
pub static LOG_EVENTS: Counter<1> =
    Counter::new("plimsoll_log_events_total", &["level"], "Log events that passed the filter, by level.");

/// Which build runs.
pub static BUILD_INFO: Gauge<1> =
    Gauge::new("plimsoll_build_info", &["version"], "Always 1; the labels say which build runs.");

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] =
    &[&SERIES_OVERFLOW.0, &LIMIT_HITS.0, &DROPPED.0, &COMPONENT_UP.0, &LOG_EVENTS.0, &BUILD_INFO.0];
