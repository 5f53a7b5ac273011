//! What the journal has of alerts: three kinds in the stream `alert`, and a sentence for each.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::alert::{Annotations, Labels, Severity, Source, name};
use crate::clock::Timestamp;
use crate::journal::{Actor, NewRecord, Record};
use crate::live::Level;

/// The kind of the record that an alert began to fire.
pub const ALERT_FIRED: &str = "alert_fired";
/// The kind of the record that its sender said it was over.
pub const ALERT_RESOLVED: &str = "alert_resolved";
/// The kind of the record that nobody had told of it for too long, so that it is no longer listed as firing.
pub const ALERT_EXPIRED: &str = "alert_expired";

/// The version of the details of all three.
const VERSION: u16 = 1;

/// Bytes of a sentence: a line on a screen, and a second one.
const SENTENCE_BYTES_MAX: usize = 512;

/// The detail of `alert_fired`, version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fired {
    pub(super) labels: Labels,
    pub(super) annotations: Annotations,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) starts_at: Option<Timestamp>,
    /// When it is over unless somebody says otherwise; senders seldom say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ends_at: Option<Timestamp>,
    pub(super) source: Source,
}

/// The detail of `alert_resolved`, version 1: `source` says that it is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resolved {
    pub(super) labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) summary: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) starts_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ends_at: Option<Timestamp>,
    pub(super) source: Source,
}

/// The detail of `alert_expired`, version 1: `source` told of it until `last_received`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expired {
    pub(super) labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) summary: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) starts_at: Option<Timestamp>,
    pub(super) last_received: Timestamp,
    pub(super) source: Source,
}

/// A record of one of the three kinds.
pub(super) fn new(kind: &'static str, actor: Actor, detail: &impl Serialize) -> NewRecord {
    NewRecord { kind, version: VERSION, actor, trace_id: None, detail: json!(detail) }
}

/// How urgent what a record says of an alert is.
#[must_use]
pub fn level(kind: &str, detail: &Value) -> Level {
    match kind {
        ALERT_FIRED => match Severity::of(&labels(detail)) {
            Severity::Critical => Level::Error,
            Severity::Warning | Severity::Other => Level::Warn,
            Severity::Info => Level::Info,
        },
        ALERT_EXPIRED => Level::Warn,
        _ => Level::Info,
    }
}

/// What a record says of an alert, in one sentence on one line.
#[must_use]
pub fn summary(record: &Record) -> String {
    let labels = labels(&record.detail);
    let name = name(&labels).unwrap_or("without a name");
    let said = |annotations: &Value| {
        annotations["summary"].as_str().map(|text| format!(": {text}")).unwrap_or_default()
    };
    line(&match record.kind.as_str() {
        ALERT_FIRED => {
            let severity = labels.get("severity").map(|word| format!(" ({word})")).unwrap_or_default();
            format!("the alert {name}{severity} fires{}", said(&record.detail["annotations"]))
        }
        ALERT_RESOLVED => format!("the alert {name} is over{}", said(&record.detail)),
        _ => {
            let last = record.detail["lastReceived"].as_u64().map(Timestamp::from_millis).unwrap_or_default();
            format!("nobody tells of the alert {name} any more: it was last heard of at {last}")
        }
    })
}

fn labels(detail: &Value) -> Labels {
    Labels::deserialize(&detail["labels"]).unwrap_or_default()
}

/// Text from outside on one line and cut to size.
fn line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > SENTENCE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(SENTENCE_BYTES_MAX - '…'.len_utf8()));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::StreamId;

    fn labels_of(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn records() -> Vec<NewRecord> {
        let labels =
            labels_of(&[("alertname", "PlimsollTickSlow"), ("severity", "warning"), ("town", "lab")]);
        let at = |millis| Some(Timestamp::from_millis(millis));
        let annotations = Annotations {
            summary: Some("Ticks of lab are slow".to_owned()),
            description: Some("Over 10 % took longer than 0.5 s.".to_owned()),
            runbook: Some("alerts/runbooks/PlimsollTickSlow.md".to_owned()),
            dashboard: Some("/d/plimsoll-reconciler?viewPanel=7".to_owned()),
        };
        let summary = annotations.summary.clone();
        let source = Source::Alertmanager;
        let bare = Fired {
            labels: labels_of(&[("job", "x")]),
            annotations: Annotations::default(),
            starts_at: None,
            ends_at: at(9_000),
            source: Source::Grafana,
        };
        let fired =
            Fired { labels: labels.clone(), annotations, starts_at: at(1_000), ends_at: None, source };
        let resolved = Resolved {
            labels: labels.clone(),
            summary: summary.clone(),
            starts_at: at(1_000),
            ends_at: at(5_000),
            source,
        };
        let last_received = Timestamp::from_millis(2_000);
        let expired = Expired { labels, summary, starts_at: at(1_000), last_received, source };
        vec![
            new(ALERT_FIRED, Actor::Local, &fired),
            new(ALERT_FIRED, Actor::Local, &bare),
            new(ALERT_RESOLVED, Actor::Local, &resolved),
            new(ALERT_EXPIRED, Actor::System, &expired),
        ]
    }

    #[test]
    fn each_record_of_an_alert_is_the_golden_one_and_has_its_sentence() {
        let lines: Vec<String> = records()
            .iter()
            .map(|new| {
                let record = Record::example(StreamId::alert(), new.kind, new.detail.clone());
                let level = level(new.kind, &new.detail);
                format!("{} {}\n  {}\n  {level:?}: {}", new.kind, new.version, new.detail, summary(&record))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_sentence_is_one_line_of_bounded_length_whatever_was_posted() {
        let hostile = format!("a\u{1b}[2J\r\nb {}", "é".repeat(4_000));
        let detail = json!({"labels": {"alertname": "<script>\n"}, "annotations": {"summary": hostile}});
        let sentence = summary(&Record::example(StreamId::alert(), ALERT_FIRED, detail));
        assert!(sentence.starts_with("the alert <script>  fires: a [2J  b éé"), "{sentence}");
        assert!(sentence.len() <= SENTENCE_BYTES_MAX && sentence.ends_with('…'));
        assert!(!sentence.contains(char::is_control));
        let odd = summary(&Record::example(StreamId::alert(), ALERT_EXPIRED, json!([])));
        assert_eq!(
            odd,
            "nobody tells of the alert without a name any more: it was last heard of at 1970-01-01T00:00:00.000Z"
        );
    }
}
