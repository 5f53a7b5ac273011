//! When a town turns next, and how much of the time in between does not count: pure.

use std::time::Duration;

use crate::clock::Timestamp;

/// Between ticks while there is work.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Between ticks while there is none.
const QUIET: Duration = Duration::from_secs(300);
/// A tick that comes later than this skips time: the machine slept, or its clock was set.
const LATE: Duration = Duration::from_secs(60);

/// A moment on the journal's clock, and on the one that only goes on while this machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) time: Timestamp,
    pub(super) elapsed: Duration,
}

/// When a town is to turn, and up to when its time is accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cadence {
    last: Timestamp,
    /// When that was in this life of plimsoll.
    at: Option<Duration>,
    every: Duration,
}

impl Cadence {
    /// That of a town that an earlier plimsoll last looked after at this moment.
    pub(super) fn since(last: Timestamp) -> Self {
        Self { last, at: None, every: BUSY }
    }

    /// A tick begins; what the town's clock leaves out, if that is so much that it has to be told. What counts is the time
    /// in which plimsoll ran, and no more than there is between two ticks: neither a sleep of the machine, nor a clock that
    /// was set ahead, nor a tick that came late.
    pub(super) fn begin(&self, now: Moment) -> Option<Duration> {
        let ran = self.at.map_or(self.every, |at| now.elapsed.saturating_sub(at).min(self.every));
        let unused = now.time.since(self.last).saturating_sub(ran);
        (unused > LATE).then_some(unused)
    }

    /// The time up to here is accounted for.
    pub(super) fn settle(&mut self, now: Moment) {
        (self.last, self.at) = (now.time, Some(now.elapsed));
    }

    /// A tick ended; what it settled stands.
    pub(super) fn end(&mut self, work: Work) {
        self.every = match work {
            Work::Some => BUSY,
            Work::At(wait) => wait.clamp(BUSY, QUIET),
            Work::None => QUIET,
        };
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
    /// Not before so long.
    At(Duration),
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// So long after the start on both clocks.
    fn at(time: Duration, elapsed: Duration) -> Moment {
        Moment { time: Timestamp::from_millis(1_000_000).after(time), elapsed }
    }

    /// A town whose last tick was at the start.
    fn ticked(work: Work) -> Cadence {
        let mut cadence = Cadence::since(Timestamp::default());
        cadence.settle(at(Duration::ZERO, Duration::ZERO));
        cadence.end(work);
        cadence
    }

    #[test]
    fn a_tick_that_comes_in_time_skips_nothing() {
        assert_eq!(ticked(Work::Some).begin(at(BUSY + LATE, BUSY + LATE)), None);
        assert_eq!(ticked(Work::None).begin(at(QUIET + LATE, QUIET + LATE)), None);
        assert_eq!(ticked(Work::None).begin(at(MINUTE, MINUTE)), None, "something woke it");
    }

    #[test]
    fn all_of_a_delay_is_left_out() {
        assert_eq!(ticked(Work::Some).begin(at(BUSY + HOUR, BUSY + HOUR)), Some(HOUR));
    }

    #[test]
    fn a_sleep_of_the_machine_is_left_out_also_where_the_tick_was_far_away_or_something_woke_the_town() {
        let slept = 10 * MINUTE;
        for ran in [Duration::ZERO, MINUTE, QUIET] {
            assert_eq!(ticked(Work::None).begin(at(ran + slept, ran)), Some(slept));
        }
    }

    #[test]
    fn what_was_told_is_left_out_once_though_the_tick_fails_and_comes_again() {
        let mut cadence = ticked(Work::Some);
        let late = at(BUSY + HOUR, BUSY + HOUR);
        assert_eq!(cadence.begin(late), Some(HOUR));
        cadence.settle(late);
        assert_eq!(cadence.begin(at(2 * BUSY + HOUR, 2 * BUSY + HOUR)), None);
    }

    #[test]
    fn after_a_restart_all_but_the_time_to_the_first_tick_is_left_out() {
        let cadence = Cadence::since(at(Duration::ZERO, Duration::ZERO).time);
        for down in [10 * MINUTE, 10 * HOUR] {
            assert_eq!(cadence.begin(at(BUSY + down, MINUTE)), Some(down));
        }
        assert_eq!(cadence.begin(at(MINUTE, MINUTE)), None);
    }

    #[test]
    fn who_waits_for_a_limit_is_looked_at_when_that_ends() {
        let every = |wait| ticked(Work::At(wait)).wait();
        assert_eq!([every(Duration::ZERO), every(MINUTE), every(HOUR)], [BUSY, MINUTE, QUIET]);
    }
}
