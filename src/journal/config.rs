//! The configuration key `journal:`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::units::{Bytes, Period};

/// `journal:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long instances, operators and alerts are kept.
    #[serde(deserialize_with = "audit")]
    pub audit: Retention,
    /// How long requests and town events are kept.
    #[serde(deserialize_with = "work")]
    pub work: Retention,
    /// Records in one partition before a new one begins; 1,000 to 10,000,000.
    pub partition_records_max: u64,
    /// Bytes in one partition before a new one begins; 1 MiB to 16 GiB.
    pub partition_bytes_max: Bytes,
    /// Age of a partition at which a new one begins; 1 min to 30 d.
    pub partition_age_max: Period,
}

/// How much of a log is kept. Whole partitions go, the oldest first, when either is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// The age of the oldest record kept; 1 min to 3,650 d.
    pub age_max: Period,
    /// Bytes on disk; 16 MiB to 1 TiB.
    pub bytes_max: Bytes,
}

const DAY: u64 = 86_400;
const AUDIT: Retention = Retention { age_max: Period::from_secs(365 * DAY), bytes_max: Bytes(1 << 30) };
const WORK: Retention = Retention { age_max: Period::from_secs(30 * DAY), bytes_max: Bytes(2 << 30) };

impl Default for Config {
    fn default() -> Self {
        Self {
            audit: AUDIT,
            work: WORK,
            partition_records_max: 500_000,
            partition_bytes_max: Bytes(256 << 20),
            partition_age_max: Period::from_secs(DAY),
        }
    }
}

fn audit<'de, D: Deserializer<'de>>(given: D) -> Result<Retention, D::Error> {
    retention(given, AUDIT)
}

fn work<'de, D: Deserializer<'de>>(given: D) -> Result<Retention, D::Error> {
    retention(given, WORK)
}

/// What is left out has the log's own default.
fn retention<'de, D: Deserializer<'de>>(given: D, default: Retention) -> Result<Retention, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        age_max: Option<Period>,
        bytes_max: Option<Bytes>,
    }
    let Given { age_max, bytes_max } = Given::deserialize(given)?;
    Ok(Retention {
        age_max: age_max.unwrap_or(default.age_max),
        bytes_max: bytes_max.unwrap_or(default.bytes_max),
    })
}
