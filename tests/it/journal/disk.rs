//! Partitions, retention, snapshots, locks: what the durable journal does on its disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::Clock;
use plimsoll::ids::Seq;
use plimsoll::journal::offline::Offline;
use plimsoll::journal::{
    Config, Fold, Head, Journal, JournalDeps, Log, OpenError, Retention, Scan, SledJournal, StreamId,
    VerifyError, kinds,
};
use plimsoll::units::{Bytes, Period};
use serde_json::json;

use super::fixture::{Sum, a_time, all, append, deps, instance, number, open, scan_all, try_open};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

/// Appends 2,000 records of about a kibibyte.
fn fill(journal: &SledJournal, stream: &StreamId) {
    for _ in 0..4 {
        let mut append = append(stream, 0..500);
        append.records.iter_mut().for_each(|record| record.detail["text"] = "x".repeat(1_000).into());
        wait(journal.append(append)).expect("appended");
    }
}

pub(super) fn partitions(dir: &Path, log: &str) -> usize {
    let names = fs::read_dir(dir.join("journal").join(log)).expect("there").flatten();
    names.filter(|e| e.file_name().to_string_lossy().parse::<u64>().is_ok()).count()
}

/// Polls until it holds; the journal does its upkeep on a thread of its own.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    let polling = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let polled = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), polling).await });
    assert!(polled.is_ok(), "in vain waited until {what}");
}

#[test]
fn everything_is_there_again_after_closing_and_opening() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let before = {
        let journal = open(dir.path());
        wait(journal.append(append(&StreamId::request(), 0..300))).expect("appended");
        wait(journal.append(append(&instance("a"), 0..3))).expect("appended");
        all(&journal)
    };
    let journal = open(dir.path());
    assert_eq!(all(&journal), before);
    assert_eq!(wait(journal.append(append(&StreamId::alert(), [1]))).map(|a| a.first), Ok(Seq(304)));
}

#[test]
fn a_log_rolls_and_is_read_across_its_partitions() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let config = Config { partition_records_max: 100, ..Config::default() };
    let journal = SledJournal::open(dir.path(), &config, deps(Clock::system())).expect("opens");
    for start in 0..12 {
        wait(journal.append(append(&StreamId::request(), start * 100..start * 100 + 100))).expect("appended");
    }
    eventually("the last partition is full", || partitions(dir.path(), "work") >= 12);
    let numbers: Vec<u64> = all(&journal).iter().map(number).collect();
    assert_eq!(numbers, (0..1_200).collect::<Vec<_>>());
    let newest_first =
        Scan { stream: Some(StreamId::request()), newest_first: true, limit: 90, ..Scan::default() };
    let numbers: Vec<u64> = scan_all(&journal, newest_first).iter().map(number).collect();
    assert_eq!(numbers, (0..1_200).rev().collect::<Vec<_>>());
    assert_eq!(journal.verify(Log::Work, None).map(|v| v.records), Ok(1_200));
}

