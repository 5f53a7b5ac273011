//! What an alert is: labels that tell it from others, a severity, and the texts that people read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The alert that always fires, so that its absence tells of a broken road. It is never journaled.
pub(super) const WATCHDOG: &str = "PlimsollWatchdog";

/// Labels that say who evaluated an alert, not which it is: Grafana adds them to what Prometheus tells without.
const NOT_IDENTITY: &[&str] = &["__name__", "datasource_uid", "grafana_folder", "ref_id", "rulename"];

/// The names and values that tell one alert from another.
pub(super) type Labels = BTreeMap<String, String>;

/// Who posted an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Prometheus's Alertmanager.
    Alertmanager,
    /// Grafana's own alerting.
    Grafana,
}

/// How bad it is, by the label `severity`; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody must act now.
    Critical,
    /// Somebody should look.
    Warning,
    /// Any other word, or none.
    Other,
    /// For those who look anyway.
    Info,
}

/// What people read of an alert; each at most
/// [`ALERT_TEXT_BYTES_MAX`](crate::limits::alerts::ALERT_TEXT_BYTES_MAX) bytes. It was written elsewhere: show it as text only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Annotations {
    /// One line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// What to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is written what to do: an address of http or https, or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// Where it is drawn: an address of http or https, or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
}

/// By which an alert is known, whoever tells of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Identity(String);

impl Identity {
    /// 128 bits of the SHA-256 of the labels that tell alerts apart.
    pub(super) fn of(labels: &Labels) -> Self {
        let telling: BTreeMap<_, _> =
            labels.iter().filter(|(name, _)| !NOT_IDENTITY.contains(&name.as_str())).collect();
        let text = serde_json::to_string(&telling).expect("a map of texts is JSON");
        let digest = Sha256::digest(text.as_bytes());
        Self(digest[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Severity {
    /// By the label of this name.
    pub(super) fn of(labels: &Labels) -> Self {
        match labels.get("severity").map(String::as_str) {
            Some("critical") => Self::Critical,
            Some("warning") => Self::Warning,
            Some("info" | "none") => Self::Info,
            Some(_) | None => Self::Other,
        }
    }
}

impl Annotations {
    /// How many bytes they hold.
    pub(super) fn bytes(&self) -> usize {
        let Self { summary, description, runbook, dashboard } = self;
        [summary, description, runbook, dashboard].into_iter().flatten().map(String::len).sum()
    }
}

/// The name of the rule, if it has one.
pub(super) fn name(labels: &Labels) -> Option<&str> {
    labels.get("alertname").map(String::as_str)
}

/// How many bytes names and values hold.
pub(super) fn bytes(labels: &Labels) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// A link that a page may offer: an address of http or https, or one without a scheme. A script is none.
pub(super) fn is_link(text: &str) -> bool {
    let scheme = text.split(['/', '?', '#']).next().and_then(|head| head.split_once(':'));
    let known = scheme.is_none_or(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    known && !text.is_empty() && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn who_evaluated_an_alert_does_not_make_it_another_one() {
        let own = [("alertname", "A"), ("town", "lab")];
        for added in ["__name__", "datasource_uid", "grafana_folder", "ref_id", "rulename"] {
            let by_grafana = labels(&[own[0], own[1], (added, "x")]);
            assert_eq!(Identity::of(&by_grafana), Identity::of(&labels(&own)), "{added}");
        }
        for other in [&[own[0]][..], &[own[0], ("town", "la")], &[own[0], own[1], ("ref", "A")]] {
            assert_ne!(Identity::of(&labels(other)), Identity::of(&labels(&own)), "{other:?}");
        }
        let (split, joined) = (labels(&[("a", "b\",\"c\":\"d")]), labels(&[("a", "b"), ("c", "d")]));
        assert_ne!(Identity::of(&split), Identity::of(&joined), "no value pretends to be two");
    }

    #[test]
    fn a_script_is_no_link() {
        for good in
            ["https://g.example/d/x?y=1#z", "HTTP://g", "/d/uid?viewPanel=2", "alerts/runbooks/A.md", "#a:b"]
        {
            assert!(is_link(good), "{good}");
        }
        for bad in [
            "",
            "javascript:alert(1)",
            "JavaScript:x",
            "data:text/html,x",
            "java\nscript:x",
            " javascript:x",
            ":x",
        ] {
            assert!(!is_link(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_worst_severity_stands_first() {
        let of = |word: &str| Severity::of(&labels(&[("severity", word)]));
        assert!(of("critical") < of("warning") && of("warning") < of("page") && of("page") < of("info"));
        assert_eq!(Severity::of(&Labels::new()), Severity::Other);
    }
}
