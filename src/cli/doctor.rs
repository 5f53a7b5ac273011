//! `plimsoll doctor`: prints what the checks found.

use std::io::{self, Write};

use serde_json::json;

use super::exit::Failure;
use super::target::SourceArgs;
use super::terminal::{Paint, printable};
use crate::clock::Clock;
use crate::doctor::{Finding, Status, examine, failed};

/// Looks whether plimsoll can run here and says what to do where it cannot: exit code 1 if any check fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll doctor
  PLIMSOLL_ENV=docker plimsoll doctor
  plimsoll doctor --json | jq -r '.checks[] | select(.status == \"fail\").advice'")]
pub(crate) struct Args {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let request = args.source.request()?;
    // A second installation is refused and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let findings = super::block_on(examine(&request, Clock::system()))?;
    let mut out = io::stdout();
    if args.json {
        writeln!(out, "{:#}", json!({"ok": !failed(&findings), "checks": findings}))?;
    } else {
        print(&findings, &mut out, Paint::of_stdout())?;
    }
    if failed(&findings) { Err(Failure::CheckFailed) } else { Ok(()) }
}

fn print(findings: &[Finding], out: &mut impl Write, paint: Paint) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let indent = " ".repeat(6 + width + 2);
    for Finding { check, status, detail, advice } in findings {
        let word = match status {
            Status::Pass => "pass  ".to_owned(),
            Status::Skip => paint.dim("skip  "),
            Status::Warn => paint.yellow("warn  "),
            Status::Fail => paint.red("fail  "),
        };
        let detail = printable(detail).replace('\n', &format!("\n{indent}"));
        writeln!(out, "{word}{check:<width$}  {detail}")?;
        if let Some(advice) = advice {
            writeln!(out, "{indent}{} {}", paint.bold("to do:"), printable(advice))?;
        }
    }
    Ok(())
}
