//! The journal of a data directory that no server uses: for the command line.
//!
//! It takes the directory's lock, so it refuses while a server runs; ask that one instead. It appends nothing, and
//! reads what can be read of a damaged journal. Start at [`Offline::open`].

use std::path::Path;

use serde_json::Value;

use super::data_dir::{DataDir, OpenError};
use super::row::{LogRow, Range};
use super::sidecar::Acknowledged;
use super::verify::{self, Check, Head, Verified, VerifyError};
use super::{Log, Page, ReadError, Record, Scan, scan, snapshot};
use crate::clock::Timestamp;
use crate::ids::Seq;

/// Everything is shown, also what was never acknowledged.
const UNTIL: Seq = Seq(u64::MAX);

/// What can be told of a journal without opening its stores: that would write to them.
#[derive(Debug)]
pub struct Outline {
    /// Its partitions.
    pub partitions: usize,
    /// A time that it had reached: its newest record is of then, or later.
    pub reached: Option<Timestamp>,
    /// Partitions whose manifest cannot be read.
    pub unreadable: Vec<String>,
}

/// Looks at a journal and changes nothing; a server may use it meanwhile.
///
/// # Errors
/// [`OpenError::Io`] if its folders cannot be listed.
pub fn outline(data_dir: &Path) -> Result<Outline, OpenError> {
    let journal_dir = data_dir.join("journal");
    let ([audit, work], unreadable) = load(data_dir)?;
    let manifests: Vec<_> =
        [audit, work].iter().flat_map(LogRow::partitions).map(|partition| partition.manifest()).collect();
    let ends = manifests.iter().map(|m| m.sealed.map_or(m.first_time, |seal| seal.last_time));
    let reached = ends.chain(Acknowledged::written(&journal_dir)).max();
    Ok(Outline { partitions: manifests.len(), reached, unreadable })
}

fn load(data_dir: &Path) -> Result<([LogRow; 2], Vec<String>), OpenError> {
    let load = |log| {
        LogRow::load(log, &data_dir.join("journal")).map_err(|source| OpenError::Io {
            path: data_dir.to_owned(),
            doing: "listing the journal",
            source,
        })
    };
    let ((audit, mut unreadable), (work, more)) = (load(Log::Audit)?, load(Log::Work)?);
    unreadable.extend(more);
    Ok(([audit, work], unreadable))
}

/// A journal opened for reading.
pub struct Offline {
    rows: [LogRow; 2],
    unreadable: Vec<String>,
    _data_dir: DataDir,
}

impl Offline {
    /// Opens the journal in a data directory that exists.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Locked`] if a server uses it, [`OpenError::Foreign`] if plimsoll never did.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let data = DataDir::open_existing(data_dir)?;
        let (rows, unreadable) = load(data_dir)?;
        Ok(Self { rows, unreadable, _data_dir: data })
    }

    /// Partitions that are left out because their manifest cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// See [`Journal::scan`](super::Journal::scan).
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn scan(&self, query: &Scan) -> Result<Page, ReadError> {
        scan::page(self.rows(), query, UNTIL)
    }

    /// See [`Journal::seq_at`](super::Journal::seq_at); beyond the last record it answers the largest seq there can be.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn seq_at(&self, time: Timestamp) -> Result<Seq, ReadError> {
        scan::seq_at(self.rows(), time, UNTIL)
    }

    /// See [`Journal::kept_from`](super::Journal::kept_from).
    #[must_use]
    pub fn kept_from(&self, log: Log) -> Seq {
        scan::row_of(self.rows(), log).kept_from()
    }

    /// See [`Journal::snapshots`](super::Journal::snapshots).
    #[must_use]
    pub fn snapshots(&self, fold: &str) -> Vec<Seq> {
        snapshot::seqs(self.rows(), fold)
    }

    /// See [`Journal::snapshot_before`](super::Journal::snapshot_before).
    #[must_use]
    pub fn snapshot_before(&self, fold: &str, before: Seq) -> Option<(Seq, Value)> {
        snapshot::before(self.rows(), fold, before)
    }

    /// Every record from `from` on and before `before`, oldest first. A damaged one is an error in its place, and the
    /// next ones follow as far as they can be found.
    pub fn export(
        &self,
        from: Seq,
        before: Option<Seq>,
    ) -> impl Iterator<Item = Result<Record, ReadError>> + '_ {
        let range = Range { from, until: before.unwrap_or(UNTIL), stream: None, newest_first: false };
        scan::merged(self.rows(), &range).map(|frame| frame?.decode())
    }

    /// The end of a log.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn head(&self, log: Log) -> Result<Head, ReadError> {
        verify::head(self.rows(), log, UNTIL)
    }

    /// Checks a whole log, and that it contains every head of `expected`.
    ///
    /// # Errors
    /// See [`VerifyError`], which names the first bad record.
    pub fn verify(&self, log: Log, expected: &[Head]) -> Result<Verified, VerifyError> {
        verify::verify(self.rows(), &Check { log, expected, until: UNTIL, go_on: &|| true })
    }

    fn rows(&self) -> [&LogRow; 2] {
        [&self.rows[0], &self.rows[1]]
    }
}
