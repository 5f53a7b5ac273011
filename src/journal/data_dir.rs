//! The data directory as a whole: its format, its lock, its id.
//!
//! The format is read before anything is touched, so a directory of a newer plimsoll stays as it is. The lock is an
//! advisory `flock` that the kernel lets go with the process, and the file holds the holder's process id.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::disk;

/// The version of the data directory's layout that this plimsoll writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// How often a lock is tried that is held: about a second. A child that its last holder has just forked holds it until
/// it runs its program.
const LOCK_TRIES: u32 = 100;
/// Between two tries.
const LOCK_LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something cannot be read or written.
    #[error("cannot use the data directory {}: {doing}: check that it exists, that this user may write there, and that the disk is not full", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written to.
    #[error("the data directory {} cannot be written to, which the store needs even for reading: let this user write there and mount it read-write, or name a copy of it with --data-dir", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the data directory {} is in use by {}: stop that one first, or choose another with --data-dir", path.display(), holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, if it said so.
        holder: Option<u32>,
    },
    /// A newer plimsoll wrote it.
    #[error("the data directory {} has format {found}, this plimsoll knows {FORMAT}: nothing was touched, use the newer plimsoll", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its format file is not one of plimsoll's.
    #[error("{} does not say 'plimsoll-data <number>': this is no data directory of plimsoll, or it is damaged; nothing was touched", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// plimsoll never kept data there.
    #[error("{} is no data directory of plimsoll (it holds no file FORMAT): nothing was touched; name the one that 'plimsoll serve' uses with --data-dir", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Its thread cannot be started.
    #[error("cannot start the journal's writer")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether it was for want of space, so that it may work once there is some.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => disk::is_full(source.kind()),
            Self::ReadOnly { .. }
            | Self::Locked { .. }
            | Self::Newer { .. }
            | Self::Unknown { .. }
            | Self::Foreign { .. }
            | Self::Thread { .. } => false,
        }
    }
}

/// A data directory in use by this process, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    id: String,
    _lock: File,
}

impl DataDir {
    /// Makes the directory (0700) if need be, checks its format and takes its lock.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |doing| move |source| OpenError::Io { path: path.to_owned(), doing, source };
        let known = read_format(path)?;
        if !path.is_dir() {
            make_durable(path).map_err(io("making it"))?;
        }
        let lock = take_lock(path)?;
        let id = match fs::read_to_string(path.join("id")) {
            Ok(id) if !id.trim().is_empty() => id.trim().to_owned(),
            _ => {
                let id = format!("{:032x}", rand::random::<u128>());
                disk::replace(&path.join("id"), format!("{id}\n").as_bytes())
                    .map_err(io("writing its id"))?;
                id
            }
        };
        if known.is_none() {
            let text = format!("plimsoll-data {FORMAT}\n");
            disk::replace(&path.join("FORMAT"), text.as_bytes()).map_err(io("writing its format"))?;
        }
        Ok(Self { path: path.to_owned(), id, _lock: lock })
    }

    /// Takes the lock of a directory that plimsoll made; any other one stays as it is.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Foreign`] if plimsoll never kept data there.
    pub fn open_existing(path: &Path) -> Result<Self, OpenError> {
        if !path.is_dir() {
            let source = io::ErrorKind::NotFound.into();
            return Err(OpenError::Io { path: path.to_owned(), doing: "finding it", source });
        }
        match read_format(path)? {
            Some(_) => Self::open(path),
            None => Err(OpenError::Foreign { path: path.to_owned() }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A random id, made with the directory; it tells one plimsoll's data from another's.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Says whether a process uses a directory, and which, without changing anything.
///
/// # Errors
/// [`OpenError::Locked`] if one does, [`OpenError::Newer`] or [`OpenError::Unknown`] for a foreign format,
/// [`OpenError::Io`] if the lock cannot be looked at.
pub fn check_free(path: &Path) -> Result<(), OpenError> {
    read_format(path)?;
    match OpenOptions::new().read(true).open(path.join("lock")) {
        Ok(file) => lock_file(path, file).map(drop),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(OpenError::Io { path: path.to_owned(), doing: "looking at its lock", source }),
    }
}

/// Makes a folder and those above it, and makes their names survive a power loss.
fn make_durable(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.is_dir()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    missing.iter().filter_map(|made| made.parent()).try_for_each(disk::sync_dir)
}

fn read_format(path: &Path) -> Result<Option<u32>, OpenError> {
    let file = path.join("FORMAT");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(OpenError::Unknown { path: file }),
        Err(source) => {
            return Err(OpenError::Io { path: path.to_owned(), doing: "reading its format", source });
        }
    };
    let number = text.trim_end().strip_prefix("plimsoll-data ").and_then(|n| n.parse().ok());
    match number {
        None | Some(0) => Err(OpenError::Unknown { path: file }),
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found }),
        Some(found) => Ok(Some(found)),
    }
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    // One that is there needs no space on the disk.
    let file = match options.open(&name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => options.create(true).truncate(false).open(&name),
        file => file,
    };
    let file = file.map_err(|source| unlockable(path, source))?;
    for _ in 0..LOCK_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::park_timeout(LOCK_LOOK_AGAIN),
            _ => break,
        }
    }
    let mut file = lock_file(path, file)?;
    let mut tell = || {
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    // Who holds it is for people to know: a full disk that does not take it is no reason to stop.
    let _ = tell();
    Ok(file)
}

