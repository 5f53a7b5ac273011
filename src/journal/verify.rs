//! The check of a whole log: every checksum, every link of the hash chain, every border between partitions.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::encoding;
use super::row::{LogRow, Range};
use super::{Log, ReadError, RecordHash, Scan, StreamId, kinds, scan};
use crate::clock::Timestamp;
use crate::ids::Seq;

/// The end of a log: keep it elsewhere, and a later check shows whether the log still contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The log.
    pub log: Log,
    /// Its last record; 0 if there is none.
    pub seq: Seq,
    /// That record's hash.
    pub hash: RecordHash,
}

impl Head {
    /// Reads what [`Head`] prints: `audit:1234:<64 hexadecimal digits>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (log, seq, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let log = Log::ALL.into_iter().find(|l| l.as_str() == log)?;
        Some(Self { log, seq: Seq(seq.parse().ok()?), hash: RecordHash::parse(hash)? })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.log, self.seq, self.hash)
    }
}

/// A log that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many records were checked.
    pub records: u64,
    /// The oldest one kept, if there is any.
    pub first: Option<Seq>,
    /// Its end.
    pub head: Head,
}

/// Why a log is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A record is damaged, missing or changed.
    #[error("the log {log} is damaged: record {seq}: {what}")]
    Damaged {
        /// The log.
        log: Log,
        /// The first bad record, or the first that does not follow.
        seq: Seq,
        /// What is wrong with it.
        what: String,
    },
    /// The log does not contain the head that was kept elsewhere.
    #[error("the log is whole in itself, but not the one of the head {expected}: {what}")]
    OtherHead {
        /// The head that was kept.
        expected: Head,
        /// What stands there instead.
        what: String,
    },
    /// The store does not answer.
    #[error("the log cannot be read now: {0}")]
    Unavailable(String),
}

/// Checks one log up to `until`, and that it contains `expected`.
pub(super) fn verify(
    rows: [&LogRow; 2],
    log: Log,
    expected: Option<Head>,
    until: Seq,
) -> Result<Verified, VerifyError> {
    let row = rows.into_iter().find(|row| row.log == log).expect("there is a row for each log");
    let mut chain = Chain { log, expected, records: 0, first: None, last: None, seen: None };
    check_start(rows, row, until)?;
    let mut previous: Option<(Seq, RecordHash)> = None;
    for partition in row.partitions() {
        let manifest = partition.manifest();
        chain.begin(manifest.start_hash);
        if let Some((seq, hash)) = previous
            && hash != manifest.start_hash
        {
            let what = format!("the partition {} does not begin with its hash", partition.name());
            return Err(VerifyError::Damaged { log, seq, what });
        }
        let end = partition.until().unwrap_or(until).min(until);
        let mut hash = manifest.start_hash;
        let range = Range { from: manifest.first_seq, until: end, stream: None, newest_first: false };
        for frame in row.frames(range) {
            hash = chain.step(frame.map_err(|e| failed(log, e))?, hash)?;
        }
        if partition.is_dropped() {
            // Retention went by: the next one begins the log.
            previous = None;
            continue;
        }
        if let Some(seal) = manifest.sealed.filter(|seal| seal.last_seq < until && seal.last_hash != hash) {
            let what = format!("the partition {} ended with it, but it is not there", partition.name());
            return Err(VerifyError::Damaged { log, seq: seal.last_seq, what });
        }
        previous = Some((chain.last.map_or(manifest.first_seq, |(seq, _, _)| seq), hash));
    }
    chain.finish(previous.map(|(_, hash)| hash))
}

struct Chain {
    log: Log,
    expected: Option<Head>,
    records: u64,
    first: Option<Seq>,
    last: Option<(Seq, Timestamp, RecordHash)>,
    /// The hash of the record that the expected head names.
    seen: Option<RecordHash>,
}

impl Chain {
    /// The head of a log that holds nothing names no record: only the hash that the next one follows.
    fn begin(&mut self, start: RecordHash) {
        if let Some(head) = self.expected
            && head.seq == Seq(0)
            && [start, RecordHash::default()].contains(&head.hash)
        {
            self.seen = Some(head.hash);
        }
    }

