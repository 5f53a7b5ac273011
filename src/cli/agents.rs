//! `plimsoll agents`: who can be asked.

use std::io::Write as _;

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table};

/// Lists the agents: which are paused, and what runs and waits of each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll agents
  plimsoll agents --json | jq -r '.agents[] | select(.paused).id'")]
pub(crate) struct Args {
    /// Prints the server's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    let answer = super::block_on(client.call("agent.list", json!({})))??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let mut table = Table::new(&["AGENT", "PROVIDER", "MODEL", "STATE", "RUNNING", "WAITING"]);
    for agent in answer.get("agents").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| agent.get(key).and_then(Value::as_str).unwrap_or_default();
        let count = |key: &str| agent.get(key).and_then(Value::as_u64).unwrap_or_default().to_string();
        let state = if agent.get("paused") == Some(&json!(true)) { "paused" } else { "ready" };
        let (running, queued) = (count("running"), count("queued"));
        table.row([text("id"), text("provider"), text("model"), state, &running, &queued]);
    }
    Ok(table.write(&mut out, Paint::of_stdout())?)
}
