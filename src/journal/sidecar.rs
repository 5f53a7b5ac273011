//! The last acknowledged seq, in a file beside the logs: shows a store that has silently become shorter.
//!
//! It is a lower bound, for it is written at most once a second and at close. It also names the newest partition of
//! each log, so that a partition which somebody moved away is told from one that was never there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Log, disk};
use crate::clock::Timestamp;
use crate::ids::Seq;

const FILE: &str = "acknowledged.json";

/// What is known to have been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Acknowledged {
    /// Over both logs.
    pub(super) seq: Seq,
    /// By log.
    pub(super) logs: BTreeMap<Log, LogEnd>,
}

/// The end of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogEnd {
    /// The last record; 0 if there was none.
    pub(super) seq: Seq,
    /// The newest partition.
    pub(super) partition: String,
}

impl Acknowledged {
    /// Reads the file; without one, or with a damaged one, nothing is known.
    pub(super) fn load(journal_dir: &Path) -> Self {
        let text = fs::read(journal_dir.join(FILE)).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// When the file was written, by the clock of that moment.
    pub(super) fn written(journal_dir: &Path) -> Option<Timestamp> {
        let meta = fs::metadata(journal_dir.join(FILE)).ok()?;
        meta.modified().ok().map(Timestamp::from)
    }

    pub(super) fn write(&self, journal_dir: &Path) -> io::Result<()> {
        disk::replace(&journal_dir.join(FILE), &serde_json::to_vec(self)?)
    }
}
