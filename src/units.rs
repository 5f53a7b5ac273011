//! Quantities: lengths of time and bytes as people write them in the configuration (`5m`, `1 GiB`), and money.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, written like `250ms`, `30s`, `5m`, `1h 30m`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, schemars::JsonSchema)]
#[schemars(with = "String")]
pub struct Period(pub Duration);

impl Period {
    /// A period of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A period of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Reads a period. Days count 24 hours.
    ///
    /// # Errors
    /// Says what a period looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a length of time with its unit, such as 250ms, 30s, 5m, 1h or 30d";
        let span: jiff::Span = text.parse().map_err(|_| EXPECTED.to_owned())?;
        let span = jiff::SignedDuration::try_from(span)
            .or_else(|_| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()))
            .map_err(|_| EXPECTED.to_owned())?;
        Duration::try_from(span).map(Self).map_err(|_| "a length of time cannot be negative".to_owned())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u128); 5] =
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let millis = self.0.as_millis();
        let (unit, size) = UNITS
            .into_iter()
            .find(|(_, size)| millis != 0 && millis.is_multiple_of(*size))
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / size)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A number of bytes, written like `65536`, `64KiB`, `1 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.into_iter().find(|(_, size)| self.0 != 0 && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let wrong = || de::Error::custom("expected a number of bytes, such as 65536, 64KiB or 1GiB");
        match Written::deserialize(deserializer).map_err(|_| wrong())? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => {
                text.parse::<bytesize::ByteSize>().map(|size| Self(size.0)).map_err(|_| wrong())
            }
        }
    }
}

/// US dollars in whole picodollars: what is added and taken back again leaves nothing behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(u64);

impl Money {
    const PER_DOLLAR: f64 = 1e12;

    /// What is no amount, or less than nothing, is nothing.
    #[must_use]
    pub fn of_usd(usd: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float saturates, at 18 million dollars and at nothing"
        )]
        Self((usd * Self::PER_DOLLAR).round() as u64)
    }

    /// As a number, for people and records.
    #[must_use]
    pub fn usd(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "sums are shown to a millionth of a cent")]
        let picodollars = self.0 as f64;
        picodollars / Self::PER_DOLLAR
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// This without a part of it.
    #[must_use]
    pub fn minus(self, less: Self) -> Self {
        Self(self.0.saturating_sub(less.0))
    }

    /// A sum of dollars without the noise of adding fractions: 0.010560000000000002 is 0.01056.
    #[must_use]
    pub fn clean(usd: f64) -> f64 {
        Self::of_usd(usd).usd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_print_as_they_are_read() {
        for (text, shown, secs) in
            [("5m", "5m", 300), ("1h 30m", "90m", 5400), ("30d", "30d", 2_592_000), ("0s", "0ms", 0)]
        {
            let period = Period::parse(text).expect(text);
            assert_eq!((period.to_string().as_str(), period.0.as_secs()), (shown, secs));
        }
        for text in ["5", "five minutes", "-5s", "", "1 month"] {
            assert!(Period::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_print_as_they_are_read() {
        for (text, shown, bytes) in [("\"1 GiB\"", "1GiB", 1 << 30), ("65536", "64KiB", 65536), ("7", "7", 7)]
        {
            let read: Bytes = serde_json::from_str(text).expect(text);
            assert_eq!((read.to_string().as_str(), read.0), (shown, bytes));
        }
        assert!(serde_json::from_str::<Bytes>("\"many\"").is_err());
    }

    #[test]
    fn money_is_exact_to_the_picodollar_and_never_negative() {
        let (a, b) = (Money::of_usd(0.1), Money::of_usd(0.2));
        assert_eq!(a.plus(b), Money::of_usd(0.3));
        assert_eq!(Money::of_usd(-1.0), Money::default());
        assert_eq!(Money::of_usd(f64::NAN), Money::default());
        assert_eq!(Money::of_usd(f64::INFINITY), Money(u64::MAX));
        assert_eq!(Money::clean(0.1 + 0.2).to_string(), "0.3");
    }
}
