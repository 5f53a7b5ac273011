//! The present of towns: what they take for now. It never goes back, and it goes on by the monotonic clock where the
//! wall's was set back, as the journal's time does: no wait stands still until the wall has caught up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// See the module. Cheap to clone. A std mutex suffices: a hold is a sum.
#[derive(Clone)]
pub(super) struct Present {
    clock: Clock,
    last: Arc<Mutex<Last>>,
}

struct Last {
    now: Timestamp,
    at: Duration,
}

impl Present {
    pub(super) fn new(clock: Clock) -> Self {
        let last = Last { now: clock.now(), at: clock.elapsed() };
        Self { clock, last: Arc::new(Mutex::new(last)) }
    }

    /// Now, and no sooner than this: no event lies behind it.
    pub(super) fn at_least(&self, least: Timestamp) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.clock.elapsed().saturating_sub(last.at).as_millis();
        let passed = Duration::from_millis(u64::try_from(passed).unwrap_or(u64::MAX));
        last.now = self.clock.now().max(last.now.after(passed)).max(least);
        // What is under a millisecond counts next time.
        last.at += passed;
        last.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_goes_on_however_the_clock_is_set() {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_000_000));
        let present = Present::new(clock);
        let now = || present.at_least(Timestamp::default()).as_millis();
        hand.advance(Duration::from_secs(1));
        assert_eq!(now(), 1_001_000);
        hand.set_wall(Timestamp::from_millis(400_000));
        hand.advance(Duration::from_secs(2));
        assert_eq!(now(), 1_003_000);
        hand.set_wall(Timestamp::from_millis(9_000_000));
        assert_eq!(now(), 9_000_000);
        hand.set_wall(Timestamp::from_millis(1_000_000));
        hand.advance(Duration::from_secs(3));
        assert_eq!(now(), 9_003_000);
        // A journal that was written by a clock ahead.
        assert_eq!(present.at_least(Timestamp::from_millis(9_500_000)).as_millis(), 9_500_000);
        hand.advance(Duration::from_secs(1));
        assert_eq!(now(), 9_501_000);
    }
}
