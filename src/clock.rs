//! The one place that reads the clock. Everything else takes a [`Clock`], so that tests move time themselves.
//!
//! Wall time ([`Timestamp`]) is for display and records only; what has elapsed is measured by [`Clock::elapsed`],
//! which never goes back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment of wall time in milliseconds since 1970-01-01T00:00:00Z.
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
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment this many milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `by` later, at most the latest one that can be told.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Reads an RFC 3339 date and time with any offset.
    ///
    /// # Errors
    /// Says what is wrong with the text, or that it lies before 1970.
    pub fn parse_rfc3339(text: &str) -> Result<Self, String> {
        let expected = |_| "expected an RFC 3339 time, such as 2026-11-21T09:00:00Z".to_owned();
        let parsed: jiff::Timestamp = text.parse().map_err(|e: jiff::Error| expected(e))?;
        u64::try_from(parsed.as_millisecond()).map(Self).map_err(|_| "the time lies before 1970".to_owned())
    }
}

impl From<SystemTime> for Timestamp {
    /// What a file system says; 1970 for what lies before it.
    fn from(time: SystemTime) -> Self {
        Self::default().after(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(at) => write!(f, "{at:.3}"),
            None => write!(f, "{} ms after 1970", self.0),
        }
    }
}

/// Where time comes from.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { origin: Instant },
    Manual(Arc<ManualTime>),
}

impl Clock {
    /// The machine's clock. [`Clock::elapsed`] counts from this call.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "clock.rs is the one place that reads the clock")]
    pub fn system() -> Self {
        Self(Source::System { origin: Instant::now() })
    }

    /// A clock that stands at `wall` until it is moved.
    #[must_use]
    pub fn manual(wall: Timestamp) -> (Self, Arc<ManualTime>) {
        let time = Arc::new(ManualTime { wall_ms: AtomicU64::new(wall.0), elapsed_ns: AtomicU64::new(0) });
        (Self(Source::Manual(Arc::clone(&time))), time)
    }

    /// Wall time now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "clock.rs is the one place that reads the clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => SystemTime::now().into(),
            Source::Manual(time) => Timestamp(time.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Monotonic time since the clock was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { origin } => origin.elapsed(),
            Source::Manual(time) => Duration::from_nanos(time.elapsed_ns.load(Ordering::SeqCst)),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// The hand that moves a manual [`Clock`].
#[derive(Debug)]
pub struct ManualTime {
    wall_ms: AtomicU64,
    elapsed_ns: AtomicU64,
}

impl ManualTime {
    /// Lets `by` pass, on the wall clock and on the monotonic one.
    pub fn advance(&self, by: Duration) {
        self.wall_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.elapsed_ns.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Sets the wall clock, forwards or back, as an operator or a time server would; nothing elapses.
    pub fn set_wall(&self, wall: Timestamp) {
        self.wall_ms.store(wall.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_it_is_read() {
        let at = Timestamp::parse_rfc3339("2026-11-21T10:00:00.250+01:00").expect("valid");
        assert_eq!(at.to_string(), "2026-11-21T09:00:00.250Z");
        assert_eq!(Timestamp::parse_rfc3339(&at.to_string()), Ok(at));
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
    }

    #[test]
    fn a_wall_clock_that_jumps_back_leaves_elapsed_time_alone() {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(10_000));
        hand.advance(Duration::from_secs(2));
        hand.set_wall(Timestamp::from_millis(1));
        assert_eq!(clock.now(), Timestamp::from_millis(1));
        assert_eq!(clock.elapsed(), Duration::from_secs(2));
    }
}
