//! What a turn of a program costs over running the same command by hand.
//!
//! The release binary serves an agent of `kind: exec`. Turns through it and runs of the same command by hand take turns
//! on the same machine, so that both see the same noise.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plimsoll::client::{Client, Connection, Target};
use plimsoll::clock::Clock;
use serde_json::{Value, json};

use crate::gateway::quantile;
use crate::gateway::server::Server;

/// Runs a small script by hand and as an agent, in turns, and prints how long each takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/plimsoll")]
    binary: PathBuf,
    /// How often.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    turns: u32,
}

/// The goal of the performance table: p50 over p50.
const ADDED_GOAL_MS: f64 = 10.0;

/// Reads its message and answers.
const SCRIPT: &str = r#"cat > /dev/null; echo '{"type":"delta","text":"done"}'"#;

/// The shares of the samples that a row shows.
const SHARES: [f64; 3] = [0.5, 0.95, 0.99];

/// Runs before anything is counted.
const WARM_UP: u32 = 10;

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(measure(args))
}

async fn measure(args: &Args) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let server = Server::start(&args.binary, config(dir.path())).await?;
    let client = Client::new(Target::DataDir(server.data_dir())).map_err(|error| error.to_string())?;
    let mut connection = client.connect().await.map_err(|error| error.to_string())?;
    let clock = Clock::system();
    let (mut by_hand, mut as_agent) = (Vec::new(), Vec::new());
    for turn in 0..WARM_UP + args.turns {
        let began = clock.elapsed();
        run_by_hand(dir.path())?;
        let between = clock.elapsed();
        ask(&mut connection).await?;
        let ended = clock.elapsed();
        if turn >= WARM_UP {
            by_hand.push((between - began).as_secs_f64() * 1e3);
            as_agent.push((ended - between).as_secs_f64() * 1e3);
        }
    }
    println!("{} turns each, in turns: sh, which reads its message and prints one line", args.turns);
    println!("{:<22} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p95", "p99", "goal");
    let [by_hand, as_agent] =
        [&mut by_hand, &mut as_agent].map(|samples| SHARES.map(|share| quantile(samples, share)));
    row("by hand, ms", by_hand, None);
    row("agent.send, ms", as_agent, None);
    row("added, ms", [0, 1, 2].map(|i| as_agent[i] - by_hand[i]), Some(ADDED_GOAL_MS));
    Ok(())
}

fn row(name: &str, [p50, p95, p99]: [f64; 3], goal: Option<f64>) {
    let goal = goal.map_or_else(String::new, |goal| format!("< {goal}"));
    println!("{name:<22} {p50:>9.2} {p95:>9.2} {p99:>9.2} {goal:>9}");
}

fn config(dir: &Path) -> Value {
    json!({
        "providers": {"program": {"kind": "exec", "program": "sh", "args": ["-c", SCRIPT]}},
        "agents": {"a": {"provider": "program", "cwd": dir}},
    })
}

async fn ask(connection: &mut Connection) -> Result<(), String> {
    let call = connection.call("agent.send", json!({"agent": "a", "message": "hello"})).await;
    let id = call.map_err(|error| error.to_string())?;
    let answer = connection.answer(id, |_, _| {}).await.map_err(|error| error.to_string())?;
    if answer["text"] == "done" { Ok(()) } else { Err(format!("a strange answer: {answer}")) }
}

fn run_by_hand(dir: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("sh: {error}");
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).current_dir(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"hello").map_err(failed)?;
    drop(stdin);
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).map_err(failed)?;
    child.wait().map_err(failed)?;
    if said.contains("done") { Ok(()) } else { Err("sh said something else".to_owned()) }
}