#[test]
fn retention_drops_old_partitions_and_leaves_a_record_and_a_whole_chain() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let work = Retention { age_max: Period::from_secs(3_600), bytes_max: Bytes(1 << 30) };
    let config = Config { partition_records_max: 100, work, ..Config::default() };
    let (clock, hand) = Clock::manual(a_time());
    let sum = Sum::new();
    let mut with = deps(clock.clone());
    with.folds = vec![Arc::clone(&sum) as Arc<dyn Fold>];
    let journal = SledJournal::open(dir.path(), &config, with).expect("opens");
    wait(journal.append(append(&instance("a"), [1]))).expect("appended");
    for start in 0..5 {
        wait(journal.append(append(&StreamId::request(), start * 100..start * 100 + 100))).expect("appended");
        eventually("it rolled", || partitions(dir.path(), "work") as u64 == start + 2);
    }
    let last = journal.head(Log::Work).expect("readable");
    hand.advance(Duration::from_secs(7_200));
    eventually("all but the newest are gone", || partitions(dir.path(), "work") == 1);
    let dropped = Scan { kind: Some(kinds::PARTITION_DROPPED.to_owned()), limit: 10, ..Scan::default() };
    eventually("each left a record", || scan_all(&journal, dropped.clone()).len() == 5);
    assert_eq!(scan_all(&journal, dropped)[0].detail["records"], 100);
    let streams: Vec<_> = all(&journal).iter().map(|r| r.stream.clone()).collect();
    assert!(streams.contains(&instance("a")), "the other log keeps its own");
    assert!(!streams.contains(&StreamId::request()));
    assert_eq!(journal.head(Log::Work), Ok(last), "the head of a log outlasts its last record");
    assert_eq!(journal.verify(Log::Work, Some(last)).map(|v| (v.records, v.head)), Ok((0, last)));
    let other_hash = Head { hash: plimsoll::journal::RecordHash([7; 32]), ..last };
    assert!(journal.verify(Log::Work, Some(other_hash)).is_err());
    wait(journal.append(append(&StreamId::request(), [7]))).expect("appended");
    for log in Log::ALL {
        journal.verify(log, None).expect("a cut by retention is no damage");
    }
    journal.verify(Log::Work, Some(last)).expect("the next record follows the head that was kept");
    let value = sum.value();
    assert_eq!(value, (501, 499 * 500 / 2 + 7));
    journal.close();
    drop(journal);
    let again = Sum::new();
    let mut with = deps(clock);
    with.folds = vec![Arc::clone(&again) as Arc<dyn Fold>];
    let journal = SledJournal::open(dir.path(), &config, with).expect("opens");
    assert_eq!(again.value(), value, "counters never go backwards");
    journal.verify(Log::Work, Some(last)).expect("also after a restart");
}

#[test]
fn size_drops_partitions_and_gives_the_disk_back() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let work = Retention { age_max: Period::from_secs(365 * 86_400), bytes_max: Bytes(16 << 20) };
    let config = Config { partition_records_max: 2_000, work, ..Config::default() };
    let (clock, hand) = Clock::manual(a_time());
    let journal = SledJournal::open(dir.path(), &config, deps(clock)).expect("opens");
    for _ in 0..12 {
        fill(&journal, &StreamId::request());
    }
    eventually("it is under its cap", || {
        hand.advance(Duration::from_secs(1));
        partitions(dir.path(), "work") < 12 && journal.status().bytes < 18 << 20
    });
    let left = journal.verify(Log::Work, None).expect("whole").records;
    assert!((4_000..24_000).contains(&left), "the oldest went, and no more than had to: {left} are left");
}

#[test]
fn a_start_takes_the_snapshot_and_only_what_came_after() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let config = Config { partition_records_max: 100, ..Config::default() };
    let open_with = |sum: &Arc<Sum>| {
        let mut with = deps(Clock::system());
        with.folds = vec![Arc::clone(sum) as Arc<dyn Fold>];
        SledJournal::open(dir.path(), &config, with).expect("opens")
    };
    let journal = open_with(&Sum::new());
    wait(journal.append(append(&StreamId::request(), 0..150))).expect("appended");
    eventually("it rolled", || partitions(dir.path(), "work") == 2);
    wait(journal.append(append(&StreamId::request(), 150..160))).expect("appended");
    // As after a kill: no snapshot at close.
    let copy = tempfile::tempdir().expect("temporary folder");
    drop(journal);
    remove_closing_snapshots(&dir.path().join("journal"));
    let sum = Sum::new();
    let journal = open_with(&sum);
    assert_eq!(sum.value(), (160, 159 * 160 / 2));
    assert_eq!(sum.applied.lock().expect("no panic").len(), 10);
    drop(journal);
    let sum = Sum::new();
    let _journal = open_with(&sum);
    assert_eq!(sum.value(), (160, 159 * 160 / 2));
    drop(copy);
}

