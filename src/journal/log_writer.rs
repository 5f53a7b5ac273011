//! The writing end of one log: staging, committing and undoing groups, rolling to a new partition, cutting a torn end.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::cursor::{Forward, RowWriter};
use super::encoding::{self, HEADER_BYTES};
use super::index::Position;
use super::partition::{Found, Manifest, OpenPartition, Partition};
use super::row::LogRow;
use super::sidecar::LogEnd;
use super::store::{RowKey, StoreError};
use super::{RecordHash, StreamId};
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::limits::JOURNAL_INDEX_RECORDS_MAX;

/// Cache of the partition that is written to.
const CACHE_BYTES: u64 = 24 << 20;

/// Why a log cannot be written to.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is damaged: it can be read as far as that goes. The text says what to do.
    Damaged(String),
    /// The store does not work now.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// See the module.
pub(super) struct LogWriter {
    pub(super) row: Arc<LogRow>,
    partition: Arc<Partition>,
    open: Option<Arc<OpenPartition>>,
    /// Where the log durably stands.
    position: Position,
    heads: HashMap<StreamId, Seq>,
    staged: Staged,
}

/// A group that is not durable yet.
#[derive(Default)]
struct Staged {
    rows: RowWriter,
    position: Position,
    frame: Vec<u8>,
    notes: Vec<(StreamId, Seq)>,
    /// The heads that the group replaced, oldest first.
    undo: Vec<(StreamId, Option<Seq>)>,
}

/// What was found at start besides the log itself.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Where a torn end was cut.
    pub(super) cut: Option<(Seq, String)>,
    /// A partition that somebody moved away, and the last seq that was acknowledged in it.
    pub(super) lost: Option<LogEnd>,
}

impl LogWriter {
    /// Opens the newest partition, or makes the first one. `next` is at least the next seq of the journal.
    pub(super) fn recover(
        row: Arc<LogRow>,
        acknowledged: Option<&LogEnd>,
        next: Seq,
        now: Timestamp,
    ) -> Result<(Self, Recovered), Trouble> {
        let partitions = row.partitions();
        let mut recovered = Recovered::default();
        check_neighbours(&partitions)?;
        let newest = partitions.last();
        let newest_name = newest.map(|p| p.name()).unwrap_or_default();
        let acked = acknowledged.filter(|end| end.partition == newest_name).map_or(Seq(0), |end| end.seq);
        if let Some(end) = acknowledged.filter(|end| end.partition > newest_name) {
            recovered.lost = Some(end.clone());
        }
        let Some(partition) = newest.cloned() else {
            let start = Position { seq: Seq(next.0 - 1), time: now, ..Position::default() };
            return Ok((Self::begin(row, start, HashMap::new())?, recovered));
        };
        let found = recover_partition(&partition, acked)?;
        recovered.cut.clone_from(&found.damage);
        let heads = heads(&partition, &found.open)?;
        let mut writer = Self {
            row,
            partition,
            open: Some(found.open),
            position: found.position,
            heads,
            staged: Staged::default(),
        };
        if writer.partition.manifest().sealed.is_some() || recovered.lost.is_some() {
            writer.roll(next.max(writer.position.seq.next()))?;
        }
        Ok((writer, recovered))
    }

    fn begin(row: Arc<LogRow>, start: Position, heads: HashMap<StreamId, Seq>) -> Result<Self, StoreError> {
        let manifest = Manifest {
            log: row.log,
            first_seq: start.seq.next(),
            first_time: start.time,
            start_hash: start.hash,
            sealed: None,
        };
        let names = heads.iter().map(|(stream, seq)| (stream.to_string(), *seq)).collect();
        let (partition, open) = Partition::create(&row.dir, manifest, &names, CACHE_BYTES)?;
        let partition = Arc::new(partition);
        row.push(Arc::clone(&partition));
        let position = Position { records: 0, bytes: 0, ..start };
        Ok(Self { row, partition, open: Some(open), position, heads, staged: Staged::default() })
    }

