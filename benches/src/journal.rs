//! The journal beside SQLite and the device: acknowledged durable appends, disk use, and the time of a start.
//!
//! Every figure is the median of a few rounds, and each round measures all rows of a table after one another, so that
//! a noisy machine hits all of them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::Clock;
use plimsoll::journal::{
    self, Actor, Append, Config, Journal, JournalDeps, NewRecord, Retention, SledJournal, StreamId,
};
use plimsoll::limits::JOURNAL_GROUP_RECORDS_MAX;
use plimsoll::telemetry::Registry;
use plimsoll::telemetry::metric::Definition;
use plimsoll::units::{Bytes, Period};
use serde_json::json;

/// Measures the journal: appends, disk, start.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder on the device to measure.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rounds; the table shows their medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each cell of the table is measured.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Records for the figures of disk and start.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
}

const WRITERS: [usize; 3] = [1, 64, 1_024];
const RECORD_BYTES: usize = 200;

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let root = tempfile::tempdir_in(&args.dir).map_err(|e| format!("{}: {e}", args.dir.display()))?;
    let measured = Duration::from_secs(args.seconds);
    let mut device = Vec::new();
    let mut rows: Vec<[Vec<Cell>; 3]> = WRITERS.iter().map(|_| Default::default()).collect();
    for round in 0..args.rounds {
        device.push(fdatasync_rate(&root.path().join("device"), measured)?);
        for (writers, cells) in WRITERS.iter().zip(&mut rows) {
            let path = |name: &str| root.path().join(format!("{name}-{writers}-{round}"));
            cells[0].push(ours(&path("plimsoll"), *writers, measured)?);
            cells[1].push(sqlite(&path("groups"), (*writers).min(JOURNAL_GROUP_RECORDS_MAX), measured)?);
            cells[2].push(sqlite(&path("rows"), 1, measured)?);
        }
    }
    device.sort_by(f64::total_cmp);
    println!("fdatasync of 4 KiB: {:.0}/s", device[device.len() / 2]);
    println!("\n| writers | store | appends/s | p50 ms | p99 ms | to SQLite per row |");
    println!("|---|---|---|---|---|---|");
    for (writers, cells) in WRITERS.iter().zip(&rows) {
        let names = ["plimsoll", "SQLite, groups of the same size", "SQLite, one transaction per row"];
        let per_row = median(&cells[2]).rate;
        for (name, cells) in names.iter().zip(cells) {
            let Cell { rate, p50, p99 } = median(cells);
            let ratio = rate / per_row;
            println!("| {writers} | {name} | {rate:.0} | {p50:.2} | {p99:.2} | {ratio:.2} |");
        }
    }
    disk(&root.path().join("disk"), args.records)?;
    start(&root.path().join("start"), args.records)
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    rate: f64,
    p50: f64,
    p99: f64,
}

fn median(cells: &[Cell]) -> Cell {
    let mut cells = cells.to_vec();
    cells.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    cells[cells.len() / 2]
}

fn cell(mut latencies: Vec<Duration>, took: Duration) -> Cell {
    latencies.sort();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    Cell { rate: latencies.len() as f64 / took.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

fn fdatasync_rate(path: &Path, measured: Duration) -> Result<f64, String> {
    let clock = Clock::system();
    let mut file = File::create(path).map_err(|e| e.to_string())?;
    let mut count = 0;
    while clock.elapsed() < measured {
        file.write_all(&[7; 4_096]).and_then(|()| file.sync_data()).map_err(|e| e.to_string())?;
        count += 1;
    }
    Ok(f64::from(count) / clock.elapsed().as_secs_f64())
}

fn open(path: &Path, config: &Config, clock: Clock) -> Result<SledJournal, String> {
    let catalogue: Vec<Definition> = journal::metrics::CATALOGUE.iter().map(|d| **d).collect();
    let registry = Registry::new(&catalogue).map_err(|e| e.to_string())?;
    let deps = JournalDeps { clock, registry, folds: Vec::new() };
    SledJournal::open(path, config, deps).map_err(|e| e.to_string())
}

/// A record whose detail has 200 bytes.
fn record(number: u64) -> NewRecord {
    let text = format!("{number:0>width$}", width = RECORD_BYTES - r#"{"text":""}"#.len());
    let detail = json!({ "text": text });
    NewRecord { kind: "measured", version: 1, actor: Actor::System, trace_id: None, detail }
}

fn one(number: u64) -> Append {
    Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record(number)] }
}

fn ours(path: &Path, writers: usize, measured: Duration) -> Result<Cell, String> {
    let journal = Arc::new(open(path, &Config::default(), Clock::system())?);
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
    let clock = Clock::system();
    let latencies = runtime.block_on(async {
        let tasks: Vec<_> = (0..writers)
            .map(|_| {
                let (journal, clock) = (Arc::clone(&journal), clock.clone());
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while clock.elapsed() < measured {
                        let started = clock.elapsed();
                        if journal.append(one(latencies.len() as u64)).await.is_ok() {
                            latencies.push(clock.elapsed() - started);
                        }
                    }
                    latencies
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap_or_default());
        }
        all
    });
    let took = clock.elapsed();
    journal.close();
    fs::remove_dir_all(path).map_err(|e| e.to_string())?;
    Ok(cell(latencies, took))
}

fn sqlite(path: &Path, group: usize, measured: Duration) -> Result<Cell, String> {
    let text = |e: rusqlite::Error| e.to_string();
    let mut connection = rusqlite::Connection::open(path).map_err(text)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(text)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(text)?;
    connection.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, detail TEXT)", []).map_err(text)?;
    let clock = Clock::system();
    let (mut latencies, mut number) = (Vec::new(), 0);
    while clock.elapsed() < measured {
        let started = clock.elapsed();
        let transaction = connection.transaction().map_err(text)?;
        for _ in 0..group {
            let detail = record(number).detail.to_string();
            let mut insert =
                transaction.prepare_cached("INSERT INTO records (detail) VALUES (?1)").map_err(text)?;
            insert.execute([&detail]).map_err(text)?;
            number += 1;
        }
        transaction.commit().map_err(text)?;
        let took = clock.elapsed() - started;
        latencies.extend(std::iter::repeat_n(took, group));
    }
    Ok(cell(latencies, clock.elapsed()))
}

