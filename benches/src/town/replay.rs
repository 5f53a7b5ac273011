//! Replays of long windows out of a journal on disk, and what memory they take.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plimsoll::clock::{Clock, Timestamp};
use plimsoll::ids::{Seq, TownId};
use plimsoll::journal::offline::Offline;
use plimsoll::journal::{Actor, NewRecord, Scan, StreamId};
use plimsoll::limits::JOURNAL_GROUP_RECORDS_MAX;
use plimsoll::reconciler::{History, Replay, ReplayRequest, replay};
use serde_json::json;

use super::paper::{Paper, record};
use super::story::{Told, events};
use crate::child::{cpu_seconds, status};

const AGENTS: usize = 1_000;
const ROUNDS: usize = 3;

pub(super) fn run(count: u64, dir: &Path) -> Result<(), String> {
    let root = tempfile::tempdir_in(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let town = TownId::parse("main").expect("a valid id");
    let window = fill(root.path(), &town, count)?;
    println!(
        "\n| replay of {count} events, {AGENTS} agents | s | CPU s | events/s | peak memory above before, MiB |"
    );
    println!("|---|---|---|---|---|");
    let offline = Offline::open(root.path()).map_err(|error| error.to_string())?;
    let request = |from, until_violation| ReplayRequest {
        from,
        to: window.1,
        policy: None,
        compare: true,
        until_violation,
    };
    let whole = || replay(History::Offline(&offline), &town, &request(window.0, false), &|| true);
    let mut rows = Vec::new();
    for _ in 0..ROUNDS {
        rows.push(measured(|| whole().map_err(|error| error.to_string()))?);
    }
    rows.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let row = |name: &str, row: &Row| {
        let rate = row.replay.events_replayed as f64 / row.seconds;
        println!("| {name} | {:.2} | {:.2} | {rate:.0} | {:.1} |", row.seconds, row.cpu, row.peak_mib);
    };
    row("the whole window", &rows[ROUNDS / 2]);
    let looking = measured(|| {
        let request = request(window.0, true);
        replay(History::Offline(&offline), &town, &request, &|| true).map_err(|error| error.to_string())
    })?;
    row("looking for a violation", &looking);
    let same = rows.iter().all(|row| row.replay.hash == rows[0].replay.hash);
    println!("the same hash each time: {same}; {} actions planned at the end", rows[0].replay.actions.len());
    scans(&offline, &town)
}

/// What finding the records costs alone: by the stream's index, and by seq with all others passed over.
fn scans(offline: &Offline, town: &TownId) -> Result<(), String> {
    println!("\n| reading alone | records | s | CPU s |\n|---|---|---|---|");
    for (name, stream) in
        [("of the town's stream", Some(StreamId::town(town))), ("of every stream, by seq", None)]
    {
        let (clock, cpu) = (Clock::system(), cpu_seconds());
        let (mut from, mut records) = (Seq(0), 0);
        loop {
            let query = Scan { stream: stream.clone(), from, limit: 256, ..Scan::default() };
            let page = offline.scan(&query).map_err(|error| error.to_string())?;
            records += page.records.len();
            let Some(next) = page.next else { break };
            from = next;
        }
        let (seconds, cpu) = (clock.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!("| {name} | {records} | {seconds:.2} | {cpu:.2} |");
    }
    Ok(())
}

struct Row {
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
    replay: Replay,
}

fn measured(replay: impl FnOnce() -> Result<Replay, String>) -> Result<Row, String> {
    let kib = |key: &str| status(std::process::id(), key).map(|kib| kib as f64 / 1_024.0);
    // The peak begins anew (proc(5)).
    fs::write("/proc/self/clear_refs", "5").map_err(|error| format!("/proc/self/clear_refs: {error}"))?;
    let before = kib("VmRSS:")?;
    let (clock, cpu) = (Clock::system(), cpu_seconds());
    let replay = replay()?;
    let (seconds, cpu) = (clock.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    Ok(Row { seconds, cpu, peak_mib: kib("VmHWM:")? - before, replay })
}

/// Writes the town's events down, and beside every tenth a record of a request; from when to when they are.
fn fill(dir: &Path, town: &TownId, count: u64) -> Result<(Timestamp, Timestamp), String> {
    let events: Vec<Told> = events(AGENTS, usize::try_from(count).expect("it fits"));
    let paper = Paper::new(dir, events[0].1)?;
    for group in events.chunks(JOURNAL_GROUP_RECORDS_MAX) {
        paper.set(group[0].1);
        let records: Vec<_> = group.iter().map(|(.., event)| record(event)).collect();
        paper.write(&StreamId::town(town), &records)?;
        let detail = json!({"agent": "worker-000001", "status": "completed", "tokens": 1_234});
        let other = NewRecord { kind: "noted", version: 1, actor: Actor::System, trace_id: None, detail };
        paper.write(&StreamId::request(), &vec![other; JOURNAL_GROUP_RECORDS_MAX / 10])?;
    }
    let last = events.last().map_or(events[0].1, |last| last.1);
    Ok((events[0].1, last.after(Duration::from_millis(1))))
}
