//! `plimsoll start` and `plimsoll stop`: the instances of agents.

use std::io::Write as _;

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use crate::ids::AgentId;

/// Starts the instance of an agent before anybody asks it. `plimsoll events` tells how that ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plimsoll start local")]
pub(crate) struct StartArgs {
    /// The agent.
    #[arg(value_parser = AgentId::parse)]
    agent: AgentId,
    #[command(flatten)]
    target: TargetArgs,
}

/// Stops the instance of an agent. The next message starts it again: `plimsoll pause` keeps it from that.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll stop local
  plimsoll pause local --cancel && plimsoll stop local")]
pub(crate) struct StopArgs {
    /// The agent.
    #[arg(value_parser = AgentId::parse)]
    agent: AgentId,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn start(args: &StartArgs) -> Result<(), Failure> {
    order(&args.target, "lifecycle.start", &args.agent)
}

pub(crate) fn stop(args: &StopArgs) -> Result<(), Failure> {
    order(&args.target, "lifecycle.stop", &args.agent)
}

fn order(target: &TargetArgs, method: &str, agent: &AgentId) -> Result<(), Failure> {
    let client = target.client()?;
    let answer = super::block_on(client.call(method, json!({"instance": agent})))??;
    let state = answer.get("state").and_then(Value::as_str).unwrap_or_default();
    Ok(writeln!(std::io::stdout(), "{agent} is {state}")?)
}
