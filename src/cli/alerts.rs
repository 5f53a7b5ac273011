//! `plimsoll alerts`: the alert rules that come with the program, rendered for those who run them.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::exit::Failure;
use super::terminal::{Paint, Table};
use crate::rules::grafana::{self, Twin, Uid};
use crate::rules::{BaseUrl, Group, Links, Rules, Setting, Threshold, prometheus, thresholds};

/// Prints the alert rules for Prometheus or Grafana, with thresholds of your own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: AlertsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AlertsCommand {
    Prometheus(PrometheusArgs),
    Grafana(GrafanaArgs),
    Thresholds(ThresholdsArgs),
}

/// Prints the rules as a file that Prometheus loads (2.42 and newer).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll alerts prometheus --output /etc/prometheus/rules/plimsoll.rules.yaml
  plimsoll alerts prometheus --threshold queue_depth=100 --threshold tick_seconds=0.25 --output plimsoll.rules.yaml
  plimsoll alerts prometheus --grafana-url https://grafana.example.com | promtool check rules")]
struct PrometheusArgs {
    #[command(flatten)]
    render: RenderArgs,
    /// Divides every length of time but those of thresholds, for tests that cannot wait.
    #[arg(long, hide = true, value_name = "N", default_value = "1")]
    durations_divided_by: NonZeroU32,
}

/// Prints the alerts as a file that provisions Grafana with rules of its own (10.4.1 and newer; made for 12.2).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll alerts grafana --output /etc/grafana/provisioning/alerting/plimsoll.yaml
  plimsoll alerts grafana --data-source my-prometheus --threshold queue_depth=100 > plimsoll.yaml

The alerts read series that Prometheus records: it needs the rules of `plimsoll alerts prometheus` too.")]
struct GrafanaArgs {
    #[command(flatten)]
    render: RenderArgs,
    /// The uid of Prometheus among Grafana's data sources.
    #[arg(long, value_name = "UID", default_value = "plimsoll-prometheus", value_parser = Uid::parse)]
    data_source: Uid,
    /// Pauses every rule: for those who are told by Alertmanager, and once.
    #[arg(long)]
    paused: bool,
}

/// What every rendering takes.
#[derive(Debug, clap::Args)]
struct RenderArgs {
    /// Sets a threshold; `plimsoll alerts thresholds` lists them. May be given many times.
    #[arg(long = "threshold", value_name = "NAME=VALUE", value_parser = Setting::parse)]
    thresholds: Vec<Setting>,
    /// Where the files of plimsoll's repository are served: makes the links to runbooks absolute.
    #[arg(long, value_name = "URL", value_parser = BaseUrl::parse)]
    runbook_base: Option<BaseUrl>,
    /// Where your Grafana is: makes the links to dashboards absolute.
    #[arg(long, value_name = "URL", value_parser = BaseUrl::parse)]
    grafana_url: Option<BaseUrl>,
    /// Writes to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Lists the thresholds that can be set, with their defaults.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll alerts thresholds
  plimsoll alerts thresholds --json | jq -r '.[] | \"\\(.name)=\\(.default)\"'")]
struct ThresholdsArgs {
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        AlertsCommand::Prometheus(args) => render_prometheus(args),
        AlertsCommand::Grafana(args) => render_grafana(args),
        AlertsCommand::Thresholds(args) => list(args),
    }
}

impl RenderArgs {
    /// The rules as they were asked for, `more` among them.
    fn rules(&self, more: Vec<Group>) -> Result<Rules, Failure> {
        let mut rules = Rules::embedded();
        rules.groups.extend(more);
        let set = rules.set(&self.thresholds, &crate::catalogue::all());
        set.map_err(|error| Failure::Usage(error.to_string()))?;
        let Self { runbook_base, grafana_url, .. } = self;
        rules.link(&Links { runbook_base: runbook_base.clone(), grafana_url: grafana_url.clone() });
        Ok(rules)
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        match &self.output {
            None => Ok(std::io::stdout().write_all(text.as_bytes())?),
            Some(path) => std::fs::write(path, text).map_err(|error| unwritable(path, error)),
        }
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Failure {
    Failure::Input(format!("{} cannot be written", path.display()), error)
}

fn render_prometheus(args: &PrometheusArgs) -> Result<(), Failure> {
    let mut rules = args.render.rules(Vec::new())?;
    rules.divide_durations(args.durations_divided_by);
    args.render.write(&prometheus::render(&rules))
}

fn render_grafana(args: &GrafanaArgs) -> Result<(), Failure> {
    let rules = args.render.rules(grafana::only_here())?;
    let twin = Twin { data_source: args.data_source.clone(), paused: args.paused };
    let text = grafana::render(&rules, &twin).map_err(|error| Failure::Bug(error.to_string()))?;
    args.render.write(&text)
}

fn list(args: &ThresholdsArgs) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if args.json {
        let all: Vec<Value> = thresholds().iter().map(as_json).collect();
        return Ok(writeln!(out, "{}", Value::from(all))?);
    }
    let mut table = Table::new(&["NAME", "DEFAULT", "UNIT", "MEANING", "RULES"]);
    for one in thresholds() {
        let rules = one.rules().collect::<Vec<_>>().join(", ");
        table.row([one.name.as_str(), &one.default.to_string(), &one.unit, &meaning(&one), &rules]);
    }
    Ok(table.write(&mut out, Paint::of_stdout())?)
}

/// With the edges, where it can be nothing else.
fn meaning(threshold: &Threshold) -> String {
    match threshold.edges(&crate::catalogue::all()) {
        None => threshold.meaning.clone(),
        Some(edges) => format!("{}; one of {}", threshold.meaning, crate::rules::listed(edges)),
    }
}

fn as_json(threshold: &Threshold) -> Value {
    json!({
        "name": threshold.name, "default": threshold.default, "unit": threshold.unit,
        "meaning": threshold.meaning, "rules": threshold.rules().collect::<Vec<_>>(),
        "oneOf": threshold.edges(&crate::catalogue::all()),
    })
}
