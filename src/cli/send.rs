//! `plimsoll send`: one message to an agent, its answer as it comes.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, one_line, printable};
use crate::client::{Client, ClientError, Connection, Incoming};
use crate::clock::Clock;
use crate::ids::{AgentId, IdempotencyKey, RequestId, SessionId};
use crate::units::Period;

/// Sends a message to an agent and prints the answer as it comes. Ctrl-C cancels the request.
///
/// With an idempotency key the message runs once, however often it is sent, and the connection may break. Ctrl-C cancels it
/// all the same, and its key then stands for what was cancelled.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll send echo 'hello'
  plimsoll send echo -- '--help is only text here'
  plimsoll send reviewer --session pr-17 --deadline 2m - < question.txt
  plimsoll send echo 'hello' --json | jq .usage
  plimsoll get \"$(plimsoll send echo 'hello' --detach)\" --wait")]
pub(crate) struct Args {
    /// The agent.
    #[arg(value_parser = AgentId::parse)]
    agent: AgentId,
    /// The message; `-` reads it from standard input.
    message: String,
    /// The conversation; without one, a default of this caller and agent.
    #[arg(long, value_parser = SessionId::parse)]
    session: Option<SessionId>,
    /// How long the answer may take, such as 30s or 5m.
    #[arg(long, value_parser = Period::parse)]
    deadline: Option<Period>,
    /// Runs the message once, however often it is sent with this key in 24 hours.
    #[arg(long, value_name = "KEY", value_parser = IdempotencyKey::parse)]
    idempotency_key: Option<IdempotencyKey>,
    /// Prints the request's id at once and leaves; `plimsoll get` then finds the answer.
    #[arg(long)]
    detach: bool,
    /// Prints the whole result as one JSON object once it is there.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Bytes of a message from standard input; the server's own limit is lower by default.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;

/// How long the confirmation of a cancel is waited for.
const GOODBYE: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let message = message(&args.message)?;
    let client = args.target.client()?;
    super::block_on(send(&client, args, &message))?
}

fn message(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MESSAGE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::Input("cannot read the message from standard input".to_owned(), error))?;
    Ok(text)
}

async fn send(client: &Client, args: &Args, message: &str) -> Result<(), Failure> {
    let request_id = RequestId::generate(Clock::system().now(), rand::random());
    let mut params = json!({
        "agent": args.agent,
        "message": message,
        "requestId": request_id,
    });
    if let Some(key) = &args.idempotency_key {
        params["idempotencyKey"] = json!(key);
    } else if !args.detach {
        params["onDisconnect"] = json!("cancel");
    }
    if let Some(session) = &args.session {
        params["session"] = json!(session);
    }
    if let Some(Period(deadline)) = args.deadline {
        params["deadlineMs"] = json!(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    }
    if args.detach {
        params["async"] = json!(true);
        return detached(&client.call("agent.send", params).await?, args.json);
    }
    params["stream"] = json!(!args.json);
    let mut connection = client.connect().await?;
    let call = connection.call("agent.send", params).await?;
    let mut screen = Screen::new(args.json);
    let interrupted = tokio::select! {
        outcome = follow(&mut connection, call, &mut screen) => {
            connection.close().await;
            return screen.finish(outcome);
        }
        interrupted = tokio::signal::ctrl_c() => interrupted,
    };
    interrupted.map_err(|error| Failure::Bug(format!("Ctrl-C cannot be heard: {error}")))?;
    screen.end_line()?;
    // With the connection a request without a key is cancelled too.
    let cancelled = tokio::time::timeout(GOODBYE, cancel(&mut connection, &request_id)).await;
    connection.close().await;
    Err(Failure::Interrupted(match cancelled {
        Ok(Ok(true)) => format!(": the request {request_id} is cancelled"),
        Ok(Ok(false)) => format!(": the request {request_id} had ended"),
        Ok(Err(_)) | Err(_) => format!("; `plimsoll get {request_id}` tells what became of the request"),
    }))
}

/// Where the request can be asked for.
fn detached(sent: &Value, as_json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if as_json {
        return Ok(writeln!(out, "{sent}")?);
    }
    Ok(writeln!(out, "{}", sent["requestId"].as_str().unwrap_or_default())?)
}

async fn follow(connection: &mut Connection, call: u64, screen: &mut Screen) -> Result<Value, Failure> {
    loop {
        match connection.next().await? {
            Incoming::Answer { id, outcome } if id == call => return outcome.map_err(Failure::from),
            Incoming::Answer { .. } => {}
            Incoming::Notification { method, params } if method == "agent.event" => screen.show(&params)?,
            Incoming::Notification { .. } => {}
        }
    }
}

async fn cancel(connection: &mut Connection, request_id: &RequestId) -> Result<bool, ClientError> {
    let call = connection.call("agent.cancel", json!({"requestId": request_id})).await?;
    Ok(connection.answer(call, |_, _| {}).await?.get("cancelled") == Some(&json!(true)))
}

/// What the person sees: the answer on standard output, what happens on the way on standard error.
struct Screen {
    json: bool,
    terminal: bool,
    notes: bool,
    paint: Paint,
    shown: String,
}

impl Screen {
    fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let notes = std::io::stderr().is_terminal();
        Self { json, terminal, notes, paint: Paint::of_stdout(), shown: String::new() }
    }

    fn show(&mut self, event: &Value) -> Result<(), Failure> {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "delta" => self.print(text("text")),
            "tool" => self.note(&format!("[tool {} {}]", text("name"), text("state"))),
            "retry" => self.note(&format!("[asking again: {}]", text("cause"))),
            _ => Ok(()),
        }
    }

    fn print(&mut self, piece: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout();
        if self.terminal {
            out.write_all(printable(piece).as_bytes())?;
        } else {
            out.write_all(piece.as_bytes())?;
        }
        out.flush()?;
        self.shown.push_str(piece);
        Ok(())
    }

    fn note(&mut self, text: &str) -> Result<(), Failure> {
        if self.notes {
            self.end_line()?;
            eprintln!("{}", self.paint.dim(&one_line(text)));
        }
        Ok(())
    }

    /// Ends a line that was begun.
    fn end_line(&mut self) -> Result<(), Failure> {
        if !self.json && !self.shown.is_empty() && !self.shown.ends_with('\n') {
            self.print("\n")?;
        }
        Ok(())
    }

    fn finish(mut self, outcome: Result<Value, Failure>) -> Result<(), Failure> {
        let result = match outcome {
            Ok(result) => result,
            Err(failure) => {
                self.end_line()?;
                return Err(failure);
            }
        };
        if self.json {
            return Ok(writeln!(std::io::stdout(), "{result}")?);
        }
        if self.shown.is_empty() {
            self.print(result.get("text").and_then(Value::as_str).unwrap_or_default())?;
        }
        self.end_line()
    }
}
