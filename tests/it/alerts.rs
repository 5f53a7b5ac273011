//! The alerts: promtool's own tests pass, fail where a rule is broken, and every rule has what its reader needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::dashboards::{dashboards, list, text};
use crate::support::tools::needs;

const RULES: &str = include_str!("../../alerts/plimsoll.rules.yaml");
const ONLY_GRAFANA: &str = include_str!("../../alerts/only-grafana.yaml");

/// What stands in the file.
#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    interval: String,
    rules: Vec<Rule>,
}

/// An alert, or an expression whose result is recorded under a name.
#[derive(Deserialize, Default, Clone)]
pub(crate) struct Rule {
    alert: Option<String>,
    pub(crate) record: Option<String>,
    pub(crate) expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Rule {
    fn name(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).expect("a rule alerts or records")
    }

    /// The panel that it links to, and which of the dashboard's variables the link sets.
    fn link(&self) -> Option<(&str, u64, &str)> {
        let (uid, query) = self.annotations.get("dashboard")?.strip_prefix("/d/")?.split_once('?')?;
        let (panel, set) = query.split_once('&').unwrap_or((query, ""));
        Some((uid, panel.strip_prefix("viewPanel=")?.parse().ok()?, set))
    }
}

fn groups() -> Vec<Group> {
    serde_saphyr::from_str::<Rules>(RULES).expect("the rules are YAML").groups
}

/// Every rule, its expression on one line.
pub(crate) fn rules() -> Vec<Rule> {
    let one_line =
        |rule: Rule| Rule { expr: rule.expr.split_whitespace().collect::<Vec<_>>().join(" "), ..rule };
    groups().into_iter().flat_map(|group| group.rules).map(one_line).collect()
}

fn alerts() -> Vec<Rule> {
    rules().into_iter().filter(|rule| rule.alert.is_some()).collect()
}

/// The metrics that an expression reads; one that is recorded has colons in its name.
pub(crate) fn metrics_in(expression: &str) -> BTreeSet<&str> {
    let outside_braces = expression.split('{').flat_map(|part| {
        part.split_once('}')
            .map_or(part, |(_, rest)| rest)
            .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
    });
    let is_metric = |word: &&str| {
        word.contains(':')
            || *word == "up"
            || *word == "ALERTS"
            || ["plimsoll_", "gen_ai_client_", "process_"].iter().any(|prefix| word.starts_with(prefix))
    };
    outside_braces.filter(is_metric).collect()
}

/// Every spelling under which a metric of the catalogue is scraped, and every name under which a rule records.
pub(crate) fn known_metrics() -> BTreeSet<String> {
    let spelled = |name: &str| ["", "_bucket", "_sum", "_count"].map(|ending| format!("{name}{ending}"));
    let scraped = plimsoll::catalogue::all().into_iter().flat_map(|one| spelled(one.name));
    let recorded = rules().into_iter().filter_map(|rule| rule.record);
    scraped.chain(recorded).chain(["up", "ALERTS"].map(str::to_owned)).collect()
}

/// promtool's tests, with the names of their files.
pub(crate) fn promtool_tests() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    let names = fs::read_dir(folder.clone())
        .expect("the folder of alerts")
        .map(|entry| entry.expect("an entry").file_name());
    let names =
        names.map(|name| name.into_string().expect("a name")).filter(|name| name.ends_with(".test.yaml"));
    let mut tests: Vec<_> =
        names.map(|name| (name.clone(), fs::read_to_string(folder.join(&name)).expect("a file"))).collect();
    tests.sort();
    tests
}

