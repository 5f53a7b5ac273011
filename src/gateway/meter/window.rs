//! Sums over time, bounded in memory: the last minute by the second, and the last days by the quarter of an hour.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::day::Day;
use crate::clock::Timestamp;
use crate::limits::{METER_QUARTERS_MAX, RATE_WINDOW_SECS};
use crate::units::Money;

/// Every day of every zone begins with a quarter of an hour, so that sums by the quarter fit whatever zone is
/// configured.
const QUARTER_MS: u64 = 15 * 60 * 1_000;

/// How many seconds a minute keeps: those that count, and some that may lie ahead.
const SECONDS_MAX: usize = 2 * RATE_WINDOW_SECS as usize;

/// A sliding minute in seconds: what happened in the running second and in the 59 before it. What lies ahead, of a clock
/// that was set back, counts too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Minute(BTreeMap<u64, u64>);

impl Minute {
    pub(super) fn add(&mut self, at: Timestamp, amount: u64) {
        if amount == 0 {
            return;
        }
        let now = second(at);
        let sum = self.0.entry(now).or_default();
        *sum = sum.saturating_add(amount);
        if self.0.len() > SECONDS_MAX {
            self.0 = self.0.split_off(&now.saturating_sub(RATE_WINDOW_SECS - 1));
        }
        // Only a clock that jumps all the time gets here: the furthest stand for those beyond them.
        while self.0.len() > SECONDS_MAX
            && let Some((_, beyond)) = self.0.pop_last()
            && let Some(mut furthest) = self.0.last_entry()
        {
            *furthest.get_mut() = furthest.get().saturating_add(beyond);
        }
    }

    /// Takes back what was added at `at`.
    pub(super) fn take_back(&mut self, at: Timestamp, amount: u64) {
        if let Some(sum) = self.0.get_mut(&second(at)) {
            *sum = sum.saturating_sub(amount);
        }
    }

    pub(super) fn add_all(&mut self, more: &Self) {
        more.0.iter().for_each(|(second, amount)| self.add(Timestamp::from_millis(second * 1_000), *amount));
    }

    pub(super) fn take_back_all(&mut self, less: &Self) {
        for (second, amount) in &less.0 {
            self.take_back(Timestamp::from_millis(second * 1_000), *amount);
        }
    }

    /// What of it counts at this moment.
    pub(super) fn at(&self, now: Timestamp) -> Self {
        Self(self.seen(now).collect())
    }

    pub(super) fn sum(&self, now: Timestamp) -> u64 {
        self.seen(now).fold(0, |sum, (_, amount)| sum.saturating_add(amount))
    }

    fn seen(&self, now: Timestamp) -> impl Iterator<Item = (u64, u64)> {
        let now = second(now);
        self.0.range(now.saturating_sub(RATE_WINDOW_SECS - 1)..).map(|(second, amount)| (*second, *amount))
    }
}

/// When the sum over these minutes falls below `limit`, if nothing is added.
pub(super) fn frees_at(minutes: &[&Minute], now: Timestamp, limit: u64) -> Timestamp {
    let mut seen: Vec<_> = minutes.iter().flat_map(|minute| minute.seen(now)).collect();
    seen.sort_unstable();
    let mut left = seen.iter().fold(0u64, |sum, (_, amount)| sum.saturating_add(*amount));
    for (second, amount) in seen {
        left = left.saturating_sub(amount);
        if left < limit {
            return Timestamp::from_millis((second + RATE_WINDOW_SECS).saturating_mul(1_000));
        }
    }
    now
}

/// Money by the quarter of an hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Quarters(BTreeMap<u64, Money>);

impl Quarters {
    pub(super) fn add(&mut self, at: Timestamp, money: Money) {
        if money == Money::default() {
            return;
        }
        let sum = self.0.entry(quarter(at)).or_default();
        *sum = sum.plus(money);
        // By number and not by age: a clock that jumps for a moment forgets nothing.
        while self.0.len() > METER_QUARTERS_MAX {
            self.0.pop_first();
        }
    }

    /// Takes back what was added at `at`.
    pub(super) fn take_back(&mut self, at: Timestamp, money: Money) {
        if let Some(sum) = self.0.get_mut(&quarter(at)) {
            *sum = sum.minus(money);
        }
    }

    /// Whether all of it is older than what is kept.
    pub(super) fn is_before(&self, now: Timestamp) -> bool {
        let oldest = quarter(now).saturating_sub(METER_QUARTERS_MAX as u64);
        self.0.last_key_value().is_none_or(|(quarter, _)| *quarter < oldest)
    }

    /// What was spent in the running day; what lies ahead, of a clock that was set back, counts too.
    pub(super) fn sum(&self, today: &Day) -> Money {
        self.0.range(quarter(today.start)..).fold(Money::default(), |sum, (_, money)| sum.plus(*money))
    }
}

/// The quarter of an hour that holds a moment.
pub(super) fn quarter(at: Timestamp) -> u64 {
    at.as_millis() / QUARTER_MS
}

fn second(at: Timestamp) -> u64 {
    at.as_millis() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    #[test]
    fn a_minute_slides_by_the_second() {
        let mut minute = Minute::default();
        minute.add(at(100), 5);
        minute.add(at(130), 2);
        for (now, sum) in [(130, 7), (159, 7), (160, 2), (189, 2), (190, 0)] {
            assert_eq!(minute.sum(at(now)), sum, "at {now}");
        }
        assert_eq!(frees_at(&[&minute], at(130), 7), at(160));
        assert_eq!(frees_at(&[&minute], at(130), 2), at(190));
        assert_eq!(frees_at(&[&minute, &minute.clone()], at(130), 9), at(160));
    }

    #[test]
    fn a_minute_holds_two_at_most_whatever_comes_in() {
        let mut minute = Minute::default();
        (0..10_000).for_each(|secs| minute.add(at(secs), 1));
        assert!(minute.0.len() <= SECONDS_MAX);
        assert_eq!(minute.sum(at(9_999)), RATE_WINDOW_SECS);
        let mut minute = Minute::default();
        (0..10_000).rev().for_each(|secs| minute.add(at(secs), 1));
        assert!(minute.0.len() <= SECONDS_MAX);
        assert_eq!(minute.sum(at(0)), 10_000, "what lies ahead is summed up");
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let mut minute = Minute::default();
        minute.add(at(1_000), 5);
        assert_eq!((minute.sum(at(950)), minute.sum(at(0))), (5, 5));
    }

    #[test]
    fn quarters_are_bounded_and_count_from_their_day_on() {
        let mut quarters = Quarters::default();
        (0..METER_QUARTERS_MAX as u64 + 10).for_each(|n| quarters.add(at(n * 900), Money::of_usd(1.0)));
        assert_eq!(quarters.0.len(), METER_QUARTERS_MAX);
        let mut two = Quarters::default();
        two.add(Timestamp::from_millis(86_399_999), Money::of_usd(0.25));
        two.add(Timestamp::from_millis(86_400_000), Money::of_usd(0.5));
        let first = Day { start: at(0), end: at(86_400) };
        let second = Day { start: at(86_400), end: at(172_800) };
        assert_eq!((two.sum(&first).usd(), two.sum(&second).usd()), (0.75, 0.5));
    }
}
