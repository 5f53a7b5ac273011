//! The only file that knows sled: rows and index entries of one partition.
//!
//! Each odd line closes a hole in sled 0.34.7 that was reproduced: its flush does not survive a power loss, so the file
//! is synced here; a kill during start-up leaves a half snapshot that bricks it, so that is deleted first; a new store
//! never syncs its first files, so they are synced here; damage makes it panic, so it is called inside `catch_unwind`;
//! after an IO error it answers nothing but that error, so the caller opens it again. Rows are kept short because a
//! large tree leaf goes to a file of its own that is never synced ([`JOURNAL_ROW_BYTES_MAX`]).

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread::park_timeout;
use std::time::Duration;

use super::disk;
use crate::ids::Seq;
use crate::limits::JOURNAL_ROW_BYTES_MAX;

/// Rows in one atomic batch: an append of the largest size, with room.
const BATCH_ROWS_MAX: usize = 1_500;

/// How often, and with what pause, a store that is being closed is waited for: 5 s in all; what it closes with is a
/// sync.
const CLOSE_TRIES: u32 = 1_000;
const CLOSE_PAUSE: Duration = Duration::from_millis(5);

/// The key of a row: the seq of the first record that begins in it, and which piece of that record it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey {
    pub(super) seq: Seq,
    pub(super) part: u16,
}

impl RowKey {
    pub(super) fn first_of(seq: Seq) -> Self {
        Self { seq, part: 0 }
    }

    fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.seq.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.part.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (seq, part) = bytes.split_first_chunk()?;
        Some(Self { seq: Seq(u64::from_be_bytes(*seq)), part: u16::from_be_bytes(part.try_into().ok()?) })
    }
}

/// A row as it lies in the store.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: RowKey,
    pub(super) bytes: sled::IVec,
}

/// A key of the index and its value.
pub(super) type IndexEntry = (Vec<u8>, Vec<u8>);

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// A read, write or sync failed.
    #[error("{doing}: {source}")]
    Io { doing: &'static str, source: io::Error },
    /// The unsynced pages may be lost although they can still be read.
    #[error("syncing the store: {source}")]
    Sync { source: io::Error },
    /// The store's own structures are damaged.
    #[error("{doing}: the store's files are damaged: {what}")]
    Damaged { doing: &'static str, what: String },
}

impl StoreError {
    /// What the system said, if it was the system.
    pub(super) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } | Self::Sync { source } => source.kind(),
            Self::Damaged { .. } => io::ErrorKind::Other,
        }
    }

    /// Whether it was for want of space.
    pub(super) fn is_full(&self) -> bool {
        disk::is_full(self.io_kind())
    }
}

/// One open sled database.
pub(super) struct Store {
    // `Option` because closing may panic, and a drop must not.
    handles: Option<Handles>,
}

struct Handles {
    db: sled::Db,
    records: sled::Tree,
    index: sled::Tree,
    file: File,
}

impl Store {
    /// Makes a store in a new folder; when this returns, it survives a power loss.
    pub(super) fn create(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let store = Self::open(path, cache_bytes)?;
        store.put_index(vec![(b"\x01created".to_vec(), vec![1])])?;
        store.flush()?;
        disk::sync_tree(path).map_err(|source| StoreError::Io { doing: "syncing a new store", source })?;
        Ok(store)
    }