/// A fold that can read no snapshot would come to nothing where its first records are gone.
#[test]
fn a_fold_of_which_nothing_usable_is_left_keeps_the_journal_from_writing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (clock, hand) = Clock::manual(a_time());
    let hour = Retention { age_max: Period::from_secs(3_600), bytes_max: Bytes(1 << 30) };
    let config = Config { partition_records_max: 100, work: hour, ..Config::default() };
    let open = || {
        let deps = JournalDeps { folds: vec![Sum::new() as _], ..deps(clock.clone()) };
        SledJournal::open(dir.path(), &config, deps).expect("opens")
    };
    let journal = open();
    wait(journal.append(append(&StreamId::request(), 0..100))).expect("appended");
    eventually("it rolled", || partitions(dir.path(), "work") == 2);
    hand.advance(Duration::from_secs(7_200));
    eventually("the first partition goes", || journal.kept_from(Log::Work) == Ok(Seq(101)));
    drop(journal);
    let files = || snapshots(&dir.path().join("journal"));
    let before: Vec<_> =
        files().into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect();
    assert!(!before.is_empty());
    files().iter().for_each(|path| fs::write(path, "00000000\n[1,2]").expect("written"));
    let journal = open();
    assert!(wait(journal.append(append(&StreamId::request(), [1]))).is_err());
    let degraded = journal.status().degraded.expect("it says why");
    assert!(degraded.contains("no snapshot of 'sum' can be used"), "{degraded}");
    drop(journal);
    // They are put back.
    assert_eq!(files().len(), before.len(), "no other was written");
    before.iter().for_each(|(path, content)| fs::write(path, content).expect("written"));
    wait(open().append(append(&StreamId::request(), [1]))).expect("appended");
}

/// The files of all snapshots below a folder.
fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).expect("there").flatten().map(|entry| entry.path());
    let of = |path: PathBuf| match path.is_dir() {
        true => snapshots(&path),
        false if dir.ends_with("snapshots") => vec![path],
        false => Vec::new(),
    };
    paths.flat_map(of).collect()
}

pub(super) fn remove_closing_snapshots(dir: &Path) {
    for entry in fs::read_dir(dir).expect("there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_closing_snapshots(&path);
        } else if path.extension().is_some_and(|e| e == "closing") {
            fs::remove_file(path).expect("removed");
        }
    }
}

#[test]
fn a_second_opener_is_refused_by_name_and_an_offline_reader_too() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let journal = open(dir.path());
    let refused = try_open(dir.path()).err();
    assert!(
        matches!(refused, Some(OpenError::Locked { holder: Some(pid), .. }) if pid == std::process::id())
    );
    assert!(matches!(Offline::open(dir.path()), Err(OpenError::Locked { .. })));
    journal.close();
    drop(journal);
    assert!(Offline::open(dir.path()).is_ok());
}

#[test]
fn offline_reading_exports_verifies_and_names_the_head() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (head, records) = {
        let journal = open(dir.path());
        wait(journal.append(append(&StreamId::operator(), 0..10))).expect("appended");
        wait(journal.append(append(&StreamId::request(), 0..10))).expect("appended");
        (journal.head(Log::Audit).expect("readable"), all(&journal))
    };
    let offline = Offline::open(dir.path()).expect("free");
    let exported: Vec<_> = offline.export(Seq(0), None).collect::<Result<_, _>>().expect("readable");
    assert_eq!(exported, records);
    assert_eq!(offline.head(Log::Audit), Ok(head));
    let other = Head { seq: Seq(5), ..head };
    let empty = Head::empty(Log::Audit);
    assert_eq!(offline.verify(Log::Audit, &[empty, head]).map(|v| v.records), Ok(10));
    assert!(offline.verify(Log::Audit, &[head, other, empty]).is_err(), "each is looked for");
    assert_eq!(offline.verify(Log::Work, &[other]).map(|v| v.records), Ok(10), "it is of the other log");
}