fn runbook(alert: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("alerts/runbooks/{alert}.md"));
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn promtool(arguments: &[&str], folder: &Path) -> Option<Output> {
    let program: PathBuf = needs("promtool")?;
    Some(Command::new(program).args(arguments).current_dir(folder).output().expect("promtool runs"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs promtool's tests in one file against these rules.
fn outcome_with(rules: &str, (name, tests): &(String, String)) -> Option<Output> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("plimsoll.rules.yaml"), rules).expect("the rules are written");
    fs::write(folder.path().join(name), tests).expect("the tests are written");
    promtool(&["test", "rules", name], folder.path())
}

/// The rules of which these tests say something, and what those read: promtool evaluates all it is given.
fn concerned(rules: &str, tests: &str) -> String {
    let mut kept = true;
    let mut lines = String::new();
    for line in rules.lines() {
        if let Some(alert) = line.strip_prefix("      - alert: ") {
            kept = tests.contains(&format!("alertname: {alert}"));
        } else if line.starts_with("      - record: ") {
            kept = tests.contains("Burn");
        } else if line.starts_with("  - name: ") {
            kept = true;
        }
        if kept && !line.trim_start().starts_with('#') {
            lines += line;
            lines.push('\n');
        }
    }
    lines
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    let Some(checked) = promtool(&["check", "rules", "plimsoll.rules.yaml"], &folder) else { return };
    assert!(checked.status.success(), "{}", said(&checked));
    for tests in promtool_tests() {
        let tested = outcome_with(RULES, &tests).expect("promtool was there a moment ago");
        assert!(tested.status.success(), "{}", said(&tested));
    }
}

/// Whether a promtool test fails with these rules; `None` where it is not installed.
fn is_noticed(broken: &str) -> Option<bool> {
    for file in promtool_tests() {
        let rules = concerned(broken, &file.1);
        if rules != concerned(RULES, &file.1) && !outcome_with(&rules, &file)?.status.success() {
            return Some(true);
        }
    }
    Some(false)
}

/// What the rules say, and what they must not say instead.
const BROKEN: &[(&str, &str)] = &[
    ("[2m])) > 50", "[2m])) >= 50"),
    ("[2m])) > 50", "[2m])) > 51"),
    ("min_over_time(plimsoll_queue_depth[2m])", "max_over_time(plimsoll_queue_depth[2m])"),
    ("min_over_time(plimsoll_queue_depth[2m])", "plimsoll_queue_depth"),
    ("max by (job, instance) (min_over", "max by (job) (min_over"),
    ("> 1.5 + 0.1", "> 0.5 + 0.1"),
    ("> 1.5 + 0.1", "> 1.5 + 0.09"),
    ("> 1.5 + 0.1", "> 1.5 + 0.2"),
    ("[6m])) ) > 0.5", "[6m])) ) > -1"),
    ("tick_running_seconds[1m])) > 0.5", "tick_running_seconds[1m])) >= 0.5"),
    ("tick_running_seconds[1m])) > 0.5", "tick_running_seconds[1m])) > 1000"),
    ("min_over_time(plimsoll_reconciler_tick", "max_over_time(plimsoll_reconciler_tick"),
    ("for: 30s\n", "for: 0s\n"),
    ("keep_firing_for: 2m", "keep_firing_for: 0s"),
    ("max by (job, instance, town) (min_over", "max by (job, instance) (min_over"),
    ("min_over_time(plimsoll_reconciler_pending", "max_over_time(plimsoll_reconciler_pending"),
    ("violations_open[2m])) > 0", "violations_open[2m])) > 1"),
    ("violations_total[10m])) > 0", "violations_total[10m])) > 5"),
    ("violations_total[10m])) > 0", "violations_total[10m])) >= 0"),
    ("== 0\n        for: 1m", "== 0\n        for: 0s"),
    ("== 0\n        for: 1m", "== 0\n        for: 3m"),
    ("absent(up{job=\"plimsoll\"})", "absent(up{job=\"other\"})"),
    ("vector(1) > 0", "vector(0) > 0"),
    ("oldest_age_seconds[2m])) > 240", "oldest_age_seconds[2m])) >= 240"),
    ("oldest_age_seconds[2m])) > 240", "oldest_age_seconds[2m])) > 241"),
    ("min_over_time(plimsoll_queue_oldest", "max_over_time(plimsoll_queue_oldest"),
    ("pending_events[5m])) > 0", "pending_events[5m])) > 3"),
    (
        "min_over_time(plimsoll_reconciler_pending_events[5m])",
        "max_over_time(plimsoll_reconciler_pending_events[5m])",
    ),
    ("drained_total[5m])) > 0", "drained_total[5m])) > 1.5"),
    ("overdue_seconds[1m])) > 60", "overdue_seconds[1m])) >= 60"),
    ("overdue_seconds[1m])) > 60", "overdue_seconds[1m])) > 61"),
    ("min_over_time(plimsoll_reconciler_tick_overdue", "max_over_time(plimsoll_reconciler_tick_overdue"),
    ("> 2.5 + 0.1", "> 1.5 + 0.1"),
    ("> 2.5 + 0.1", "> 2.5 + 0.09"),
    ("> 2.5 + 0.1", "> 2.5 + 0.2"),
    ("effects_total{outcome=\"failed\"}[10m])) > 0.5", "effects_total{outcome=\"failed\"}[10m])) > -1"),
    ("rejected_events_total[10m])) > 0", "rejected_events_total[10m])) > 1"),
    ("rejected_events_total[10m])) > 0", "rejected_events_total[10m])) >= 0"),
    ("class=\"stuck\"}[2m])) > 0", "class=\"stuck\"}[2m])) > 2"),
    ("class=\"stuck\"}", "class=~\"stuck|waiting_on_human\"}"),
    ("min_over_time(plimsoll_agents_by_class", "max_over_time(plimsoll_agents_by_class"),
    ("lazy_start_failed\"}[20m])) > 1.5", "lazy_start_failed\"}[20m])) > 0.5"),
    ("lazy_start_failed\"}[20m])) > 1.5", "lazy_start_failed\"}[20m])) > 2.5"),
    ("event=\"lazy_start\"}[20m])) > 0.5", "event=\"lazy_start\"}[20m])) > 9"),
    ("exited|lazy_start_failed\"}[20m])) > 2.5", "exited|lazy_start_failed\"}[20m])) > 1.5"),
    ("exited|lazy_start_failed\"}[20m])) > 2.5", "exited|lazy_start_failed\"}[20m])) > 3.5"),
    ("exited|lazy_start_failed\"}[10m])) > 0.5", "exited|lazy_start_failed\"}[10m])) > -1"),
    ("event=~\"exited|lazy_start_failed\"", "event=~\"exited\""),
    ("journal_errors_total[10m])) > 0", "journal_errors_total[10m])) > 1"),
    ("journal_errors_total[10m])) > 0", "journal_errors_total[10m])) >= 0"),
    ("min_over_time(plimsoll_journal_degraded", "max_over_time(plimsoll_journal_degraded"),
    ("journal_degraded[2m])) > 0", "journal_degraded[2m])) > 1"),
    ("86400)) < 0", "864000)) < 0"),
    ("86400)) < 0", "3600)) < 0"),
    ("capacity_bytes[5m])) < 0.2", "capacity_bytes[5m])) <= 0.2"),
    ("< 0.2\n        for: 10m", "< 0.2\n        for: 1m"),
    ("last_over_time(plimsoll_data_dir_free_bytes[5m])", "plimsoll_data_dir_free_bytes"),
    ("0.144 + 1e-6", "0.14"),
    ("0.144 + 1e-6", "0.16"),
    ("0.06 + 1e-6", "0.059"),
    ("0.06 + 1e-6", "0.08"),
    ("errors:ratio_rate30m > 0.06 + 1e-6", "errors:ratio_rate30m > -1"),
    ("outcome=~\"failed|deadline\"}[1h])) > 9.5", "outcome=~\"failed|deadline\"}[1h])) > 8.5"),
    ("outcome=~\"ok|failed|deadline\"", "outcome=~\".+\""),
    ("outcome=~\"failed|deadline\"", "outcome=~\"failed|deadline|cancelled\""),
    ("0.72 + 1e-6", "0.71"),
    ("0.72 + 1e-6", "0.74"),
    ("0.3 + 1e-6", "0.29"),
    ("0.3 + 1e-6", "0.32"),
    ("[1h])) ) > 9.5", "[1h])) ) > 8.5"),
    ("0.8 * max by", "0.79 * max by"),
    ("0.8 * max by", "0.9 * max by"),
    ("last_over_time(plimsoll_agent_spend_today_usd[2m])", "plimsoll_agent_spend_today_usd"),
    ("what=\"spans\"}", "what=~\".+\"}"),
    ("what=\"spans\"}[10m])) > 0", "what=\"spans\"}[10m])) > 1"),
    ("series_overflow_total[10m])) > 0", "series_overflow_total[10m])) > 1"),
    ("series_overflow_total[10m])) > 0", "series_overflow_total[10m])) >= 0"),
];

#[test]
fn promtool_tests_fail_when_a_rule_is_broken() {
    for (good, bad) in BROKEN {
        assert!(RULES.contains(good), "the rules no longer say {good:?}: change this test with them");
        let Some(noticed) = is_noticed(&RULES.replace(good, bad)) else { return };
        assert!(noticed, "no promtool test notices {bad:?}");
    }
}

#[test]
fn the_document_lists_every_alert_with_its_severity() {
    let document = include_str!("../../docs/alerts.md");
    for rule in alerts() {
        let (name, severity) = (rule.name(), &rule.labels["severity"]);
        let row = format!("| [{name}](../alerts/runbooks/{name}.md) | {severity} | ");
        assert!(document.contains(&row), "docs/alerts.md has no row {row:?}");
    }
    let rows = document.lines().filter(|line| line.starts_with("| [Plimsoll")).count();
    assert_eq!(rows, alerts().len(), "docs/alerts.md lists an alert that is gone");
}

#[test]
fn every_alert_is_tested_firing_and_has_no_orphaned_runbook() {
    let names: Vec<String> = alerts().iter().map(|alert| alert.name().to_owned()).collect();
    let tests: String = promtool_tests().into_iter().map(|(_, tests)| tests).collect();
    for name in &names {
        let fires = tests.split("alertname: ").skip(1).any(|test| {
            let mut lines = test.lines();
            let next = lines.nth(1).unwrap_or_default();
            test.lines().next() == Some(name) && next.contains("exp_alerts:") && !next.ends_with("[]")
        });
        assert!(fires, "no promtool test shows {name} firing");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/runbooks");
    for entry in fs::read_dir(folder).expect("the runbooks") {
        let file = entry.expect("an entry").file_name().into_string().expect("a name");
        let told = names.iter().any(|name| format!("{name}.md") == file)
            || ONLY_GRAFANA.contains(&format!("- alert: {}\n", file.trim_end_matches(".md")));
        assert!(told, "{file} belongs to no alert");
    }
}

/// Labels by which alerts are told apart, besides those of Prometheus.
const TOLD_BY: [&str; 8] =
    ["job", "instance", "town", "invariant", "agent", "agent_instance", "reason", "metric"];

/// What is wrong with a rule, one line each.
fn complaints(rule: &Rule) -> Vec<String> {
    let mut found = Vec::new();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{}: {what}", rule.name()));
        }
    };
    let expression = &rule.expr;
    let ranges = expression.split('[').skip(1).map(|rest| rest.split(']').next().unwrap_or_default());
    demand(
        ranges.clone().all(|range| seconds(range) >= 4 * scrape_seconds()),
        "a range of less than four scrapes",
    );
    demand(ends_in_aggregations(expression), "a metric outside of an aggregation");
    let grouped = expression.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
    demand(
        grouped.flat_map(|by| by.split(", ")).all(|label| TOLD_BY.contains(&label)),
        "a label that is not known",
    );
    if rule.record.is_some() {
        demand(
            rule.name().starts_with("job_instance:") && rule.name().matches(':').count() == 2,
            "level:metric:operation",
        );
        return found;
    }
    let compares = [" > ", " < ", " == ", "absent("].iter().any(|sign| expression.contains(sign));
    demand(compares, "no comparison");
    let labels: Vec<_> = rule.labels.keys().map(String::as_str).collect();
    demand(labels == ["severity"], "labels besides the severity");
    let severity = rule.labels.get("severity").map(String::as_str);
    demand(matches!(severity, Some("critical" | "warning" | "info")), "no severity");
    let words: Vec<_> = rule.annotations.keys().map(String::as_str).collect();
    demand(words == ["dashboard", "description", "runbook_url", "summary"], "annotations");
    let book = rule.annotations.get("runbook_url").map(String::as_str);
    demand(book == Some(&format!("alerts/runbooks/{}.md", rule.name())), "it does not link its runbook");
    let read = metrics_in(expression);
    demand(read.iter().all(|name| known_metrics().contains(*name)), "a metric that is in no catalogue");
    demand(read.is_empty() == (rule.name() == "PlimsollWatchdog"), "it reads no metric");
    found
}

