//! `plimsoll replay` and `plimsoll dry-run`: what a town was and would have done, and what it would do now.
//!
//! A running server is asked; only when none runs on the data directory are its files read. Nothing is changed.

use std::io::Write;

use serde_json::{Value, json};

use super::audit::{Source, moment};
use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table, one_line};
use super::town::{read_policy, write_waits};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::ids::TownId;
use crate::reconciler::{History, ReplayError, ReplayRequest, dry_run, fork, replay};

/// Folds the events of a town in a window anew and plans once, at its end: what it was, and what it would have done.
/// Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll replay main --from 1h --to 5m
  plimsoll replay main --from 2026-11-21T09:00:00Z --to 2026-11-21T10:00:00Z --compare
  plimsoll replay main --from 7d --to now --until-violation
  echo '{\"lost\": {\"quiet_after\": \"5m\"}}' | plimsoll replay main --from 1h --to now --policy -

Exit code 1 with --until-violation: an invariant did not hold. A running server is asked; only
when none runs are its files read.")]
pub(crate) struct ReplayArgs {
    /// The town.
    #[arg(value_parser = TownId::parse)]
    town: TownId,
    /// The window begins: RFC 3339, or how long ago, such as 30m or 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Timestamp,
    /// It ends, and the plan is made: RFC 3339, how long ago, or now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Timestamp,
    /// Ends at the first event found after which an invariant does not hold.
    #[arg(long)]
    until_violation: bool,
    /// Tells what the town really did, too.
    #[arg(long)]
    compare: bool,
    /// Plans by another policy: a file with a JSON object, the keys that differ from the town's. - is standard input.
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Says what the next tick of a town would do now, and why each open bead waits. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll dry-run main
  plimsoll dry-run main --json | jq '.actions[] | {type, entity, message}'

A running server is asked; only when none runs are its files read: then it is planned as of the
town's last event, because a start leaves out the time in which nothing ran.")]
pub(crate) struct DryRunArgs {
    /// The town.
    #[arg(value_parser = TownId::parse)]
    town: TownId,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run_replay(args: &ReplayArgs) -> Result<(), Failure> {
    let ReplayArgs { town, from, to, until_violation, compare, policy: file, json, target } = args;
    let policy = file.as_deref().map(read_policy).transpose()?;
    let answer = super::block_on(async {
        match Source::open(target).await? {
            Source::Server(client) => {
                let mut params = json!({
                    "town": town, "from": from.to_string(), "to": to.to_string(),
                    "untilViolation": until_violation, "compare": compare,
                });
                if let Some(policy) = policy {
                    params["policy"] = policy;
                }
                ask(&client, "town.replay", params).await
            }
            Source::Disk(disk) => {
                let (compare, until_violation) = (*compare, *until_violation);
                let request = ReplayRequest { from: *from, to: *to, policy, compare, until_violation };
                let told = replay(History::Offline(&disk), town, &request, &|| true)?;
                Ok(json!(told))
            }
        }
    })??;
    let mut out = std::io::stdout().lock();
    if *json {
        writeln!(out, "{answer}")?;
    } else {
        if let Some(file) = file {
            writeln!(out, "planned by the policy of {file}")?;
        }
        show_replay(&answer, &mut out)?;
    }
    let violated = answer["stoppedAt"].is_u64();
    if *until_violation && violated { Err(Failure::CheckFailed) } else { Ok(()) }
}

pub(crate) fn run_dry(args: &DryRunArgs) -> Result<(), Failure> {
    let answer = super::block_on(async {
        match Source::open(&args.target).await? {
            Source::Server(client) => ask(&client, "town.dryRun", json!({"town": args.town})).await,
            Source::Disk(disk) => {
                let fork = fork(History::Offline(&disk), &args.town)?;
                // The next start leaves out the time since then.
                let last = fork.town.time();
                Ok(json!(dry_run(fork, last)))
            }
        }
    })??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let number = |pointer: &str| answer.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let now = Timestamp::from_millis(number("/now"));
    let (actions, pending) = (number("/metrics/actionsEmitted"), number("/metrics/pendingEventCount"));
    writeln!(out, "at {now} the next tick would take in {pending} events and do {actions} things")?;
    show_actions(&answer["actions"], &mut out)?;
    show_violations(&answer, &mut out)?;
    write_waits(&answer, &mut out)
}

/// Asks over a WebSocket: the answer may take long, and a server that loses its caller stops.
async fn ask(client: &Client, method: &str, params: Value) -> Result<Value, Failure> {
    let mut connection = client.connect().await?;
    let call = connection.call(method, params).await?;
    Ok(connection.answer(call, |_, _| {}).await?)
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Read(error) => Self::Read(error),
            ReplayError::UnknownTown(_)
            | ReplayError::BeforeHistory { .. }
            | ReplayError::TooLarge { .. }
            | ReplayError::Policy(_)
            | ReplayError::Stopped => Self::Refused(error.to_string()),
            ReplayError::Reversed => Self::Usage("--to lies before --from: swap them".to_owned()),
        }
    }
}

