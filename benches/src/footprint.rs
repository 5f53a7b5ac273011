//! What an idle plimsoll costs: time from start to ready with an empty store, and memory once it is quiet.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::clock::Clock;

use crate::child::{Running, status};

/// Starts the release binary with an empty data directory, again and again, and measures start-up and memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/plimsoll")]
    binary: PathBuf,
    /// How often.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Seconds of idleness before the memory is read.
    #[arg(long, default_value_t = 3)]
    idle: u64,
}

/// The goals of the performance table.
const READY_GOAL_MS: f64 = 150.0;
const RESIDENT_GOAL_MIB: f64 = 25.0;

/// A start that takes longer has failed.
const START_TIMEOUT: Duration = Duration::from_secs(30);

struct Run {
    ready_ms: f64,
    resident_mib: f64,
    peak_mib: f64,
    threads: f64,
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let runs = (0..args.runs).map(|_| measure(args)).collect::<Result<Vec<Run>, String>>()?;
    println!("{} starts of {}, empty store, {} s idle", args.runs, args.binary.display(), args.idle);
    println!("{:<18} {:>9} {:>9} {:>9} {:>9}", "", "min", "median", "max", "goal");
    row("ready, ms", &runs, |run| run.ready_ms, Some(READY_GOAL_MS));
    row("resident, MiB", &runs, |run| run.resident_mib, Some(RESIDENT_GOAL_MIB));
    row("peak, MiB", &runs, |run| run.peak_mib, None);
    row("threads", &runs, |run| run.threads, None);
    Ok(())
}

fn row(name: &str, runs: &[Run], of: impl Fn(&Run) -> f64, goal: Option<f64>) {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let goal = goal.map_or_else(String::new, |goal| format!("< {goal}"));
    let (min, median, max) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    println!("{name:<18} {min:>9.1} {median:>9.1} {max:>9.1} {goal:>9}");
}

/// Starts a server and waits until it is ready; after how many milliseconds it was.
pub(crate) fn start(binary: &Path, config: &Path, data: &Path) -> Result<(Running, f64), String> {
    let clock = Clock::system();
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(config).arg("--data-dir").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|e| format!("{} does not start: {e}", binary.display()))?;
    let mut child = Running(child);
    while !is_ready(data) {
        if let Ok(Some(status)) = child.0.try_wait() {
            return Err(format!("{} ended with {status} before it was ready", binary.display()));
        }
        if clock.elapsed() > START_TIMEOUT {
            return Err(format!("not ready after {START_TIMEOUT:?}"));
        }
        std::thread::park_timeout(Duration::from_micros(500));
    }
    Ok((child, clock.elapsed().as_secs_f64() * 1_000.0))
}

fn measure(args: &Args) -> Result<Run, String> {
    let dir = tempfile::tempdir().map_err(|e| format!("no temporary directory: {e}"))?;
    let config = dir.path().join("plimsoll.yaml");
    fs::write(&config, "server:\n  listen: 127.0.0.1:0\n").map_err(|e| format!("no configuration: {e}"))?;
    let (child, ready_ms) = start(&args.binary, &config, &dir.path().join("data"))?;
    let clock = Clock::system();
    let settled = clock.elapsed() + Duration::from_secs(args.idle);
    while let Some(left) = settled.checked_sub(clock.elapsed()) {
        std::thread::park_timeout(left);
    }
    let of = |key: &str| status(child.0.id(), key).map(|number| number as f64);
    Ok(Run {
        ready_ms,
        resident_mib: of("VmRSS:")? / 1_024.0,
        peak_mib: of("VmHWM:")? / 1_024.0,
        threads: of("Threads:")?,
    })
}

fn is_ready(data: &Path) -> bool {
    ask(data).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn ask(data: &Path) -> io::Result<String> {
    let mut socket = UnixStream::connect(data.join(plimsoll::client::CONTROL_SOCKET))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
