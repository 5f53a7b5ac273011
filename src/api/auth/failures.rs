//! Failed attempts, limited per address. The table is bounded: past it, new addresses share one count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::AUTH_ADDRESSES_MAX;

const WINDOW: Duration = Duration::from_secs(60);

/// Counts wrong tokens per address and minute. A std mutex suffices: nothing waits while it is held.
pub(crate) struct Failures {
    per_minute: u32,
    windows: Mutex<HashMap<Option<IpAddr>, Window>>,
}

#[derive(Clone, Copy)]
struct Window {
    began: Duration,
    failures: u32,
}

impl Failures {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, windows: Mutex::new(HashMap::new()) }
    }

    /// How long this address has to wait before it may try again; `now` is [`Clock::elapsed`](crate::clock::Clock).
    pub(crate) fn wait(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get(&Some(network(address))).or_else(|| windows.get(&None))?;
        let left = WINDOW.checked_sub(now.saturating_sub(window.began))?;
        (window.failures >= self.per_minute && !left.is_zero()).then_some(left)
    }

    /// Notes a failed attempt.
    pub(crate) fn note(&self, address: IpAddr, now: Duration) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |window: &Window| now.saturating_sub(window.began) >= WINDOW;
        let mut key = Some(network(address));
        if windows.len() >= AUTH_ADDRESSES_MAX && !windows.contains_key(&key) {
            windows.retain(|_, window| !over(window));
            if windows.len() >= AUTH_ADDRESSES_MAX {
                key = None;
            }
        }
        let window = windows.entry(key).or_insert(Window { began: now, failures: 0 });
        if over(window) {
            *window = Window { began: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
    }
}

/// What one attacker can hold: one IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    fn v6(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_waits_after_its_failures_until_the_minute_is_over() {
        let failures = Failures::new(2);
        let (bad, other) = (v6("10.0.0.1"), v6("10.0.0.2"));
        failures.note(bad, START);
        assert_eq!(failures.wait(bad, START), None);
        failures.note(bad, START);
        assert_eq!(failures.wait(bad, START), Some(WINDOW));
        assert_eq!(failures.wait(other, START), None);
        assert_eq!(failures.wait(bad, START + WINDOW), None);
        failures.note(bad, START + WINDOW);
        assert_eq!(failures.wait(bad, START + WINDOW), None, "a new minute counts from zero");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_count() {
        let failures = Failures::new(1);
        failures.note(v6("2001:db8::1"), START);
        assert!(failures.wait(v6("2001:db8::ffff"), START).is_some());
        assert!(failures.wait(v6("2001:db8:0:1::1"), START).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_still_limits_past_its_bound() {
        let failures = Failures::new(1);
        for i in 0..u32::try_from(AUTH_ADDRESSES_MAX).expect("fits") + 10 {
            failures.note(IpAddr::from(i.to_be_bytes()), START);
        }
        let held = failures.windows.lock().expect("not poisoned").len();
        assert!(held <= AUTH_ADDRESSES_MAX + 1, "{held}");
        assert!(failures.wait(v6("99.9.9.9"), START).is_some(), "the shared count is full");
        failures.note(v6("99.9.9.9"), START + WINDOW);
        assert_eq!(failures.windows.lock().expect("not poisoned").len(), 1, "old windows leave");
    }
}
