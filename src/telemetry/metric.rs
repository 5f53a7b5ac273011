//! Metric definitions, and the families of handles made from them.
//!
//! A module declares each of its metrics once, as a `static` [`Counter`], [`Gauge`] or [`Histogram`] in its
//! `metrics.rs`, lists them in its `CATALOGUE`, and makes its families from a [`Registry`](super::Registry) when it
//! starts. A handle is looked up once per label set and then held: 12 ns a step instead of 150 to 490 ns by macro.

use std::marker::PhantomData;

pub use super::family::Family;

/// What is written about a metric besides its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// The full name, with its unit as suffix and `_total` on counters only
    /// (<https://prometheus.io/docs/practices/naming/>).
    pub name: &'static str,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// The label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// The most series this metric may make besides those under `other`: past it, open labels become `other` and the
    /// overflow is counted.
    pub series_max: usize,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Whether a dashboard or an alert must use it.
    pub audience: Audience,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram {
        /// Upper edges, ascending.
        buckets: &'static [f64],
        /// Why these edges.
        reason: &'static str,
    },
}

/// Who a metric is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A dashboard or an alert uses it (a test checks that).
    Operators,
    /// For looking into plimsoll itself; no panel needs it.
    Internal,
}

/// A family of counters with `N` labels.
pub type Counters<const N: usize> = Family<N, metrics::Counter>;
/// A family of gauges with `N` labels.
pub type Gauges<const N: usize> = Family<N, metrics::Gauge>;
/// A family of histograms with `N` labels.
pub type Histograms<const N: usize> = Family<N, metrics::Histogram>;

/// The declaration of a metric that is observed through handles of the type `H`, with `N` labels.
#[derive(Debug)]
pub struct Declaration<const N: usize, H>(pub Definition, PhantomData<fn() -> H>);

/// A counter's declaration, with `N` labels.
pub type Counter<const N: usize> = Declaration<N, metrics::Counter>;
/// A gauge's declaration, with `N` labels.
pub type Gauge<const N: usize> = Declaration<N, metrics::Gauge>;
/// A histogram's declaration, with `N` labels.
pub type Histogram<const N: usize> = Declaration<N, metrics::Histogram>;

impl<const N: usize, H> Declaration<N, H> {
    const fn of(
        name: &'static str,
        labels: &'static [&'static str; N],
        help: &'static str,
        kind: Kind,
    ) -> Self {
        let series_max = if N == 0 { 1 } else { crate::limits::METRIC_SERIES_MAX };
        Self(Definition { name, help, labels, series_max, kind, audience: Audience::Operators }, PhantomData)
    }

    /// Marks it internal.
    #[must_use]
    pub const fn internal(mut self) -> Self {
        self.0.audience = Audience::Internal;
        self
    }

    /// Caps its series at another number than [`METRIC_SERIES_MAX`](crate::limits::METRIC_SERIES_MAX).
    #[must_use]
    pub const fn series_max(mut self, series_max: usize) -> Self {
        self.0.series_max = series_max;
        self
    }
}

impl<const N: usize> Counter<N> {
    /// Declares a counter for operators.
    #[must_use]
    pub const fn new(name: &'static str, labels: &'static [&'static str; N], help: &'static str) -> Self {
        Self::of(name, labels, help, Kind::Counter)
    }
}

impl<const N: usize> Gauge<N> {
    /// Declares a gauge for operators.
    #[must_use]
    pub const fn new(name: &'static str, labels: &'static [&'static str; N], help: &'static str) -> Self {
        Self::of(name, labels, help, Kind::Gauge)
    }
}

impl<const N: usize> Histogram<N> {
    /// Declares a histogram for operators, with its bucket edges and why they are these.
    #[must_use]
    pub const fn new(
        name: &'static str,
        labels: &'static [&'static str; N],
        help: &'static str,
        (buckets, reason): (&'static [f64], &'static str),
    ) -> Self {
        Self::of(name, labels, help, Kind::Histogram { buckets, reason })
    }
}

/// Labels whose values come from outside, or from the configuration. At a metric's cap they become `other`; every
/// other label is a closed set written in the code.
const OPEN_LABELS: &[&str] = &[
    "agent",
    "agent_instance",
    "component",
    "error_type",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "method",
    "model",
    "provider",
    "source",
    "tool",
    "town",
];

/// Whether values of this label come from outside.
#[must_use]
pub fn is_open_label(label: &str) -> bool {
    OPEN_LABELS.binary_search(&label).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_labels_are_sorted_for_their_search() {
        assert!(OPEN_LABELS.is_sorted());
    }
}