pub(crate) fn bytes_of(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_of(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Appends in groups of the largest size.
fn fill(journal: &SledJournal, numbers: std::ops::Range<u64>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
    for start in numbers.clone().step_by(JOURNAL_GROUP_RECORDS_MAX) {
        let end = (start + JOURNAL_GROUP_RECORDS_MAX as u64).min(numbers.end);
        let append = Append { records: (start..end).map(record).collect(), ..one(0) };
        runtime.block_on(journal.append(append)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Bytes on disk before and after retention took nine tenths.
fn disk(path: &Path, records: u64) -> Result<(), String> {
    let work = Retention { age_max: Period::from_secs(86_400), bytes_max: Bytes(1 << 40) };
    let config = Config { work, partition_records_max: records / 10, ..Config::default() };
    let (clock, hand) = Clock::manual(plimsoll::clock::Timestamp::from_millis(1_800_000_000_000));
    let journal = open(path, &config, clock)?;
    let old = records / 10 * 9;
    fill(&journal, 0..old)?;
    hand.advance(Duration::from_secs(43_200));
    fill(&journal, old..records)?;
    let before = bytes_of(path);
    hand.advance(Duration::from_secs(43_201));
    let clock = Clock::system();
    let folder = path.join("journal/work");
    while fs::read_dir(&folder).map_err(|e| e.to_string())?.count() > 2 {
        if clock.elapsed() > Duration::from_secs(60) {
            return Err("retention did not drop the old partitions".to_owned());
        }
        std::thread::yield_now();
    }
    let after = bytes_of(path);
    let live = records - old;
    journal.close();
    println!("\n| | records | bytes on disk | bytes per record |\n|---|---|---|---|");
    let row = |name: &str, records: u64, bytes: u64| {
        println!("| {name} | {records} | {bytes} | {:.0} |", bytes as f64 / records as f64);
    };
    row("plimsoll", records, before);
    row("plimsoll, after dropping 90 %", live, after);
    let [before, deleted, vacuumed] = sqlite_disk(&path.with_extension("sqlite"), records, old)?;
    row("SQLite", records, before);
    row("SQLite, after deleting 90 %", live, deleted);
    row("SQLite, after a VACUUM, too", live, vacuumed);
    Ok(())
}

/// Bytes of the database file with all records, without those up to `old`, and vacuumed.
fn sqlite_disk(path: &Path, records: u64, old: u64) -> Result<[u64; 3], String> {
    use std::os::unix::fs::MetadataExt as _;
    let text = |e: rusqlite::Error| e.to_string();
    let mut connection = rusqlite::Connection::open(path).map_err(text)?;
    connection.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, detail TEXT)", []).map_err(text)?;
    let bytes = || fs::metadata(path).map(|meta| meta.blocks() * 512).map_err(|e| e.to_string());
    let transaction = connection.transaction().map_err(text)?;
    for number in 0..records {
        let mut insert =
            transaction.prepare_cached("INSERT INTO records (detail) VALUES (?1)").map_err(text)?;
        insert.execute([record(number).detail.to_string()]).map_err(text)?;
    }
    transaction.commit().map_err(text)?;
    let before = bytes()?;
    connection.execute("DELETE FROM records WHERE seq <= ?1", [old.cast_signed()]).map_err(text)?;
    let deleted = bytes()?;
    connection.execute("VACUUM", []).map_err(text)?;
    Ok([before, deleted, bytes()?])
}

/// How long a start takes, after a clean end and after a kill.
fn start(path: &Path, records: u64) -> Result<(), String> {
    let clock = Clock::system();
    let timed = |path: &Path| {
        let started = clock.elapsed();
        let journal = open(path, &Config::default(), clock.clone())?;
        let took = clock.elapsed() - started;
        journal.close();
        Ok::<_, String>(took)
    };
    let journal = open(path, &Config::default(), clock.clone())?;
    fill(&journal, 0..records)?;
    // What lies on the disk now is what a kill would leave.
    let killed = path.with_extension("killed");
    copy(path, &killed).map_err(|e| e.to_string())?;
    journal.close();
    drop(journal);
    let (clean, killed) = (timed(path)?, timed(&killed)?);
    let empty = timed(&path.with_extension("empty"))?;
    println!("\n| start with | after a clean end, ms | after a kill, ms |\n|---|---|---|");
    println!("| {records} records | {:.0} | {:.0} |", clean.as_secs_f64() * 1e3, killed.as_secs_f64() * 1e3);
    println!("| an empty directory | {:.0} | |", empty.as_secs_f64() * 1e3);
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