fn show_replay(answer: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
    let at = Timestamp::from_millis(number("at"));
    let (events, rejected) = (number("eventsReplayed"), number("rejected"));
    writeln!(out, "{events} events replayed, {rejected} of them rejected; the plan is of {at}")?;
    if let Some(seq) = answer.get("stoppedAt").and_then(Value::as_u64) {
        writeln!(out, "stopped at event {seq}: an invariant does not hold after it")?;
    }
    writeln!(out, "state {}", one_line(answer["hash"].as_str().unwrap_or_default()))?;
    show_violations(answer, out)?;
    show_actions(&answer["actions"], out)?;
    let snapshot = &answer["stateSnapshot"];
    let mut agents = Table::new(&["AGENT", "ROLE", "STATUS", "FOR", "DISPATCH"]);
    for agent in list(&snapshot["agents"]) {
        let dispatch = agent.pointer("/hook/dispatchId").and_then(Value::as_str).unwrap_or_default();
        let status = [text(agent, "role"), text(agent, "status")];
        agents.row([text(agent, "id"), status[0], status[1], &seconds(agent, "forMs"), dispatch]);
    }
    part(&agents, &snapshot["agents"], &snapshot["agentsLeftOut"], out)?;
    let mut beads = Table::new(&["BEAD", "KIND", "STATUS", "FOR", "TRIES", "AGENT", "TITLE"]);
    for bead in list(&snapshot["nonTerminalBeads"]) {
        let tries = bead["attempts"].to_string();
        let (kind, status) = (text(bead, "kind"), text(bead, "status"));
        let (who, title) = (text(bead, "assignee"), text(bead, "title"));
        beads.row([text(bead, "id"), kind, status, &seconds(bead, "forMs"), &tries, who, title]);
    }
    part(&beads, &snapshot["nonTerminalBeads"], &snapshot["nonTerminalBeadsLeftOut"], out)?;
    write_waits(answer, out)?;
    answer.get("compare").map_or(Ok(()), |compare| show_compared(compare, out))
}

/// What the town did in the window, and what of that would be done again.
fn show_compared(compare: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let deed = |deed: &Value| (text(deed, "type").to_owned(), text(deed, "entity").to_owned());
    let again: Vec<_> = list(&compare["inBoth"]).iter().map(deed).collect();
    let mut table = Table::new(&["TIME", "SEQ", "DONE THEN", "ON", "PLANNED AGAIN"]);
    for taken in list(&compare["actions"]) {
        let time = taken.get("time").and_then(Value::as_u64).unwrap_or_default();
        let planned = if again.contains(&deed(taken)) { "yes" } else { "" };
        let (kind, entity) = deed(taken);
        let (time, seq) = (Timestamp::from_millis(time).to_string(), taken["seq"].to_string());
        table.row([&time, &seq, &kind, &entity, planned]);
    }
    if list(&compare["actions"]).is_empty() {
        return Ok(writeln!(out, "\nthe town did nothing in that time")?);
    }
    part(&table, &compare["actions"], &Value::Null, out)?;
    match compare["actionsLeftOut"].as_u64() {
        None | Some(0) => Ok(()),
        Some(more) => Ok(writeln!(out, "and {more} before these")?),
    }
}

fn show_actions(actions: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let mut table = Table::new(&["ACTION", "ON", "WHY"]);
    for action in list(actions) {
        table.row([text(action, "type"), text(action, "entity"), text(action, "message")]);
    }
    part(&table, actions, &Value::Null, out)
}

fn show_violations(answer: &Value, out: &mut impl Write) -> Result<(), Failure> {
    let violations = &answer["violations"];
    let mut table = Table::new(&["VIOLATED", "ON", "WHAT IS WRONG"]);
    for violation in list(violations) {
        let entities = list(&violation["entities"]).iter().filter_map(Value::as_str).collect::<Vec<_>>();
        let name = format!("{} {}", violation["invariant"], text(violation, "name"));
        table.row([&name, &entities.join(", "), text(violation, "message")]);
    }
    part(&table, violations, &answer["violationsLeftOut"], out)
}

/// A table under an empty line, if it has a row.
fn part(table: &Table, rows: &Value, left_out: &Value, out: &mut impl Write) -> Result<(), Failure> {
    if list(rows).is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table.write(out, Paint::of_stdout())?;
    match left_out.as_u64() {
        None | Some(0) => Ok(()),
        Some(more) => Ok(writeln!(out, "and {more} more")?),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn seconds(value: &Value, key: &str) -> String {
    format!("{} s", value.get(key).and_then(Value::as_u64).unwrap_or_default() / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_that_are_left_out_are_counted() {
        let violation =
            json!({"invariant": 3, "name": "reviewed_twice_at_once", "entities": [], "message": "two"});
        let mut out = Vec::new();
        show_violations(&json!({"violations": [violation], "violationsLeftOut": 4}), &mut out)
            .expect("written");
        assert!(String::from_utf8(out).expect("text").ends_with("and 4 more\n"));
    }

    #[test]
    fn what_was_done_is_shown_beside_what_is_planned_again() {
        let deed = |kind: &str, bead: &str| json!({"type": kind, "entity": format!("bead/{bead}")});
        let at = |seq: u64, mut deed: Value| {
            (deed["seq"], deed["time"]) = (json!(seq), json!(1_000));
            deed
        };
        let compare = json!({
            "actions": [at(4, deed("dispatch_bead", "a")), at(5, deed("close_bead", "b"))],
            "inBoth": [deed("dispatch_bead", "a")], "actionsLeftOut": 2,
        });
        let mut out = Vec::new();
        show_compared(&compare, &mut out).expect("written");
        let shown = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert!(lines[2].contains("dispatch_bead") && lines[2].ends_with("yes"), "{shown}");
        assert!(lines[3].contains("bead/b") && !lines[3].ends_with("yes"), "{shown}");
        assert_eq!(lines[4], "and 2 before these");
    }
}
