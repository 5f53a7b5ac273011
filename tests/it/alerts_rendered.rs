//! `plimsoll alerts`: what it renders is what Prometheus loads, with the thresholds that were asked for.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::alerts::promtool_tests;
use crate::support::server::clean_command;
use crate::support::tools::needs;

fn alerts(arguments: &[&str]) -> Output {
    clean_command().arg("alerts").args(arguments).output().expect("plimsoll runs")
}

/// What it printed; it has to have worked.
fn printed(arguments: &[&str]) -> String {
    let output = alerts(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What it said when it refused, as a mistake on the command line.
fn refused(arguments: &[&str]) -> String {
    let output = alerts(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// Runs promtool on the rendered rules, in a folder of its own with the repository's tests of these alerts.
fn promtool(arguments: &[&str], rules: &str, alerts: Option<&[&str]>) -> Option<Output> {
    let program = needs("promtool")?;
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("plimsoll.rules.yaml"), rules).expect("the rules are written");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder.path());
    for (name, tests) in promtool_tests() {
        if alerts
            .is_some_and(|alerts| alerts.iter().any(|alert| tests.contains(&format!("alertname: {alert}"))))
        {
            fs::write(folder.path().join(&name), tests).expect("the tests are written");
            command.arg(name);
        }
    }
    Some(command.output().expect("promtool runs"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn rendered_rules_pass_the_tests_of_their_source() {
    let rules = printed(&["prometheus"]);
    let Some(tested) = promtool(&["test", "rules"], &rules, Some(&["Plimsoll"])) else { return };
    assert!(tested.status.success(), "{}", said(&tested));
}

#[test]
fn rules_with_other_thresholds_are_rules_and_fail_the_tests_of_the_source() {
    let listed: Value = serde_json::from_str(&printed(&["thresholds", "--json"])).expect("JSON");
    let listed = listed.as_array().expect("an array");
    assert!(!listed.is_empty());
    for threshold in listed {
        let name = threshold["name"].as_str().expect("a name");
        let default = threshold["default"].as_f64().expect("a number");
        let edges: Option<Vec<f64>> = serde_json::from_value(threshold["oneOf"].clone()).expect("edges");
        let other = match edges {
            Some(edges) => edges.into_iter().find(|edge| *edge > default).expect("a higher edge"),
            None if threshold["unit"] == "ratio" => default / 2.0,
            None => default * 3.0 + 1.0,
        };
        let rules = printed(&["prometheus", "--threshold", &format!("{name}={other}")]);
        let Some(checked) = promtool(&["check", "rules", "plimsoll.rules.yaml"], &rules, None) else {
            return;
        };
        assert!(checked.status.success(), "{name}={other}: {}", said(&checked));
        let alerts = threshold["rules"].as_array().expect("rules").iter().filter_map(Value::as_str);
        let alerts: Vec<&str> = alerts.collect();
        let tested = promtool(&["test", "rules"], &rules, Some(&alerts)).expect("promtool is there");
        assert!(!tested.status.success(), "no promtool test notices {name}={other}");
    }
}

#[test]
fn divided_rules_are_rules_with_short_durations() {
    let rules = printed(&["prometheus", "--durations-divided-by", "30"]);
    for text in
        ["interval: 1s", "for: 1s", "keep_firing_for: 4s", "[22s]", "[12s]", "running_seconds[2s])) > 0.5"]
    {
        assert!(rules.contains(text), "{text:?} is not in {rules}");
    }
    let Some(checked) = promtool(&["check", "rules", "plimsoll.rules.yaml"], &rules, None) else { return };
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn links_are_absolute_where_asked_and_a_file_is_written() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("rules.yaml");
    let file = file.to_str().expect("UTF-8");
    let bases = ["--runbook-base", "https://git.example/plimsoll/", "--grafana-url", "http://grafana:3000"];
    let silent = printed(&[&["prometheus"], &bases[..], &["--output", file]].concat());
    assert_eq!(silent, "");
    let rules = fs::read_to_string(file).expect("the file");
    assert!(rules.contains("https://git.example/plimsoll/alerts/runbooks/PlimsollDown.md"), "{rules}");
    assert!(rules.contains("http://grafana:3000/d/plimsoll-"), "{rules}");
    let nowhere = alerts(&["prometheus", "--output", "/nowhere/rules.yaml"]);
    assert_eq!(nowhere.status.code(), Some(74), "{nowhere:?}");
}

#[test]
fn what_cannot_be_rendered_is_refused_with_what_can() {
    assert!(refused(&["prometheus", "--threshold", "queue=5"]).contains("queue_depth"));
    assert!(refused(&["prometheus", "--threshold", "queue_depth"]).contains("queue_depth=100"));
    let edges = refused(&["prometheus", "--threshold", "tick_seconds=0.3"]);
    assert!(edges.contains("0.25, 0.5, 1, 2.5"), "{edges}");
    assert!(refused(&["prometheus", "--runbook-base", "git.example"]).contains("https://"));
    refused(&["prometheus", "--durations-divided-by", "0"]);
    assert!(printed(&["thresholds"]).contains("tick_seconds"));
}
