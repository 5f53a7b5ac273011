//! What Alertmanager and Grafana post, read under limits.
//!
//! Alertmanager's webhook is version "4" (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).
//! Grafana's is a superset of it that calls itself "1" and names its organisation
//! (<https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/>).
//! Fields that are not known pass.

use schemars::JsonSchema;
use serde::Deserialize;

use super::alert::{self, Annotations, Labels, Source, is_link};
use crate::clock::Timestamp;
use crate::limits::alerts::{
    ALERT_BODY_BYTES_MAX, ALERT_BYTES_MAX, ALERT_LABELS_MAX, ALERT_TEXT_BYTES_MAX, ALERTS_PER_BODY_MAX,
};

/// What was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Who posted it.
    pub source: Source,
    /// At most [`ALERTS_PER_BODY_MAX`].
    pub alerts: Vec<PostedAlert>,
    /// Alerts that the sender left out, by its own limit (`max_alerts`).
    pub truncated: u64,
}

/// One alert of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedAlert {
    /// What is said of it.
    pub status: PostedStatus,
    /// At least one and at most [`ALERT_LABELS_MAX`].
    pub labels: Labels,
    /// What people read.
    pub annotations: Annotations,
    /// Since when it fires, as the sender has it.
    pub starts_at: Option<Timestamp>,
    /// When it ended, or will have ended if nobody says otherwise.
    pub ends_at: Option<Timestamp>,
}

/// What a sender says of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PostedStatus {
    /// It fires.
    Firing,
    /// It is over.
    Resolved,
}

/// Why a body is not taken; nothing of it is then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is no such JSON.
    #[error("{0}")]
    Unreadable(String),
    /// It is longer than [`ALERT_BODY_BYTES_MAX`].
    #[error(
        "a body of alerts has at most {ALERT_BODY_BYTES_MAX} bytes: set `max_alerts` in the sender's webhook"
    )]
    TooLong,
    /// It holds more than [`ALERTS_PER_BODY_MAX`] alerts.
    #[error(
        "a body has at most {ALERTS_PER_BODY_MAX} alerts, this one has {0}: set `max_alerts` in the sender's webhook"
    )]
    TooManyAlerts(usize),
    /// An alert has more than [`ALERT_LABELS_MAX`] labels.
    #[error(
        "alerts[{0}]: an alert has at most {ALERT_LABELS_MAX} labels: drop some in the rule or by relabelling"
    )]
    TooManyLabels(usize),
    /// A name, a value or an annotation is longer than [`ALERT_TEXT_BYTES_MAX`].
    #[error(
        "alerts[{0}]: a label or an annotation has at most {ALERT_TEXT_BYTES_MAX} bytes: shorten it in the rule"
    )]
    TextTooLong(usize),
    /// An alert is larger than [`ALERT_BYTES_MAX`].
    #[error(
        "alerts[{0}]: labels and annotations have at most {ALERT_BYTES_MAX} bytes together: shorten them in the rule"
    )]
    TooLarge(usize),
}

/// The body of a webhook of Alertmanager or Grafana, as far as it is read; other fields pass.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostedBody {
    /// `4` is Alertmanager's.
    version: String,
    /// The organisation: by this a body is Grafana's.
    org_id: Option<i64>,
    /// At most 1,000.
    alerts: Vec<RawAlert>,
    /// Alerts that the sender left out.
    #[serde(default)]
    truncated_alerts: u64,
}

/// One alert of it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RawAlert {
    status: PostedStatus,
    /// At least one and at most 64; each name and each value at most 4 KiB.
    labels: Labels,
    /// Grafana's JSON has null where there are none.
    annotations: Option<Labels>,
    /// RFC 3339.
    starts_at: Option<String>,
    ends_at: Option<String>,
    /// Grafana's only, and empty where there is none.
    #[serde(rename = "dashboardURL")]
    dashboard_url: Option<String>,
    #[serde(rename = "panelURL")]
    panel_url: Option<String>,
}

