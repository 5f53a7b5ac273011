//! `plimsoll events`: what happens, as it happens.

use std::io::{IsTerminal as _, Write as _};

use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::StatusCode;
use serde_json::Value;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, one_line};
use crate::client::{Client, ClientError};

/// Follows the events of a running server until Ctrl-C or the server's end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll events
  plimsoll events --level error
  plimsoll events --after 4711 --json | jq .summary")]
pub(crate) struct Args {
    /// Only events of this level.
    #[arg(long, value_parser = ["info", "warn", "error"])]
    level: Option<String>,
    /// Only events of this type, such as `request.finished`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Journaled events after this seq first, then what comes.
    #[arg(long, value_name = "SEQ", value_parser = seq)]
    after: Option<u64>,
    /// Prints each event as one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;

/// Bytes of one line of the stream; an event's detail is smaller.
const LINE_BYTES_MAX: usize = 1 << 20;

fn seq(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected the seq of a journaled event, a whole number such as 4711".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.target.client()?;
    super::until_ctrl_c(follow(&client, args))
}

fn path(args: &Args) -> String {
    let pairs = [("level", args.level.clone()), ("type", args.kind.clone())];
    format!("/events?{}", super::query(&pairs))
}

/// Reads server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): every event of ours is
/// one `data:` line.
async fn follow(client: &Client, args: &Args) -> Result<(), Failure> {
    let after = args.after.map(|seq| ("last-event-id", seq.to_string()));
    let answer = client.get_with(&path(args), after.as_slice()).await?;
    let bytes = answer.bytes_stream().map_err(std::io::Error::other);
    let codec = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
    let mut lines = FramedRead::new(StreamReader::new(bytes), codec);
    let paint = Paint::of_stdout();
    let mut last = args.after;
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| lost(&error.to_string(), last))?;
        if let Some(seq) = line.strip_prefix("id:") {
            last = seq.trim().parse().ok().or(last);
        } else if let Some(data) = line.strip_prefix("data:") {
            show(data.trim_start(), args.json, paint)?;
        }
    }
    // A server ends the streams of a token that was revoked without a word; what it says to a new one tells why.
    match client.get(&path(args)).await {
        Err(refused @ (ClientError::TokenNeeded | ClientError::Status { status: UNAUTHORIZED, .. })) => {
            Err(refused.into())
        }
        _ => Err(lost("the server ended the stream", last).into()),
    }
}

/// The end of the stream, and how to go on where it ended.
fn lost(cause: &str, last: Option<u64>) -> ClientError {
    let advice = last.map(|seq| format!("; --after {seq} goes on from there")).unwrap_or_default();
    ClientError::Lost(format!("{cause}{advice}"))
}

fn show(data: &str, json: bool, paint: Paint) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if json && !out.is_terminal() {
        return Ok(writeln!(out, "{data}")?);
    }
    if json {
        return Ok(writeln!(out, "{}", one_line(data))?);
    }
    let event: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |key: &str| one_line(event.get(key).and_then(Value::as_str).unwrap_or_default()).into_owned();
    let at = event.get("ts").and_then(Value::as_u64).unwrap_or_default();
    let at = paint.dim(&crate::clock::Timestamp::from_millis(at).to_string());
    let level = match text("level").as_str() {
        "error" => paint.red("error"),
        "warn" => paint.yellow("warn "),
        other => format!("{other:5}"),
    };
    writeln!(out, "{at}  {level}  {:20}  {}", text("type"), text("summary"))?;
    Ok(())
}
