//! Metrics of alerts that were posted.

use crate::telemetry::Registry;
use crate::telemetry::metric::{Counter, Counters, Definition};

/// Alerts that were posted, by what became of each. Internal: what fires is drawn from Prometheus's own `ALERTS`, and what
/// found no place also steps `plimsoll_limit_hits_total`, which is drawn.
pub static ALERTS_RECEIVED: Counter<1> = Counter::new(
    "plimsoll_alerts_received_total",
    &["outcome"],
    "Alerts posted to /api/alerts, by what became of each: fired, repeated, resolved, not_firing (resolved, but did not \
     fire), watchdog, no_place (refused, too many fire); truncated were left out by their sender, expired were not heard \
     of for too long, and unreadable counts bodies that were refused whole.",
)
.internal();

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[&ALERTS_RECEIVED.0];

/// Limits that are counted here under `plimsoll_limit_hits_total`; each stands at 0 from the start.
pub(super) const LIMITS: &[&str] = &[
    "alert_body_bytes",
    "alert_bytes",
    "alert_labels",
    "alert_text_bytes",
    "alerts_firing",
    "alerts_per_body",
];

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Fired,
    Repeated,
    Resolved,
    NotFiring,
    Watchdog,
    NoPlace,
    Truncated,
    Expired,
    Unreadable,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Fired,
        Self::Repeated,
        Self::Resolved,
        Self::NotFiring,
        Self::Watchdog,
        Self::NoPlace,
        Self::Truncated,
        Self::Expired,
        Self::Unreadable,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Repeated => "repeated",
            Self::Resolved => "resolved",
            Self::NotFiring => "not_firing",
            Self::Watchdog => "watchdog",
            Self::NoPlace => "no_place",
            Self::Truncated => "truncated",
            Self::Expired => "expired",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The handles.
pub(super) struct Outcomes(Counters<1>);

impl Outcomes {
    pub(super) fn new(registry: &Registry) -> Self {
        let outcomes = Self(registry.counters(&ALERTS_RECEIVED));
        Outcome::ALL.into_iter().for_each(|outcome| outcomes.add(outcome, 0));
        outcomes
    }

    pub(super) fn add(&self, outcome: Outcome, count: u64) {
        self.0.with([outcome.as_str()]).increment(count);
    }
}
