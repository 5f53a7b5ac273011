//! One log on the disk: its partitions in a row, read across their borders.
//!
//! The newest partition is held open by the writer; older ones are opened when somebody reads them, few at a time.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::cursor::{Backward, Forward, Frame, unreadable};
use super::encoding;
use super::partition::{OpenPartition, Partition};
use super::sidecar::Acknowledged;
use super::{Log, ReadError, RecordHash, StreamId};
use crate::clock::Timestamp;
use crate::ids::Seq;
use crate::limits::JOURNAL_OLD_PARTITIONS_OPEN_MAX;

/// Cache of an old partition that somebody reads.
const OLD_CACHE_BYTES: u64 = 4 << 20;

/// Folders of partitions that are being deleted begin so.
const DROPPED_PREFIX: &str = ".dropped-";

/// The frames of a log in the order asked for.
pub(super) type Frames<'a> = Box<dyn Iterator<Item = Result<Frame, ReadError>> + 'a>;

/// Where something ends: its last record, and the hash of that.
pub(super) type End = (Seq, RecordHash);

/// Which frames are asked for.
#[derive(Debug, Clone)]
pub(super) struct Range {
    pub(super) from: Seq,
    /// The first seq not wanted.
    pub(super) until: Seq,
    pub(super) stream: Option<StreamId>,
    pub(super) newest_first: bool,
}

/// A log's partitions, oldest first.
pub(super) struct LogRow {
    pub(super) log: Log,
    pub(super) dir: PathBuf,
    partitions: RwLock<Vec<Arc<Partition>>>,
    /// The last record of the partition that was dropped last since the start: known from the moment the partition
    /// is gone, when the record that says so is still on its way. Changes under the lock of `partitions`.
    dropped_end: Mutex<Option<End>>,
    /// Folders of a partition whose making was cut short: newer than anything that was acknowledged.
    half_made: Vec<PathBuf>,
    old_open: Mutex<VecDeque<Arc<Partition>>>,
}

impl LogRow {
    /// Reads which partitions there are. Those whose manifest cannot be read, or is gone, are named in the second
    /// answer. Nothing is changed.
    pub(super) fn load(log: Log, journal_dir: &Path) -> io::Result<(Self, Vec<String>)> {
        let dir = journal_dir.join(log.as_str());
        let (mut partitions, mut unreadable, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.parse::<u64>().is_err() {
                continue;
            }
            match Partition::load(path.clone()) {
                Ok(Some(partition)) => partitions.push(Arc::new(partition)),
                Ok(None) => bare.push(path),
                Err(what) => unreadable.push(what),
            }
        }
        partitions.sort_by_key(|p| p.manifest().first_seq);
        // Names are numbers of one width, so they stand in the order of the partitions.
        let known = Acknowledged::load(journal_dir).logs.remove(&log).map(|end| end.partition);
        let newest = partitions.last().map(|p| p.name()).max(known).unwrap_or_default();
        let begun = |path: &PathBuf| path.file_name().is_some_and(|name| *name.to_string_lossy() > *newest);
        let (half_made, lost): (Vec<_>, Vec<_>) = bare.into_iter().partition(begun);
        unreadable.extend(lost.iter().map(|path| format!("{}: its manifest is gone", path.display())));
        let (partitions, dropped_end, old_open) =
            (RwLock::new(partitions), Mutex::default(), Mutex::default());
        let row = Self { log, dir, partitions, dropped_end, half_made, old_open };
        Ok((row, unreadable))
    }

    /// Deletes what is left of a partition whose making was cut short.
    pub(super) fn remove_half_made(&self) -> io::Result<()> {
        self.half_made.iter().try_for_each(fs::remove_dir_all)
    }

