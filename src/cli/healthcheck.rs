//! `plimsoll healthcheck`: one question, one exit code, fit for a container's health check.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::one_line;
use crate::client::ClientError;

/// Asks a running server whether it is alive: exit code 0 if so, also while it is degraded, which it prints; 1 if not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll healthcheck
  plimsoll healthcheck --ready --server http://127.0.0.1:1876
  HEALTHCHECK CMD [\"plimsoll\", \"healthcheck\"]")]
pub(crate) struct Args {
    /// Asks whether it takes requests (`/ready`) instead of whether it is alive (`/health`).
    #[arg(long)]
    ready: bool,
    /// Prints the whole answer of `/health`.
    #[arg(long, conflicts_with = "ready")]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// A health check that takes longer has its answer: no.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    let answer = super::block_on(async { tokio::time::timeout(PATIENCE, ask(&client, args)).await })?;
    let mut out = std::io::stdout();
    match answer {
        Ok(Ok(text)) => Ok(writeln!(out, "{text}")?),
        Ok(Err(error)) => unwell(&super::exit::chain(&error)),
        Err(_) => unwell("no answer within 5 s"),
    }
}

fn unwell(why: &str) -> Result<(), Failure> {
    eprintln!("not well: {}", one_line(why));
    Err(Failure::CheckFailed)
}

async fn ask(client: &crate::client::Client, args: &Args) -> Result<String, ClientError> {
    let answer = client.get(if args.ready { "/ready" } else { "/health" }).await?;
    let text = answer.text().await.map_err(|error| ClientError::Lost(error.to_string()))?;
    if args.json {
        return Ok(text);
    }
    if args.ready {
        return Ok("ready".to_owned());
    }
    let body: Value =
        serde_json::from_str(&text).map_err(|error| ClientError::Protocol(error.to_string()))?;
    let status = body.get("status").and_then(Value::as_str).unwrap_or("unknown");
    Ok(one_line(status).into_owned())
}
