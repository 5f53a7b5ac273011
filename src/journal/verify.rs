//! The check of a whole log: every checksum, every link of the hash chain, every border between partitions.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encoding;
use super::row::{End, LogRow, Range};
use super::{Log, ReadError, Record, RecordHash, Scan, StreamId, kinds, scan};
use crate::clock::Timestamp;
use crate::ids::Seq;

/// The end of a log: keep it elsewhere, and a later check shows whether the log still contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The log.
    pub log: Log,
    /// Its last record, also if retention has dropped it since; 0 if there never was one.
    pub seq: Seq,
    /// That record's hash: 64 hexadecimal digits, all 0 if there never was one.
    #[schemars(with = "String")]
    pub hash: RecordHash,
}

impl Head {
    /// The head of a log that never held a record.
    #[must_use]
    pub fn empty(log: Log) -> Self {
        Self { log, seq: Seq(0), hash: RecordHash::default() }
    }

    /// Reads what [`Head`] prints: `audit:1234:<64 hexadecimal digits>`, or `audit:empty`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (log, end) = text.split_once(':')?;
        let log = Log::ALL.into_iter().find(|l| l.as_str() == log)?;
        if end == EMPTY {
            return Some(Self::empty(log));
        }
        let (seq, hash) = end.split_once(':')?;
        Some(Self { log, seq: Seq(seq.parse().ok()?), hash: RecordHash::parse(hash)? })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, seq, hash } = self;
        if *self == Self::empty(*log) { write!(f, "{log}:{EMPTY}") } else { write!(f, "{log}:{seq}:{hash}") }
    }
}

/// What stands for the end of a log that never held a record.
const EMPTY: &str = "empty";

/// A log that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// It was not wanted any more, or made way for opening the store again after the disk had failed.
    #[error("the check was ended early: try again")]
    Stopped,
}

/// What was found in a log, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The log.
    pub log: Log,
    /// Whether it is whole, and contains every head that was kept.
    pub ok: bool,
    /// What was checked, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// The first thing that is wrong, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Verdict {
    /// What is told of a check's end.
    #[must_use]
    pub fn new(log: Log, found: Result<Verified, VerifyError>) -> Self {
        match found {
            Ok(verified) => Self { log, ok: true, verified: Some(verified), problem: None },
            Err(error) => Self { log, ok: false, verified: None, problem: Some(error.to_string()) },
        }
    }
}

/// Records between two questions whether to go on: about a millisecond of work.
const STRIDE: u64 = 256;

/// What is to be checked.
pub(super) struct Check<'a> {
    pub(super) log: Log,
    /// Heads that the log must contain; those of the other log are passed over.
    pub(super) expected: &'a [Head],
    /// Records from here on are not looked at.
    pub(super) until: Seq,
    /// Whether it is still wanted.
    pub(super) go_on: &'a dyn Fn() -> bool,
}

