//! Metrics about telemetry itself.

use super::metric::{Counter, Definition};

/// Steps when a label set was folded into `other`.
pub static SERIES_OVERFLOW: Counter<1> = Counter::new(
    "plimsoll_series_overflow_total",
    &["metric"],
    "Label sets that were counted under `other` because the metric had reached its cap of series.",
);

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[&SERIES_OVERFLOW.0];
