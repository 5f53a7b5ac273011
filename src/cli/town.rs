//! `plimsoll town`: which towns there are and how they do.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table, one_line};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::ids::TownId;

/// The town that a server has whose configuration names none.
const FIRST: &str = "main";

/// Bytes of a policy: every key of it takes less than a tenth.
const POLICY_BYTES_MAX: u64 = 64 << 10;

/// Lists towns, shows how one does, makes one, or stops and starts its dispatching.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TownCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TownCommand {
    List(ListArgs),
    Status(StatusArgs),
    Create(CreateArgs),
    Drain(DrainArgs),
}

/// Lists the towns.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plimsoll town list")]
struct ListArgs {
    /// Prints the server's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Shows what a town does: its agents and beads, its last tick, open violations, and why each bead waits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll town status
  plimsoll town status main --json | jq .lastTick")]
struct StatusArgs {
    /// The town; the only one, or main, if none is said.
    #[arg(value_parser = TownId::parse)]
    town: Option<TownId>,
    /// Prints the server's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Makes a town, which turns at once and is there again after a restart.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll town create lab
  echo '{\"review\": {\"enabled\": true}}' | plimsoll town create lab --policy -")]
struct CreateArgs {
    /// Its id.
    #[arg(value_parser = TownId::parse)]
    town: TownId,
    /// A file with a JSON object: the keys of its policy that differ from the defaults. - is standard input.
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Stops dispatching in a town; what runs goes on, and what agents say is still acted on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll town drain --reason 'the disk is changed'
  plimsoll town drain --off")]
struct DrainArgs {
    /// The town; the only one, or main, if none is said.
    #[arg(value_parser = TownId::parse)]
    town: Option<TownId>,
    /// Goes on with dispatching.
    #[arg(long)]
    off: bool,
    /// Why.
    #[arg(long, conflicts_with = "off")]
    reason: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Which town.
#[derive(Debug, clap::Args)]
pub(super) struct TownArgs {
    /// The town; the only one, or main, if none is said.
    #[arg(long, value_parser = TownId::parse)]
    town: Option<TownId>,
}

impl TownArgs {
    /// Which town is meant.
    pub(super) async fn resolve(&self, client: &Client) -> Result<TownId, Failure> {
        resolve(self.town.as_ref(), client).await
    }
}

async fn resolve(town: Option<&TownId>, client: &Client) -> Result<TownId, Failure> {
    if let Some(town) = town {
        return Ok(town.clone());
    }
    let listed = client.call("town.list", json!({})).await?;
    let ids = listed.get("towns").and_then(Value::as_array).into_iter().flatten();
    let ids = ids.filter_map(|town| TownId::parse(town.get("id")?.as_str()?).ok());
    choose(&ids.collect::<Vec<_>>())
}

fn choose(towns: &[TownId]) -> Result<TownId, Failure> {
    match towns {
        [] => Err(Failure::Usage("there is no town: `plimsoll town create` makes one".to_owned())),
        [only] => Ok(only.clone()),
        several => several.iter().find(|town| town.as_str() == FIRST).cloned().ok_or_else(|| {
            Failure::Usage("there are several towns: say which, `plimsoll town list` names them".to_owned())
        }),
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        TownCommand::List(args) => list(args),
        TownCommand::Status(args) => status(args),
        TownCommand::Create(args) => create(args),
        TownCommand::Drain(args) => drain(args),
    }
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.target.client()?;
    let answer = super::block_on(client.call("town.list", json!({})))??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let mut table = Table::new(&["TOWN", "AGENTS", "OPEN BEADS", "VIOLATIONS", "STATE"]);
    for town in answer.get("towns").and_then(Value::as_array).into_iter().flatten() {
        let count = |key: &str| town.get(key).and_then(Value::as_u64).unwrap_or_default().to_string();
        let is = |key: &str| town.get(key) == Some(&json!(true));
        let state = match (is("setAside"), is("draining"), is("breakerOpen")) {
            (true, _, _) => "put aside",
            (false, true, _) => "draining",
            (false, false, true) => "breaker open",
            (false, false, false) => "",
        };
        let id = town.get("id").and_then(Value::as_str).unwrap_or_default();
        table.row([id, &count("agents"), &count("openBeads"), &count("violations"), state]);
    }
    Ok(table.write(&mut out, Paint::of_stdout())?)
}

fn create(args: &CreateArgs) -> Result<(), Failure> {
    let mut params = json!({"id": args.town});
    if let Some(file) = &args.policy {
        params["policy"] = read_policy(file)?;
    }
    let client = args.target.client()?;
    super::block_on(client.call("town.create", params))??;
    Ok(writeln!(std::io::stdout(), "made {}", args.town)?)
}

pub(super) fn read_policy(file: &str) -> Result<Value, Failure> {
    let failed = |error| Failure::Input(format!("cannot read the policy in {file}"), error);
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().lock().take(POLICY_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(file).map_err(failed)?;
        file.take(POLICY_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    }
    serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{file} holds no JSON object: {error}")))
}

fn drain(args: &DrainArgs) -> Result<(), Failure> {
    let client = args.target.client()?;
    let (town, answer) = super::block_on(async {
        let town = resolve(args.town.as_ref(), &client).await?;
        let params = json!({"town": town, "draining": !args.off, "reason": args.reason});
        Ok::<_, Failure>((town, client.call("town.drain", params).await?))
    })??;
    let what = if args.off { "dispatches" } else { "drains" };
    let before = answer.get("seq").is_some_and(Value::is_null);
    Ok(writeln!(std::io::stdout(), "{town} {what}{}", if before { ", as before" } else { "" })?)
}

fn status(args: &StatusArgs) -> Result<(), Failure> {
    let client = args.target.client()?;
    let answer = super::block_on(async {
        let town = resolve(args.town.as_ref(), &client).await?;
        Ok::<_, Failure>(client.call("town.status", json!({"town": town})).await?)
    })??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    for line in lines(&answer) {
        writeln!(out, "{}", one_line(&line))?;
    }
    write_waits(&answer, &mut out)
}

/// Everything but why beads wait, a line each.
fn lines(status: &Value) -> Vec<String> {
    let counts = |key: &str| {
        let counts = status.get(key).and_then(Value::as_object).into_iter().flatten();
        let counts =
            counts.filter(|(_, count)| **count != json!(0)).map(|(name, count)| format!("{count} {name}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        if counts.is_empty() { "none".to_owned() } else { counts }
    };
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let mut lines = vec![
        format!("town       {}", status["town"].as_str().unwrap_or_default()),
        format!("agents     {}", counts("agents")),
        format!("beads      {}", counts("beads")),
        format!("pending    {} events that no tick took in yet", number("/pendingEventCount")),
    ];
    if let Some(at) = status.pointer("/lastTick/at").and_then(Value::as_u64) {
        let wall = status.pointer("/lastTick/wallClockMs").and_then(Value::as_f64).unwrap_or_default();
        lines.push(format!(
            "last tick  {}: {} events, {} actions, {wall:.1} ms",
            Timestamp::from_millis(at),
            number("/lastTick/eventsDrained"),
            number("/lastTick/actionsEmitted"),
        ));
    }
    lines.push(format!(
        "ticks      every {} s, and when something happens",
        number("/cadence/everyMs") / 1_000
    ));
    let running = number("/cadence/runningMs");
    if running >= 1_000 {
        lines.push(format!("running    a tick, for {} s by now", running / 1_000));
    }
    let overdue = number("/cadence/overdueMs");
    if overdue >= 1_000 {
        lines.push(format!("overdue    the next tick, by {} s", overdue / 1_000));
    }
    if status["draining"] == true {
        lines.push("draining   nothing is dispatched: `plimsoll town drain --off` goes on".to_owned());
    }
    if status["breakerOpen"] == true {
        lines.push(
            "breaker    nothing is dispatched but one bead at a time, because too much failed".to_owned(),
        );
    }
    if let Some(why) = status.pointer("/failing/why").and_then(Value::as_str) {
        let since = Timestamp::from_millis(number("/failing/since"));
        lines.push(format!("failing    no tick could write since {since}: {why}"));
    }
    if let Some(why) = status.get("setAside").and_then(Value::as_str) {
        lines.push(format!("put aside  {why}"));
    }
    for violation in status["violations"].as_array().into_iter().flatten() {
        let name = violation["name"].as_str().unwrap_or_default();
        let message = violation["message"].as_str().unwrap_or_default();
        lines.push(format!("violated   {} {name}: {message}", violation["invariant"]));
        if let Some(repair) = violation.get("repair").and_then(Value::as_str) {
            lines.push(format!("           to repair it, {repair}"));
        }
    }
    lines
}

/// Why each open bead waits, as far as that is told.
pub(super) fn write_waits(answer: &Value, out: &mut impl std::io::Write) -> Result<(), Failure> {
    let waits = answer.get("waits").or_else(|| answer.get("report")).and_then(Value::as_array);
    let Some(waits) = waits.filter(|waits| !waits.is_empty()) else { return Ok(()) };
    let mut table = Table::new(&["BEAD", "WHY IT WAITS"]);
    for wait in waits {
        let text = |key: &str| wait.get(key).and_then(Value::as_str).unwrap_or_default();
        table.row([text("bead"), text("message")]);
    }
    writeln!(out)?;
    table.write(out, Paint::of_stdout())?;
    let left_out = answer.get("waitsLeftOut").or_else(|| answer.get("reportLeftOut")).and_then(Value::as_u64);
    match left_out {
        None | Some(0) => Ok(()),
        Some(more) => Ok(writeln!(out, "and {more} more")?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_runs_for_long_is_told() {
        let status = |running: u64| lines(&json!({"cadence": {"everyMs": 5_000, "runningMs": running}}));
        assert!(status(90_000).contains(&"running    a tick, for 90 s by now".to_owned()));
        assert!(!status(999).iter().any(|line| line.starts_with("running")));
    }

    #[test]
    fn the_town_is_the_only_one_or_main() {
        let town = |id: &str| TownId::parse(id).expect("valid");
        let chosen = |ids: &[&str]| choose(&ids.iter().map(|id| town(id)).collect::<Vec<_>>()).ok();
        assert_eq!(chosen(&["lab"]), Some(town("lab")));
        assert_eq!(chosen(&["lab", "main"]), Some(town("main")));
        assert_eq!(chosen(&["lab", "other"]), None);
        assert_eq!(chosen(&[]), None);
    }
}
