//! Queries over both logs: by seq, by stream, by kind, by time.

use std::iter::Peekable;

use super::cursor::Frame;
use super::row::{Frames, LogRow, Range};
use super::{Log, Page, ReadError, Scan};
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::limits::JOURNAL_SCAN_RECORDS_MAX;

/// Answers a query over what stands before `until`.
pub(super) fn page(rows: [&LogRow; 2], query: &Scan, until: Seq) -> Result<Page, ReadError> {
    let limit = query.limit.max(1);
    let range = Range {
        from: query.from,
        until: query.before.map_or(until, |before| before.min(until)),
        stream: query.stream.clone(),
        newest_first: query.newest_first,
    };
    let frames: Frames<'_> = match &range.stream {
        None => Box::new(merged(rows, &range)),
        Some(stream) => row_of(rows, stream.kind().log()).frames(range),
    };
    let mut records = Vec::new();
    let mut last = None;
    for (looked_at, frame) in frames.enumerate() {
        if records.len() == limit || looked_at == JOURNAL_SCAN_RECORDS_MAX {
            let next = last.map(|seq: Seq| if query.newest_first { seq } else { seq.next() });
            return Ok(Page { records, next });
        }
        let record = frame?.decode()?;
        last = Some(record.seq);
        if query.kind.as_ref().is_none_or(|kind| *kind == record.kind) {
            records.push(record);
        }
    }
    Ok(Page { records, next: None })
}

/// The row of a log.
pub(super) fn row_of(rows: [&LogRow; 2], log: Log) -> &LogRow {
    rows.into_iter().find(|row| row.log == log).expect("there is a row for each log")
}

/// The first seq at or after `time`; `until` if there is none.
pub(super) fn seq_at(rows: [&LogRow; 2], time: Timestamp, until: Seq) -> Result<Seq, ReadError> {
    let mut found = until;
    for row in rows {
        found = row.seq_at(time, until)?.map_or(found, |seq| seq.min(found));
    }
    Ok(found)
}

/// The frames of both logs in one order.
pub(super) fn merged<'a>(rows: [&'a LogRow; 2], range: &Range) -> Merged<'a> {
    let logs = rows.map(|row| row.frames(range.clone()).peekable());
    Merged { logs, newest_first: range.newest_first }
}

/// See [`merged`].
pub(super) struct Merged<'a> {
    logs: [Peekable<Frames<'a>>; 2],
    newest_first: bool,
}

impl Iterator for Merged<'_> {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b] = &mut self.logs;
        let seq = |item: &Result<Frame, ReadError>| match item {
            Ok(frame) => frame.seq,
            Err(ReadError::Damaged { seq, .. }) => *seq,
            Err(ReadError::Unavailable(_)) => Seq(0),
        };
        match (a.peek().map(seq), b.peek().map(seq)) {
            (None, _) => b.next(),
            (_, None) => a.next(),
            (Some(first), Some(second)) if (first < second) != self.newest_first => a.next(),
            (Some(_), Some(_)) => b.next(),
        }
    }
}
