//! A start over a long history of instances: how long until ready, and whether all is still counted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use plimsoll::api::TokenBook;
use plimsoll::client::{Client, Target};
use plimsoll::clock::Clock;
use plimsoll::gateway::{self, Gateway, GatewayParts};
use plimsoll::ids::AgentId;
use plimsoll::journal::{
    Actor, Append, Config, Fold, Journal as _, JournalDeps, MemoryJournal, Retention, SledJournal, StreamId,
};
use plimsoll::lifecycle::{Fact, Instances, InstancesParts, StopReason};
use plimsoll::live::{self, Live};
use plimsoll::telemetry::Shared;
use plimsoll::units::{Bytes, Period};
use serde_json::{Value, json};

use super::Args;
use crate::child::Running;
use crate::footprint;
use crate::gateway::quantile;
use crate::journal::bytes_of;

/// The goal of the performance table.
const READY_GOAL_MS: f64 = 1_000.0;

const INSTANCES: u64 = 20;

/// Records of one append: the most that there can be. Even, so that each instance is stopped at its end.
const GROUP: u64 = 500;

/// The journal begins a new partition after so many records, as it does by default.
const PARTITION: u64 = 500_000;

/// More records than asked for, so that the newest partition is as full as it gets, and as many as can be come after the
/// last snapshot: what a start reads most of.
const MORE: u64 = PARTITION - 1_000;

/// Starts of each sort.
const STARTS: usize = 5;

/// A clean end takes at most this.
const END_MAX: Duration = Duration::from_secs(60);

pub(super) async fn run(args: &Args) -> Result<(), String> {
    let root = tempfile::tempdir_in(&args.dir).map_err(|error| format!("{}: {error}", args.dir.display()))?;
    let config = root.path().join("plimsoll.yaml");
    fs::write(&config, configuration().to_string()).map_err(|error| format!("no configuration: {error}"))?;
    println!("\nFrom the start of {} to ready, {STARTS} times each", args.binary.display());
    println!("{:<22} {:>9} {:>22} {:>9} {:>9} {:>9}", "rows", "MiB", "", "median, ms", "max, ms", "goal");
    let bench = |data| Bench { binary: args.binary.clone(), config: config.clone(), data };
    let empty = bench(root.path().join("empty")).starts(&BTreeMap::new(), End::Killed).await?;
    row("an empty directory", 0, "", empty);
    for rows in &args.rows {
        let rows = rows.next_multiple_of(PARTITION) + MORE;
        let data = root.path().join(rows.to_string());
        let bench = bench(data.clone());
        fill_and_kill(&data, rows)?;
        let (expected, bytes) = (expected(rows), bytes_of(&data) >> 20);
        let killed = bench.starts(&expected, End::Killed).await?;
        row(&rows.to_string(), bytes, "after kill -9", killed);
        bench.start(&expected, End::Clean).await?;
        let clean = bench.starts(&expected, End::Clean).await?;
        row("", bytes, "after a clean end", clean);
        fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    }
    println!("Every count of {INSTANCES} instances was right after each start, in /agents and in /metrics.");
    Ok(())
}

fn row(rows: &str, mib: u64, after: &str, mut samples: Vec<f64>) {
    let [median, max] = [0.5, 1.0].map(|share| quantile(&mut samples, share));
    let goal = format!("<= {READY_GOAL_MS}");
    println!("{rows:<22} {mib:>9} {after:>22} {median:>9.1} {max:>9.1} {goal:>9}");
}

fn name(instance: u64) -> String {
    format!("i{instance}")
}

/// Instances that nobody starts.
fn configuration() -> Value {
    let agent = |instance: u64| {
        let port = 40_000 + instance;
        let hosted = json!({"port": port, "process": {"program": "sleep", "args": ["1"]}});
        (name(instance), json!({"provider": "own", "model": "m", "instance": hosted}))
    };
    json!({
        "server": {"listen": "127.0.0.1:0"},
        "journal": {"audit": {"bytes_max": "1TiB"}},
        "providers": {"own": {"kind": "openai"}},
        "agents": (0..INSTANCES).map(agent).collect::<serde_json::Map<_, _>>(),
    })
}

/// Starts and stops of each instance after so many rows.
fn expected(rows: u64) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (group, first) in (0..rows).step_by(GROUP as usize).enumerate() {
        let count = counts.entry(name(group as u64 % INSTANCES)).or_default();
        *count += GROUP.min(rows - first) / 2;
    }
    counts
}

/// Has a process of its own write the rows, and kills it once they are acknowledged.
fn fill_and_kill(data: &Path, rows: u64) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("no rows: {error}");
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["peer", "fill", "--rows", &rows.to_string(), "--data-dir"]).arg(data);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut child = Running(child);
    let mut line = String::new();
    if let Some(stdout) = child.0.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line == "filled\n" { Ok(()) } else { Err("the rows could not be written".to_owned()) }
}