    /// The partitions now, oldest first.
    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The oldest partition now, and the last record of the one dropped before it, if that was since the start.
    pub(super) fn oldest(&self) -> Option<(Arc<Partition>, Option<End>)> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let end = *self.dropped_end.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.first().map(|oldest| (Arc::clone(oldest), end))
    }

    /// The first seq of the oldest partition: what stood before it was dropped.
    pub(super) fn kept_from(&self) -> Seq {
        self.partitions().first().map_or(Seq(1), |oldest| oldest.manifest().first_seq)
    }

    /// Adds the newest partition.
    pub(super) fn push(&self, partition: Arc<Partition>) {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).push(partition);
    }

    /// Takes a partition out of the row; its folder stays.
    pub(super) fn remove(&self, partition: &Arc<Partition>) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        partitions.retain(|other| !Arc::ptr_eq(other, partition));
    }

    /// Takes the oldest partition out, and renames its folder so that it is gone even after a crash. Answers the
    /// folder to delete.
    pub(super) fn take_oldest(&self) -> io::Result<Option<PathBuf>> {
        let Some(oldest) = self.partitions().first().cloned() else { return Ok(None) };
        oldest.mark_dropped();
        let hidden = self.dir.join(format!("{DROPPED_PREFIX}{}", oldest.name()));
        if let Err(error) = fs::rename(&oldest.dir, &hidden) {
            oldest.mark_kept();
            return Err(error);
        }
        {
            let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
            partitions.remove(0);
            let end = oldest.manifest().sealed.map(|seal| (seal.last_seq, seal.last_hash));
            *self.dropped_end.lock().unwrap_or_else(PoisonError::into_inner) = end;
        }
        self.old_open.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| !Arc::ptr_eq(p, &oldest));
        oldest.close();
        super::disk::sync_dir(&self.dir)?;
        Ok(Some(hidden))
    }

    /// Folders whose deletion was cut short.
    pub(super) fn half_dropped(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(DROPPED_PREFIX) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// The frames in a range. Opens partitions as it goes; blocks on IO.
    pub(super) fn frames(&self, range: Range) -> Frames<'_> {
        let overlaps = |p: &Arc<Partition>| {
            p.manifest().first_seq < range.until && p.until().is_none_or(|until| until > range.from)
        };
        let mut left: VecDeque<_> = self.partitions().into_iter().filter(overlaps).collect();
        if range.newest_first {
            left.make_contiguous().reverse();
        }
        Box::new(AcrossPartitions { row: self, left, current: None, range })
    }

    /// The first record at or after `time`, before `until`.
    pub(super) fn seq_at(&self, time: Timestamp, until: Seq) -> Result<Option<Seq>, ReadError> {
        for partition in self.partitions() {
            let manifest = partition.manifest();
            if manifest.sealed.is_some_and(|seal| seal.last_time < time || seal.records == 0) {
                continue;
            }
            let open = match self.open(&partition) {
                Err(_) if partition.is_dropped() => continue,
                open => open?,
            };
            let end = partition.until().unwrap_or(until).min(until);
            if let Some(seq) = first_at(&open, time, manifest.first_seq, end)? {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    /// The store of a partition, opened if need be; the one opened longest ago is closed for it.
    pub(super) fn open(&self, partition: &Arc<Partition>) -> Result<Arc<OpenPartition>, ReadError> {
        let (open, opened) = partition.open(OLD_CACHE_BYTES)?;
        if opened {
            let mut old = self.old_open.lock().unwrap_or_else(PoisonError::into_inner);
            old.push_back(Arc::clone(partition));
            if old.len() > JOURNAL_OLD_PARTITIONS_OPEN_MAX
                && let Some(oldest) = old.pop_front()
            {
                oldest.close();
            }
        }
        Ok(open)
    }

    /// Lets every store go.
    pub(super) fn close(&self) {
        self.old_open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.partitions().iter().for_each(|partition| partition.close());
    }
}

/// The smallest seq in `[low, high)` whose record is not before `time`: times never decrease with seq.
fn first_at(
    open: &OpenPartition,
    time: Timestamp,
    mut low: Seq,
    mut high: Seq,
) -> Result<Option<Seq>, ReadError> {
    let end = high;
    let at = |seq: Seq| -> Result<Option<(Seq, Timestamp)>, ReadError> {
        let mut frames = Forward::new(Arc::clone(&open.store), seq, end).map_err(|e| unreadable(seq, &e))?;
        let Some(frame) = frames.next().transpose()? else { return Ok(None) };
        Ok(Some((frame.seq, encoding::time_of(&frame.payload).unwrap_or_default())))
    };
    let mut found = None;
    while low < high {
        let middle = Seq(low.0 + (high.0 - low.0) / 2);
        match at(middle)? {
            Some((seq, at)) if at < time => low = seq.next(),
            Some((seq, _)) => {
                found = Some(seq);
                high = middle;
            }
            None => high = middle,
        }
    }
    Ok(found)
}

/// Frames of one partition after the other.
struct AcrossPartitions<'a> {
    row: &'a LogRow,
    left: VecDeque<Arc<Partition>>,
    // The frames end before the store is let go, so that it can be opened again at once.
    current: Option<(Frames<'static>, Arc<OpenPartition>)>,
    range: Range,
}

impl Iterator for AcrossPartitions<'_> {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((frames, _)) = &mut self.current {
                if let Some(frame) = frames.next() {
                    return Some(frame);
                }
                self.current = None;
            }
            let partition = self.left.pop_front()?;
            match self.start(&partition) {
                Ok(current) => self.current = Some(current),
                Err(_) if partition.is_dropped() => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl AcrossPartitions<'_> {
    fn start(&self, partition: &Arc<Partition>) -> Result<(Frames<'static>, Arc<OpenPartition>), ReadError> {
        let open = self.row.open(partition)?;
        let manifest = partition.manifest();
        let from = self.range.from.max(manifest.first_seq);
        let until = partition.until().map_or(self.range.until, |until| until.min(self.range.until));
        let frames: Frames<'static> = match (&self.range.stream, self.range.newest_first) {
            (None, false) => Box::new(
                Forward::new(Arc::clone(&open.store), from, until).map_err(|e| unreadable(from, &e))?,
            ),
            (None, true) => Box::new(Backward::new(Arc::clone(&open.store), from, until)),
            (Some(stream), newest_first) => Box::new(OfStream {
                open: Arc::clone(&open),
                stream: stream.clone(),
                newest_first,
                from,
                until,
                found: VecDeque::new(),
                frames: None,
            }),
        };
        Ok((frames, open))
    }
}

