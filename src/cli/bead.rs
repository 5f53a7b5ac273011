//! `plimsoll bead`: the work of a town.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table, one_line, printable};
use super::town::TownArgs;
use crate::ids::BeadId;
use crate::limits::{BEAD_INSTRUCTIONS_BYTES_MAX, TOWN_PAGE_MAX};
use crate::town::words::{BeadKind, BeadStatus, CancelStatus, Role};

/// Adds work to a town, shows it, and holds, releases or cancels it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: BeadCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BeadCommand {
    Add(AddArgs),
    List(ListArgs),
    Show(ShowArgs),
    Hold(HoldArgs),
    Release(ReleaseArgs),
    Cancel(CancelArgs),
}

/// Adds a task, which an idle agent of its role gets. Prints its id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll bead add 'Fix the login' --instructions 'The button does nothing.' --priority 1
  plimsoll bead add 'Write the manual' --file outline.md --blocked-by b-4k7m2p9x")]
struct AddArgs {
    /// A line that says what it is.
    title: String,
    /// What its agent is told.
    #[arg(long, value_name = "TEXT")]
    instructions: Option<String>,
    /// A file that holds what its agent is told; - is standard input.
    #[arg(long, conflicts_with = "instructions")]
    file: Option<String>,
    /// Who may do it: worker, reviewer or coordinator.
    #[arg(long, value_parser = word::<Role>)]
    role: Option<Role>,
    /// 0, the most urgent, to 4.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=4))]
    priority: u8,
    /// A bead that must end before it begins; several with commas.
    #[arg(long, value_name = "BEAD", value_delimiter = ',', value_parser = BeadId::parse)]
    blocked_by: Vec<BeadId>,
    /// The convoy that it belongs to.
    #[arg(long, value_name = "BEAD", value_parser = BeadId::parse)]
    convoy: Option<BeadId>,
    /// Its id; without it one is made.
    #[arg(long, value_name = "BEAD", value_parser = BeadId::parse)]
    id: Option<BeadId>,
    #[command(flatten)]
    town: TownArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Lists beads, each with why it waits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll bead list
  plimsoll bead list --status failed
  plimsoll bead list --kind escalation --json | jq -r '.beads[].title'")]
struct ListArgs {
    /// Only where they stand so: `open`, `in_progress`, `in_review`, `closed` or `failed`. Without it all that have not
    /// ended.
    #[arg(long, value_parser = word::<BeadStatus>)]
    status: Option<BeadStatus>,
    /// Only these: task, review, convoy or escalation.
    #[arg(long, value_parser = word::<BeadKind>)]
    kind: Option<BeadKind>,
    /// At most this many.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    town: TownArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Shows a bead: where it stands, why it waits, what its agent is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plimsoll bead show b-4k7m2p9x")]
struct ShowArgs {
    /// Prints the server's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bead: BeadArgs,
}

/// Which bead.
#[derive(Debug, clap::Args)]
struct BeadArgs {
    /// The bead.
    #[arg(value_parser = BeadId::parse)]
    bead: BeadId,
    #[command(flatten)]
    town: TownArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Holds a bead: no agent gets it until it is released.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plimsoll bead hold b-4k7m2p9x --reason 'the design is not done'")]
struct HoldArgs {
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    bead: BeadArgs,
}

/// Lets a bead go on that was held, or that waits for a person; its attempts begin anew then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  plimsoll bead release b-4k7m2p9x")]
struct ReleaseArgs {
    #[command(flatten)]
    bead: BeadArgs,
}

/// Cancels a bead, a convoy with its open tasks; an agent that works on it is stopped at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll bead cancel b-4k7m2p9x
  plimsoll bead cancel b-4k7m2p9x --status closed --reason 'done by hand'")]
struct CancelArgs {
    /// How it ends: failed, or closed as if it were done.
    #[arg(long, default_value = "failed", value_parser = word::<CancelStatus>)]
    status: CancelStatus,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    bead: BeadArgs,
}

/// One of a closed set of words, as the API writes it.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(json!(text)).map_err(|error| error.to_string())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        BeadCommand::Add(args) => add(args),
        BeadCommand::List(args) => list(args),
        BeadCommand::Show(args) => show(args),
        BeadCommand::Hold(HoldArgs { reason, bead }) => {
            change(bead, ("town.holdBead", json!({"reason": reason})), "is held")
        }
        BeadCommand::Release(ReleaseArgs { bead }) => {
            change(bead, ("town.releaseBead", json!({})), "may go on")
        }
        BeadCommand::Cancel(CancelArgs { status, reason, bead }) => {
            change(bead, ("town.cancelBead", json!({"status": status, "reason": reason})), "is cancelled")
        }
    }
}

fn change(args: &BeadArgs, (method, mut params): (&str, Value), done: &str) -> Result<(), Failure> {
    let BeadArgs { bead, town, target } = args;
    params["bead"] = json!(bead);
    let client = target.client()?;
    super::block_on(async {
        params["town"] = json!(town.resolve(&client).await?);
        Ok::<_, Failure>(client.call(method, params).await?)
    })??;
    Ok(writeln!(std::io::stdout(), "{bead} {done}")?)
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let AddArgs { title, instructions, file, role, priority, blocked_by, convoy, id, town, target } = args;
    let instructions = match (instructions, file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => String::new(),
    };
    let mut params =
        json!({"title": title, "instructions": instructions, "priority": priority, "blockedBy": blocked_by});
    for (key, value) in [("role", json!(role)), ("convoy", json!(convoy)), ("id", json!(id))] {
        if !value.is_null() {
            params[key] = value;
        }
    }
    let client = target.client()?;
    let added = super::block_on(async {
        params["town"] = json!(town.resolve(&client).await?);
        Ok::<_, Failure>(client.call("town.addBead", params).await?)
    })??;
    let id = added.get("bead").and_then(Value::as_str).unwrap_or_default();
    Ok(writeln!(std::io::stdout(), "{}", one_line(id))?)
}

fn read(file: &str) -> Result<String, Failure> {
    let failed = |error| Failure::Input(format!("cannot read the instructions in {file}"), error);
    let mut text = String::new();
    let bytes_max = BEAD_INSTRUCTIONS_BYTES_MAX as u64 + 1;
    if file == "-" {
        std::io::stdin().lock().take(bytes_max).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(file).map_err(failed)?;
        file.take(bytes_max).read_to_string(&mut text).map_err(failed)?;
    }
    if text.len() > BEAD_INSTRUCTIONS_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "{file} is longer than {BEAD_INSTRUCTIONS_BYTES_MAX} bytes: shorten it"
        )));
    }
    Ok(text)
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.target.client()?;
    let page_max = TOWN_PAGE_MAX as u64;
    let (beads, more) = super::block_on(async {
        let mut params = json!({"town": args.town.resolve(&client).await?});
        for (key, value) in [("status", json!(args.status)), ("kind", json!(args.kind))] {
            if !value.is_null() {
                params[key] = value;
            }
        }
        let mut beads: Vec<Value> = Vec::new();
        loop {
            let left = args.limit.saturating_sub(beads.len() as u64);
            params["limit"] = json!(left.min(page_max));
            let mut page = client.call("town.beads", params.clone()).await?;
            if let Some(Value::Array(found)) = page.get_mut("beads").map(Value::take) {
                beads.extend(found);
            }
            let next = page.get_mut("next").map(Value::take).unwrap_or_default();
            if next.is_null() || beads.len() as u64 >= args.limit {
                return Ok::<_, Failure>((beads, !next.is_null()));
            }
            params["cursor"] = next;
        }
    })??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", json!({"beads": beads}))?);
    }
    let mut table = Table::new(&["BEAD", "KIND", "STATUS", "PRIO", "TRIES", "AGENT", "TITLE", "WHY"]);
    for bead in &beads {
        let text = |key: &str| bead.get(key).and_then(Value::as_str).unwrap_or_default();
        let count =
            |key: &str| bead.get(key).and_then(Value::as_u64).map(|n| n.to_string()).unwrap_or_default();
        let why = &why(bead);
        let (priority, tries) = (count("priority"), count("attempts"));
        table.row([
            text("id"),
            text("kind"),
            text("status"),
            &priority,
            &tries,
            text("assignee"),
            text("title"),
            why,
        ]);
    }
    if beads.is_empty() && args.status.is_none() {
        return Ok(writeln!(
            out,
            "no bead waits or is worked: `--status closed` and `--status failed` list those that ended"
        )?);
    }
    table.write(&mut out, Paint::of_stdout())?;
    if more {
        writeln!(out, "and more: raise --limit")?;
    }
    Ok(())
}