    /// The last seq of a stream, with what is staged.
    pub(super) fn head(&self, stream: &StreamId) -> Seq {
        self.heads.get(stream).copied().unwrap_or_default()
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Adds a record to the group; answers the hash of the one before it.
    pub(super) fn stage(&mut self, stream: &StreamId, seq: Seq, time: Timestamp, body: &[u8]) -> RecordHash {
        let staged = &mut self.staged;
        if staged.notes.is_empty() {
            staged.position = self.position;
        }
        let prev = staged.position.hash;
        staged.frame.clear();
        let hash = encoding::frame(&prev, seq, time, body, &mut staged.frame);
        staged.rows.push(seq, &staged.frame);
        staged.position = Position {
            seq,
            hash,
            time,
            records: staged.position.records + 1,
            bytes: staged.position.bytes + staged.frame.len() as u64,
        };
        staged.undo.push((stream.clone(), self.heads.insert(stream.clone(), seq)));
        staged.notes.push((stream.clone(), seq));
        prev
    }

    pub(super) fn has_staged(&self) -> bool {
        !self.staged.notes.is_empty()
    }

    /// Makes the group durable. After an error it may have landed or not.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        if !self.has_staged() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.staged.rows).finish();
        let store = &self.open()?.store;
        store.put(rows)?;
        store.flush()
    }

    /// Takes the group in as durable.
    pub(super) fn commit(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        if let (Some(open), false) = (&self.open, staged.notes.is_empty()) {
            let mut index = open.index.write().unwrap_or_else(PoisonError::into_inner);
            staged.notes.iter().for_each(|(stream, seq)| index.note(stream.as_str(), *seq));
            self.position = staged.position;
        }
        self.staged.frame = staged.frame;
        self.staged.frame.clear();
    }

    /// Writes the index if much of it stands in memory only.
    pub(super) fn write_index(&self, least: u64) -> Result<(), StoreError> {
        let open = self.open()?;
        let mut index = open.index.write().unwrap_or_else(PoisonError::into_inner);
        if index.tail_records() < least.max(1) {
            return Ok(());
        }
        index.write(&open.store, self.position)
    }

