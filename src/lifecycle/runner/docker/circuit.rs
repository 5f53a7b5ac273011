//! When the engine is asked at all: after it could not be reached a few times, nobody waits for it, and from time to time
//! one call tries. Pure: time is an argument.

use std::sync::Arc;
use std::time::Duration;

/// Calls in a row that do not reach the engine before nobody waits for it any more: one or two pass by themselves.
const FAILURES_OPEN: u32 = 3;

/// How long nobody asks then: soon enough for whoever has just started the engine.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// How the engine does, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EngineStatus {
    /// Nobody asked it yet.
    #[default]
    Unknown,
    /// The last call reached it.
    Up,
    /// The last call did not.
    Down {
        /// Why not, and what would help, for an operator.
        reason: Arc<str>,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    status: EngineStatus,
    /// In a row.
    failures: u32,
    /// Once it is open: when the next call may try.
    open_until: Option<Duration>,
}

impl Circuit {
    pub(super) fn status(&self) -> &EngineStatus {
        &self.status
    }

    /// Whether a call may be made, which takes `takes` at most: while it tries the engine, no other may. One that goes
    /// away without a word does not keep it closed to all others.
    ///
    /// # Errors
    /// Why nobody waits for the engine.
    pub(super) fn enter(&mut self, now: Duration, takes: Duration) -> Result<(), Arc<str>> {
        match (&self.status, self.open_until) {
            (EngineStatus::Down { reason }, Some(until)) if now < until => Err(Arc::clone(reason)),
            (_, Some(_)) => {
                self.open_until = Some(now.saturating_add(takes));
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    /// A call reached the engine, whatever it answered. Says whether that is news.
    pub(super) fn reached(&mut self) -> bool {
        (self.failures, self.open_until) = (0, None);
        std::mem::replace(&mut self.status, EngineStatus::Up) != EngineStatus::Up
    }

    /// A call did not reach it. Says whether that is news.
    pub(super) fn missed(&mut self, now: Duration, reason: Arc<str>) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_OPEN {
            self.open_until = Some(now.saturating_add(OPEN_WAIT));
        }
        let was_down = matches!(self.status, EngineStatus::Down { .. });
        self.status = EngineStatus::Down { reason };
        !was_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn open() -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..FAILURES_OPEN {
            circuit.missed(at(10), "nobody listens".into());
        }
        circuit
    }

    #[test]
    fn it_opens_at_the_last_failure_in_a_row_and_not_before() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.status(), &EngineStatus::Unknown);
        for _ in 1..FAILURES_OPEN {
            circuit.missed(at(0), "nobody listens".into());
            assert_eq!(circuit.enter(at(0), at(20)), Ok(()));
        }
        assert!(circuit.reached(), "it was away");
        for _ in 1..FAILURES_OPEN {
            circuit.missed(at(0), "nobody listens".into());
        }
        assert_eq!(circuit.enter(at(0), at(20)), Ok(()), "counted in a row");
        circuit.missed(at(0), "it hangs".into());
        assert_eq!(circuit.enter(at(4), at(20)), Err("it hangs".into()));
        assert_eq!(circuit.status(), &EngineStatus::Down { reason: "it hangs".into() });
    }

    #[test]
    fn after_its_wait_one_call_tries_and_the_others_fail_meanwhile() {
        let mut circuit = open();
        assert!(circuit.enter(at(14), at(20)).is_err());
        assert_eq!(circuit.enter(at(15), at(20)), Ok(()));
        assert!(circuit.enter(at(15), at(20)).is_err(), "one at a time");
        circuit.missed(at(16), "it hangs".into());
        assert!(circuit.enter(at(20), at(20)).is_err(), "it waits again");
        assert_eq!(circuit.enter(at(21), at(20)), Ok(()));
        assert!(circuit.reached());
        assert!(!circuit.reached(), "no news");
        assert_eq!((circuit.enter(at(21), at(20)), circuit.enter(at(21), at(20))), (Ok(()), Ok(())));
    }

    #[test]
    fn one_that_tries_and_goes_away_keeps_it_for_no_longer_than_a_call() {
        let mut circuit = open();
        assert_eq!(circuit.enter(at(15), at(20)), Ok(()));
        assert!(circuit.enter(at(34), at(20)).is_err());
        assert_eq!(circuit.enter(at(35), at(20)), Ok(()));
    }

    #[test]
    fn going_down_and_coming_back_are_news_once() {
        let mut circuit = Circuit::default();
        assert!(circuit.missed(at(0), "it hangs".into()));
        assert!(!circuit.missed(at(0), "it hangs".into()));
        assert!(circuit.reached());
    }
}
