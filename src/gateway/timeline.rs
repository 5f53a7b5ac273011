//! The time of what is folded from records. Pure: wall time and what elapsed are arguments.
//!
//! The journal's time never goes back: where the wall clock is set back, it goes on by the monotonic one, and stays ahead.
//! What a fold keeps by the time of records must be asked about on that line, or it lies in a future that never comes.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// See the module. Tell it of every record, and ask it for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Timeline {
    /// The latest time that is known of the journal, and when it was.
    last: Timestamp,
    at: Duration,
}

impl Timeline {
    /// A record of this time is seen.
    pub(super) fn saw(&mut self, time: Timestamp, elapsed: Duration) {
        if time >= self.reached(elapsed) {
            (self.last, self.at) = (time, elapsed);
        }
    }

    /// Now: what the clock on the wall says, but no earlier than what records reached.
    pub(super) fn now(&self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        wall.max(self.reached(elapsed))
    }

    /// [`Timeline::now`] by this clock.
    pub(super) fn now_of(&self, clock: &Clock) -> Timestamp {
        self.now(clock.now(), clock.elapsed())
    }

    /// The time of the latest record: what a snapshot keeps of it.
    pub(super) fn last(&self) -> Timestamp {
        self.last
    }

    fn reached(&self, elapsed: Duration) -> Timestamp {
        self.last.after(elapsed.saturating_sub(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn it_is_the_clock_until_the_clock_is_set_back() {
        let mut line = Timeline::default();
        assert_eq!(line.now(at(100), secs(0)), at(100));
        line.saw(at(100), secs(0));
        assert_eq!(line.now(at(110), secs(10)), at(110));
        assert_eq!(line.now(at(50), secs(10)), at(110), "set back");
        assert_eq!(line.now(at(55), secs(15)), at(115), "it goes on");
        assert_eq!(line.now(at(500), secs(16)), at(500), "set forward");
        assert_eq!(line.now(at(56), secs(16)), at(116), "and nothing was recorded then");
    }

    #[test]
    fn a_record_that_is_seen_late_takes_nothing_back() {
        let mut line = Timeline::default();
        line.saw(at(100), secs(0));
        line.saw(at(101), secs(5));
        assert_eq!(line.now(at(0), secs(6)), at(106));
        assert_eq!(line.last(), at(100));
        line.saw(at(107), secs(6));
        assert_eq!((line.now(at(0), secs(6)), line.last()), (at(107), at(107)));
    }
}
