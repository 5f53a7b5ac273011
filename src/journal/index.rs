//! Which records belong to which stream: posting lists beside the records, derived from them.
//!
//! The newest postings stay in memory and are written every few thousand records, in one entry per stream, together with
//! the seq that they cover; what came after is read again when the partition is opened.

use std::collections::HashMap;
use std::sync::Arc;

use super::store::{Store, StoreError};
use super::{RecordHash, StreamId};
use crate::clock::Timestamp;
use crate::ids::Seq;

/// The entry that says how far the index goes. Streams begin with a letter.
const COVERS: &[u8] = b"\x01covers";

/// Postings in one entry: at most three bytes each, under the cap of a row.
const ENTRY_POSTINGS_MAX: usize = 1_500;

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The last record; the one before the first if there is none.
    pub(super) seq: Seq,
    pub(super) hash: RecordHash,
    pub(super) time: Timestamp,
    pub(super) records: u64,
    /// Bytes of all frames.
    pub(super) bytes: u64,
}

impl Position {
    fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for number in [self.seq.0, self.time.as_millis(), self.records, self.bytes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.hash.0);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |i: usize| Some(u64::from_be_bytes(bytes.get(i * 8..i * 8 + 8)?.try_into().ok()?));
        let hash = RecordHash(bytes.get(32..64)?.try_into().ok()?);
        let time = Timestamp::from_millis(number(1)?);
        Some(Self { seq: Seq(number(0)?), hash, time, records: number(2)?, bytes: number(3)? })
    }
}

/// The index of one partition: what is written, and the tail in memory.
#[derive(Default)]
pub(super) struct StreamIndex {
    covers: Seq,
    tail: HashMap<Arc<str>, Vec<Seq>>,
    tail_records: u64,
}

impl StreamIndex {
    /// The index as it was written, and where the partition stood then; `None` if it was never written.
    pub(super) fn load(store: &Store) -> Result<(Self, Option<Position>), StoreError> {
        let position = store.index_entry(COVERS)?.as_deref().and_then(Position::from_bytes);
        let covers = position.map_or(Seq(0), |p| p.seq);
        Ok((Self { covers, ..Self::default() }, position))
    }

    /// Takes a record in.
    pub(super) fn note(&mut self, stream: &str, seq: Seq) {
        match self.tail.get_mut(stream) {
            Some(postings) => postings.push(seq),
            None => {
                self.tail.insert(stream.into(), vec![seq]);
            }
        }
        self.tail_records += 1;
    }

    /// Records that stand in memory only.
    pub(super) fn tail_records(&self) -> u64 {
        self.tail_records
    }

    /// Writes the tail; `position` is that of the last record noted.
    pub(super) fn write(&mut self, store: &Store, position: Position) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        for (stream, postings) in &self.tail {
            for chunk in postings.chunks(ENTRY_POSTINGS_MAX) {
                entries.push((key(stream, chunk[0]), encode(chunk)));
            }
        }
        entries.push((COVERS.to_vec(), position.to_bytes()));
        store.put_index(entries)?;
        self.covers = position.seq;
        self.tail.clear();
        self.tail_records = 0;
        Ok(())
    }

    /// The last seq of every stream in this partition.
    pub(super) fn heads(&self, store: &Store) -> Result<HashMap<String, Seq>, StoreError> {
        let mut heads = HashMap::new();
        let mut from = b"a".to_vec();
        loop {
            let entries = store.index_entries(b"", &from, 500)?;
            for (key, value) in &entries {
                let Some((stream, first)) = split(key) else { continue };
                let last = decode(first, value).last().copied().unwrap_or(first);
                if last <= self.covers {
                    let head = heads.entry(stream.to_owned()).or_insert(last);
                    *head = last.max(*head);
                }
            }
            let Some((last, _)) = entries.last().filter(|_| entries.len() == 500) else { break };
            from = [last.as_slice(), b"\0"].concat();
        }
        for (stream, postings) in &self.tail {
            if let Some(last) = postings.last() {
                heads.insert(stream.to_string(), *last);
            }
        }
        Ok(heads)
    }

    /// At least one posting of a stream in `[from, before)` if there is any: one entry's worth, ascending.
    pub(super) fn forward(
        &self,
        store: &Store,
        stream: &StreamId,
        from: Seq,
        before: Seq,
    ) -> Result<Vec<Seq>, StoreError> {
        let prefix = key_prefix(stream.as_str());
        // The entry that `from` falls into may begin before it.
        let start = store.index_entry_before(&prefix, &key(stream.as_str(), from.next()))?;
        let mut at = start.map_or_else(|| key(stream.as_str(), from), |(key, _)| key);
        loop {
            let entries = store.index_entries(&prefix, &at, 2)?;
            let Some((entry_key, value)) = entries.first() else { break };
            let Some((_, first)) = split(entry_key) else { break };
            let found = self.within(decode(first, value), from, before);
            if !found.is_empty() {
                return Ok(found);
            }
            let Some((next, _)) = entries.get(1) else { break };
            at.clone_from(next);
        }
        Ok(self.in_tail(stream, from, before))
    }

    /// At least one posting of a stream in `[from, before)` if there is any, ascending, up to the last one.
    pub(super) fn backward(
        &self,
        store: &Store,
        stream: &StreamId,
        from: Seq,
        before: Seq,
    ) -> Result<Vec<Seq>, StoreError> {
        let tail = self.in_tail(stream, from, before);
        if !tail.is_empty() {
            return Ok(tail);
        }
        let prefix = key_prefix(stream.as_str());
        let mut at = key(stream.as_str(), before);
        while let Some((entry_key, value)) = store.index_entry_before(&prefix, &at)? {
            let Some((_, first)) = split(&entry_key) else { break };
            let found = self.within(decode(first, &value), from, before);
            if !found.is_empty() {
                return Ok(found);
            }
            at = entry_key;
        }
        Ok(Vec::new())
    }

    /// Entries past `covers` come from a write that was cut short; the tail has their postings.
    fn within(&self, postings: Vec<Seq>, from: Seq, before: Seq) -> Vec<Seq> {
        postings.into_iter().filter(|seq| *seq >= from && *seq < before && *seq <= self.covers).collect()
    }

    fn in_tail(&self, stream: &StreamId, from: Seq, before: Seq) -> Vec<Seq> {
        let Some(postings) = self.tail.get(stream.as_str()) else { return Vec::new() };
        let (start, end) =
            (postings.partition_point(|s| *s < from), postings.partition_point(|s| *s < before));
        postings[start.min(end)..end].to_vec()
    }
}

