//! `plimsoll session`: conversations with agents.

use std::io::Write as _;

use serde_json::json;

use super::exit::Failure;
use super::target::TargetArgs;
use crate::ids::{AgentId, SessionId};

/// Ends conversations with agents.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SessionCommand {
    Reset(ResetArgs),
}

/// Forgets a conversation: the next message begins a new one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll session reset reviewer pr-17
  plimsoll session reset reviewer default/local

The second is the conversation of `plimsoll send` without --session.")]
struct ResetArgs {
    /// The agent.
    #[arg(value_parser = AgentId::parse)]
    agent: AgentId,
    /// The conversation.
    #[arg(value_parser = SessionId::parse)]
    session: SessionId,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let SessionCommand::Reset(ResetArgs { agent, session, target }) = &args.command;
    let client = target.client()?;
    super::block_on(client.call("session.reset", json!({"agent": agent, "session": session})))??;
    Ok(writeln!(std::io::stdout(), "the next message to {agent} in {session} begins anew")?)
}
