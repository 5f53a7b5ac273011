//! `plimsoll get`: how far a request is, or its answer.

use std::io::{IsTerminal as _, Write as _};

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{one_line, printable};
use crate::client::Client;
use crate::ids::{AgentId, IdempotencyKey, RequestId};

/// Milliseconds that the server is asked to wait at a time: less than a call may take.
const WAIT_MS: u64 = 5_000;

/// Prints the answer of a request that outlived its connection, or how far it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll get 01KAP3V6X3C9W8J0D1X6Y4R2TM
  plimsoll get \"$(plimsoll send echo 'hello' --detach)\" --wait
  plimsoll get --idempotency-key nightly-2026-11-21 --json | jq .state

Exit code 0: there is an answer. 1: it waits or runs, which is said on standard error.
6: it ended without one. With --json too.")]
pub(crate) struct Args {
    /// The request.
    #[arg(value_parser = RequestId::parse, required_unless_present = "idempotency_key")]
    request: Option<RequestId>,
    /// The key that it was sent with, instead of its id; known for 24 hours, also after a restart.
    #[arg(long, value_name = "KEY", value_parser = IdempotencyKey::parse, conflicts_with = "request")]
    idempotency_key: Option<IdempotencyKey>,
    /// The agent that the key was used with; needed only where there were several.
    #[arg(long, value_parser = AgentId::parse, requires = "idempotency_key")]
    agent: Option<AgentId>,
    /// Waits for its end.
    #[arg(long)]
    wait: bool,
    /// Prints all that is known as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    let status = super::block_on(ask(&client, args))??;
    show(&status, args.json)
}

async fn ask(client: &Client, args: &Args) -> Result<Value, Failure> {
    let mut params = json!({"waitMs": if args.wait { WAIT_MS } else { 0 }});
    if let Some(request) = &args.request {
        params["requestId"] = json!(request);
    }
    if let Some(key) = &args.idempotency_key {
        params["idempotencyKey"] = json!(key);
    }
    if let Some(agent) = &args.agent {
        params["agent"] = json!(agent);
    }
    loop {
        let status = client.call("request.get", params.clone()).await?;
        if !args.wait || !under_way(&status) {
            return Ok(status);
        }
    }
}

fn under_way(status: &Value) -> bool {
    matches!(status["state"].as_str(), Some("queued" | "starting" | "running"))
}

/// The answer on standard output. Without one it is a failure of the command: one that is under way is not what was
/// asked for, and what ended otherwise was refused.
fn show(status: &Value, as_json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{status}")?;
    }
    let state = status["state"].as_str().unwrap_or_default();
    if under_way(status) {
        if !as_json {
            eprintln!("{}", one_line(state));
        }
        return Err(Failure::CheckFailed);
    }
    if let Some(text) = status["answer"]["text"].as_str() {
        if as_json {
            return Ok(());
        }
        let terminal = std::io::stdout().is_terminal();
        let text = if terminal { printable(text).to_string() } else { text.to_owned() };
        let end = if text.ends_with('\n') { "" } else { "\n" };
        return Ok(write!(out, "{text}{end}")?);
    }
    let why = status["error"]["message"].as_str().unwrap_or("its answer is not kept any more");
    Err(Failure::Refused(format!("the request ended ({state}): {why}")))
}
