//! `plimsoll token`: tokens by which people and programs prove who they are.
//!
//! A running server is asked; only when none runs is the data directory opened.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table, one_line};
use crate::api::{InvalidTokens, NewToken, Role, TokenBook, TokenList};
use crate::client::ClientError;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::ids::{AgentId, TokenName, TownId};
use crate::journal::{Actor, Journal as _, JournalDeps, SledJournal};
use crate::limits::TOKEN_CHARS_MIN;
use crate::telemetry::Registry;

/// Makes, lists and revokes access tokens.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    New(NewArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
    /// Prints the hash of a token, for `auth.tokens` in the configuration; the token comes in on standard input.
    #[command(after_help = "Examples:
  openssl rand -hex 32 | tee token.txt | plimsoll token hash
  plimsoll token hash < token.txt")]
    Hash,
}

/// Makes a token and prints it: the only time it is seen, the server keeps its hash.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll token new grafana --role viewer
  (umask 077; plimsoll token new laptop --role operator > ~/.plimsoll-token)
  plimsoll token new worker-1 --role agent --agent reviewer

From the first token on, callers from the network need one.")]
struct NewArgs {
    /// What the audit shows as the actor.
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    /// What it may do: viewer reads, operator also sends and controls, agent reports on its own dispatches, ingest
    /// posts alerts and telemetry.
    #[arg(long, value_parser = role)]
    role: Role,
    /// For role agent: the town (a group of agents) it is bound to.
    #[arg(long, value_parser = TownId::parse)]
    town: Option<TownId>,
    /// For role agent: the agent it is bound to.
    #[arg(long, value_parser = AgentId::parse)]
    agent: Option<AgentId>,
    /// Prints name, role and token as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Lists the tokens there are, without their texts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll token list
  plimsoll token list --json | jq -r '.tokens[].name'")]
struct ListArgs {
    /// Prints the server's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Revokes a token, at once: what is open with it closes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plimsoll token revoke laptop")]
struct RevokeArgs {
    /// The token's name.
    #[arg(value_parser = TokenName::parse)]
    name: TokenName,
    #[command(flatten)]
    target: TargetArgs,
}

fn role(text: &str) -> Result<Role, String> {
    serde_json::from_value(json!(text))
        .map_err(|_| "a role is one of viewer, operator, agent, ingest".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        TokenCommand::New(args) => new(args),
        TokenCommand::List(args) => list(args),
        TokenCommand::Revoke(args) => revoke(args),
        TokenCommand::Hash => hash(),
    }
}

fn new(args: &NewArgs) -> Result<(), Failure> {
    let mut params = json!({"name": args.name, "role": args.role});
    if let Some(town) = &args.town {
        params["town"] = json!(town);
    }
    if let Some(agent) = &args.agent {
        params["agent"] = json!(agent);
    }
    let NewArgs { name, role, town, agent, .. } = args;
    let created = match ask(&args.target, "token.create", params) {
        // Also where there is nothing yet: the first token comes before a server that other machines can reach.
        Err(Failure::Client(ClientError::NoServer { .. })) => {
            let disk = Disk::open(&args.target)?;
            let new = NewToken { name: name.clone(), role: *role, town: town.clone(), agent: agent.clone() };
            let token = disk.settle(disk.tokens.create(&disk.journal, &Actor::Local, new))?;
            json!({"name": name, "role": role, "token": token})
        }
        created => created?,
    };
    let mut out = std::io::stdout();
    if args.json {
        return Ok(writeln!(out, "{created}")?);
    }
    let token = created.get("token").and_then(Value::as_str).unwrap_or_default();
    writeln!(out, "{token}")?;
    eprintln!("Keep it: it is not shown again. `plimsoll token revoke {}` ends it.", args.name);
    Ok(())
}

/// The tokens of a data directory that no server uses.
struct Disk {
    tokens: Arc<TokenBook>,
    journal: SledJournal,
}

impl Disk {
    fn open(target: &TargetArgs) -> Result<Self, Failure> {
        let loaded = target.load()?;
        let Config { auth, journal, .. } = &loaded.config;
        let invalid = |error: InvalidTokens| Failure::Start(error.into());
        let tokens = Arc::new(TokenBook::new(&auth.tokens, 0, Clock::system()).map_err(invalid)?);
        let registry = Registry::new(&crate::catalogue::all()).expect("a test builds it from the same list");
        let folds = vec![Arc::clone(&tokens) as _];
        let deps = JournalDeps { clock: Clock::system(), registry, folds };
        let journal = SledJournal::open(&loaded.data_dir, journal, deps)?;
        if let Some(cause) = journal.status().degraded {
            eprintln!("warning: {}", one_line(&cause));
        }
        Ok(Self { tokens, journal })
    }

