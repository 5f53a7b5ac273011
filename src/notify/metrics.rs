//! Metrics of notifications.

use crate::telemetry::Registry;
use crate::telemetry::metric::{Counter, Counters, Definition};

/// What became of notifications.
pub static NOTIFICATIONS: Counter<2> = Counter::new(
    "plimsoll_notifications_total",
    &["webhook", "outcome"],
    "Notifications, by webhook of the configuration (or `sentry`) and what became of them: sent, failed, dropped.",
)
.internal();

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[&NOTIFICATIONS.0];

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The other side took it.
    Sent,
    /// It did not, however often it was tried.
    Failed,
    /// It was not tried: too many waited, or plimsoll ended.
    Dropped,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Sent, Self::Failed, Self::Dropped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// The handles. Cheap to clone.
#[derive(Clone)]
pub(super) struct Outcomes(Counters<2>);

impl Outcomes {
    pub(super) fn new(registry: &Registry) -> Self {
        Self(registry.counters(&NOTIFICATIONS))
    }

    /// Makes the series of a recipient, at 0.
    pub(super) fn expect(&self, name: &str) {
        for outcome in Outcome::ALL {
            let _born_at_zero = self.0.with([name, outcome.as_str()]);
        }
    }

    pub(super) fn step(&self, name: &str, outcome: Outcome) {
        self.0.with([name, outcome.as_str()]).increment(1);
    }
}
