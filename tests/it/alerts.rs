//! The alerts: promtool's own tests pass, fail where a rule is broken, and every rule has what its reader needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::dashboards::{dashboards, list, text};
use crate::support::tools::needs;

const RULES: &str = include_str!("../../alerts/plimsoll.rules.yaml");
const TESTS: &str = include_str!("../../alerts/plimsoll.test.yaml");

fn promtool(arguments: &[&str], folder: &Path) -> Option<Output> {
    let program: PathBuf = needs("promtool")?;
    Some(Command::new(program).args(arguments).current_dir(folder).output().expect("promtool runs"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs promtool's tests against these rules.
fn outcome_with(rules: &str) -> Option<Output> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("plimsoll.rules.yaml"), rules).expect("the rules are written");
    fs::write(folder.path().join("plimsoll.test.yaml"), TESTS).expect("the tests are written");
    promtool(&["test", "rules", "plimsoll.test.yaml"], folder.path())
}

/// What the rules ask, each on one line.
pub(crate) fn rule_expressions() -> Vec<String> {
    let mut lines = RULES.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim().strip_prefix("expr: ") else { continue };
        let indent = |line: &str| line.len() - line.trim_start().len();
        let deeper = |next: &&str| indent(next) > indent(line);
        let block = if rest == "|" { String::new() } else { rest.to_owned() };
        let more = std::iter::from_fn(|| if rest == "|" { lines.next_if(deeper) } else { None });
        found.push(more.fold(block, |text, line| format!("{text} {}", line.trim())));
    }
    found
}

fn alerts() -> Vec<&'static str> {
    RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    let Some(checked) = promtool(&["check", "rules", "plimsoll.rules.yaml"], &folder) else { return };
    assert!(checked.status.success(), "{}", said(&checked));
    let tested = outcome_with(RULES).expect("promtool was there a moment ago");
    assert!(tested.status.success(), "{}", said(&tested));
}

#[test]
fn promtool_tests_fail_when_a_rule_is_broken() {
    let broken = [
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
    ];
    for (good, bad) in broken {
        assert!(RULES.contains(good), "the rules no longer say {good:?}: change this test with them");
        let Some(output) = outcome_with(&RULES.replace(good, bad)) else { return };
        assert!(!output.status.success(), "no promtool test notices {bad:?}");
    }
}

#[test]
fn every_alert_has_a_severity_words_and_a_runbook() {
    let rules: Vec<&str> = RULES.split("- alert: ").skip(1).collect();
    assert!(!rules.is_empty(), "there are alerts");
    for (name, rule) in alerts().into_iter().zip(rules) {
        let severity = rule.lines().find_map(|line| line.trim().strip_prefix("severity: "));
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: severity {severity:?}");
        for part in ["summary: ", "description: ", "dashboard: /d/"] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let file = format!("alerts/runbooks/{name}.md");
        assert!(rule.contains(&format!("runbook_url: {file}\n")), "{name} does not link its runbook");
        let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
        let runbook = fs::read_to_string(runbook).unwrap_or_else(|error| panic!("{file}: {error}"));
        let headings: Vec<&str> = runbook.lines().filter(|line| line.starts_with('#')).collect();
        let title = format!("# {name}");
        assert_eq!(headings, [&title, "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"], "{file}");
    }
}

#[test]
fn every_alert_is_tested_firing_and_has_no_orphaned_runbook() {
    for name in alerts() {
        let fires = TESTS.split("alertname: ").skip(1).any(|test| {
            test.starts_with(name)
                && test
                    .lines()
                    .nth(1)
                    .is_some_and(|line| line.contains("exp_alerts:") && !line.ends_with("[]"))
        });
        assert!(fires, "no promtool test shows {name} firing");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/runbooks");
    for entry in fs::read_dir(folder).expect("the runbooks") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        assert!(alerts().contains(&name.trim_end_matches(".md")), "{name} belongs to no alert");
    }
}

#[test]
fn every_panel_that_a_runbook_names_exists() {
    // What else stands in quotes: the pages of Prometheus 3 and what they show.
    let others = ["Status", "Target health", "Service discovery", "Alerts", "connection refused"];
    let dashboards = dashboards();
    let titles = dashboards.iter().map(|(_, one)| text(one, "/title").split(':').next().unwrap_or_default());
    let panels = dashboards.iter().flat_map(|(_, one)| list(one, "/panels")).map(|one| text(one, "/title"));
    let panels: Vec<&str> = titles.chain(panels).collect();
    for name in alerts() {
        let file = format!("alerts/runbooks/{name}.md");
        let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
        let runbook = fs::read_to_string(runbook).unwrap_or_else(|error| panic!("{file}: {error}"));
        for quoted in runbook.split('"').skip(1).step_by(2) {
            assert!(
                panels.contains(&quoted) || others.contains(&quoted),
                "{file}: no panel is called {quoted:?}"
            );
        }
    }
}

#[test]
fn every_metric_that_a_rule_reads_exists() {
    let spelled = |name: &str| ["", "_bucket", "_count"].map(|ending| format!("{name}{ending}"));
    let known: Vec<String> = plimsoll::catalogue::all().iter().flat_map(|one| spelled(one.name)).collect();
    let expressions = rule_expressions();
    let words = expressions.iter().flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let named: Vec<&str> = words.filter(|word| word.starts_with("plimsoll_")).collect();
    assert!(!named.is_empty(), "the rules read metrics of plimsoll");
    for name in named {
        assert!(known.iter().any(|one| one == name), "{name} is in no catalogue");
    }
}