    /// Opens a store. One that is still being closed by another thread is waited for.
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        wait_until_closed(path)
            .map_err(|source| StoreError::Io { doing: "waiting for the store to close", source })?;
        remove_half_snapshots(path)
            .map_err(|source| StoreError::Io { doing: "preparing the store", source })?;
        let handles = guarded("opening the store", || {
            let db =
                sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None).open()?;
            let (records, index) = (db.open_tree("records")?, db.open_tree("index")?);
            let file = File::options().read(true).write(true).open(path.join("db"))?;
            Ok(Handles { db, records, index, file })
        })?;
        Ok(Self { handles: Some(handles) })
    }

    fn handles(&self) -> &Handles {
        self.handles.as_ref().expect("taken only by drop")
    }

    /// Writes rows, all or none. Not durable before [`Store::flush`].
    pub(super) fn put(&self, rows: Vec<(RowKey, Vec<u8>)>) -> Result<(), StoreError> {
        assert!(rows.len() <= BATCH_ROWS_MAX, "a group is capped in records and bytes");
        let mut batch = sled::Batch::default();
        for (key, bytes) in rows {
            debug_assert!(bytes.len() <= JOURNAL_ROW_BYTES_MAX);
            batch.insert(&key.to_bytes(), bytes);
        }
        guarded("writing records", || self.handles().records.apply_batch(batch))
    }

    /// Removes all rows from `from` on, and puts `keep` in the place of the first if it is given.
    pub(super) fn cut(&self, from: RowKey, keep: Option<Vec<u8>>) -> Result<(), StoreError> {
        guarded("cutting the log's end", || {
            let records = &self.handles().records;
            loop {
                let mut batch = sled::Batch::default();
                let mut count = 0;
                for key in records.range(from.to_bytes()..).keys().rev().take(500) {
                    batch.remove(key?);
                    count += 1;
                }
                if count == 0 {
                    break;
                }
                records.apply_batch(batch)?;
            }
            keep.map_or(Ok(()), |bytes| records.insert(from.to_bytes(), bytes).map(drop))
        })?;
        self.flush()
    }

    /// Makes everything written durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let handles = self.handles();
        guarded("flushing the store", || handles.db.flush().map(drop))?;
        handles.file.sync_all().map_err(|source| StoreError::Sync { source })
    }

    /// Up to `limit` rows from `from` on, in order.
    pub(super) fn rows_from(&self, from: RowKey, limit: usize) -> Result<Vec<Row>, StoreError> {
        let found = guarded("reading records", || {
            self.handles().records.range(from.to_bytes()..).take(limit).collect::<Result<Vec<_>, _>>()
        })?;
        found.into_iter().map(row).collect()
    }

    /// The last row before `before`.
    pub(super) fn row_before(&self, before: RowKey) -> Result<Option<Row>, StoreError> {
        let found = guarded("reading records", || {
            self.handles().records.range(..before.to_bytes()).next_back().transpose()
        })?;
        found.map(row).transpose()
    }

    /// Writes index entries, in batches; the last entry is written last.
    pub(super) fn put_index(&self, entries: Vec<IndexEntry>) -> Result<(), StoreError> {
        guarded("writing the index", || {
            for chunk in entries.chunks(500) {
                let mut batch = sled::Batch::default();
                chunk.iter().for_each(|(key, value)| batch.insert(key.as_slice(), value.as_slice()));
                self.handles().index.apply_batch(batch)?;
            }
            Ok(())
        })
    }

    /// One index entry.
    pub(super) fn index_entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded("reading the index", || Ok(self.handles().index.get(key)?.map(|value| value.to_vec())))
    }

    /// Up to `limit` index entries from `from` on that begin with `prefix`, in order.
    pub(super) fn index_entries(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<IndexEntry>, StoreError> {
        guarded("reading the index", || {
            let entries = self.handles().index.range(from..);
            let here = |entry: &Result<(sled::IVec, _), _>| {
                entry.as_ref().map_or(true, |(key, _): &(sled::IVec, sled::IVec)| key.starts_with(prefix))
            };
            let pair = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
                entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            entries.take_while(here).take(limit).map(pair).collect()
        })
    }

    /// The last index entry before `before` that begins with `prefix`.
    pub(super) fn index_entry_before(
        &self,
        prefix: &[u8],
        before: &[u8],
    ) -> Result<Option<IndexEntry>, StoreError> {
        guarded("reading the index", || {
            let found = self.handles().index.range(..before).next_back().transpose()?;
            Ok(found.filter(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.to_vec(), v.to_vec())))
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // sled flushes when it is dropped, and panics if that fails; what was acknowledged is durable already.
        let handles = self.handles.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handles)));
    }
}

fn row((key, bytes): (sled::IVec, sled::IVec)) -> Result<Row, StoreError> {
    let damaged = || StoreError::Damaged { doing: "reading records", what: "a key is malformed".to_owned() };
    RowKey::from_bytes(&key).map(|key| Row { key, bytes }).ok_or_else(damaged)
}

/// Whoever lets a store go last closes it, a moment later sled's own threads have, and so has a child that was forked
/// meanwhile; until then sled refuses the locked file. No other process works on it: the data directory has a lock of
/// its own.
fn wait_until_closed(path: &Path) -> io::Result<()> {
    let file = match File::open(path.join("db")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    for _ in 0..CLOSE_TRIES {
        match file.try_lock() {
            // Not left to the drop: a child forked just now has the file open, too.
            Ok(()) => return file.unlock(),
            Err(TryLockError::WouldBlock) => park_timeout(CLOSE_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// A kill while sled recovers leaves a half-written snapshot that it would take for its newest (sled issue 1533).
fn remove_half_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            fs::remove_file(path.join(name))?;
        }
    }
    Ok(())
}

fn guarded<T>(doing: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) => Err(StoreError::Io { doing, source }),
        Ok(Err(other)) => Err(StoreError::Damaged { doing, what: other.to_string() }),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(StoreError::Damaged { doing, what: text.unwrap_or_else(|| "it panicked".to_owned()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_store_that_is_being_closed_is_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = Store::create(dir.path(), 1 << 20).expect("opens");
        let (begins, began) = channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(move || {
                begins.send(()).expect("heard");
                Store::open(dir.path(), 1 << 20).map(drop)
            });
            began.recv().expect("it begins");
            drop(first);
            assert!(second.join().expect("no panic").is_ok());
        });
    }
}