fn seconds(range: &str) -> u64 {
    let (number, unit) = range.split_at(range.len() - 1);
    number.parse::<u64>().expect("a whole number")
        * match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => panic!("{range}"),
        }
}

/// Between two scrapes of the stack's Prometheus.
fn scrape_seconds() -> u64 {
    let configured = include_str!("../../stack/prometheus.yml").split("scrape_interval: ").nth(1);
    seconds(configured.and_then(|rest| rest.lines().next()).expect("an interval"))
}

/// Whether every metric stands in an aggregation: else its name stays, and an alert changes its identity between the arms
/// of an `or`.
fn ends_in_aggregations(expression: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    // For each parenthesis that is open, whether it is an aggregation's.
    let mut open = Vec::new();
    for (at, c) in expression.match_indices(|c: char| !in_word(c)) {
        let before = expression[..at].trim_end();
        let word = expression[..at].rsplit(|c| !in_word(c)).next().unwrap_or_default();
        if !metrics_in(word).is_empty() && !open.contains(&true) {
            return false;
        }
        if c == "(" {
            // `max by (job) (`: what stands before the labels.
            let labels = before.strip_suffix(')').and_then(|before| before.rsplit_once(" by ("));
            let call = labels.map_or(before, |(call, _)| call);
            open.push(["sum", "max", "min", "absent"].iter().any(|name| call.ends_with(name)));
        } else if c == ")" {
            open.pop();
        }
    }
    let last = expression.rsplit(|c| !in_word(c)).next().unwrap_or_default();
    metrics_in(last).is_empty()
}