/// Checks one log.
pub(super) fn verify(rows: [&LogRow; 2], check: &Check<'_>) -> Result<Verified, VerifyError> {
    let Check { log, expected, until, go_on } = *check;
    let row = row_of(rows, log);
    let expected = expected.iter().filter(|head| head.log == log).map(|head| (*head, None)).collect();
    let start = start(rows, row, until).map_err(|error| failed(log, error))?;
    let mut chain = Chain { start, expected, records: 0, first: None, last: None };
    let mut previous: Option<End> = None;
    for partition in row.partitions() {
        let manifest = partition.manifest();
        chain.begin(manifest.first_seq, manifest.start_hash);
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
            if chain.records.is_multiple_of(STRIDE) && !go_on() {
                return Err(VerifyError::Stopped);
            }
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
    chain.finish()
}

struct Chain {
    /// What the log was when its oldest partition began.
    start: Head,
    /// The heads to be found, each with the hash that the record has which it names.
    expected: Vec<(Head, Option<RecordHash>)>,
    records: u64,
    first: Option<Seq>,
    last: Option<(Seq, Timestamp, RecordHash)>,
}

impl Chain {
    /// What a partition follows is known of records before it that are gone: only its hash, which is over all of it.
    fn begin(&mut self, first: Seq, start: RecordHash) {
        for (head, seen) in &mut self.expected {
            if head.seq < first && (head.hash == start || *head == Head::empty(head.log)) {
                *seen = Some(head.hash);
            }
        }
    }

    fn step(&mut self, frame: super::cursor::Frame, prev: RecordHash) -> Result<RecordHash, VerifyError> {
        let log = self.start.log;
        let damaged = |what: &str| VerifyError::Damaged { log, seq: frame.seq, what: what.to_owned() };
        if encoding::prev_hash_of(&frame.payload) != Some(prev) {
            return Err(damaged(
                "it does not follow the record before it: one was changed, removed or added",
            ));
        }
        let record = frame.decode().map_err(|e| failed(log, e))?;
        if self.last.is_some_and(|(seq, time, _)| record.seq <= seq || record.time < time) {
            return Err(damaged("it stands out of order"));
        }
        let hash = frame.hash();
        self.records += 1;
        self.first.get_or_insert(record.seq);
        self.last = Some((record.seq, record.time, hash));
        for (_, seen) in self.expected.iter_mut().filter(|(head, _)| head.seq == record.seq) {
            *seen = Some(hash);
        }
        Ok(hash)
    }

    fn finish(self) -> Result<Verified, VerifyError> {
        let Self { start, expected, records, first, last } = self;
        let head = last.map_or(start, |(seq, _, hash)| Head { seq, hash, ..start });
        for (expected, seen) in expected {
            let what = match seen {
                Some(hash) if hash == expected.hash => continue,
                Some(hash) => format!("record {} has the hash {hash}", expected.seq),
                None if expected.seq > head.seq => format!("it ends at record {}", head.seq),
                None if first.is_none_or(|first| expected.seq < first) => {
                    format!("record {} is older than what is kept, it cannot be compared", expected.seq)
                }
                None => format!("record {} is not in it", expected.seq),
            };
            return Err(VerifyError::OtherHead { expected, what });
        }
        Ok(Verified { records, first, head })
    }
}

/// The head that a log had when its oldest partition began: if retention dropped partitions, it must begin where the
/// last dropped one ended.
fn start(rows: [&LogRow; 2], row: &LogRow, until: Seq) -> Result<Head, ReadError> {
    let log = row.log;
    let Some((oldest, dropped_end)) = row.oldest() else { return Ok(Head::empty(log)) };
    let oldest = oldest.manifest();
    if oldest.start_hash == RecordHash::default() {
        return Ok(Head::empty(log));
    }
    let begins = |(_, hash): &End| *hash == oldest.start_hash;
    if let Some((seq, hash)) = dropped_end.filter(begins) {
        return Ok(Head { log, seq, hash });
    }
    match last_dropped(rows, log, until)? {
        Some(end) if !begins(&end) => Err(ReadError::Damaged {
            seq: oldest.first_seq,
            what: "it does not follow the partition that retention dropped last".to_owned(),
        }),
        end => Ok(Head { log, seq: end.map_or(Seq(0), |(seq, _)| seq), hash: oldest.start_hash }),
    }
}

/// The last record that retention dropped from a log, as the journal itself tells it.
fn last_dropped(rows: [&LogRow; 2], log: Log, until: Seq) -> Result<Option<End>, ReadError> {
    let query = Scan {
        stream: Some(StreamId::operator()),
        kind: Some(kinds::PARTITION_DROPPED.to_owned()),
        limit: 1_000,
        newest_first: true,
        ..Scan::default()
    };
    let page = scan::page(rows, &query, until)?;
    let of_this_log = |record: &&Record| record.detail["log"] == log.as_str();
    Ok(page.records.iter().find(of_this_log).and_then(|Record { detail, .. }| {
        let hash = RecordHash::parse(detail["last_hash"].as_str()?)?;
        Some((Seq(detail["last_seq"].as_u64()?), hash))
    }))
}

fn row_of(rows: [&LogRow; 2], log: Log) -> &LogRow {
    rows.into_iter().find(|row| row.log == log).expect("there is a row for each log")
}

fn failed(log: Log, error: ReadError) -> VerifyError {
    match error {
        ReadError::Damaged { seq, what } => VerifyError::Damaged { log, seq, what },
        ReadError::Unavailable(what) => VerifyError::Unavailable(what),
    }
}

/// The end of a log before `until`.
pub(super) fn head(rows: [&LogRow; 2], log: Log, until: Seq) -> Result<Head, ReadError> {
    let row = row_of(rows, log);
    let range = Range { from: Seq(0), until, stream: None, newest_first: true };
    match row.frames(range).next().transpose()? {
        Some(frame) => Ok(Head { log, seq: frame.seq, hash: frame.hash() }),
        None => start(rows, row, until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_prints_as_it_is_read() {
        let hash = RecordHash([7; 32]);
        let head = Head { log: Log::Work, seq: Seq(12), hash };
        for (head, text) in
            [(head, format!("work:12:{hash}")), (Head::empty(Log::Audit), "audit:empty".to_owned())]
        {
            assert_eq!((head.to_string(), Head::parse(&text)), (text, Some(head)));
        }
        for text in ["", "work", "work:", "work:12", "play:empty", "work:x:00", "work:12:00"] {
            assert_eq!(Head::parse(text), None, "{text:?}");
        }
    }
}
