//! `plimsoll audit head` and `verify`: the ends of the logs, and whether they are whole.

use std::io::Write as _;

use serde_json::{Value, json};

use super::super::exit::{Failure, chain};
use super::super::target::TargetArgs;
use super::super::terminal::one_line;
use super::source;
use crate::journal::{Head, Log, Verified, VerifyError};

/// Prints the end of each log: keep it elsewhere, and `verify --head` shows later whether the log still holds it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll audit head >> /mnt/elsewhere/heads.txt
  plimsoll audit head --json

It reads the files themselves, so no server may use them.")]
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
  plimsoll audit verify --head \"$(tail -1 /mnt/elsewhere/heads.txt)\"

It reads the files themselves, so no server may use them.")]
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
    Head::parse(text).ok_or_else(|| "expected a line of `plimsoll audit head`: log:seq:hash".to_owned())
}

pub(super) fn head(args: &HeadArgs) -> Result<(), Failure> {
    let disk = source::open_disk(&args.target.data_dir()?)?;
    let mut out = std::io::stdout();
    for log in Log::ALL {
        let head = disk.head(log)?;
        if args.json {
            writeln!(out, "{}", json!(head))?;
        } else {
            writeln!(out, "{head}")?;
        }
    }
    Ok(())
}

pub(super) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let disk = source::open_disk(&args.target.data_dir()?)?;
    let mut bad = false;
    for log in Log::ALL {
        let kept = args.head.iter().filter(|head| head.log == log);
        let mut heads: Vec<Option<Head>> = kept.copied().map(Some).collect();
        if heads.is_empty() {
            heads.push(None);
        }
        for head in heads {
            let outcome = disk.verify(log, head);
            bad |= outcome.is_err();
            tell(log, &outcome, args.json)?;
        }
    }
    if bad || !disk.unreadable().is_empty() { Err(Failure::CheckFailed) } else { Ok(()) }
}

fn tell(log: Log, outcome: &Result<Verified, VerifyError>, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if json {
        let line: Value = match outcome {
            Ok(verified) => json!({"log": log, "ok": true, "verified": verified}),
            Err(error) => json!({"log": log, "ok": false, "problem": chain(error)}),
        };
        return Ok(writeln!(out, "{line}")?);
    }
    match outcome {
        Ok(Verified { records, first: _, head }) => {
            writeln!(out, "{log}: ok, {records} records, head {head}")?
        }
        Err(error) => writeln!(out, "{log}: BAD: {}", one_line(&chain(error)))?,
    }
    Ok(())
}
