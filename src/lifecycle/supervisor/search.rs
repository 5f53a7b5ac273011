//! When it is looked for what runs of an instance that this plimsoll does not know of.

use std::time::Duration;

use crate::lifecycle::Backoff;
use crate::lifecycle::machine::{Failure, State};

/// How long to wait before an engine that could not tell what was left running is asked again.
const FIND_AGAIN: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };

/// How long after a container ended it is looked whether somebody restarted it, and how long after that once more: to do
/// that takes an engine a second, and a busy one longer.
const RESTARTED_AFTER: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(15)];

/// The search for what runs of an instance unknown to this plimsoll: left by an earlier one, after a start that the engine
/// did not answer, or restarted by somebody.
#[derive(Default)]
pub(super) struct Search {
    over: bool,
    failures: u32,
    /// Why the engine could not tell.
    pub(super) failed: Option<Failure>,
    /// When it is asked again, unless something is to be done before.
    pub(super) again: Option<Duration>,
    /// How long after a look that found nothing there is another.
    then: Option<Duration>,
}

impl Search {
    /// Whether to look now: at first, before each start, now and then while nothing of it runs, and at the end (`last`).
    pub(super) fn is_due(&self, state: State, now: Duration, last: bool) -> bool {
        let late = last || self.again.is_none_or(|again| now >= again);
        match state {
            _ if self.over => false,
            State::Starting => true,
            State::Cold | State::Failed => late,
            State::Ready | State::Idle | State::Stopping => false,
        }
    }

    pub(super) fn end(&mut self) {
        *self = Self { over: true, ..Self::default() };
    }

    pub(super) fn failed(&mut self, failure: Failure, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(failure);
        self.again = Some(now.saturating_add(FIND_AGAIN.after(self.failures, rand::random())));
    }

    /// It ended by itself, and somebody may start it again. One that failed is left alone until it may be tried.
    pub(super) fn begins_again(&mut self, now: Duration, retry_at: Option<Duration>) {
        let [soon, late] = RESTARTED_AFTER;
        let again = now.saturating_add(soon).max(retry_at.unwrap_or_default());
        *self = Self { again: Some(again), then: Some(late), ..Self::default() };
    }

    /// All was found that there is now.
    pub(super) fn found(&mut self, now: Duration) {
        match self.then {
            Some(then) => *self = Self { again: Some(now.saturating_add(then)), ..Self::default() },
            None => self.end(),
        }
    }
}
