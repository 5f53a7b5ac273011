//! A town's own clock, on which no time passes that nobody was there to use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A moment on a town's clock, in milliseconds: journal time without the time that was skipped. Ages, deadlines and
/// tiers are measured by it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Default,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct TownTime(Timestamp);

impl TownTime {
    /// The moment of so many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Timestamp::from_millis(millis))
    }

    /// Milliseconds on the town's clock.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0.as_millis()
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }

    /// The moment `by` later, at most the latest one that can be told.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.after(by))
    }
}
