//! Each rule of the linter, seen red: the good files with one thing broken, and the complaint it has to be.

use std::sync::LazyLock;

use super::lint::complaints;
use super::{provisioned, world};
use crate::alerts_twin::{rendered, root};

/// All good.
static FILES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let mut files = provisioned(&root().join("stack/grafana/provisioning/alerting"));
    files.push(("alerting/rules.yaml".to_owned(), rendered(&[])));
    files
});

fn found(path: &str, old: &str, new: &str) -> Vec<String> {
    let mut files = FILES.clone();
    let file = files.iter_mut().find(|(name, _)| name == path).unwrap_or_else(|| panic!("no {path}"));
    assert!(file.1.contains(old), "{path} no longer has {old:?}: change this test with it");
    file.1 = file.1.replacen(old, new, 1);
    complaints(&files, &world())
}

fn check(path: &str, cases: &[(&str, &str, &str)]) {
    for (old, new, complaint) in cases {
        let found = found(path, old, new);
        assert!(found.iter().any(|one| one.contains(complaint)), "{path}: {new:?} gives {found:?}");
    }
}

#[test]
fn broken_rules_are_found() {
    assert_eq!(found("alerting/rules.yaml", "orgId: 1", "orgId: 1"), [""; 0], "the good example");
    let long = format!("uid: {}", "A".repeat(41));
    check(
        "alerting/rules.yaml",
        &[
            ("apiVersion: 1", "apiVersion: 2", "apiVersion"),
            ("apiVersion: 1", "apiVersion: [", "no YAML"),
            ("apiVersion: 1", "apiVersion: 1\napiVersion: 1", "no YAML"),
            ("groups:", "group:", "unknown key group"),
            ("orgId: 1", "orgId: 2", "orgId"),
            ("  name: ", "  nam: ", "name is missing"),
            ("folder: plimsoll alerts", "folder: ''", "folder is no text"),
            ("folder: plimsoll alerts", "folder: $FOLDER", "variable"),
            ("interval: 30s", "interval: 15s", "multiple of 10"),
            ("interval: 30s", "interval: 0s", "multiple of 10"),
            ("interval: 30s", "interval: soon", "no duration"),
            ("  interval: 30s", "  intervall: 30s", "interval is missing"),
            ("uid: PlimsollQueueDepthHigh", &long, "over 40"),
            ("uid: PlimsollQueueDepthHigh", "uid: a b", "over 40"),
            ("uid: PlimsollQueueDepthHigh", "uid: PlimsollDown", "a second rule's uid"),
            ("title: PlimsollQueueDepthHigh", "title: PlimsollDown", "a second rule"),
            ("title: PlimsollQueueDepthHigh", "titel: x", "title is missing"),
            ("condition: C", "condition: B", "none of the queries"),
            ("    condition: C\n", "", "condition is missing"),
            ("- refId: C", "- refId: A", "second query"),
            ("datasourceUid: plimsoll-prometheus", "datasourceUid: other", "no data source other"),
            ("from: 600", "from: 0", "ends before"),
            ("from: 600", "from: 10m", "whole seconds"),
            ("instant: true", "instant: false", "not of an instant"),
            ("range: false", "range: true", "not of an instant"),
            ("is_number($A)", "is_number($B)", "not there"),
            ("type: math", "type: maths", "type is none"),
            ("noDataState: OK", "noDataState: Ok", "noDataState is none"),
            ("execErrState: KeepLast", "execErrState: NoData", "execErrState is none"),
            ("keepFiringFor: 2m", "keep_firing_for: 2m", "unknown key keep_firing_for"),
            ("missing_series_evals_to_resolve: 4", "missing_series_evals_to_resolve: 0", "above 0"),
            ("severity: warning", "severity: $severity", "variable"),
            ("severity: warning", "severity: 1", "severity is no text"),
            ("with $values.A", "with ${VALUES}", "variable of the environment"),
            ("{{ with $values.A }}{{ .Value | humanize }}", "{{ $value }}", "text of all values"),
            ("__panelId__: \"2\"", "__panelId__: \"999\"", "there is no panel"),
            ("      __panelId__: \"2\"\n", "", "there is no panel"),
            ("isPaused: false", "isPaused: no way", "neither true nor false"),
        ],
    );
}