    /// The same where plimsoll kept data; where it never did, nothing is made.
    fn open_existing(target: &TargetArgs, none: ClientError) -> Result<Self, Failure> {
        if target.data_dir()?.join("FORMAT").is_file() { Self::open(target) } else { Err(none.into()) }
    }

    fn settle<T, E: std::fmt::Display>(
        &self,
        change: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        super::block_on(change)?.map_err(|error| Failure::Refused(error.to_string()))
    }
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let answer = match ask(&args.target, "token.list", json!({})) {
        Err(Failure::Client(none @ ClientError::NoServer { .. })) => {
            json!(TokenList::of(&Disk::open_existing(&args.target, none)?.tokens))
        }
        answer => answer?,
    };
    let mut out = std::io::stdout();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let mut table = Table::new(&["NAME", "ROLE", "FROM", "MADE", "BOUND TO"]);
    for token in answer.get("tokens").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| token.get(key).and_then(Value::as_str).unwrap_or_default();
        let made = token.get("createdAt").and_then(Value::as_u64).map(Timestamp::from_millis);
        let made = made.map(|at| at.to_string()).unwrap_or_default();
        let bound = [text("town"), text("agent")].into_iter().filter(|part| !part.is_empty());
        let bound = bound.collect::<Vec<_>>().join("/");
        table.row([text("name"), text("role"), text("source"), &made, &bound]);
    }
    Ok(table.write(&mut out, Paint::of_stdout())?)
}

fn revoke(args: &RevokeArgs) -> Result<(), Failure> {
    match ask(&args.target, "token.revoke", json!({"name": args.name})) {
        Err(Failure::Client(none @ ClientError::NoServer { .. })) => {
            let disk = Disk::open_existing(&args.target, none)?;
            disk.settle(disk.tokens.revoke(&disk.journal, &Actor::Local, &args.name))?;
        }
        revoked => drop(revoked?),
    }
    writeln!(std::io::stdout(), "revoked {}", args.name)?;
    Ok(())
}

fn ask(target: &TargetArgs, method: &str, params: Value) -> Result<Value, Failure> {
    let client = target.client()?;
    Ok(super::block_on(client.call(method, params))??)
}

/// Why this text is no good token. Nothing slows down who guesses at one, so it has to be long.
fn unusable(token: &str) -> Option<String> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("a token is visible ASCII characters, or no header can carry it".to_owned());
    }
    (token.len() < TOKEN_CHARS_MIN)
        .then(|| format!("a token shorter than {TOKEN_CHARS_MIN} characters can be guessed"))
}

fn hash() -> Result<(), Failure> {
    let mut token = String::new();
    let read = std::io::stdin().lock().read_line(&mut token);
    read.map_err(|error| Failure::Input("cannot read the token from standard input".to_owned(), error))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(Failure::Usage("no token came in on standard input: pipe it in, one line".to_owned()));
    }
    if let Some(problem) = unusable(token) {
        return Err(Failure::Usage(format!("{problem}: make one with `openssl rand -hex 32`")));
    }
    let digest = Sha256::digest(token.as_bytes());
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