/// Writes rows of instances into a data directory, says so, and waits to be killed.
pub(crate) async fn fill(data: &Path, rows: u64) -> Result<(), String> {
    let audit = Retention { age_max: Period::from_secs(365 * 86_400), bytes_max: Bytes(1 << 40) };
    let config = Config { audit, partition_records_max: PARTITION, ..Config::default() };
    let clock = Clock::system();
    let deps = JournalDeps {
        clock: clock.clone(),
        registry: plimsoll::catalogue::registry(),
        folds: folds(&clock)?,
    };
    let journal = SledJournal::open(data, &config, deps).map_err(|error| error.to_string())?;
    let started = Fact::Started { latency: Duration::from_millis(1_234), start: Duration::from_millis(56) };
    let stopped = Fact::Stopped { idle: Duration::from_secs(300), reason: StopReason::Idle };
    for (group, first) in (0..rows).step_by(GROUP as usize).enumerate() {
        let id = AgentId::parse(&name(group as u64 % INSTANCES)).map_err(|error| error.to_string())?;
        let pairs = GROUP.min(rows - first) / 2;
        let records =
            (0..pairs).flat_map(|_| [&started, &stopped].map(|fact| fact.record(Actor::System, None)));
        let stream = StreamId::instance(&id);
        let append = Append { stream, expected_last_seq: None, records: records.collect() };
        journal.append(append).await.map_err(|error| error.to_string())?;
    }
    println!("filled");
    std::future::pending().await
}

/// All that a real plimsoll keeps: the snapshots must be there that it looks for.
fn folds(clock: &Clock) -> Result<Vec<Arc<dyn Fold>>, String> {
    let registry = plimsoll::catalogue::registry();
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    let parts = InstancesParts::bare(Arc::default(), Arc::clone(&journal) as _, &registry, clock);
    let gateway = Gateway::new(GatewayParts {
        config: gateway::Config::default(),
        templates: BTreeMap::new(),
        agents: BTreeMap::new(),
        providers: BTreeMap::new(),
        instances: Arc::new(Instances::new(parts)),
        read_entry: Arc::new(|_, _| Err(Vec::new())),
        live: Live::new(&live::Config::default(), &registry, clock.clone()),
        journal,
        shared: Shared::new(&registry),
        registry,
        clock: clock.clone(),
    });
    let gateway = gateway.map_err(|error| error.to_string())?;
    let tokens = TokenBook::new(&[], 0, clock.clone()).map_err(|error| error.to_string())?;
    Ok(gateway.folds().into_iter().chain([Arc::new(tokens) as Arc<dyn Fold>]).collect())
}

/// How a server ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Clean,
}

struct Bench {
    binary: PathBuf,
    config: PathBuf,
    data: PathBuf,
}

impl Bench {
    async fn starts(&self, expected: &BTreeMap<String, u64>, end: End) -> Result<Vec<f64>, String> {
        let mut samples = Vec::new();
        for _ in 0..STARTS {
            samples.push(self.start(expected, end).await?);
        }
        Ok(samples)
    }

    /// Milliseconds until it is ready.
    async fn start(&self, expected: &BTreeMap<String, u64>, end: End) -> Result<f64, String> {
        let (mut server, took) = footprint::start(&self.binary, &self.config, &self.data)?;
        self.check(expected).await?;
        if let End::Clean = end {
            let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status();
            told.map_err(|error| format!("kill: {error}"))?;
            let clock = Clock::system();
            while server.0.try_wait().map_err(|error| error.to_string())?.is_none() {
                if clock.elapsed() > END_MAX {
                    return Err(format!("it did not end within {END_MAX:?}"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(took)
    }

    async fn check(&self, expected: &BTreeMap<String, u64>) -> Result<(), String> {
        let text = |error: plimsoll::client::ClientError| error.to_string();
        let client = Client::new(Target::DataDir(self.data.clone())).map_err(text)?;
        let agents = client.get("/agents").await.map_err(text)?;
        let agents: Value = agents.json().await.map_err(|error| error.to_string())?;
        let metrics = client.get("/metrics").await.map_err(text)?;
        let metrics = metrics.text().await.map_err(|error| error.to_string())?;
        for (instance, count) in expected {
            let mut all = agents["agents"].as_array().into_iter().flatten();
            let agent = all.find(|agent| agent["id"] == instance.as_str()).unwrap_or(&Value::Null);
            for event in ["lazy_start", "lazy_stop"] {
                let counted = agent["state"]["lifecycle_metrics"][event].as_u64();
                let shown = events(&metrics, instance, event);
                if [counted, shown] != [Some(*count); 2] {
                    return Err(format!("{event} of {instance}: {counted:?} and {shown:?}, not {count}"));
                }
            }
        }
        Ok(())
    }
}

/// A counter as it is scraped.
fn events(metrics: &str, instance: &str, event: &str) -> Option<u64> {
    let labels = [format!("agent_instance=\"{instance}\""), format!("event=\"{event}\"")];
    let is_it = |line: &&str| {
        line.starts_with("plimsoll_lifecycle_events_total{")
            && labels.iter().all(|label| line.contains(label))
    };
    metrics.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}
