//! The alerts as Grafana evaluates them itself: a provisioning file (`apiVersion: 1`) for 10.4.1 and newer.
//!
//! Recording rules are left out: the alerts read the series that Prometheus records. What stands here is known from
//! Grafana's file provisioning (`pkg/services/provisioning/alerting`) and from trials; docs/alerts.md says what and when.
//! Start at [`render`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::source::{Alert, Annotations, Group, Rule, Rules};
use super::span::Span;

/// Not the folder of the dashboards: Grafana makes folders for alerts by title and for dashboards by uid, and the second
/// of two with one title is refused.
const FOLDER: &str = "plimsoll alerts";
/// Grafana refuses a longer uid, and then does not start.
const UID_CHARS_MAX: usize = 40;
/// Grafana's own: expressions over the results of queries.
const EXPRESSIONS: &str = "__expr__";
/// What Grafana asks Prometheus for is an instant, which has no range; a query without one is refused all the same.
const QUERY_RANGE_SECONDS: u64 = 600;
/// Grafana evaluates on multiples of this, and does not start with an interval that is none.
const TICK: Span = Span::seconds(10);
/// How many evaluations without a series resolve its alert, unless said otherwise.
const MISSING_EVALUATIONS: u64 = 2;

/// Alerts that only Grafana can tell.
const ONLY_HERE: &str = include_str!("../../alerts/only-grafana.yaml");

/// A uid of something in Grafana: letters, digits, `-` and `_`, 1 to 40 of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uid(String);

