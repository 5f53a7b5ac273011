//! `plimsoll agents`: who can be asked, and how one more comes or one goes while the server runs.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table, one_line};
use crate::ids::AgentId;
use crate::limits::MADE_AGENT_BYTES_MAX;

/// Lists the agents: where they live, what their instances do, which are paused, and what runs and waits of each. Adds and removes some while the server runs.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  plimsoll agents
  plimsoll agents --json | jq -r '.agents[] | select(.paused).id'")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<AgentsCommand>,
    /// Prints the server's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Subcommand)]
enum AgentsCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
}

/// Adds an agent at once, and for good: it is there again after a restart.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  echo '{\"id\": \"writer\", \"provider\": \"openai\", \"model\": \"gpt-4.1\"}' | plimsoll agents add -
  plimsoll agents add writer.json

The file holds one JSON object: an id, and the keys of an entry of `agents:` in the configuration. Its provider
stands in the configuration. What runs programs on this machine can only stand there: providers of `kind: exec`,
`instance.process`, and variables.")]
struct AddArgs {
    /// The file; - is standard input.
    file: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Removes an agent that was added so: what it has under way is cancelled, and what it used stays in `plimsoll usage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plimsoll agents remove writer")]
struct RemoveArgs {
    /// The agent.
    #[arg(value_parser = AgentId::parse)]
    agent: AgentId,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        None => list(args),
        Some(AgentsCommand::Add(args)) => add(args),
        Some(AgentsCommand::Remove(args)) => remove(args),
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let failed = |error| Failure::Input(format!("cannot read the agent in {}", args.file), error);
    let mut text = String::new();
    let bytes_max = MADE_AGENT_BYTES_MAX as u64 + 1;
    if args.file == "-" {
        std::io::stdin().lock().take(bytes_max).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(&args.file).map_err(failed)?;
        file.take(bytes_max).read_to_string(&mut text).map_err(failed)?;
    }
    if text.len() > MADE_AGENT_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "{} is longer than {MADE_AGENT_BYTES_MAX} bytes: shorten it, or put the agent into the configuration",
            args.file
        )));
    }
    let entry: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{} holds no JSON object: {error}", args.file)))?;
    let client = args.target.client()?;
    let made = super::block_on(client.call("agent.create", entry))??;
    let id = made.get("id").and_then(Value::as_str).unwrap_or_default();
    Ok(writeln!(std::io::stdout(), "added {id}")?)
}

fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let client = args.target.client()?;
    let answer = super::block_on(client.call("agent.delete", json!({"agent": args.agent})))??;
    let cancelled = answer.get("cancelled").and_then(Value::as_u64).unwrap_or_default();
    let mut out = std::io::stdout();
    writeln!(out, "removed {}", args.agent)?;
    if cancelled > 0 {
        writeln!(out, "cancelled {cancelled} {}", if cancelled == 1 { "request" } else { "requests" })?;
    }
    Ok(())
}

fn list(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    let answer = super::block_on(client.call("agent.list", json!({})))??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let mut table = Table::new(&["AGENT", "PROVIDER", "MODEL", "MODE", "STATE", "RUNNING", "WAITING"]);
    let agents = answer.get("agents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for agent in agents {
        let text = |key: &str| agent.get(key).and_then(Value::as_str).unwrap_or_default();
        let count = |key: &str| agent.get(key).and_then(Value::as_u64).unwrap_or_default().to_string();
        let paused = agent.get("paused") == Some(&json!(true));
        let state = match (agent.get("unfit").is_some(), paused) {
            (true, _) => "unfit",
            (false, true) => "paused",
            // Of one without an instance of its own there is nothing to start.
            (false, false) => agent.pointer("/instance/state").and_then(Value::as_str).unwrap_or("ready"),
        };
        let (running, queued) = (count("running"), count("queued"));
        table.row([text("id"), text("provider"), text("model"), text("mode"), state, &running, &queued]);
    }
    table.write(&mut out, Paint::of_stdout())?;
    for agent in agents {
        let text = |pointer: &str| agent.pointer(pointer).and_then(Value::as_str);
        if let Some(why) = text("/unfit").or_else(|| text("/instance/failure/error")) {
            writeln!(out, "{}: {}", one_line(text("/id").unwrap_or_default()), one_line(why))?;
        }
    }
    Ok(())
}