/// Reads a body.
///
/// # Errors
/// See [`BodyError`].
pub fn read(bytes: &[u8]) -> Result<Body, BodyError> {
    if bytes.len() > ALERT_BODY_BYTES_MAX {
        return Err(BodyError::TooLong);
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let raw: PostedBody =
        serde_path_to_error::deserialize(&mut reader).map_err(|error| unreadable(&error))?;
    reader.end().map_err(|_| BodyError::Unreadable("there is more after the end of the JSON".to_owned()))?;
    let source = match (raw.version.as_str(), raw.org_id) {
        (_, Some(_)) => Source::Grafana,
        ("4", None) => Source::Alertmanager,
        _ => {
            return Err(BodyError::Unreadable(
                "version: expected \"4\", Alertmanager's, or a body of Grafana's".to_owned(),
            ));
        }
    };
    if raw.alerts.len() > ALERTS_PER_BODY_MAX {
        return Err(BodyError::TooManyAlerts(raw.alerts.len()));
    }
    let alerts = raw.alerts.into_iter().enumerate().map(|(at, alert)| posted(at, alert));
    Ok(Body { source, alerts: alerts.collect::<Result<_, _>>()?, truncated: raw.truncated_alerts })
}

/// Names the place; never quotes a value, which may be long and is not ours to repeat.
fn unreadable(error: &serde_path_to_error::Error<serde_json::Error>) -> BodyError {
    let (path, inner) = (error.path().to_string(), error.inner());
    let problem = match inner.classify() {
        serde_json::error::Category::Data => {
            "is missing or has another type than Alertmanager's webhook gives it"
        }
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            "the JSON cannot be read there"
        }
        serde_json::error::Category::Io => "cannot be read",
    };
    let path: String = path.chars().take(128).collect();
    BodyError::Unreadable(format!("{path}: {problem} (line {}, column {})", inner.line(), inner.column()))
}

fn posted(at: usize, raw: RawAlert) -> Result<PostedAlert, BodyError> {
    let RawAlert { status, labels, annotations, starts_at, ends_at, dashboard_url, panel_url } = raw;
    let mut all = annotations.unwrap_or_default();
    let mut first =
        |names: &[&str]| names.iter().filter_map(|name| all.remove(*name)).find(|text| !text.is_empty());
    let given = |url: Option<String>| url.filter(|url| !url.is_empty());
    let annotations = Annotations {
        summary: first(&["summary"]),
        description: first(&["description", "message"]),
        runbook: first(&["runbook_url", "runbook"]).filter(|text| is_link(text)),
        // Grafana makes whole addresses of what the rule has as names.
        dashboard: given(panel_url)
            .or_else(|| given(dashboard_url))
            .or_else(|| first(&["dashboard", "dashboard_url"]))
            .filter(|text| is_link(text)),
    };
    if labels.is_empty() {
        return Err(BodyError::Unreadable(format!("alerts[{at}].labels: an alert without labels is none")));
    }
    if labels.len() > ALERT_LABELS_MAX {
        return Err(BodyError::TooManyLabels(at));
    }
    let Annotations { summary, description, runbook, dashboard } = &annotations;
    let kept = [summary, description, runbook, dashboard].into_iter().flatten();
    if labels
        .iter()
        .flat_map(|(name, value)| [name, value])
        .chain(kept)
        .any(|t| t.len() > ALERT_TEXT_BYTES_MAX)
    {
        return Err(BodyError::TextTooLong(at));
    }
    if alert::bytes(&labels) + annotations.bytes() > ALERT_BYTES_MAX {
        return Err(BodyError::TooLarge(at));
    }
    Ok(PostedAlert {
        status,
        labels,
        annotations,
        starts_at: time(at, starts_at)?,
        ends_at: time(at, ends_at)?,
    })
}

/// Senders write the year 1 where there is no time.
fn time(at: usize, text: Option<String>) -> Result<Option<Timestamp>, BodyError> {
    let Some(text) = text.filter(|text| !text.is_empty() && !text.starts_with("0001-01-01T")) else {
        return Ok(None);
    };
    Timestamp::parse_rfc3339(&text)
        .map(Some)
        .map_err(|problem| BodyError::Unreadable(format!("alerts[{at}]: startsAt or endsAt: {problem}")))
}
