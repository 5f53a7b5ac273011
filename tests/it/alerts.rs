//! The alerts: promtool's own tests pass, fail where a rule is broken, and every rule has what its reader needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
    // What else stands in quotes: the dashboard, the pages of Prometheus 3 and what they show.
    let others =
        ["Gateway and lanes", "Status", "Target health", "Service discovery", "Alerts", "connection refused"];
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../dashboards/gateway.json")).expect("it is JSON");
    let panels: Vec<&str> = dashboard["panels"]
        .as_array()
        .expect("panels")
        .iter()
        .filter_map(|panel| panel["title"].as_str())
        .collect();
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
    let known: Vec<&str> = plimsoll::catalogue::all().iter().map(|definition| definition.name).collect();
    let expressions = RULES.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let words = expressions.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let named: Vec<&str> = words.filter(|word| word.starts_with("plimsoll_")).collect();
    assert!(!named.is_empty(), "the rules read metrics of plimsoll");
    for name in named {
        assert!(known.contains(&name), "{name} is in no catalogue");
    }
}
