//! `plimsoll usage`: what agents used, in requests, tokens and dollars.

use std::io::Write as _;

use serde_json::{Value, json};

use super::exit::Failure;
use super::target::TargetArgs;
use super::terminal::{Paint, Table, one_line};
use crate::clock::Timestamp;
use crate::ids::AgentId;
use crate::limits::USAGE_SINCE_DEFAULT;

/// Shows what agents used: requests, tokens, cost. Calls without a price are named, never counted as free.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
USD is what calls are known to cost. EST_USD stands beside it: about what was used by calls that
were stopped, or did not say it; EST_TOKENS is the same in tokens. Budgets count both. Estimates are
rather too low: what a coding agent sends besides your message is in them only as far as its turns
before told. UNPRICED calls are in no dollars: their model has no price. `-` stands where none has.

Examples:
  plimsoll usage
  plimsoll usage --by model --since 30d
  plimsoll usage --by day --agent reviewer --json | jq .total.costUsd")]
pub(crate) struct Args {
    /// What the rows are.
    #[arg(long, value_enum, default_value_t = By::Agent)]
    by: By,
    /// Since when: a length of time, an RFC 3339 time, or epoch milliseconds. The hour that holds it is
    /// shown whole, past two days the day.
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
const NUMBERS: [(&str, &str); 9] = [
    ("REQUESTS", "requests"),
    ("FAILED", "failed"),
    ("CALLS", "calls"),
    ("INPUT", "inputTokens"),
    ("OUTPUT", "outputTokens"),
    ("EST_TOKENS", "estimatedTokens"),
    ("USD", "costUsd"),
    ("EST_USD", "estimatedUsd"),
    ("UNPRICED", "unpriced"),
];

/// Decimals of dollars, unless the least amount in the column needs more: what cost something never looks free.
const DECIMALS: usize = 4;
/// Decimals that there are: the server counts picodollars.
const DECIMALS_MAX: usize = 12;

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
    for line in period(&answer).into_iter().chain(unreported(&answer)).chain(unpriced(&answer)) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The rows, then their sum. Numbers stand flush right.
fn table(answer: &Value, names: &[(&str, &str)]) -> Table {
    let rows = || answer.get("rows").and_then(Value::as_array).into_iter().flatten();
    let total = answer.get("total").unwrap_or(&Value::Null);
    let decimals = |key: &str| decimals(rows().chain([total]).filter_map(|row| row.get(key)?.as_f64()));
    let decimals = [decimals("costUsd"), decimals("estimatedUsd")];
    let line = |row: &Value| {
        let name = |(_, key): &(&str, &str)| {
            let name = row.get(*key).and_then(Value::as_str).unwrap_or("(others)");
            one_line(name).into_owned()
        };
        names.iter().map(name).chain(numbers(row, decimals)).collect()
    };
    let mut lines: Vec<Vec<String>> = rows().map(line).collect();
    let first = std::iter::once("total".to_owned());
    let empty = std::iter::repeat_n(String::new(), names.len() - 1);
    lines.push(first.chain(empty).chain(numbers(total, decimals)).collect());
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

fn numbers(row: &Value, [known, estimated]: [usize; 2]) -> Vec<String> {
    let dollars = |cost: &Value, decimals| {
        cost.as_f64().map_or_else(|| "-".to_owned(), |cost| format!("{cost:.decimals$}"))
    };
    let show = |(_, key): &(&str, &str)| match (*key, row.get(*key)) {
        ("costUsd", Some(cost)) => dollars(cost, known),
        ("estimatedUsd", Some(cost)) => dollars(cost, estimated),
        (_, Some(number)) => number.to_string(),
        (_, None) => String::new(),
    };
    NUMBERS.iter().map(show).collect()
}

/// How many decimals a column of dollars has: as many as show the least amount to a twentieth of it.
fn decimals(costs: impl Iterator<Item = f64>) -> usize {
    let least = costs.filter(|cost| *cost > 0.0).fold(f64::INFINITY, f64::min);
    let shows_it = |decimals: &usize| {
        format!("{least:.decimals$}").parse::<f64>().is_ok_and(|shown| (shown - least).abs() <= least * 0.05)
    };
    if least.is_finite() { (DECIMALS..DECIMALS_MAX).find(shows_it).unwrap_or(DECIMALS_MAX) } else { DECIMALS }
}

/// What the table covers: more than was asked for, as what is kept is kept by the hour, and later by the day.
fn period(answer: &Value) -> Option<String> {
    let time = |key: &str| answer.get(key)?.as_u64().map(Timestamp::from_millis);
    let zone = one_line(answer.get("timeZone")?.as_str()?).into_owned();
    Some(format!("from {} until {} (days of {zone})", time("since")?, time("until")?))
}

/// One line where calls did not say all.
fn unreported(answer: &Value) -> Option<String> {
    let calls = answer.pointer("/total/unreported")?.as_u64().filter(|calls| *calls > 0)?;
    Some(format!(
        "unreported: {} did not say all tokens; EST_ columns have about what they lack",
        count(calls)
    ))
}

fn count(calls: u64) -> String {
    if calls == 1 { "1 call".to_owned() } else { format!("{calls} calls") }
}

/// One line for each model whose calls are not all in the dollars above.
fn unpriced(answer: &Value) -> Vec<String> {
    let models = answer.get("unpricedModels").and_then(Value::as_array);
    let line = |model: &Value| {
        let text =
            |key: &str| one_line(model.get(key).and_then(Value::as_str).unwrap_or_default()).into_owned();
        let calls = model.get("calls").and_then(Value::as_u64).unwrap_or_default();
        let calls = count(calls);
        format!("unpriced: {calls} of {} ({}), not in the dollars above", text("model"), text("provider"))
    };
    models.into_iter().flatten().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cost_something_never_looks_free_and_a_column_has_one_number_of_decimals() {
        for (costs, expected) in [
            (&[][..], 4),
            (&[0.0], 4),
            (&[0.01056, 0.002_666_25, 7.5], 4),
            (&[0.001, 0.000_04], 5),
            (&[0.000_001_5, 2.0], 7),
            (&[1e-12], 12),
        ] {
            assert_eq!(decimals(costs.iter().copied()), expected, "{costs:?}");
        }
    }

    #[test]
    fn numbers_stand_flush_right_and_what_has_no_price_is_named() {
        let amounts = |n: u64| {
            json!({"requests": n, "failed": 0, "calls": n, "inputTokens": 10 * n, "outputTokens": n,
                "estimatedTokens": 3, "costUsd": 0.5, "estimatedUsd": 0.000_04, "unpriced": 1, "unreported": 2})
        };
        let mut row = amounts(7);
        (row["agent"], row["costUsd"]) = (json!("a"), Value::Null);
        let model = json!({"provider": "p", "model": "m\u{1b}", "calls": 1});
        let answer = json!({
            "rows": [row, amounts(1_000)], "total": amounts(1_007), "unpricedModels": [model],
            "since": 0, "until": 3_600_000, "timeZone": "UTC",
        });
        let mut out = Vec::new();
        let table = table(&answer, By::Agent.names().1);
        table.write(&mut out, Paint::Plain).expect("a vector takes all");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "AGENT     REQUESTS  FAILED  CALLS  INPUT  OUTPUT  EST_TOKENS     USD  EST_USD  UNPRICED\n\
             a                7       0      7     70       7           3       -  0.00004         1\n\
             (others)      1000       0   1000  10000    1000           3  0.5000  0.00004         1\n\
             total         1007       0   1007  10070    1007           3  0.5000  0.00004         1\n"
        );
        assert_eq!(unpriced(&answer), ["unpriced: 1 call of m\\u{1b} (p), not in the dollars above"]);
        let covered = "from 1970-01-01T00:00:00.000Z until 1970-01-01T01:00:00.000Z (days of UTC)";
        assert_eq!(period(&answer).as_deref(), Some(covered));
        assert!(unreported(&answer).is_some_and(|line| line.starts_with("unreported: 2 calls")));
    }
}