fn unlockable(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            OpenError::ReadOnly { path, source }
        }
        _ => OpenError::Io { path, doing: "locking it", source },
    }
}

fn lock_file(path: &Path, mut file: File) -> Result<File, OpenError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
            let holder = read.ok().and_then(|_| text.trim().parse().ok());
            Err(OpenError::Locked { path: path.to_owned(), holder })
        }
        Err(e) => Err(OpenError::Io { path: path.to_owned(), doing: "locking it", source: e.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_forked_child_holds_for_a_moment_is_waited_for() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("data");
        drop(DataDir::open(&path).expect("opened"));
        // As a child between fork and exec does.
        let held = File::open(path.join("lock")).expect("the lock file");
        flock(&held, FlockOperation::LockExclusive).expect("free");
        let (opens, opened) = std::sync::mpsc::channel::<()>();
        let child = std::thread::spawn(move || {
            // Long enough for the first try, and far less than all of them.
            let _ = opened.recv_timeout(LOCK_LOOK_AGAIN * 5);
            drop(held);
        });
        DataDir::open(&path).expect("free in time");
        drop(opens);
        child.join().expect("no panic");
    }

    #[test]
    fn a_second_holder_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("data");
        let first = DataDir::open(&path).expect("opened");
        match DataDir::open(&path) {
            Err(OpenError::Locked { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("expected a refusal, got {other:?}"),
        }
        assert!(matches!(check_free(&path), Err(OpenError::Locked { .. })));
        let id = first.id().to_owned();
        drop(first);
        assert!(check_free(&path).is_ok());
        assert_eq!(DataDir::open(&path).expect("free again").id(), id);
    }

    #[test]
    fn a_newer_or_foreign_directory_is_refused_untouched() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for text in ["plimsoll-data 2\n", "plimsoll-data 0", "something else"] {
            fs::write(dir.path().join("FORMAT"), text).expect("written");
            let error = DataDir::open(dir.path()).expect_err("refused");
            assert!(
                matches!(error, OpenError::Newer { found: 2, .. } | OpenError::Unknown { .. }),
                "{error}"
            );
            let names: Vec<_> = fs::read_dir(dir.path()).expect("read").flatten().collect();
            assert_eq!(names.len(), 1, "nothing was made beside FORMAT");
        }
    }

    #[test]
    fn a_new_directory_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("a/b");
        let _data = DataDir::open(&path).expect("opened");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
    }
}
