//! Frames out of rows: forward from any seq, and backward.
//!
//! A row holds whole frames one after the other, or one piece of a frame that is longer than a row. Damage is reported
//! where it stands, and the cursor goes on behind it as well as it can, so that one bad record hides no other.

use std::collections::VecDeque;
use std::sync::Arc;

use super::encoding::{self, HEADER_BYTES, Header};
use super::store::{Row, RowKey, Store, StoreError};
use super::{ReadError, Record, RecordHash};
use crate::ids::Seq;
use crate::limits::JOURNAL_ROW_BYTES_MAX;

/// Rows read at once, at most: the first read takes two, for many readers want one record.
const ROWS_READ_MAX: usize = 64;

/// A stored record, not yet taken apart.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) seq: Seq,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn decode(&self) -> Result<Record, ReadError> {
        encoding::decode(&self.payload).map_err(|what| ReadError::Damaged { seq: self.seq, what })
    }

    pub(super) fn hash(&self) -> RecordHash {
        encoding::hash(&self.payload)
    }
}

/// Gathers frames into rows.
#[derive(Default)]
pub(super) struct RowWriter {
    rows: Vec<(RowKey, Vec<u8>)>,
    open: bool,
}

impl RowWriter {
    /// Adds the frame of the record `seq`; they come in order.
    pub(super) fn push(&mut self, seq: Seq, frame: &[u8]) {
        if frame.len() > JOURNAL_ROW_BYTES_MAX {
            let pieces = frame.chunks(JOURNAL_ROW_BYTES_MAX).zip(0_u16..);
            self.rows.extend(pieces.map(|(piece, part)| (RowKey { seq, part }, piece.to_vec())));
            self.open = false;
            return;
        }
        match self.rows.last_mut().filter(|_| self.open) {
            Some((_, row)) if row.len() + frame.len() <= JOURNAL_ROW_BYTES_MAX => {
                row.extend_from_slice(frame)
            }
            _ => {
                self.rows.push((RowKey::first_of(seq), frame.to_vec()));
                self.open = true;
            }
        }
    }

    pub(super) fn finish(self) -> Vec<(RowKey, Vec<u8>)> {
        self.rows
    }
}

/// Reads the frames of one store forward.
pub(super) struct Forward {
    store: Arc<Store>,
    rows: VecDeque<Row>,
    /// Where to read on; `None` after the last row.
    next_key: Option<RowKey>,
    /// The place in the first of `rows`.
    offset: usize,
    from: Seq,
    until: Seq,
    rows_read: usize,
    /// The store failed: nothing more comes.
    ended: bool,
}

impl Forward {
    /// Frames from `from` on and before `until`.
    pub(super) fn new(store: Arc<Store>, from: Seq, until: Seq) -> Result<Self, StoreError> {
        let row = store.row_before(RowKey { seq: from, part: 1 })?;
        let start = row.map_or(RowKey::first_of(from), |row| RowKey::first_of(row.key.seq));
        Ok(Self {
            store,
            rows: VecDeque::new(),
            next_key: Some(start),
            offset: 0,
            from,
            until,
            rows_read: 2,
            ended: false,
        })
    }

    fn step(&mut self) -> Result<Option<Frame>, ReadError> {
        if !self.fill(1)? {
            return Ok(None);
        }
        let row = &self.rows[0];
        if row.key.seq >= self.until {
            return Ok(None);
        }
        if row.key.part != 0 {
            let seq = row.key.seq;
            self.skip_row();
            return Err(ReadError::Damaged { seq, what: "its beginning is missing".to_owned() });
        }
        let rest = &row.bytes[self.offset..];
        let guess = self.from.max(row.key.seq);
        let header = match Header::read(rest) {
            Ok(header) => header,
            Err(what) => {
                self.skip_row();
                return Err(ReadError::Damaged { seq: guess, what });
            }
        };
        let total = HEADER_BYTES + header.payload_bytes;
        if rest.len() >= total {
            let payload = rest[HEADER_BYTES..total].to_vec();
            self.offset += total;
            if self.offset == row.bytes.len() {
                self.skip_row();
            }
            return checked(header, payload, guess).map(Some);
        }
        self.long_frame(header, guess).map(Some)
    }

