//! `plimsoll ps`: what waits and runs.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table};

/// Lists the requests that wait or run, the oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll ps
  plimsoll ps --json | jq -r '.[] | select(.state == \"queued\") | .id'")]
pub(crate) struct Args {
    /// Prints the list as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    let active = super::block_on(async { client.call("system.activeRequests", json!({})).await })??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{active}")?);
    }
    if active.as_array().is_some_and(Vec::is_empty) {
        return Ok(writeln!(std::io::stderr(), "nothing waits or runs")?);
    }
    let mut table = Table::new(&["REQUEST", "AGENT", "SESSION", "STATE", "AGE", "TOOLS"]);
    for request in active.as_array().into_iter().flatten() {
        let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
        let age = age(request.get("durationMs").and_then(Value::as_f64).unwrap_or_default());
        let tools = tools(request.get("tools").unwrap_or(&Value::Null));
        table.row([text("id"), text("agent"), text("sessionId"), text("state"), &age, &tools]);
    }
    Ok(table.write(&mut out, Paint::of_stdout())?)
}

/// The two largest units: nobody reads the rest of a list that is old when it is printed.
fn age(millis: f64) -> String {
    let age = Duration::from_secs_f64((millis / 1_000.0).clamp(0.0, 1e9));
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{}ms", age.subsec_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600.. => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// The tools at work by name, and how many are done and failed.
fn tools(tools: &Value) -> String {
    let count = |key: &str| tools.get(key).and_then(Value::as_u64).unwrap_or_default();
    let running = tools.get("running").and_then(Value::as_array).into_iter().flatten();
    let names = running.filter_map(|tool| tool.get("name")?.as_str()).map(str::to_owned);
    let counts = [("done", count("done")), ("failed", count("failed"))];
    let counts = counts.into_iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}"));
    names.chain(counts).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_two_largest_units() {
        for (millis, expected) in [
            (0.0, "0ms"),
            (12.7, "12ms"),
            (999.9, "999ms"),
            (59_999.0, "59s"),
            (61_500.0, "1m01s"),
            (7_500_000.0, "2h05m"),
        ] {
            assert_eq!(age(millis), expected, "{millis}");
        }
    }

    #[test]
    fn tools_are_named_while_they_run_and_counted_after() {
        let busy = json!({"running": [{"name": "Bash", "startedAt": 1}], "done": 2, "failed": 1});
        assert_eq!(tools(&busy), "Bash, 2 done, 1 failed");
        assert_eq!(tools(&json!({"running": [], "done": 0, "failed": 0})), "");
    }
}