/// Frames of one stream in one partition, by its index.
struct OfStream {
    open: Arc<OpenPartition>,
    stream: StreamId,
    newest_first: bool,
    from: Seq,
    until: Seq,
    found: VecDeque<Seq>,
    frames: Option<(Forward, Seq)>,
}

impl Iterator for OfStream {
    type Item = Result<Frame, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.found.is_empty()
            && let Err(error) = self.look_up()
        {
            self.until = self.from;
            return Some(Err(error));
        }
        let seq = self.found.pop_front()?;
        Some(self.fetch(seq))
    }
}

impl OfStream {
    fn look_up(&mut self) -> Result<(), ReadError> {
        if self.from >= self.until {
            return Ok(());
        }
        let index = self.open.index.read().unwrap_or_else(PoisonError::into_inner);
        let error = |e| unreadable(self.from, &e);
        let store = &self.open.store;
        if self.newest_first {
            let found = index.backward(store, &self.stream, self.from, self.until).map_err(error)?;
            self.until = found.first().copied().unwrap_or(self.from);
            self.found = found.into_iter().rev().collect();
        } else {
            let found = index.forward(store, &self.stream, self.from, self.until).map_err(error)?;
            self.from = found.last().map_or(self.until, |seq| seq.next());
            self.found = found.into();
        }
        Ok(())
    }

    fn fetch(&mut self, seq: Seq) -> Result<Frame, ReadError> {
        /// Further ahead than this, looking the record up costs less than passing over those before it.
        const NEAR: u64 = 32;
        let near = |(_, at): &&mut (Forward, Seq)| *at <= seq && seq.0 - at.0 < NEAR;
        if self.frames.as_mut().filter(near).is_none() {
            let frames = Forward::new(Arc::clone(&self.open.store), seq, Seq(u64::MAX));
            self.frames = Some((frames.map_err(|e| unreadable(seq, &e))?, seq));
        }
        let missing =
            || ReadError::Damaged { seq, what: "the index names it, but it is not there".to_owned() };
        let (frames, at) = self.frames.as_mut().ok_or_else(missing)?;
        for frame in frames {
            let frame = frame?;
            *at = frame.seq.next();
            if frame.seq == seq {
                return Ok(frame);
            }
            if frame.seq > seq {
                break;
            }
        }
        Err(missing())
    }
}
