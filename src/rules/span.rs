//! Lengths of time as Prometheus spells them: `30s`, `1h30m`, `500ms`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units, longest first, in milliseconds; a year has 365 days.
/// Source: <https://prometheus.io/docs/prometheus/latest/querying/basics/#float-literals-and-time-durations>.
const UNITS: [(&str, u64); 7] = [
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A length of time, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(Duration);

impl Span {
    /// Reads what Prometheus reads: whole numbers with units, longer units first, and a bare `0`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self(Duration::ZERO));
        }
        let (mut rest, mut millis, mut units) = (text, 0_u64, UNITS.iter());
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let (_, unit) = units.find(|(name, _)| *name == &rest[..letters])?;
            millis = millis.checked_add(number.checked_mul(*unit)?)?;
            rest = &rest[letters..];
        }
        (!text.is_empty()).then(|| Self(Duration::from_millis(millis)))
    }

    /// So many seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// How long it is, in milliseconds.
    pub(crate) fn millis(self) -> u64 {
        self.0.as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// The same, divided; what is not nothing stays at least a millisecond.
    pub(crate) fn divided_by(self, divisor: NonZeroU32) -> Self {
        let least = self.0.min(Duration::from_millis(1));
        let millis = Self(self.0 / divisor.get()).millis();
        Self(Duration::from_millis(millis).max(least))
    }
}

/// In the longest unit that leaves no rest: `90s`, `2m`, `1h`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let (name, unit) = UNITS
            .iter()
            .find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit))
            .unwrap_or(&("s", 1_000));
        write!(f, "{}{name}", millis / unit)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration")))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, millis: u64, shown: &str) {
        let span = Span::parse(text).unwrap_or_else(|| panic!("{text:?} is not read"));
        assert_eq!(span.millis(), millis, "{text}");
        assert_eq!(span.to_string(), shown, "{text}");
    }

    #[test]
    fn spans_are_read_and_shown_as_prometheus_spells_them() {
        check("0", 0, "0s");
        check("0s", 0, "0s");
        check("500ms", 500, "500ms");
        check("30s", 30_000, "30s");
        check("90s", 90_000, "90s");
        check("1h30m", 5_400_000, "90m");
        check("120s", 120_000, "2m");
        check("7d", 604_800_000, "1w");
        for bad in ["", "5", "m", "-5m", "1.5m", "5m1h", "5 m", "5M", "99999999999999999999y"] {
            assert_eq!(Span::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_divided_span_is_never_nothing() {
        let by = |text: &str, divisor| {
            Span::parse(text)
                .expect("a span")
                .divided_by(NonZeroU32::new(divisor).expect("not zero"))
                .to_string()
        };
        assert_eq!(by("11m", 30), "22s");
        assert_eq!(by("30s", 30), "1s");
        assert_eq!(by("30s", 7), "4285ms");
        assert_eq!(by("1ms", 30), "1ms");
        assert_eq!(by("0s", 30), "0s");
        assert_eq!(by("6h", 1), "6h");
    }
}