fn key_prefix(stream: &str) -> Vec<u8> {
    [stream.as_bytes(), b"\0"].concat()
}

fn key(stream: &str, first: Seq) -> Vec<u8> {
    [stream.as_bytes(), b"\0", &first.0.to_be_bytes()].concat()
}

fn split(key: &[u8]) -> Option<(&str, Seq)> {
    let (rest, seq) = key.split_last_chunk()?;
    let stream = std::str::from_utf8(rest.strip_suffix(b"\0")?).ok()?;
    Some((stream, Seq(u64::from_be_bytes(*seq))))
}

/// Distances between the postings as LEB128 numbers; the first posting stands in the key.
fn encode(postings: &[Seq]) -> Vec<u8> {
    let mut out = Vec::with_capacity(postings.len());
    for pair in postings.windows(2) {
        let mut distance = pair[1].0 - pair[0].0;
        while distance >= 0x80 {
            out.push((distance & 0x7f) as u8 | 0x80);
            distance >>= 7;
        }
        out.push((distance & 0x7f) as u8);
    }
    out
}

fn decode(first: Seq, bytes: &[u8]) -> Vec<Seq> {
    let (mut postings, mut distance, mut shift) = (vec![first], 0_u64, 0_u32);
    let mut last = first.0;
    for byte in bytes {
        distance |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            last = last.saturating_add(distance);
            postings.push(Seq(last));
            (distance, shift) = (0, 0);
        }
    }
    postings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_read_back_as_they_were_written() {
        let postings: Vec<Seq> = [1, 2, 130, 20_000, 20_001, 9_000_000_000].map(Seq).to_vec();
        assert_eq!(decode(postings[0], &encode(&postings)), postings);
    }

    #[test]
    fn a_stream_whose_name_begins_another_is_kept_apart() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let store = Store::create(&dir.path().join("store"), 1 << 20).expect("created");
        let (mut index, _) = StreamIndex::load(&store).expect("loaded");
        let stream = |name: &str| StreamId::parse(name).expect("valid");
        for seq in 1..=4_000 {
            index.note(if seq % 2 == 0 { "instance/a" } else { "instance/a-b" }, Seq(seq));
        }
        let position = Position { seq: Seq(4_000), ..Position::default() };
        index.write(&store, position).expect("written");
        index.note("instance/a", Seq(4_001));
        let mut found = Vec::new();
        let mut from = Seq(100);
        loop {
            let some = index.forward(&store, &stream("instance/a"), from, Seq(5_000)).expect("read");
            let Some(last) = some.last() else { break };
            from = last.next();
            found.extend(some);
        }
        let expected: Vec<Seq> = (100..=4_000).filter(|s| s % 2 == 0).chain([4_001]).map(Seq).collect();
        assert_eq!(found, expected);
        let back = index.backward(&store, &stream("instance/a-b"), Seq(1), Seq(3_000)).expect("read");
        assert_eq!(back.last(), Some(&Seq(2_999)));
        assert_eq!(index.heads(&store).expect("read")["instance/a-b"], Seq(3_999));
    }
}