    /// Makes everything written durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.open()?.store.flush()
    }

    /// See [`LogWriter::write_index`], at the usual distance.
    pub(super) fn write_index_if_long(&self) -> Result<(), StoreError> {
        self.write_index(JOURNAL_INDEX_RECORDS_MAX)
    }

    /// Forgets the group.
    pub(super) fn undo(&mut self) {
        for (stream, head) in std::mem::take(&mut self.staged).undo.into_iter().rev() {
            match head {
                Some(seq) => self.heads.insert(stream, seq),
                None => self.heads.remove(&stream),
            };
        }
    }

    /// Ends this partition and begins one whose first seq is `first`.
    pub(super) fn roll(&mut self, first: Seq) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { doing: "sealing a partition", source };
        if self.partition.manifest().sealed.is_none() {
            self.write_index(1)?;
            self.open()?.store.flush()?;
            self.partition.seal(self.position).map_err(io)?;
        }
        if self.position.records == 0 {
            // It would have the name of the new one, which takes its place.
            self.row.remove(&self.partition);
            self.open = None;
            self.partition.close();
        }
        let start = Position { seq: Seq(first.0 - 1), ..self.position };
        let next = Self::begin(Arc::clone(&self.row), start, self.heads.clone())?;
        let old = std::mem::replace(self, next);
        old.partition.close();
        Ok(())
    }

    /// Lets the store go, so that it can be opened again.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.partition.close();
    }

    /// Opens the store again after a failure. Answers whether the staged group is there, whole and at the end. Nothing
    /// may be written before [`LogWriter::settle`].
    pub(super) fn reopen(&mut self, first: Seq) -> Result<Landed, Trouble> {
        if self.partition.is_open() {
            let source = std::io::Error::other("a reader still uses the store");
            return Err(Trouble::Store(StoreError::Io { doing: "closing the store", source }));
        }
        if self.partition.manifest().sealed.is_some() {
            self.roll(first)?;
            return Ok(Landed::No);
        }
        let found = self.partition.recover(CACHE_BYTES)?;
        if found.position.seq < self.position.seq {
            return Err(Trouble::Damaged(short_log(&self.partition, found.position.seq, self.position.seq)));
        }
        let whole =
            self.has_staged() && found.damage.is_none() && found.position.hash == self.staged.position.hash;
        if whole {
            found.open.store.flush()?;
        }
        self.open = Some(found.open);
        Ok(if whole { Landed::Yes } else { Landed::No })
    }

    /// After [`LogWriter::reopen`] of every log: keeps the group, or cuts what is there of it.
    pub(super) fn settle(&mut self, landed: Landed) -> Result<(), Trouble> {
        match landed {
            Landed::Yes => {
                if self.has_staged() {
                    self.position = self.staged.position;
                }
                // The index was read again with the store, these records too.
                self.staged.notes.clear();
                self.staged.rows = RowWriter::default();
            }
            Landed::No => {
                let end = RowKey::first_of(self.position.seq.next());
                if !self.open()?.store.rows_from(end, 1)?.is_empty() {
                    self.open()?.store.cut(end, None)?;
                    self.close();
                    self.open = Some(self.partition.recover(CACHE_BYTES)?.open);
                }
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<&Arc<OpenPartition>, StoreError> {
        let closed =
            || StoreError::Io { doing: "using the store", source: std::io::Error::other("it is closed") };
        self.open.as_ref().ok_or_else(closed)
    }
}

/// Whether a group whose write failed is there after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landed {
    Yes,
    No,
}

fn check_neighbours(partitions: &[Arc<Partition>]) -> Result<(), Trouble> {
    for pair in partitions.windows(2) {
        if pair[0].manifest().sealed.is_none() {
            // A crash between sealing this one and beginning the next cannot leave it unsealed: the seal comes first.
            let found = recover_partition(&pair[0], Seq(0))?;
            let seal = pair[0].seal(found.position);
            seal.map_err(|source| StoreError::Io { doing: "sealing a partition", source })?;
            drop(found);
            pair[0].close();
        }
        let (Some(seal), next) = (pair[0].manifest().sealed, pair[1].manifest()) else { continue };
        if next.start_hash != seal.last_hash || next.first_seq <= seal.last_seq {
            return Err(Trouble::Damaged(format!(
                "the partition {} does not follow {}: run 'plimsoll audit verify' to see what is missing; move the \
                 data directory aside to begin anew",
                pair[1].dir.display(),
                pair[0].dir.display()
            )));
        }
    }
    Ok(())
}

/// Opens a partition, and cuts an end that is torn: one that begins after what was acknowledged.
fn recover_partition(partition: &Partition, acknowledged: Seq) -> Result<Found, Trouble> {
    let found = match partition.recover(CACHE_BYTES) {
        Ok(found) => found,
        Err(StoreError::Damaged { what, .. }) => return Err(Trouble::Damaged(unreadable(partition, &what))),
        Err(error) => return Err(error.into()),
    };
    if let Some((seq, what)) = &found.damage {
        if *seq <= acknowledged {
            return Err(Trouble::Damaged(unreadable(partition, &format!("record {seq}: {what}"))));
        }
        cut_at(&found.open, *seq)?;
    }
    if found.position.seq < acknowledged {
        return Err(Trouble::Damaged(short_log(partition, found.position.seq, acknowledged)));
    }
    Ok(found)
}

fn cut_at(open: &OpenPartition, seq: Seq) -> Result<(), Trouble> {
    let Some(row) = open.store.row_before(RowKey { seq, part: 1 })? else { return Ok(()) };
    let mut whole = 0;
    for frame in Forward::new(Arc::clone(&open.store), row.key.seq, seq)? {
        let Ok(frame) = frame else { break };
        whole += HEADER_BYTES + frame.payload.len();
    }
    let keep = row.bytes.get(..whole).filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec);
    Ok(open.store.cut(RowKey::first_of(row.key.seq), keep)?)
}

fn heads(partition: &Partition, open: &OpenPartition) -> Result<HashMap<StreamId, Seq>, StoreError> {
    let mut heads = partition.heads_at_start();
    let index = open.index.read().unwrap_or_else(PoisonError::into_inner);
    heads.extend(index.heads(&open.store)?);
    Ok(heads.into_iter().filter_map(|(name, seq)| Some((StreamId::parse(&name).ok()?, seq))).collect())
}

fn unreadable(partition: &Partition, what: &str) -> String {
    format!(
        "{} is damaged ({what}): nothing is appended, the rest can be read; run 'plimsoll audit export' to save it, then \
         stop plimsoll and move that folder away to go on with a new one",
        partition.dir.display()
    )
}

fn short_log(partition: &Partition, found: Seq, acknowledged: Seq) -> String {
    unreadable(partition, &format!("it ends at record {found}, but record {acknowledged} was acknowledged"))
}
