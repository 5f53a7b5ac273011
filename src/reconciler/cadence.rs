//! When a town turns next, and how much of the time in between does not count: pure.

use std::time::Duration;

use crate::clock::Timestamp;

/// Between ticks while there is work.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Between ticks while there is none.
const QUIET: Duration = Duration::from_secs(300);
/// A tick that comes later than this skips time: the machine slept, or its clock was set.
const LATE: Duration = Duration::from_secs(60);

/// When a town is to turn, on the clock that its events are stamped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cadence {
    planned: Timestamp,
    every: Duration,
}

impl Cadence {
    /// That of a town that was last seen to at this moment.
    pub(super) fn since(last: Timestamp) -> Self {
        Self { planned: last.after(BUSY), every: BUSY }
    }

    /// A tick begins at this moment; what the town's clock leaves out, if it comes too late.
    pub(super) fn begin(&self, now: Timestamp) -> Option<Duration> {
        let late = now.since(self.planned);
        (late > LATE).then_some(late)
    }

    /// What came too late was left out up to this moment, and is in the journal: it is left out once, whatever becomes of
    /// the tick.
    pub(super) fn skipped(&mut self, now: Timestamp) {
        self.planned = now;
    }

    /// A tick ended whose present this was.
    pub(super) fn end(&mut self, now: Timestamp, work: Work) {
        self.every = match work {
            Work::Some => BUSY,
            Work::None => QUIET,
        };
        self.planned = now.after(self.every);
    }

    /// How long until the next tick, unless something happens before.
    pub(super) fn wait(&self) -> Duration {
        self.every
    }
}

/// Whether a town is worth a look every few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Some,
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn a_tick_that_comes_in_time_skips_nothing() {
        let mut cadence = Cadence::since(START);
        let due = START.after(BUSY);
        assert_eq!(cadence.begin(due.after(LATE)), None);
        assert_eq!(cadence.begin(START), None, "a clock that went back is no delay");
        cadence.end(due, Work::None);
        assert_eq!(cadence.wait(), QUIET);
        assert_eq!(cadence.begin(due.after(QUIET + LATE)), None);
    }

    #[test]
    fn all_of_a_delay_is_left_out() {
        let mut cadence = Cadence::since(START);
        cadence.end(START, Work::Some);
        let slept = Duration::from_secs(3_600);
        let woken = START.after(BUSY + slept);
        assert_eq!(cadence.begin(woken), Some(slept));
        assert_eq!(cadence.begin(woken), Some(slept), "until that is written down");
        cadence.skipped(woken);
        assert_eq!(cadence.begin(woken.after(LATE)), None, "though the tick did not end");
    }
}
