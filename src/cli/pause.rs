//! `plimsoll pause` and `plimsoll resume`: whether agents take new work.

use std::io::Write as _;

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use crate::ids::AgentId;

/// Stops new work of an agent, or of all; at once, and over a restart.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll pause reviewer
  plimsoll pause --cancel

What runs may end, and what waits is refused when its turn comes; with --cancel both are cancelled.
A pause of all holds for agents that are configured later too, until all are resumed.")]
pub(crate) struct PauseArgs {
    /// The agent; without one, all.
    #[arg(value_parser = AgentId::parse)]
    agent: Option<AgentId>,
    /// Cancels what runs and waits too.
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Takes new work again, for an agent or for all that are paused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll resume reviewer
  plimsoll resume")]
pub(crate) struct ResumeArgs {
    /// The agent; without one, all that are paused.
    #[arg(value_parser = AgentId::parse)]
    agent: Option<AgentId>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn pause(args: &PauseArgs) -> Result<(), Failure> {
    let mut params = json!({"cancel": args.cancel});
    if let Some(agent) = &args.agent {
        params["agent"] = json!(agent);
    }
    let answer = ask(&args.target, "agent.pause", params)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", said(&answer, "paused", "nothing to pause: paused already"))?;
    let cancelled = answer.get("cancelled").and_then(Value::as_u64).unwrap_or_default();
    if cancelled > 0 {
        writeln!(out, "cancelled {cancelled} {}", if cancelled == 1 { "request" } else { "requests" })?;
    }
    if answer.get("durable") == Some(&Value::Bool(false)) {
        let note = "paused now, but the journal could not write that: a restart may end it; pause again when \
                    `plimsoll doctor` finds the journal well";
        writeln!(std::io::stderr(), "{note}")?;
    }
    Ok(())
}

pub(crate) fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    let params = args.agent.as_ref().map_or(json!({}), |agent| json!({"agent": agent}));
    let answer = ask(&args.target, "agent.resume", params)?;
    Ok(writeln!(std::io::stdout(), "{}", said(&answer, "resumed", "nothing to resume: not paused"))?)
}

fn said(answer: &Value, done: &str, nothing: &str) -> String {
    let agents = answer.get(done).and_then(Value::as_array);
    let agents: Vec<&str> = agents.into_iter().flatten().filter_map(Value::as_str).collect();
    if agents.is_empty() { nothing.to_owned() } else { format!("{done} {}", agents.join(", ")) }
}

fn ask(target: &TargetArgs, method: &str, params: Value) -> Result<Value, Failure> {
    let client = target.client()?;
    Ok(super::block_on(client.call(method, params))??)
}
