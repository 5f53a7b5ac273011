//! Space that is kept for a start on a full disk. Opening a store writes, so without it nothing could be read then, not
//! even who may come in.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::store::StoreError;

/// Each log's newest store is opened with up to a segment (512 KiB) and a snapshot (under 1 MiB at 1,000,000 records),
/// while the old ones are still there.
const BYTES: u64 = 8 << 20;

/// Makes the reserve whole. Where that fails, the next start would too, so nothing may be appended.
pub(super) fn keep(data_dir: &Path) -> Result<(), StoreError> {
    let keep = || {
        let file = File::options().write(true).create(true).truncate(false).open(path(data_dir))?;
        if file.metadata()?.blocks() * 512 >= BYTES { Ok(()) } else { take(file, BYTES) }
    };
    keep().map_err(|source| StoreError::Io { doing: "keeping space for the next start", source })
}

/// Makes it again from what is left once the stores are open. What does not fit is less than [`keep`] and the probe of
/// the disk ask for, so nothing is appended before there is space for the whole.
pub(super) fn keep_what_fits(data_dir: &Path) {
    for bytes in [BYTES, BYTES / 2, BYTES / 4, BYTES / 8] {
        release(data_dir);
        let made = File::options().write(true).create_new(true).open(path(data_dir));
        if made.and_then(|file| take(file, bytes)).is_ok() {
            return;
        }
    }
}

/// Gives the space back. Answers whether there was any.
pub(super) fn release(data_dir: &Path) -> bool {
    let path = path(data_dir);
    let held = fs::metadata(&path).is_ok_and(|meta| meta.blocks() > 0);
    fs::remove_file(&path).is_ok() && held
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("reserve")
}

fn take(mut file: File, bytes: u64) -> io::Result<()> {
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // Some file systems cannot promise space.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            (0..bytes >> 20).try_for_each(|_| file.write_all(&[0x5a; 1 << 20]))
        }
        taken => Ok(taken?),
    }
}
