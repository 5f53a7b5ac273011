//! `plimsoll logs`: what an agent's program printed.

use std::io::{IsTerminal as _, Write as _};

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, one_line};
use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::ids::AgentId;
use crate::limits::OUTPUT_LINES_MAX;

/// Shows what an agent's program printed: the last lines, kept in memory while the server runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll logs reviewer -n 20
  plimsoll logs reviewer -f
  plimsoll logs reviewer --json | jq -r 'select(.stream == \"stderr\") | .text'")]
pub(crate) struct Args {
    /// The agent.
    #[arg(value_parser = AgentId::parse)]
    agent: AgentId,
    /// How many lines; 1 to 2000.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = lines)]
    lines: u64,
    /// Shows new lines as they come, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Prints each line as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// How long one call waits for a line: it stays below what the client waits for an answer.
const WAIT_MS: u64 = 20_000;

fn lines(text: &str) -> Result<u64, String> {
    let wanted: Option<u64> = text.parse().ok().filter(|lines| (1..=OUTPUT_LINES_MAX as u64).contains(lines));
    wanted.ok_or_else(|| format!("expected 1 to {OUTPUT_LINES_MAX}"))
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    super::until_ctrl_c(show(&client, args))
}

async fn show(client: &Client, args: &Args) -> Result<(), Failure> {
    let screen =
        Screen { json: args.json, terminal: std::io::stdout().is_terminal(), paint: Paint::of_stdout() };
    let first = client.call("agent.logs", json!({"agent": args.agent, "lines": args.lines})).await?;
    let mut known = screen.page(&first, None)?;
    if known == 0 && runs_no_program(client, &args.agent).await? {
        return Ok(writeln!(std::io::stderr(), "{} runs no program: there is nothing to show", args.agent)?);
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        let params = json!({
            "agent": args.agent,
            "lines": OUTPUT_LINES_MAX,
            "after": known,
            "waitMs": WAIT_MS,
        });
        let page = client.call("agent.logs", params).await.map_err(ended)?;
        known = screen.page(&page, Some(known))?;
    }
}

async fn runs_no_program(client: &Client, agent: &AgentId) -> Result<bool, ClientError> {
    let list = client.call("agent.list", json!({})).await?;
    let agents = list.get("agents").and_then(Value::as_array);
    let found = agents.into_iter().flatten().find(|one| one.get("id") == Some(&json!(agent)));
    Ok(found.and_then(|one| one.get("provider")).is_some_and(|provider| provider != "exec"))
}

/// A server that goes away while it is followed was there before.
fn ended(error: ClientError) -> ClientError {
    match error {
        ClientError::NoServer { .. } | ClientError::Unreachable { .. } => {
            ClientError::Lost("the server ended".to_owned())
        }
        other => other,
    }
}

struct Screen {
    json: bool,
    terminal: bool,
    paint: Paint,
}

impl Screen {
    /// Prints a page, and says which line was the last.
    fn page(&self, page: &Value, known: Option<u64>) -> Result<u64, Failure> {
        let mut out = std::io::stdout().lock();
        let mut before = known;
        for line in page.get("lines").and_then(Value::as_array).into_iter().flatten() {
            let seq = line.get("seq").and_then(Value::as_u64).unwrap_or_default();
            if let Some(lost) = before.and_then(|before| lost(before, seq)) {
                eprintln!(
                    "{}",
                    self.paint.dim(&format!("[{lost} lines came and went faster than they were read]"))
                );
            }
            before = Some(seq);
            if self.json {
                writeln!(out, "{}", self.safe(&line.to_string()))?;
            } else {
                writeln!(out, "{}", self.line(line))?;
            }
        }
        Ok(page.get("next").and_then(Value::as_u64).unwrap_or_default())
    }

    /// A line for a person: the time, what stood on standard error in yellow, and where it was cut.
    fn line(&self, line: &Value) -> String {
        let at = line.get("timestamp").and_then(Value::as_u64).unwrap_or_default();
        let at = self.paint.dim(&Timestamp::from_millis(at).to_string());
        let text = one_line(line.get("text").and_then(Value::as_str).unwrap_or_default());
        let error = line.get("stream").and_then(Value::as_str) == Some("stderr");
        let text = if error { self.paint.yellow(&text) } else { text.into_owned() };
        let cut =
            if line.get("cut") == Some(&json!(true)) { self.paint.dim(" [cut]") } else { String::new() };
        format!("{at}  {text}{cut}")
    }

    fn safe<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        if self.terminal { one_line(text) } else { text.into() }
    }
}

/// How many lines are missing before line `seq`, if any; after a restart of the server numbers begin anew.
fn lost(before: u64, seq: u64) -> Option<u64> {
    seq.checked_sub(before + 1).filter(|lost| *lost > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_numbers_is_told_and_a_restart_is_none() {
        assert_eq!(lost(4, 5), None);
        assert_eq!(lost(4, 8), Some(3));
        assert_eq!(lost(900, 1), None);
    }

    #[test]
    fn a_line_is_harmless_on_a_terminal() {
        let screen = Screen { json: false, terminal: true, paint: Paint::Plain };
        let line = json!({"timestamp": 0, "text": "a\u{1b}[2Jb", "stream": "stderr", "cut": true});
        assert_eq!(screen.line(&line), "1970-01-01T00:00:00.000Z  a\\u{1b}[2Jb [cut]");
    }
}