#[test]
fn a_check_that_is_not_wanted_any_more_ends_early() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let journal = open(dir.path());
    for start in 0..4 {
        wait(journal.append(append(&StreamId::request(), start * 500..start * 500 + 500))).expect("appended");
    }
    let asked = std::cell::Cell::new(0);
    let go_on = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    assert_eq!(journal.verify_while(Log::Work, &[], &go_on), Err(VerifyError::Stopped));
    assert_eq!(asked.get(), 3);
}

#[test]
fn offline_reading_refuses_a_foreign_directory_and_leaves_it_as_it_was() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::write(dir.path().join("notes.txt"), "mine").expect("written");
    let error = Offline::open(dir.path()).err().expect("refused");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("--data-dir"), "it says what to do: {error}");
    let names: Vec<_> = fs::read_dir(dir.path()).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["notes.txt"]);
}

#[test]
fn older_snapshots_are_found_and_the_past_begins_where_records_are_kept() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (clock, hand) = Clock::manual(a_time());
    let hour = Retention { age_max: Period::from_secs(3_600), bytes_max: Bytes(1 << 30) };
    let config = Config { partition_records_max: 100, work: hour, ..Config::default() };
    let deps = JournalDeps { folds: vec![Sum::new() as _], ..deps(clock) };
    let journal = SledJournal::open(dir.path(), &config, deps).expect("opens");
    for start in [0, 100, 200] {
        wait(journal.append(append(&StreamId::request(), start..start + 100))).expect("appended");
        let rolled = || journal.snapshots("sum").is_ok_and(|seqs| seqs.last() == Some(&Seq(start + 100)));
        eventually("it rolled", rolled);
    }
    assert_eq!(journal.snapshots("sum"), Ok([100, 200, 300].map(Seq).to_vec()));
    let sum_of = |count: u64| json!([count, (0..count).sum::<u64>()]);
    for (before, at) in [(Seq(u64::MAX), 300), (Seq(300), 200), (Seq(201), 200), (Seq(200), 100)] {
        assert_eq!(journal.snapshot_before("sum", before), Ok(Some((Seq(at), sum_of(at)))));
    }
    assert_eq!(journal.snapshot_before("sum", Seq(100)), Ok(None));
    assert_eq!(journal.snapshot_before("other", Seq(300)), Ok(None));
    assert_eq!(journal.kept_from(Log::Work), Ok(Seq(1)));
    // One that is damaged is passed over.
    let damaged = dir.path().join("journal/work").join(format!("{:020}", 301)).join("snapshots");
    fs::write(damaged.join(format!("sum.{:020}.snapshot", 300)), "00000000\n[1,2]").expect("written");
    assert_eq!(journal.snapshot_before("sum", Seq(301)), Ok(Some((Seq(200), sum_of(200)))));
    hand.advance(Duration::from_secs(7_200));
    eventually("old partitions go", || journal.kept_from(Log::Work) == Ok(Seq(301)));
    assert_eq!(journal.kept_from(Log::Audit), Ok(Seq(1)));
    wait(journal.append(append(&StreamId::request(), 300..400))).expect("appended");
    let newest = || journal.snapshots("sum").expect("readable").pop().expect("one");
    eventually("it rolled once more", || newest() > Seq(300));
    let kept = newest();
    wait(journal.append(append(&StreamId::request(), [7]))).expect("appended");
    let last = journal.status().last;
    drop(journal);
    let offline = Offline::open(dir.path()).expect("nobody else has it");
    assert_eq!(offline.kept_from(Log::Work), Seq(301));
    assert_eq!(offline.snapshot_before("sum", kept.next()), Some((kept, sum_of(400))));
    let closing = offline.snapshot_before("sum", Seq(u64::MAX)).map(|(seq, _)| seq);
    assert_eq!(closing, Some(last), "what was taken at close is usable too");
}
