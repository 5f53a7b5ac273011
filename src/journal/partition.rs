//! One partition: a folder with a manifest, a store, the heads of the streams at its start, and snapshots.
//!
//! A folder without a manifest is one whose making was cut short, and is deleted. The manifest is written again when
//! the partition is sealed; from then on the folder is only read, until it is dropped whole.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use serde::{Deserialize, Serialize};

use super::cursor::Forward;
use super::encoding;
use super::index::{Position, StreamIndex};
use super::store::{Store, StoreError};
use super::{Log, ReadError, RecordHash, disk};
use crate::clock::Timestamp;
use crate::ids::Seq;

const MANIFEST: &str = "manifest.json";
const HEADS: &str = "heads.json";
const STORE: &str = "store";

/// What a partition says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The log it belongs to.
    pub(super) log: Log,
    /// No record in it has a lower seq.
    pub(super) first_seq: Seq,
    /// When it was begun, in the journal's time.
    pub(super) first_time: Timestamp,
    /// The hash of the last record before it in its log.
    pub(super) start_hash: RecordHash,
    /// Where it ended, once it is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<Seal>,
}

/// Where a sealed partition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seal {
    pub(super) last_seq: Seq,
    pub(super) last_hash: RecordHash,
    pub(super) last_time: Timestamp,
    pub(super) records: u64,
}

/// A partition on the disk.
pub(super) struct Partition {
    pub(super) dir: PathBuf,
    manifest: RwLock<Manifest>,
    /// Kept open by `strong`; `weak` finds it while a reader still holds it, for a store opens only once.
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    strong: Option<Arc<OpenPartition>>,
    weak: Weak<OpenPartition>,
    /// It is being deleted: opening it now would make an empty store in its place.
    dropped: bool,
}

/// A partition whose store is open.
pub(super) struct OpenPartition {
    pub(super) store: Arc<Store>,
    pub(super) index: RwLock<StreamIndex>,
}

/// How an opened partition was found.
pub(super) struct Found {
    pub(super) open: Arc<OpenPartition>,
    pub(super) position: Position,
    /// The first record after `position` that cannot be read or does not follow it.
    pub(super) damage: Option<(Seq, String)>,
}

impl Partition {
    /// Makes a partition; when this returns, it survives a power loss.
    pub(super) fn create(
        log_dir: &Path,
        manifest: Manifest,
        heads: &HashMap<String, Seq>,
        cache_bytes: u64,
    ) -> Result<(Self, Arc<OpenPartition>), StoreError> {
        let io = |source| StoreError::Io { doing: "making a partition", source };
        let dir = log_dir.join(format!("{:020}", manifest.first_seq.0));
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(io)?;
        }
        fs::create_dir(&dir).map_err(io)?;
        let store = Store::create(&dir.join(STORE), cache_bytes)?;
        let heads = serde_json::to_vec(heads).expect("a map of text to numbers is JSON");
        disk::replace(&dir.join(HEADS), &heads).map_err(io)?;
        write_manifest(&dir, &manifest).map_err(io)?;
        disk::sync_dir(log_dir).map_err(io)?;
        let open = Arc::new(OpenPartition { store: Arc::new(store), index: RwLock::default() });
        let slot = Slot { weak: Arc::downgrade(&open), strong: Some(Arc::clone(&open)), dropped: false };
        Ok((Self { dir, manifest: RwLock::new(manifest), slot: Mutex::new(slot) }, open))
    }

    /// Reads a partition's manifest; `None` if it has none.
    pub(super) fn load(dir: PathBuf) -> Result<Option<Self>, String> {
        let path = dir.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let manifest = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Some(Self { dir, manifest: RwLock::new(manifest), slot: Mutex::default() }))
    }

    pub(super) fn manifest(&self) -> Manifest {
        self.manifest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The folder's name.
    pub(super) fn name(&self) -> String {
        self.dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The seq after its last record, if it is sealed.
    pub(super) fn until(&self) -> Option<Seq> {
        self.manifest().sealed.map(|s| s.last_seq.next())
    }

    /// Writes down where it ended.
    pub(super) fn seal(&self, position: Position) -> std::io::Result<()> {
        let seal = Seal {
            last_seq: position.seq,
            last_hash: position.hash,
            last_time: position.time,
            records: position.records,
        };
        let manifest = Manifest { sealed: Some(seal), ..self.manifest() };
        write_manifest(&self.dir, &manifest)?;
        *self.manifest.write().unwrap_or_else(PoisonError::into_inner) = manifest;
        Ok(())
    }

    /// The open store, opened if need be. The flag says whether this call opened it.
    pub(super) fn open(&self, cache_bytes: u64) -> Result<(Arc<OpenPartition>, bool), ReadError> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.weak.upgrade() {
            slot.strong = Some(Arc::clone(&open));
            return Ok((open, false));
        }
        if slot.dropped {
            return Err(ReadError::Unavailable("its partition was dropped meanwhile".to_owned()));
        }
        let found = self.open_store(cache_bytes).map_err(|e| self.unreadable(&e))?;
        *slot =
            Slot { weak: Arc::downgrade(&found.open), strong: Some(Arc::clone(&found.open)), dropped: false };
        Ok((found.open, true))
    }

    /// Opens the store and reads what the index does not cover yet.
    pub(super) fn recover(&self, cache_bytes: u64) -> Result<Found, StoreError> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.open_store(cache_bytes)?;
        *slot =
            Slot { weak: Arc::downgrade(&found.open), strong: Some(Arc::clone(&found.open)), dropped: false };
        Ok(found)
    }

    /// Lets the store go; it closes when its last reader is done.
    pub(super) fn close(&self) {
        let strong = self.slot.lock().unwrap_or_else(PoisonError::into_inner).strong.take();
        drop(strong);
    }

    /// From now on nobody opens it; who reads it reads on.
    pub(super) fn mark_dropped(&self) {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).dropped = true;
    }

    /// It could not be dropped after all.
    pub(super) fn mark_kept(&self) {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).dropped = false;
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }

    /// Whether some reader still holds the store.
    pub(super) fn is_open(&self) -> bool {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).weak.strong_count() > 0
    }

    fn open_store(&self, cache_bytes: u64) -> Result<Found, StoreError> {
        let store = Arc::new(Store::open(&self.dir.join(STORE), cache_bytes)?);
        let (mut index, written) = StreamIndex::load(&store)?;
        let manifest = self.manifest();
        let start = Position {
            seq: Seq(manifest.first_seq.0.saturating_sub(1)),
            hash: manifest.start_hash,
            time: manifest.first_time,
            ..Position::default()
        };
        let mut position = written.unwrap_or(start);
        let until = self.until().unwrap_or(Seq(u64::MAX));
        let damage = read_tail(&store, &mut index, &mut position, until)?;
        let open = Arc::new(OpenPartition { store, index: RwLock::new(index) });
        Ok(Found { open, position, damage })
    }

    /// The last seq of every stream of the log, when the partition was begun.
    pub(super) fn heads_at_start(&self) -> HashMap<String, Seq> {
        fs::read(self.dir.join(HEADS)).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default()
    }

    fn unreadable(&self, error: &StoreError) -> ReadError {
        let first = self.manifest().first_seq;
        match super::cursor::unreadable(first, error) {
            ReadError::Damaged { seq, what } => {
                ReadError::Damaged { seq, what: format!("{what} ({})", self.dir.display()) }
            }
            ReadError::Unavailable(what) => {
                ReadError::Unavailable(format!("{what} ({})", self.dir.display()))
            }
        }
    }
}