/// Why a bead waits, or ended, and why its last attempt failed.
fn why(bead: &Value) -> String {
    let text = |key: &str| bead.get(key).and_then(Value::as_str);
    match (text("message"), text("reason"), text("failure")) {
        (Some(message), _, _) => message.to_owned(),
        (None, Some(reason), Some(failure)) => format!("{reason}: {failure}"),
        (None, Some(reason), None) => reason.to_owned(),
        (None, None, _) => "no tick looked at it yet".to_owned(),
    }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let BeadArgs { bead, town, target } = &args.bead;
    let client = target.client()?;
    let (town, bead) = super::block_on(async {
        let town = town.resolve(&client).await?;
        let bead = client.call("town.bead", json!({"town": town, "bead": bead})).await?;
        Ok::<_, Failure>((town, bead))
    })??;
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{bead}")?);
    }
    for (name, key) in [
        ("bead", "id"),
        ("title", "title"),
        ("kind", "kind"),
        ("status", "status"),
        ("why", "message"),
        ("because", "reason"),
        ("held because", "heldBecause"),
        ("role", "role"),
        ("priority", "priority"),
        ("agent", "assignee"),
        ("dispatch", "dispatchId"),
        ("attempts", "attempts"),
        ("part of", "parent"),
        ("waits for", "blockedBy"),
    ] {
        let shown = match bead.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Array(list)) if !list.is_empty() => {
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            Some(_) | None => continue,
        };
        writeln!(out, "{name:<13} {}", one_line(&shown))?;
    }
    let is_escalation = bead.get("kind").and_then(Value::as_str) == Some("escalation");
    for (name, key) in [
        ("instructions", "instructions"),
        ("what the last reviewer wants changed", "notes"),
        (if is_escalation { "what led to it" } else { "what its agent said" }, "summary"),
        ("why its last attempt failed", "failure"),
    ] {
        if let Some(text) = bead.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            writeln!(out, "\n{name}:\n{}", printable(text).trim_end())?;
        }
    }
    if bead.get("reason").is_some() {
        writeln!(out, "\nwhat was asked and said: `plimsoll audit list --stream town/{town} --json`")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bead_that_failed_says_in_the_list_why() {
        for (bead, told) in [
            (json!({"message": "it is next", "failure": "401"}), "it is next"),
            (json!({"reason": "attempts_exhausted", "failure": "401"}), "attempts_exhausted: 401"),
            (json!({"reason": "done"}), "done"),
            (json!({"message": null}), "no tick looked at it yet"),
        ] {
            assert_eq!(why(&bead), told);
        }
    }
}
