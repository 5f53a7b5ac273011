//! Files that must be whole or absent after a power loss.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Replaces a file: after a crash it holds the old content or the new one, never a part.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a folder durable with everything in it.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(path)
}

/// Bytes that a folder takes up on the disk. What vanishes meanwhile counts nothing.
pub(super) fn bytes_of(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_of(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// What a file system has room for, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    /// What may still be written; what is reserved for root is not in it.
    pub(super) free: u64,
    /// All there is, used or not.
    pub(super) capacity: u64,
}

/// Asks the file system where `path` lies.
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space { free: stat.f_bavail * stat.f_frsize, capacity: stat.f_blocks * stat.f_frsize })
}

/// Whether an error is for want of space.
pub(super) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Says whether so many bytes can be written and synced; leaves nothing behind.
pub(super) fn probe(path: &Path, bytes: usize) -> io::Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(&vec![0x5a; bytes])?;
        file.sync_all()
    };
    let written = write();
    let removed = fs::remove_file(path);
    written.and(removed)
}
