//! `plimsoll usage`: what agents used, in requests, tokens and dollars.

use std::io::Write as _;

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table, one_line};
use crate::ids::AgentId;
use crate::limits::USAGE_SINCE_DEFAULT;

/// Shows what agents used: requests, tokens, cost. Calls without a price are named, never counted as free.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "USD is what calls are known to cost. ESTIMATED is in dollars too and stands beside it: about what
was used by calls that were stopped, or did not say it. It is rather too low: what a coding agent
sends besides your message is in it only as far as its turns before told. Budgets count both. UNPRICED calls are in
neither: their model has no price.

Examples:
  plimsoll usage
  plimsoll usage --by model --since 30d
  plimsoll usage --by day --agent reviewer --json | jq .total.costUsd"
)]
pub(crate) struct Args {
    /// What the rows are.
    #[arg(long, value_enum, default_value_t = By::Agent)]
    by: By,
    /// Since when: a length of time, an RFC 3339 time, or epoch milliseconds. Past two days it begins with the day.
    #[arg(long, default_value = USAGE_SINCE_DEFAULT)]
    since: String,
    /// Only this agent.
    #[arg(long, value_parser = AgentId::parse)]
    agent: Option<AgentId>,
    /// Prints the server's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Agent,
    Model,
    Session,
    Day,
}

impl By {
    /// As the API says it, with the columns that name a row: their heads and keys.
    const fn names(self) -> (&'static str, &'static [(&'static str, &'static str)]) {
        match self {
            Self::Agent => ("agent", &[("AGENT", "agent")]),
            Self::Model => ("model", &[("PROVIDER", "provider"), ("MODEL", "model")]),
            Self::Session => ("session", &[("AGENT", "agent"), ("SESSION", "session")]),
            Self::Day => ("day", &[("DAY", "day")]),
        }
    }
}

/// The columns of numbers: their heads and keys.
const NUMBERS: [(&str, &str); 8] = [
    ("REQUESTS", "requests"),
    ("FAILED", "failed"),
    ("CALLS", "calls"),
    ("INPUT", "inputTokens"),
    ("OUTPUT", "outputTokens"),
    ("USD", "costUsd"),
    ("ESTIMATED", "estimatedUsd"),
    ("UNPRICED", "unpriced"),
];

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (by, names) = args.by.names();
    let mut params = json!({"by": by, "since": args.since});
    if let Some(agent) = &args.agent {
        params["agent"] = json!(agent);
    }
    let client = args.target.client()?;
    let answer = super::block_on(client.call("usage.query", params))??;
    let mut out = std::io::stdout();
    if args.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    table(&answer, names).write(&mut out, Paint::of_stdout())?;
    for line in unpriced(&answer) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The rows, then their sum. Numbers stand flush right.
fn table(answer: &Value, names: &[(&str, &str)]) -> Table {
    let rows = answer.get("rows").and_then(Value::as_array);
    let mut lines: Vec<Vec<String>> = rows
        .into_iter()
        .flatten()
        .map(|row| {
            let name = |(_, key): &(&str, &str)| {
                let name = row.get(*key).and_then(Value::as_str).unwrap_or("(others)");
                one_line(name).into_owned()
            };
            names.iter().map(name).chain(numbers(row)).collect()
        })
        .collect();
    let total = answer.get("total").unwrap_or(&Value::Null);
    let first = std::iter::once("total".to_owned());
    let empty = std::iter::repeat_n(String::new(), names.len() - 1);
    lines.push(first.chain(empty).chain(numbers(total)).collect());
    let heads: Vec<&str> = names.iter().chain(&NUMBERS).map(|(head, _)| *head).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let flush = |cells: Vec<String>| -> Vec<String> {
        let flush = |(column, cell): (usize, String)| {
            if column < names.len() { cell } else { format!("{cell:>width$}", width = widths[column]) }
        };
        cells.into_iter().enumerate().map(flush).collect()
    };
    let heads = flush(heads.iter().map(|head| (*head).to_owned()).collect());
    let mut table = Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    lines.into_iter().for_each(|line| table.cells(flush(line)));
    table
}

fn numbers(row: &Value) -> Vec<String> {
    let show = |(_, key): &(&str, &str)| match (*key, row.get(*key)) {
        ("costUsd" | "estimatedUsd", Some(cost)) => dollars(cost.as_f64().unwrap_or_default()),
        (_, Some(number)) => number.to_string(),
        (_, None) => String::new(),
    };
    NUMBERS.iter().map(show).collect()
}

/// Four decimals, and below a cent as many as it takes: what cost something never looks free.
fn dollars(cost: f64) -> String {
    if cost == 0.0 || cost >= 0.01 {
        return format!("{cost:.4}");
    }
    let digits = format!("{cost:.10}");
    let shown = digits.trim_end_matches('0');
    format!("{shown:0<6}")
}

/// One line for each model whose calls are not all in the dollars above.
fn unpriced(answer: &Value) -> Vec<String> {
    let models = answer.get("unpricedModels").and_then(Value::as_array);
    let line = |model: &Value| {
        let text =
            |key: &str| one_line(model.get(key).and_then(Value::as_str).unwrap_or_default()).into_owned();
        let calls = model.get("calls").and_then(Value::as_u64).unwrap_or_default();
        let calls = if calls == 1 { "1 call".to_owned() } else { format!("{calls} calls") };
        format!("unpriced: {calls} of {} ({}), not in the dollars above", text("model"), text("provider"))
    };
    models.into_iter().flatten().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cost_something_never_looks_free() {
        for (cost, shown) in
            [(0.0, "0.0000"), (0.000_04, "0.00004"), (0.001, "0.0010"), (0.01, "0.0100"), (1.5, "1.5000")]
        {
            assert_eq!(dollars(cost), shown);
        }
    }

    #[test]
    fn numbers_stand_flush_right_and_what_has_no_price_is_named() {
        let amounts = |n: u64| {
            json!({"requests": n, "failed": 0, "calls": n, "inputTokens": 10 * n, "outputTokens": n,
                "costUsd": 0.5, "estimatedUsd": 0.004, "unpriced": 1})
        };
        let mut row = amounts(7);
        row["agent"] = json!("a");
        let model = json!({"provider": "p", "model": "m\u{1b}", "calls": 1});
        let answer =
            json!({"rows": [row, amounts(1_000)], "total": amounts(1_007), "unpricedModels": [model]});
        let mut out = Vec::new();
        let table = table(&answer, By::Agent.names().1);
        table.write(&mut out, Paint::Plain).expect("a vector takes all");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "AGENT     REQUESTS  FAILED  CALLS  INPUT  OUTPUT     USD  ESTIMATED  UNPRICED\n\
             a                7       0      7     70       7  0.5000     0.0040         1\n\
             (others)      1000       0   1000  10000    1000  0.5000     0.0040         1\n\
             total         1007       0   1007  10070    1007  0.5000     0.0040         1\n"
        );
        assert_eq!(unpriced(&answer), ["unpriced: 1 call of m\\u{1b} (p), not in the dollars above"]);
    }
}