/// Takes the records after `position` into the index as far as each follows the one before.
fn read_tail(
    store: &Arc<Store>,
    index: &mut StreamIndex,
    position: &mut Position,
    until: Seq,
) -> Result<Option<(Seq, String)>, StoreError> {
    for frame in Forward::new(Arc::clone(store), position.seq.next(), until)? {
        let frame = match frame {
            Ok(frame) => frame,
            Err(ReadError::Damaged { seq, what }) => return Ok(Some((seq, what))),
            Err(ReadError::Unavailable(what)) => {
                let source = std::io::Error::other(what);
                return Err(StoreError::Io { doing: "reading the log's end", source });
            }
        };
        if encoding::prev_hash_of(&frame.payload) != Some(position.hash) {
            return Ok(Some((frame.seq, "it does not follow the record before it".to_owned())));
        }
        let (Some(stream), Some(time)) =
            (encoding::stream_of(&frame.payload), encoding::time_of(&frame.payload))
        else {
            return Ok(Some((frame.seq, "it ends too early".to_owned())));
        };
        index.note(stream, frame.seq);
        *position = Position {
            seq: frame.seq,
            hash: frame.hash(),
            time,
            records: position.records + 1,
            bytes: position.bytes + (frame.payload.len() + encoding::HEADER_BYTES) as u64,
        };
    }
    Ok(None)
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(manifest).expect("a manifest is JSON");
    disk::replace(&dir.join(MANIFEST), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader and the writer that rolls, or two readers of an old partition: one closes it, the other wants it.
    #[test]
    fn a_partition_that_is_being_closed_can_be_opened_again() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let manifest = Manifest {
            log: Log::Work,
            first_seq: Seq(1),
            first_time: Timestamp::default(),
            start_hash: RecordHash::default(),
            sealed: None,
        };
        let made = Partition::create(dir.path(), manifest, &HashMap::new(), 1 << 20);
        let (partition, open) = made.expect("made");
        drop(open);
        let use_it = || {
            for _ in 0..100 {
                partition.open(1 << 20).map(drop).expect("readable");
                partition.close();
            }
        };
        std::thread::scope(|scope| [scope.spawn(use_it), scope.spawn(use_it)].map(|user| user.join()))
            .into_iter()
            .for_each(|ended| ended.expect("every time"));
    }
}