    fn step(&mut self, frame: super::cursor::Frame, prev: RecordHash) -> Result<RecordHash, VerifyError> {
        let damaged =
            |what: &str| VerifyError::Damaged { log: self.log, seq: frame.seq, what: what.to_owned() };
        if encoding::prev_hash_of(&frame.payload) != Some(prev) {
            return Err(damaged(
                "it does not follow the record before it: one was changed, removed or added",
            ));
        }
        let record = frame.decode().map_err(|e| failed(self.log, e))?;
        if self.last.is_some_and(|(seq, time, _)| record.seq <= seq || record.time < time) {
            return Err(damaged("it stands out of order"));
        }
        let hash = frame.hash();
        self.records += 1;
        self.first.get_or_insert(record.seq);
        self.last = Some((record.seq, record.time, hash));
        if self.expected.is_some_and(|head| head.seq == record.seq) {
            self.seen = Some(hash);
        }
        Ok(hash)
    }

    fn finish(self, end: Option<RecordHash>) -> Result<Verified, VerifyError> {
        let seq = self.last.map_or(Seq(0), |(seq, _, _)| seq);
        let hash = self.last.map_or(end.unwrap_or_default(), |(_, _, hash)| hash);
        let head = Head { log: self.log, seq, hash };
        if let Some(expected) = self.expected {
            let what = match self.seen {
                Some(hash) if hash == expected.hash => None,
                Some(hash) => Some(format!("record {} has the hash {hash}", expected.seq)),
                None if expected.seq > seq => Some(format!("it ends at record {seq}")),
                None if self.first.is_none_or(|first| expected.seq < first) => {
                    Some(format!("record {} is older than what is kept, it cannot be compared", expected.seq))
                }
                None => Some(format!("record {} is not in it", expected.seq)),
            };
            if let Some(what) = what {
                return Err(VerifyError::OtherHead { expected, what });
            }
        }
        Ok(Verified { records: self.records, first: self.first, head })
    }
}

/// If retention dropped partitions, the oldest one left must begin where the last dropped one ended.
fn check_start(rows: [&LogRow; 2], row: &LogRow, until: Seq) -> Result<(), VerifyError> {
    let Some((oldest, dropped_end)) = row.oldest() else { return Ok(()) };
    let oldest = oldest.manifest();
    if oldest.start_hash == RecordHash::default() || dropped_end == Some(oldest.start_hash) {
        return Ok(());
    }
    let query = Scan {
        stream: Some(StreamId::operator()),
        kind: Some(kinds::PARTITION_DROPPED.to_owned()),
        limit: 1_000,
        newest_first: true,
        ..Scan::default()
    };
    let page = scan::page(rows, &query, until).map_err(|e| failed(row.log, e))?;
    let of_this_log = |detail: &&Value| detail.get("log").and_then(Value::as_str) == Some(row.log.as_str());
    let newest = page.records.iter().map(|r| &r.detail).find(of_this_log);
    let hash = newest.and_then(|detail| detail.get("last_hash")?.as_str()).and_then(RecordHash::parse);
    if hash.is_some_and(|hash| hash != oldest.start_hash) {
        let what = "it does not follow the partition that retention dropped last".to_owned();
        return Err(VerifyError::Damaged { log: row.log, seq: oldest.first_seq, what });
    }
    Ok(())
}

fn failed(log: Log, error: ReadError) -> VerifyError {
    match error {
        ReadError::Damaged { seq, what } => VerifyError::Damaged { log, seq, what },
        ReadError::Unavailable(what) => VerifyError::Unavailable(what),
    }
}

/// The end of a log before `until`.
pub(super) fn head(row: &LogRow, until: Seq) -> Result<Head, ReadError> {
    let range = Range { from: Seq(0), until, stream: None, newest_first: true };
    match row.frames(range).next().transpose()? {
        Some(frame) => Ok(Head { log: row.log, seq: frame.seq, hash: frame.hash() }),
        None => {
            let start = row.partitions().last().map(|p| p.manifest().start_hash).unwrap_or_default();
            Ok(Head { log: row.log, seq: Seq(0), hash: start })
        }
    }
}
