//! How long to wait after a failure before the next try. Pure: chance is an argument.

use std::time::Duration;

/// Doubles from the shortest wait to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// After many.
    pub max: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row (1 or more). A `roll` in 0.0..1.0 takes off up to a half, so that
    /// instances that failed together do not come back together ("equal jitter",
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
    #[must_use]
    pub fn after(self, failures: u32, roll: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.min.saturating_mul(1 << doublings).min(self.max);
        whole.mul_f64(1.0 - roll.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(300) };

    #[test]
    fn it_doubles_up_to_its_longest_wait() {
        let waits: Vec<u64> = [1, 2, 3, 9, 10, 400, u32::MAX]
            .into_iter()
            .map(|failures| BACKOFF.after(failures, 0.0).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 256, 300, 300, 300]);
    }

    #[test]
    fn chance_takes_off_up_to_a_half() {
        assert_eq!(BACKOFF.after(3, 0.5), Duration::from_secs(3));
        assert_eq!(BACKOFF.after(3, 1.0), Duration::from_secs(2));
        assert_eq!(BACKOFF.after(3, f64::INFINITY), Duration::from_secs(2));
    }
}
