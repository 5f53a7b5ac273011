//! How often a caller may ask: a bucket of tokens, by our own clock.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;

/// A limit of requests per second, or none.
pub(crate) struct Rate(Option<RateLimiter<NotKeyed, InMemoryState, Elapsed, NoOpMiddleware<Duration>>>);

/// Our clock, as the limiter reads it.
#[derive(Clone)]
struct Elapsed(Clock);

impl clock::Clock for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Rate {
    /// So many requests a second, with bursts of twice as many; 0 is no limit.
    pub(crate) fn new(requests_per_second: u32, clock: &Clock) -> Self {
        Self(NonZeroU32::new(requests_per_second).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(1));
            let quota = Quota::per_second(rate).allow_burst(burst);
            RateLimiter::direct_with_clock(quota, Elapsed(clock.clone()))
        }))
    }

    /// Takes one request, or says how long to wait.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        limiter.check().map_err(|until| until.wait_time_from(clock::Clock::now(limiter.clock())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_rate_lets_a_burst_through_and_then_one_at_a_time() {
        let (clock, hand) = Clock::manual(Timestamp::default());
        let rate = Rate::new(2, &clock);
        let taken = || std::iter::from_fn(|| rate.take().ok()).count();
        assert_eq!(taken(), 4);
        let wait = rate.take().expect_err("the burst is over");
        assert_eq!(wait, Duration::from_millis(500));
        hand.advance(wait);
        assert_eq!(taken(), 1);
        assert_eq!(Rate::new(0, &clock).take(), Ok(()), "0 is no limit");
    }
}