#[test]
fn broken_contact_points_are_found() {
    check(
        "alerting/contact-points.yaml",
        &[
            ("name: plimsoll\n", "name: other\n", "no contact point plimsoll"),
            ("name: demo", "name: plimsoll", "a second contact point"),
            ("uid: demo", "uid: plimsoll", "a second receiver's uid"),
            ("uid: demo", "uid: ' '", "uid is no text"),
            ("      - uid: demo\n        type", "      - type", "uid is missing"),
            ("type: webhook", "type: webhok", "type is none"),
            ("url: http://plimsoll:1876/api/alerts", "url: $ALERT_WEBHOOK_URL", "variable"),
            ("url: http://plimsoll:1876/api/alerts", "url: ''", "url is no text"),
            ("url: http://plimsoll:1876/api/alerts", "url: plimsoll:1876", "no address"),
            ("password: $__file{/run/secrets/ingest/token}", "password: $__file{/run/x}", "nobody writes"),
            ("password: $__file{/run/secrets/ingest/token}", "password: $__env{TOKEN}", "variable"),
            ("password: $__file{/run/secrets/ingest/token}", "maxAlerts: 1", "belong together"),
            ("username: grafana", "authorization_credentials: x", "unknown key authorization_credentials"),
            ("httpMethod: POST", "httpMethod: GET", "httpMethod is none"),
        ],
    );
}

#[test]
fn broken_policies_are_found() {
    check(
        "alerting/policies.yaml",
        &[
            ("    receiver: plimsoll\n", "", "receiver is missing"),
            ("    receiver: plimsoll\n", "    receiver: nobody\n", "no contact point nobody"),
            ("    receiver: plimsoll\n", "    receiver: plimsoll\n    object_matchers: []\n", "unknown key"),
            ("- receiver: demo", "- receiver: Demo", "no contact point Demo"),
            ("  - orgId: 1", "  - {orgId: 1, receiver: plimsoll}\n  - orgId: 1", "a second policy"),
            ("[job, \"=\", plimsoll-demo]", "[job, \"==\", plimsoll-demo]", "a matcher is"),
            ("[job, \"=\", plimsoll-demo]", "job", "a matcher is"),
            ("[alertname, job, instance]", "[alertname, alertname]", "group_by"),
            ("[alertname, job, instance]", "['...', job]", "group_by"),
            ("group_interval: 10s", "group_interval: 0s", "group_interval is 0"),
            ("repeat_interval: 1h", "repeat_interval: 0s", "repeat_interval is 0"),
            ("group_wait: 5s", "group_wait: 5 s", "no duration"),
            ("group_wait: 5s", "groupWait: 5s", "unknown key groupWait"),
            ("        object_matchers: [[job", "        match: [[job", "object_matchers is missing"),
        ],
    );
}

#[test]
fn broken_data_sources_and_providers_are_found() {
    check(
        "datasources/stack.yaml",
        &[
            ("uid: plimsoll-traces", "uid: plimsoll-prometheus", "a second data source's uid"),
            ("name: Traces", "name: Prometheus", "a second data source"),
            ("    url: http://jaeger:16686\n", "    isDefault: true\n", "two of them stop Grafana"),
            ("url: http://prometheus:9090", "url: $PROMETHEUS_URL", "variable"),
            ("access: proxy", "acces: proxy", "access is missing"),
            ("editable: false", "editable: \"no\"", "neither true nor false"),
            ("jsonData:\n", "jsondata:\n", "unknown key jsondata"),
            ("  - name: Prometheus", "  - orgId: 2\n    name: Prometheus", "orgId"),
        ],
    );
    check(
        "dashboards/stack.yaml",
        &[
            ("type: file", "type: files", "type is none"),
            ("path: /etc/grafana/dashboards", "path: /nowhere", "no folder that is mounted"),
            ("path: /etc/grafana/dashboards", "pfad: x", "path is missing"),
            ("    options:", "    options:\n      foldersFromFilesStructure: true", "stop Grafana"),
            ("folderUid: plimsoll", "folderUid: a b", "over 40"),
            ("name: plimsoll", "nam: plimsoll", "name is missing"),
        ],
    );
}

#[test]
fn a_file_that_grafana_does_not_read_is_found() {
    for path in ["alerting/README.md", "alerting/.gitkeep", "alerting/more/rules.yaml", "notifiers/x.yaml"] {
        let found = complaints(&[(path.to_owned(), "apiVersion: 1".to_owned())], &world());
        assert!(found.iter().any(|one| one.contains("no file that Grafana reads")), "{path}: {found:?}");
    }
    let kept = complaints(&[("plugins/.gitkeep".to_owned(), String::new())], &world());
    assert_eq!(kept, [""; 0]);
}
