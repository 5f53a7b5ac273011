//! `plimsoll alerts grafana`: the twin of the rules for Grafana says the same, and the one that is kept here is the newest.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::dashboards::{list, text};
use crate::support::server::clean_command;

pub(crate) const TWIN: &str = "alerts/grafana/plimsoll.yaml";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn rendered(arguments: &[&str]) -> String {
    let output = clean_command().args(["alerts", "grafana"]).args(arguments).output().expect("plimsoll runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

pub(crate) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// Every rule of a twin.
pub(crate) fn rules(twin: &Value) -> Vec<&Value> {
    list(twin, "/groups").iter().flat_map(|group| list(group, "/rules")).collect()
}

#[test]
fn the_committed_twin_is_what_is_rendered() {
    let path = root().join(TWIN);
    let rendered = rendered(&[]);
    if std::env::var_os("PLIMSOLL_BLESS").is_some() {
        fs::write(&path, &rendered).expect("the twin is written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == rendered, "{TWIN} drifted: PLIMSOLL_BLESS=1 cargo test the_committed_twin");
}

#[test]
fn every_alert_has_a_twin_that_asks_the_same() {
    let twin = yaml(&rendered(&[]));
    let source = clean_command().args(["alerts", "prometheus"]).output().expect("plimsoll runs").stdout;
    let source = yaml(&String::from_utf8(source).expect("UTF-8"));
    let alerts: Vec<&Value> = rules(&source).into_iter().filter(|rule| rule.get("alert").is_some()).collect();
    assert!(!alerts.is_empty());
    for alert in &alerts {
        let told = rules(&twin).into_iter().find(|rule| rule["title"] == alert["alert"]);
        let told = told.unwrap_or_else(|| panic!("{} has no twin", alert["alert"]));
        assert_eq!(told.pointer("/data/0/model/expr"), alert.get("expr"));
        assert_eq!(told.get("keepFiringFor"), alert.get("keep_firing_for"), "{}", alert["alert"]);
        assert_eq!(told["for"], alert.get("for").cloned().unwrap_or("0s".into()), "{}", alert["alert"]);
        assert_eq!(told["labels"]["severity"], alert["labels"]["severity"]);
        assert_eq!((&told["noDataState"], &told["execErrState"]), (&"OK".into(), &"KeepLast".into()));
    }
    let others: Vec<&Value> = rules(&twin)
        .into_iter()
        .filter(|told| !alerts.iter().any(|alert| told["title"] == alert["alert"]))
        .collect();
    assert_eq!(others.len(), 1, "one alert is Grafana's own: {others:?}");
    assert_eq!(others[0]["noDataState"], "Alerting", "it tells that nothing comes");
    assert_eq!(others[0]["execErrState"], "Alerting");
}

#[test]
fn the_twin_takes_thresholds_a_data_source_and_a_pause() {
    let twin = yaml(&rendered(&["--threshold", "queue_depth=7", "--data-source", "other", "--paused"]));
    let rules = rules(&twin);
    assert!(rules.iter().all(|rule| rule["isPaused"] == true));
    assert!(rules.iter().all(|rule| rule["data"][0]["datasourceUid"] == "other"));
    let queue = rules.iter().find(|rule| rule["uid"] == "PlimsollQueueDepthHigh").expect("the rule");
    assert!(text(queue, "/data/0/model/expr").ends_with("[2m])) > 7"), "{queue}");
    let description = text(queue, "/annotations/description");
    assert!(description.contains("(more than 7)"), "{description}");
    assert!(description.contains("{{ with $values.A }}{{ .Value | humanize }}{{ end }}"), "{description}");
}