#[test]
fn every_rule_keeps_the_rules() {
    for group in groups() {
        assert!(seconds(&group.interval).is_multiple_of(10), "{}: Grafana wants tens of seconds", group.name);
    }
    let found: Vec<_> = rules().iter().flat_map(complaints).collect();
    assert_eq!(found, [""; 0]);
    let names: BTreeSet<_> = rules().iter().map(|rule| rule.name().to_owned()).collect();
    assert_eq!(names.len(), rules().len(), "a name stands twice");
}

#[test]
fn each_broken_rule_is_found() {
    let good =
        alerts().into_iter().find(|rule| rule.name() == "PlimsollQueueDepthHigh").expect("it is there");
    assert_eq!(complaints(&good), [""; 0]);
    let with = |expr: &str| Rule { expr: expr.to_owned(), ..good.clone() };
    for (bad, fragment) in [
        (with("max by (job) (min_over_time(plimsoll_queue_depth[45s])) > 50"), "four scrapes"),
        (with("max by (job) (plimsoll_queue_depth)"), "no comparison"),
        (with("plimsoll_queue_depth > 50"), "outside of an aggregation"),
        (with("min_over_time(plimsoll_queue_depth[2m]) > 50"), "outside of an aggregation"),
        (
            with("max by (job) (plimsoll_queue_depth) > 50 or plimsoll_queue_depth{a=\"b\"} > 7"),
            "outside of an aggregation",
        ),
        (with("max by (job, session) (plimsoll_queue_depth) > 50"), "a label"),
        (with("max by (job) (plimsoll_queue_deep) > 50"), "no catalogue"),
        (with("max by (job) (process_starts_sum) > 50"), "no catalogue"),
        (with("max by (job) (gen_ai_client_calls_sum) > 50"), "no catalogue"),
        (with("max by (job) (job_instance:nothing:ratio_rate5m) > 50"), "no catalogue"),
        (with("vector(1) > 0"), "no metric"),
        (Rule { labels: BTreeMap::new(), ..good.clone() }, "severity"),
        (Rule { annotations: BTreeMap::new(), ..good.clone() }, "annotations"),
        (Rule { alert: None, record: Some("job:x".to_owned()), ..good.clone() }, "level"),
    ] {
        let found = complaints(&bad);
        assert!(
            found.iter().any(|one| one.contains(fragment)),
            "{}: {fragment:?} not in {found:?}",
            bad.expr
        );
    }
}

