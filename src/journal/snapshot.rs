//! Snapshots of folds: files in the partition that was current, and the restoring from them at start.
//!
//! The name says which fold and up to which seq; the first line is a checksum over the rest. A snapshot that does not
//! check is passed over for an older one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::row::{LogRow, Range};
use super::{Fold, Log, ReadError, disk};
use crate::ids::Seq;

const FOLDER: &str = "snapshots";

/// Why a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// It stays as long as its partition: for a new partition, or after many records.
    Kept,
    /// At close: the next one replaces it.
    Closing,
}

impl Occasion {
    fn extension(self) -> &'static str {
        match self {
            Self::Kept => "snapshot",
            Self::Closing => "closing",
        }
    }
}

/// Why the folds of a log cannot be brought to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unrestored {
    /// A record cannot be read.
    #[error(
        "what happened before cannot be read ({0}): nothing is appended; run 'plimsoll audit export' to save what can be \
         read, then move that partition's folder away"
    )]
    Record(#[from] ReadError),
    /// None of the snapshots of this fold can be used.
    #[error(
        "no snapshot of '{0}' can be used, and its first records are not kept any more: nothing is appended, and nothing \
         is lost; the log says what is wrong with each: start the plimsoll that wrote them, or put the files back from a backup"
    )]
    Snapshots(&'static str),
}

/// Writes a snapshot of every fold, which all stand at `seq`.
pub(super) fn write(
    partition: &Path,
    folds: &[Arc<dyn Fold>],
    seq: Seq,
    occasion: Occasion,
) -> io::Result<()> {
    if folds.is_empty() {
        return Ok(());
    }
    let folder = partition.join(FOLDER);
    fs::create_dir_all(&folder)?;
    disk::sync_dir(partition)?;
    let old: Vec<_> = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).collect();
    for fold in folds {
        let state = fold.snapshot().to_string();
        let content = format!("{:08x}\n{state}", crc32c::crc32c(state.as_bytes()));
        let name = format!("{}.{:020}.{}", fold.name(), seq.0, occasion.extension());
        disk::replace(&folder.join(name), content.as_bytes())?;
    }
    for path in old {
        let closing = path.extension().is_some_and(|e| e == Occasion::Closing.extension());
        let this = parse_name(&path).is_some_and(|(_, at)| at == seq);
        if closing && !this {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The newest seq up to which `fold` has a snapshot in this partition.
pub(super) fn newest(partition: &Path, fold: &str) -> Option<Seq> {
    let entries = fs::read_dir(partition.join(FOLDER)).ok()?;
    let seq =
        |entry: fs::DirEntry| parse_name(&entry.path()).filter(|(name, _)| name == fold).map(|(_, s)| s);
    entries.flatten().filter_map(seq).max()
}

/// Brings every fold to the journal's end: its newest snapshot that can be read, and the records of its log after it.
/// Answers the logs of which something that is needed cannot be read; their folds then stand before it.
pub(super) fn restore(rows: [&LogRow; 2], folds: &[Arc<dyn Fold>], until: Seq) -> Vec<(Log, Unrestored)> {
    let of_log = |row: &LogRow| {
        let folds = folds.iter().filter(|fold| fold.wants().log() == row.log);
        let folds = folds.map(|fold| Ok((fold, restore_one(rows, row, fold.as_ref(), until)?)));
        let folds: Vec<_> = folds.collect::<Result<_, Unrestored>>()?;
        let Some(first) = folds.iter().map(|(_, position)| position).min() else { return Ok(()) };
        let range = Range { from: first.next(), until, stream: None, newest_first: false };
        for frame in row.frames(range) {
            let record = frame?.decode()?;
            for (fold, _) in folds.iter().filter(|(_, position)| record.seq > *position) {
                if fold.wants() == record.stream.kind() {
                    fold.apply(&record);
                }
            }
        }
        Ok(())
    };
    rows.iter().filter_map(|row| Some((row.log, of_log(row).err()?))).collect()
}

/// Restores a fold as far as a snapshot goes; up to which record that is. One that had snapshots and whose first records
/// are gone is not begun anew: it would come to nothing, and the next snapshot would make that last.
fn restore_one(rows: [&LogRow; 2], row: &LogRow, fold: &dyn Fold, until: Seq) -> Result<Seq, Unrestored> {
    match newest_usable(rows, fold.name(), until, |state| fold.restore(&state)) {
        Some((seq, ())) => Ok(seq),
        None if row.kept_from() > Seq(1) && !files(rows, fold.name()).is_empty() => {
            Err(Unrestored::Snapshots(fold.name()))
        }
        None => Ok(Seq(0)),
    }
}

/// The newest snapshot of a fold from before this record that can be read.
pub(super) fn before(rows: [&LogRow; 2], fold: &str, before: Seq) -> Option<(Seq, Value)> {
    newest_usable(rows, fold, before, Ok)
}

/// Up to which seqs a fold has snapshots, in order.
pub(super) fn seqs(rows: [&LogRow; 2], fold: &str) -> Vec<Seq> {
    let mut seqs: Vec<Seq> = files(rows, fold).into_iter().map(|(seq, _)| seq).collect();
    seqs.dedup();
    seqs
}

fn newest_usable<T>(
    rows: [&LogRow; 2],
    fold: &str,
    before: Seq,
    take: impl Fn(Value) -> Result<T, String>,
) -> Option<(Seq, T)> {
    let files = files(rows, fold).into_iter().filter(|(seq, _)| *seq < before);
    for (seq, path) in files.rev() {
        match read(&path).and_then(&take) {
            Ok(taken) => return Some((seq, taken)),
            Err(cause) => {
                tracing::warn!(path = %path.display(), cause, "a snapshot cannot be used, an older one is tried");
            }
        }
    }
    None
}

/// The files of a fold's snapshots, oldest first.
fn files(rows: [&LogRow; 2], fold: &str) -> Vec<(Seq, PathBuf)> {
    let mut found = Vec::new();
    for partition in rows.iter().flat_map(|row| row.partitions()) {
        let entries = fs::read_dir(partition.dir.join(FOLDER)).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if let Some((name, seq)) = parse_name(&path)
                && name == fold
            {
                found.push((seq, path));
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let (checksum, state) = text.split_once('\n').ok_or("it has no checksum")?;
    if checksum != format!("{:08x}", crc32c::crc32c(state.as_bytes())) {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_str(state).map_err(|e| e.to_string())
}

fn parse_name(path: &Path) -> Option<(String, Seq)> {
    let name = path.file_name()?.to_str()?;
    let (rest, extension) = name.rsplit_once('.')?;
    let known = [Occasion::Kept, Occasion::Closing].iter().any(|o| o.extension() == extension);
    let (fold, seq) = rest.rsplit_once('.').filter(|_| known)?;
    Some((fold.to_owned(), Seq(seq.parse().ok()?)))
}

/// The partitions of a log whose snapshots make `partition` dispensable: whether every fold has a later one elsewhere.
pub(super) fn covered_without(
    rows: [&LogRow; 2],
    folds: &[Arc<dyn Fold>],
    partition: (Log, &str),
    last: Seq,
) -> bool {
    let elsewhere: Vec<_> = rows
        .iter()
        .flat_map(|row| row.partitions().into_iter().map(|p| (row.log, p)))
        .filter(|(log, p)| (*log, p.name().as_str()) != partition)
        .collect();
    let covered = |fold: &Arc<dyn Fold>| {
        elsewhere.iter().any(|(_, p)| newest(&p.dir, fold.name()).is_some_and(|seq| seq >= last))
    };
    folds.iter().all(covered)
}
