//! Store files that are cut short or have flipped bits: a clear message or a clean cut, and never a panic.

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::journal::offline::Offline;
use plimsoll::journal::{AppendError, Journal, Log, StreamId};

use super::crash::random;
use super::fixture::{all, append, instance, open, scan_all, try_open};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("there").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("there").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

/// What must hold whatever was done to a file.
fn check(dir: &Path, what: &str) {
    let Ok(journal) = try_open(dir) else { return };
    match journal.status().degraded {
        // Nothing noticed: then nothing is missing but what can be made again.
        None => {
            for log in Log::ALL {
                if let Err(error) = journal.verify(log, None) {
                    assert!(!error.to_string().is_empty(), "{what}");
                }
            }
        }
        Some(message) => {
            assert!(message.contains("nothing is appended"), "{what}: {message}");
            let refused = wait(journal.append(append(&StreamId::alert(), [1])));
            assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{what}: {refused:?}");
        }
    }
    // The other log is never touched by it.
    let other = if what.contains("/work/") { instance("a") } else { StreamId::request() };
    let query = plimsoll::journal::Scan { stream: Some(other), limit: 100, ..Default::default() };
    assert_eq!(scan_all(&journal, query).len(), 300, "{what}");
    journal.close();
}

#[test]
fn damaged_files_give_a_message_or_a_clean_cut_and_nothing_else_is_lost() {
    let temporary = tempfile::tempdir().expect("temporary folder");
    let whole = temporary.path().join("whole");
    {
        let journal = open(&whole);
        for start in 0..3 {
            for stream in [instance("a"), StreamId::request()] {
                wait(journal.append(append(&stream, start * 100..start * 100 + 100))).expect("appended");
            }
        }
    }
    let rounds = if std::env::var_os("PLIMSOLL_SOAK").is_some() { 20 } else { 2 };
    let mut seed = 3;
    for file in files(&whole.join("journal")) {
        let name = file.strip_prefix(&whole).expect("inside").to_owned();
        let content = fs::read(&file).expect("readable");
        // A store's file is longer than what is written in it.
        let written = content.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        for round in 0..rounds {
            for cut in [true, false] {
                let dir = temporary.path().join("damaged");
                copy(&whole, &dir);
                let mut bad = content.clone();
                let at = random(&mut seed) as usize % written.max(1);
                if cut {
                    bad.truncate(at);
                } else if let Some(byte) = bad.get_mut(at) {
                    *byte ^= 1 << (random(&mut seed) % 8);
                }
                fs::write(dir.join(&name), bad).expect("written");
                let what = if cut { "cut at" } else { "bit flipped at" };
                check(&dir, &format!("/{} {what} {at}, round {round}", name.display()));
                fs::remove_dir_all(&dir).expect("removed");
            }
        }
    }
}

#[test]
fn a_short_log_is_noticed_and_a_moved_partition_lets_it_go_on() {
    let dir = tempfile::tempdir().expect("temporary folder");
    {
        let journal = open(dir.path());
        wait(journal.append(append(&StreamId::request(), 0..50))).expect("appended");
        wait(journal.append(append(&instance("a"), 0..50))).expect("appended");
    }
    let partition = dir.path().join("journal/work/00000000000000000001");
    let store = partition.join("store/db");
    fs::OpenOptions::new().write(true).open(&store).and_then(|f| f.set_len(4_096)).expect("cut");
    for file in files(&partition.join("store")) {
        if file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("snap.")) {
            fs::remove_file(file).expect("removed");
        }
    }
    let journal = open(dir.path());
    let message = journal.status().degraded.expect("it is noticed");
    assert!(message.contains("move that folder away"), "{message}");
    assert!(wait(journal.append(append(&instance("a"), [1]))).is_err());
    journal.close();
    drop(journal);
    assert!(Offline::open(dir.path()).expect("opens").verify(Log::Audit, &[]).is_ok());
    fs::rename(&partition, dir.path().join("moved")).expect("moved");
    let journal = open(dir.path());
    assert_eq!(journal.status().degraded, None);
    let appended = wait(journal.append(append(&StreamId::request(), [7]))).expect("appended");
    assert!(appended.first.0 > 100, "no seq is used twice");
    assert!(all(&journal).iter().any(|r| r.kind == plimsoll::journal::kinds::PARTITION_LOST));
}

#[test]
fn a_lost_manifest_is_told_and_its_records_are_kept() {
    let dir = tempfile::tempdir().expect("temporary folder");
    {
        let journal = open(dir.path());
        wait(journal.append(append(&StreamId::request(), 0..50))).expect("appended");
    }
    let partition = dir.path().join("journal/work/00000000000000000001");
    fs::rename(partition.join("manifest.json"), dir.path().join("kept")).expect("moved");
    let offline = Offline::open(dir.path()).expect("opens");
    assert_eq!(offline.unreadable().len(), 1);
    drop(offline);
    let journal = open(dir.path());
    let message = journal.status().degraded.expect("it is noticed");
    assert!(message.contains("its manifest is gone"), "{message}");
    drop(journal);
    fs::rename(dir.path().join("kept"), partition.join("manifest.json")).expect("moved back");
    let journal = open(dir.path());
    assert_eq!(journal.status().degraded, None);
    assert_eq!(all(&journal).iter().filter(|r| r.stream == StreamId::request()).count(), 50);
}