impl Uid {
    /// Checks a uid.
    ///
    /// # Errors
    /// What it has to be, if it is not that.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fine = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if !fine || text.is_empty() || text.len() > UID_CHARS_MAX {
            return Err(format!("a uid has 1 to {UID_CHARS_MAX} letters, digits, - and _"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// How they are to be rendered.
#[derive(Debug, Clone)]
pub(crate) struct Twin {
    /// The Prometheus that Grafana asks.
    pub(crate) data_source: Uid,
    /// Evaluated by nobody: somebody else tells.
    pub(crate) paused: bool,
}

/// Why a rule has no twin: Grafana would not start with it, or tell something else.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum TwinError {
    #[error("the group {group} is evaluated every {interval}, which is no multiple of 10s")]
    Interval { group: String, interval: Span },
    #[error("{alert} cannot be a uid: {problem}")]
    Uid { alert: String, problem: String },
    #[error("Grafana would read this annotation of {alert} differently: {text}")]
    Template { alert: String, text: String },
}

/// The groups of alerts that only Grafana has.
pub(crate) fn only_here() -> Vec<Group> {
    let rules: Rules = serde_saphyr::from_str(ONLY_HERE)
        .unwrap_or_else(|error| panic!("alerts/only-grafana.yaml, which a test reads: {error}"));
    rules.groups
}

/// Renders rules, those of [`only_here`] among them.
///
/// # Errors
/// The first rule that has no twin.
pub(crate) fn render(rules: &Rules, twin: &Twin) -> Result<String, TwinError> {
    let groups = rules.groups.iter().map(|group| told_group(group, twin)).collect::<Result<Vec<_>, _>>()?;
    let groups = groups.into_iter().filter(|group| !group.rules.is_empty()).collect();
    let yaml =
        serde_saphyr::to_string(&File { api_version: 1, groups }).expect("text and lists are always YAML");
    Ok(format!(
        "# Rendered by `plimsoll alerts grafana`, version {}: do not edit, render again.\n{yaml}",
        env!("CARGO_PKG_VERSION")
    ))
}

fn told_group(group: &Group, twin: &Twin) -> Result<ToldGroup, TwinError> {
    let Group { name, interval, rules } = group;
    if interval.millis() == 0 || !interval.millis().is_multiple_of(TICK.millis()) {
        return Err(TwinError::Interval { group: name.clone(), interval: *interval });
    }
    let alerts = rules.iter().filter_map(|rule| match rule {
        Rule::Alert(alert) => Some(told(alert, *interval, twin)),
        Rule::Recording(_) => None,
    });
    let rules = alerts.collect::<Result<_, _>>()?;
    Ok(ToldGroup { org_id: 1, name: name.clone(), folder: FOLDER, interval: *interval, rules })
}

fn told(alert: &Alert, interval: Span, twin: &Twin) -> Result<ToldRule, TwinError> {
    let Alert { alert: name, expr, pending_for, keep_firing_for, labels, annotations } = alert;
    let Uid(uid) = Uid::parse(name).map_err(|problem| TwinError::Uid { alert: name.clone(), problem })?;
    let only_here = only_here().iter().flat_map(|group| &group.rules).any(|rule| rule.name() == name);
    let (condition, no_data_state, exec_err_state) = match only_here {
        // Whether there is a result, whatever its value: a threshold would be silent where it is 0.
        false => ("is_number($A)", "OK", "KeepLast"),
        // The result is always 1: what tells is that there is none.
        true => ("$A < 1", "Alerting", "Alerting"),
    };
    // Without it a series that goes while others stay would resolve before the alert was kept.
    let kept =
        keep_firing_for.map(|span| (span.millis().div_ceil(interval.millis())).max(MISSING_EVALUATIONS));
    Ok(ToldRule {
        uid,
        title: name.clone(),
        condition: "C",
        data: [query(expr, &twin.data_source), math(condition)],
        no_data_state,
        exec_err_state,
        pending_for: pending_for.unwrap_or(Span::seconds(0)),
        keep_firing_for: *keep_firing_for,
        missing_series_evals_to_resolve: kept,
        annotations: told_annotations(name, annotations)?,
        labels: labels.iter().map(|(name, value)| (name.clone(), value.replace('$', "$$"))).collect(),
        is_paused: twin.paused,
    })
}

fn query(expr: &str, Uid(data_source): &Uid) -> Query {
    Query {
        ref_id: "A",
        relative_time_range: Range { from: QUERY_RANGE_SECONDS, to: 0 },
        datasource_uid: data_source.clone(),
        model: Model::Prometheus { ref_id: "A", expr: expr.to_owned(), instant: true, range: false },
    }
}

fn math(expression: &'static str) -> Query {
    Query {
        ref_id: "C",
        relative_time_range: Range { from: 0, to: 0 },
        datasource_uid: EXPRESSIONS.to_owned(),
        model: Model::Math { ref_id: "C", kind: "math", expression },
    }
}

fn told_annotations(alert: &str, annotations: &Annotations) -> Result<BTreeMap<String, String>, TwinError> {
    let Annotations { summary, description, runbook_url, dashboard } = annotations;
    let mut told = BTreeMap::new();
    let texts = [
        ("summary", summary),
        ("description", description),
        ("runbook_url", runbook_url),
        ("dashboard", dashboard),
    ];
    for (key, text) in texts {
        let text = with_values(text)
            .ok_or_else(|| TwinError::Template { alert: alert.to_owned(), text: text.clone() })?;
        told.insert(key.to_owned(), text);
    }
    if let Some((uid, panel)) = panel_of(dashboard) {
        told.insert("__dashboardUid__".to_owned(), uid.to_owned());
        told.insert("__panelId__".to_owned(), panel.to_owned());
    }
    Ok(told)
}

/// The dashboard and the panel that a link leads to; nothing if it names no panel: Grafana wants both or neither.
fn panel_of(link: &str) -> Option<(&str, &str)> {
    let (_, path) = link.rsplit_once("/d/")?;
    let (uid, query) = path.split_once('?')?;
    let panel = query.split('&').find_map(|pair| pair.strip_prefix("viewPanel="))?;
    Some((uid, panel))
}

/// The template in Grafana's words: its `$value` is a text of all values, and `$values.A` may be nothing. A dollar that is
/// only a dollar is written as one, or the provisioning would look for a variable behind it. None for what cannot be said so.
fn with_values(text: &str) -> Option<String> {
    let dollars = |text: &str| text.replace('$', "{{ \"$\" }}");
    let (mut told, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}")?;
        told.push_str(&dollars(before));
        told.push_str(&with_value(action)?);
        rest = after;
    }
    Some(told + &dollars(rest))
}

/// The same for what stands between two pairs of braces.
fn with_value(action: &str) -> Option<String> {
    if !action.replace("$values", "").contains("$value") {
        return Some(format!("{{{{{action}}}}}"));
    }
    let first = action.split_whitespace().next().unwrap_or_default();
    if ["if", "with", "range", "else", "define", "template", "block"].contains(&first)
        || action.contains("$values")
    {
        return None;
    }
    Some(format!("{{{{ with $values.A }}}}{{{{{}}}}}{{{{ end }}}}", action.replace("$value", ".Value")))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    api_version: u32,
    groups: Vec<ToldGroup>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldGroup {
    org_id: u32,
    name: String,
    folder: &'static str,
    interval: Span,
    rules: Vec<ToldRule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldRule {
    uid: String,
    title: String,
    condition: &'static str,
    data: [Query; 2],
    no_data_state: &'static str,
    exec_err_state: &'static str,
    #[serde(rename = "for")]
    pending_for: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_for: Option<Span>,
    #[serde(rename = "missing_series_evals_to_resolve", skip_serializing_if = "Option::is_none")]
    missing_series_evals_to_resolve: Option<u64>,
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    is_paused: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    ref_id: &'static str,
    relative_time_range: Range,
    datasource_uid: String,
    model: Model,
}

/// Seconds before now.
#[derive(Debug, Serialize)]
struct Range {
    from: u64,
    to: u64,
}

#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Model {
    Prometheus {
        ref_id: &'static str,
        expr: String,
        instant: bool,
        range: bool,
    },
    Math {
        ref_id: &'static str,
        #[serde(rename = "type")]
        kind: &'static str,
        expression: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin() -> Twin {
        Twin { data_source: Uid::parse("prometheus").expect("a uid"), paused: false }
    }

    fn with_first(change: impl Fn(&mut Group, &mut Alert)) -> Result<String, TwinError> {
        let mut rules = Rules::embedded();
        let group = &mut rules.groups[0];
        let Rule::Alert(mut alert) = group.rules[0].clone() else { panic!("an alert") };
        change(group, &mut alert);
        group.rules[0] = Rule::Alert(alert);
        render(&rules, &twin())
    }

    #[test]
    fn values_are_told_as_grafana_has_them() {
        let check = |text: &str, told: Option<&str>| assert_eq!(with_values(text).as_deref(), told, "{text}");
        check("no template", Some("no template"));
        check("{{ $labels.town }}", Some("{{ $labels.town }}"));
        check("{{ $value | humanize }} x", Some("{{ with $values.A }}{{ .Value | humanize }}{{ end }} x"));
        check(
            "{{ $value }} of {{ humanize $value }}",
            Some(
                "{{ with $values.A }}{{ .Value }}{{ end }} of {{ with $values.A }}{{ humanize .Value }}{{ end }}",
            ),
        );
        check("{{ if gt $value 1.0 }}x{{ end }}", None);
        check("{{ $value", None);
        check("{{ if gt $values.A.Value $value }}x", None);
        check(
            "spent ${{ $value | printf \"%.2f\" }}",
            Some("spent {{ \"$\" }}{{ with $values.A }}{{ .Value | printf \"%.2f\" }}{{ end }}"),
        );
        check("${HOME} in $$", Some("{{ \"$\" }}{HOME} in {{ \"$\" }}{{ \"$\" }}"));
    }

    #[test]
    fn a_link_leads_to_a_panel_or_to_none() {
        assert_eq!(panel_of("/d/x-y?viewPanel=7&var-town={{ $labels.town }}"), Some(("x-y", "7")));
        assert_eq!(panel_of("https://g.example/d/x?viewPanel=2"), Some(("x", "2")));
        assert_eq!(panel_of("/d/x"), None);
        assert_eq!(panel_of("/d/x?var-town=a"), None);
    }

    #[test]
    fn what_stops_grafana_is_refused() {
        with_first(|_, _| ()).expect("the good example");
        for bad in ["0s", "15s", "1m5s"] {
            let interval = Span::parse(bad).expect("a span");
            let refused = with_first(|group, _| group.interval = interval).expect_err(bad);
            assert!(matches!(refused, TwinError::Interval { .. }), "{refused}");
        }
        for bad in ["A".repeat(41), "with space".to_owned(), String::new()] {
            let refused = with_first(|_, alert| alert.alert.clone_from(&bad)).expect_err(&bad);
            assert!(matches!(refused, TwinError::Uid { .. }), "{refused}");
        }
        with_first(|_, alert| alert.alert = "A".repeat(40)).expect("40 are fine");
        let refused =
            with_first(|_, alert| alert.annotations.summary = "{{ $value".to_owned()).expect_err("open");
        assert!(matches!(refused, TwinError::Template { .. }), "{refused}");
    }

    #[test]
    fn labels_with_a_dollar_are_doubled() {
        let told = with_first(|_, alert| {
            alert.labels.insert("team".to_owned(), "{{ $labels.team }}".to_owned());
        });
        assert!(told.expect("a twin").contains("{{ $$labels.team }}"));
    }

    #[test]
    fn a_group_of_recordings_only_has_no_twin() {
        let mut rules = Rules::embedded();
        let recording = "{record: a:b, expr: vector(1)}";
        rules.groups[0].rules = vec![serde_saphyr::from_str(recording).expect("a recording rule")];
        let told = render(&rules, &twin()).expect("a twin");
        assert!(
            !told.contains(&format!("name: {}\n", rules.groups[0].name)) && !told.contains("a:b"),
            "{told}"
        );
    }
}
