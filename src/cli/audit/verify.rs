//! `plimsoll audit head` and `verify`: the ends of the logs, and whether they are whole.

use std::io::Write as _;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::exit::Failure;
use super::super::target::TargetArgs;
use super::super::terminal::one_line;
use super::source::Source;
use crate::client::{Client, ClientError};
use crate::journal::{Head, Log, Verdict, Verified};

/// Prints the end of each log: keep it elsewhere, and `verify --head` shows later whether the log still holds it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll audit head >> /mnt/elsewhere/heads.txt
  plimsoll audit head --json")]
pub(super) struct HeadArgs {
    /// Prints one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Checks every record of both logs: checksums, the hash chain, and heads kept elsewhere. Exit code 1 if one is bad.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll audit verify
  plimsoll audit verify --head \"$(grep ^audit: /mnt/elsewhere/heads.txt | tail -1)\" \\
    --head \"$(grep ^work: /mnt/elsewhere/heads.txt | tail -1)\"

A log whose head is not given is checked in itself only.

A running server is asked, and does it beside its work; only when none runs are its files opened.")]
pub(super) struct VerifyArgs {
    /// A line that `plimsoll audit head` printed; may be given more than once.
    #[arg(long, value_name = "LOG:SEQ:HASH", value_parser = parse_head)]
    head: Vec<Head>,
    /// Prints one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

fn parse_head(text: &str) -> Result<Head, String> {
    Head::parse(text)
        .ok_or_else(|| "expected a line of `plimsoll audit head`: log:seq:hash, or log:empty".to_owned())
}

pub(super) async fn head(args: &HeadArgs) -> Result<(), Failure> {
    let heads: Vec<Head> = match Source::open(&args.target).await? {
        Source::Server(client) => part_of(client.call("audit.head", json!({})).await?, "heads")?,
        Source::Disk(disk) => Log::ALL.iter().map(|log| disk.head(*log)).collect::<Result<_, _>>()?,
    };
    let mut out = std::io::stdout();
    for head in heads {
        if args.json {
            writeln!(out, "{}", json!(head))?;
        } else {
            writeln!(out, "{head}")?;
        }
    }
    Ok(())
}

pub(super) async fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let (verdicts, unreadable) = match Source::open(&args.target).await? {
        Source::Server(client) => ask(&client, &args.head).await?,
        Source::Disk(disk) => {
            let of = |log| Verdict::new(log, disk.verify(log, &args.head));
            (Log::ALL.map(of).to_vec(), !disk.unreadable().is_empty())
        }
    };
    verdicts.iter().try_for_each(|verdict| tell(verdict, args.json))?;
    if unreadable || verdicts.iter().any(|verdict| !verdict.ok) { Err(Failure::CheckFailed) } else { Ok(()) }
}

/// Asks over a WebSocket: the answer takes as long as the journal is long, and a server that loses its caller stops.
async fn ask(client: &Client, heads: &[Head]) -> Result<(Vec<Verdict>, bool), Failure> {
    let mut connection = client.connect().await?;
    let call = connection.call("audit.verify", json!({"heads": heads})).await?;
    let answer = connection.answer(call, |_, _| {}).await?;
    let damage = answer.get("damage").and_then(Value::as_str);
    if let Some(what) = damage {
        eprintln!("warning: {}", one_line(what));
    }
    let unreadable = damage.is_some();
    Ok((part_of(answer, "logs")?, unreadable))
}

fn part_of<T: DeserializeOwned>(mut answer: Value, key: &str) -> Result<T, ClientError> {
    let part = answer.get_mut(key).map(Value::take).unwrap_or_default();
    serde_json::from_value(part).map_err(|error| ClientError::Protocol(error.to_string()))
}

fn tell(verdict: &Verdict, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let Verdict { log, ok: _, verified, problem } = verdict;
    match verified {
        _ if json => writeln!(out, "{}", json!(verdict))?,
        Some(Verified { records, first: _, head }) => {
            writeln!(out, "{log}: ok, {records} records, head {head}")?
        }
        None => writeln!(out, "{log}: BAD: {}", one_line(problem.as_deref().unwrap_or_default()))?,
    }
    Ok(())
}