    /// A frame over several rows; it begins its first.
    fn long_frame(&mut self, header: Header, guess: Seq) -> Result<Frame, ReadError> {
        let total = HEADER_BYTES + header.payload_bytes;
        let mut key = self.rows[0].key;
        let mut bytes = self.rows[0].bytes[self.offset..].to_vec();
        self.skip_row();
        while bytes.len() < total {
            key.part += 1;
            if !self.fill(1)? || self.rows[0].key != key {
                return Err(ReadError::Damaged { seq: guess, what: "its end is missing".to_owned() });
            }
            bytes.extend_from_slice(&self.rows[0].bytes);
            self.skip_row();
        }
        bytes.truncate(total);
        checked(header, bytes.split_off(HEADER_BYTES), guess)
    }

    fn fill(&mut self, rows: usize) -> Result<bool, ReadError> {
        if self.rows.len() < rows
            && let Some(key) = self.next_key
        {
            let found = self.store.rows_from(key, self.rows_read).map_err(|e| {
                self.ended = true;
                unreadable(self.from, &e)
            })?;
            let ended = found.len() < self.rows_read;
            self.rows_read = (self.rows_read * 4).min(ROWS_READ_MAX);
            let after = |row: &Row| RowKey { part: row.key.part + 1, ..row.key };
            self.next_key = found.last().filter(|_| !ended).map(after);
            self.rows.extend(found);
        }
        Ok(self.rows.len() >= rows)
    }

    fn skip_row(&mut self) {
        self.rows.pop_front();
        self.offset = 0;
    }
}

impl Iterator for Forward {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.ended {
                return None;
            }
            match self.step() {
                Ok(None) => return None,
                Ok(Some(frame)) if frame.seq < self.from => {}
                Ok(Some(frame)) if frame.seq >= self.until => return None,
                Ok(Some(frame)) => {
                    self.from = frame.seq.next();
                    return Some(Ok(frame));
                }
                Err(ReadError::Damaged { seq, .. }) if seq < self.from => {}
                Err(ReadError::Damaged { seq, .. }) if seq >= self.until => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn checked(header: Header, payload: Vec<u8>, guess: Seq) -> Result<Frame, ReadError> {
    let seq = encoding::seq_of(&payload).unwrap_or(guess);
    if header.matches(&payload) {
        return Ok(Frame { seq, payload });
    }
    let near = seq >= guess && seq.0 < guess.0.saturating_add(JOURNAL_ROW_BYTES_MAX as u64);
    let seq = if near { seq } else { guess };
    Err(ReadError::Damaged { seq, what: "its checksum does not match".to_owned() })
}

/// What a reader is told about a store that does not answer.
pub(super) fn unreadable(seq: Seq, error: &StoreError) -> ReadError {
    match error {
        StoreError::Io { .. } | StoreError::Sync { .. } => ReadError::Unavailable(error.to_string()),
        StoreError::Damaged { .. } => ReadError::Damaged { seq, what: error.to_string() },
    }
}

/// Reads the frames of one store backward.
pub(super) struct Backward {
    store: Arc<Store>,
    block: Vec<Result<Frame, ReadError>>,
    from: Seq,
    before: Seq,
}

impl Backward {
    /// Frames before `before`, the last one first, down to `from`.
    pub(super) fn new(store: Arc<Store>, from: Seq, before: Seq) -> Self {
        Self { store, block: Vec::new(), from, before }
    }

    fn load(&mut self) -> Result<(), ReadError> {
        let before = self.before;
        let error = |e: StoreError| unreadable(Seq(before.0 - 1), &e);
        let Some(row) = self.store.row_before(RowKey::first_of(before)).map_err(error)? else {
            self.before = self.from;
            return Ok(());
        };
        let first = row.key.seq;
        let forward = Forward::new(Arc::clone(&self.store), first.max(self.from), before).map_err(error)?;
        self.block.extend(forward);
        self.before = first;
        Ok(())
    }
}

impl Iterator for Backward {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(frame) = self.block.pop() {
                return Some(frame);
            }
            if self.before <= self.from {
                return None;
            }
            if let Err(error) = self.load() {
                self.before = self.from;
                return Some(Err(error));
            }
        }
    }
}
