//! `plimsoll metrics`: every metric there is, from the same definitions that `/metrics` is made of.

use std::io::Write as _;

use serde_json::{Value, json};

use super::exit::Failure;
use super::terminal::{Paint, Table};
use crate::telemetry::metric::{Audience, Definition, Kind};

/// Prints the catalogue of metrics: name, type, labels, buckets and meaning.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll metrics
  plimsoll metrics --json | jq -r '.[] | select(.type == \"histogram\").name'
  plimsoll metrics --markdown > metrics.md")]
pub(crate) struct Args {
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
    /// Prints a Markdown table.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let catalogue = crate::catalogue::all();
    let mut out = std::io::stdout();
    if args.json {
        let all: Vec<Value> = catalogue.iter().map(as_json).collect();
        return Ok(writeln!(out, "{}", Value::from(all))?);
    }
    if args.markdown {
        return Ok(out.write_all(markdown(&catalogue).as_bytes())?);
    }
    let mut table = Table::new(&["NAME", "TYPE", "LABELS", "MEANING"]);
    for definition in &catalogue {
        table.row([definition.name, kind(definition), &definition.labels.join(", "), definition.help]);
    }
    Ok(table.write(&mut out, Paint::of_stdout())?)
}

fn kind(definition: &Definition) -> &'static str {
    match definition.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram { .. } => "histogram",
    }
}

fn as_json(definition: &Definition) -> Value {
    let Definition { name, help, labels, series_max, kind: of, audience } = definition;
    let internal = match audience {
        Audience::Operators => false,
        Audience::Internal => true,
    };
    let mut value = json!({
        "name": name, "type": kind(definition), "help": help, "labels": labels, "seriesMax": series_max,
        "internal": internal,
    });
    if let Kind::Histogram { buckets, reason } = of {
        value["buckets"] = json!(buckets);
        value["bucketsReason"] = json!(reason);
    }
    value
}

fn markdown(catalogue: &[Definition]) -> String {
    let mut text = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for definition in catalogue {
        let labels = definition.labels.join(", ");
        let help = definition.help.replace('|', "\\|");
        text.push_str(&format!("| `{}` | {} | {labels} | {help} |\n", definition.name, kind(definition)));
    }
    text
}