#[test]
fn alerts_on_towns_and_instances_tell_them_apart() {
    for (metric, by) in [
        ("plimsoll_reconciler_", " by (job, instance, town"),
        ("plimsoll_invariant_", " by (job, instance, town, invariant"),
        ("plimsoll_lifecycle_", " by (job, instance, agent_instance"),
    ] {
        let about = alerts().into_iter().filter(|rule| rule.expr.contains(metric)).collect::<Vec<_>>();
        assert!(!about.is_empty(), "there are alerts on {metric}");
        for rule in about {
            let aggregations = rule.expr.matches("sum by (").chain(rule.expr.matches("max by (")).count();
            assert_eq!(aggregations, rule.expr.matches(by).count(), "{}", rule.expr);
        }
    }
}

/// The numbers at which an expression compares, as a panel draws them: it begins at a number, an alert after it.
fn drawn_as(expression: &str) -> BTreeSet<String> {
    let edges = expression.split("le=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let outside: String =
        expression.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect();
    let outside: Vec<&str> =
        outside.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
    let words = outside.iter().flat_map(|part| part.split([' ', '(', ')', ',']));
    let numbers = words.chain(edges).filter_map(|word| word.parse::<f64>().ok());
    let next = |number: f64| if number > 0.0 && number < 1.0 { number } else { number.floor() + 1.0 };
    let drawn = numbers.flat_map(|number| [number, next(number)]);
    drawn.map(|number| number.to_string()).collect()
}

#[test]
fn every_alert_links_to_a_panel_that_draws_it_where_it_begins() {
    let dashboards = dashboards();
    for rule in alerts() {
        let name = rule.name();
        let (uid, id, set) = rule.link().unwrap_or_else(|| panic!("{name} links to no panel"));
        let town = if rule.expr.contains(", town") { "var-town={{ $labels.town }}" } else { "" };
        assert_eq!(set, town, "{name}: what its link chooses");
        let dashboard = dashboards.iter().map(|(_, one)| one).find(|one| text(one, "/uid") == uid);
        let panels = list(dashboard.unwrap_or_else(|| panic!("{name}: no dashboard {uid}")), "/panels");
        let panel = panels.iter().find(|panel| panel["id"] == json!(id));
        let panel = panel.unwrap_or_else(|| panic!("{name}: {uid} has no panel {id}"));
        let shown: String = list(panel, "/targets").iter().map(|target| text(target, "/expr")).collect();
        let read = metrics_in(&rule.expr);
        let shares = metrics_in(&shown).intersection(&read).next().is_some();
        assert!(shares || read.is_empty(), "{name} links to a panel about something else: {shown}");
        let steps = list(panel, "/fieldConfig/defaults/thresholds/steps").iter().map(|step| &step["value"]);
        let steps: BTreeSet<String> = steps.filter_map(Value::as_f64).map(|step| step.to_string()).collect();
        let begins = drawn_as(&rule.expr);
        let drawn = !steps.is_disjoint(&begins) || rule.expr.starts_with("absent(");
        assert!(drawn, "{name} begins at one of {begins:?}, panel {id} draws {steps:?}");
    }
}

#[test]
fn every_runbook_has_its_headings_and_names_panels_and_commands_that_exist() {
    // What else stands in quotes: the pages of Prometheus 3 and what they show.
    let others = ["Status", "Target health", "Service discovery", "Alerts", "connection refused"];
    let dashboards = dashboards();
    let titles = dashboards.iter().map(|(_, one)| text(one, "/title").split(':').next().unwrap_or_default());
    let panels = dashboards.iter().flat_map(|(_, one)| list(one, "/panels")).map(|one| text(one, "/title"));
    let panels: Vec<&str> = titles.chain(panels).collect();
    for rule in alerts() {
        let name = rule.name();
        let runbook = runbook(name);
        let headings: Vec<&str> = runbook.lines().filter(|line| line.starts_with('#')).collect();
        let title = format!("# {name}");
        assert_eq!(headings, [&title, "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]);
        let words = runbook.split_whitespace().collect::<Vec<_>>().join(" ");
        for quoted in words.split('"').skip(1).step_by(2) {
            assert!(panels.contains(&quoted) || others.contains(&quoted), "{name}: no panel {quoted:?}");
        }
        for command in words.split("`plimsoll ").skip(1).filter_map(|rest| rest.split('`').next()) {
            assert!(is_command(command), "{name}: docs/cli.md knows no `plimsoll {command}`");
        }
    }
}

/// Whether the manual has this command with all of its options.
fn is_command(command: &str) -> bool {
    let manual = include_str!("../../docs/cli.md");
    let words: Vec<&str> = command.split(' ').collect();
    let section = [2, 1].into_iter().filter_map(|count| words.get(..count)).find_map(|words| {
        let rest = manual.split_once(&format!("\n## `plimsoll {}`\n", words.join(" ")))?.1;
        rest.split("\n## ").next()
    });
    let options = words.iter().filter(|word| word.starts_with('-'));
    section.is_some_and(|section| options.clone().all(|option| section.contains(option)))
        || words.iter().all(|word| word.starts_with('-') && manual.contains(word))
}
