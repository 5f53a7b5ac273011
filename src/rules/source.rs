//! The rules as they stand in `alerts/*.rules.yaml`, embedded, as types. What is no rule of Prometheus is refused.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::expression::with_durations_divided;
use super::links::Links;
use super::span::Span;

/// The files there are, in the order of their names.
pub(super) const FILES: &[(&str, &str)] =
    &[("plimsoll.rules.yaml", include_str!("../../alerts/plimsoll.rules.yaml"))];

/// All groups of rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    pub(crate) groups: Vec<Group>,
}

/// Rules that are evaluated together, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// How often.
    pub(crate) interval: Span,
    pub(crate) rules: Vec<Rule>,
}

/// A rule of either kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Rule {
    Alert(Alert),
    Recording(Recording),
}

/// Fires while its expression has a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alert {
    pub(crate) alert: String,
    pub(crate) expr: String,
    /// How long it is pending first.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending_for: Option<Span>,
    /// How long it goes on firing without a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keep_firing_for: Option<Span>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: Annotations,
}

/// What a person is told. Texts are templates of Go, with `$labels` and `$value`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Annotations {
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) runbook_url: String,
    /// The panel that shows it: `/d/UID?viewPanel=N`, relative to Grafana's address.
    pub(crate) dashboard: String,
}

/// Keeps the result of its expression as a series of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recording {
    pub(crate) record: String,
    pub(crate) expr: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

impl Rules {
    /// The rules of this version of the program.
    pub(crate) fn embedded() -> Self {
        let parsed = FILES.iter().map(|(name, text)| {
            serde_saphyr::from_str::<Self>(text)
                .unwrap_or_else(|error| panic!("alerts/{name}, which a test reads: {error}"))
        });
        Self { groups: parsed.flat_map(|rules| rules.groups).collect() }
    }

    /// Every rule, in the order in which it stands.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Rule> {
        self.groups.iter_mut().flat_map(|group| &mut group.rules)
    }

    /// Makes the links to runbooks and dashboards absolute.
    pub(crate) fn link(&mut self, links: &Links) {
        for rule in self.all_mut() {
            if let Rule::Alert(Alert { annotations, .. }) = rule {
                annotations.runbook_url = links.runbook(&annotations.runbook_url);
                annotations.dashboard = links.dashboard(&annotations.dashboard);
            }
        }
    }

    /// Divides every length of time: intervals, ranges, offsets, and how long an alert is pending and kept. For tests
    /// that cannot wait.
    pub(crate) fn divide_durations(&mut self, divisor: NonZeroU32) {
        for group in &mut self.groups {
            group.interval = group.interval.divided_by(divisor);
        }
        for rule in self.all_mut() {
            *rule.expr_mut() = with_durations_divided(rule.expr(), divisor);
            if let Rule::Alert(Alert { pending_for, keep_firing_for, .. }) = rule {
                *pending_for = pending_for.map(|span| span.divided_by(divisor));
                *keep_firing_for = keep_firing_for.map(|span| span.divided_by(divisor));
            }
        }
    }
}

impl Rule {
    /// The alert's name, or that of the recorded series.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Alert(alert) => &alert.alert,
            Self::Recording(recording) => &recording.record,
        }
    }

    pub(crate) fn expr(&self) -> &str {
        match self {
            Self::Alert(alert) => &alert.expr,
            Self::Recording(recording) => &recording.expr,
        }
    }

    fn expr_mut(&mut self) -> &mut String {
        match self {
            Self::Alert(alert) => &mut alert.expr,
            Self::Recording(recording) => &mut recording.expr,
        }
    }

    /// What a threshold may stand in: the expression, and what people are told.
    pub(super) fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Alert(Alert { expr, annotations, .. }) => {
                vec![expr, &mut annotations.summary, &mut annotations.description]
            }
            Self::Recording(recording) => vec![&mut recording.expr],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_rules_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
        let names = std::fs::read_dir(folder)
            .expect("alerts/")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".rules.yaml")).collect();
        names.sort();
        let embedded: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, embedded);
    }

    #[test]
    fn a_rule_with_an_unknown_key_is_refused() {
        let good = FILES[0].1;
        serde_saphyr::from_str::<Rules>(good).expect("the rules");
        for (old, new) in
            [("for: 1m", "fir: 1m"), ("interval: 30s", "intervall: 30s"), ("summary:", "sumary:")]
        {
            let bad = good.replacen(old, new, 1);
            assert_ne!(bad, good, "{old}");
            serde_saphyr::from_str::<Rules>(&bad).expect_err(new);
        }
    }

    #[test]
    fn divided_rules_have_other_durations_and_the_same_thresholds() {
        let mut rules = Rules::embedded();
        rules.divide_durations(NonZeroU32::new(30).expect("not zero"));
        assert!(rules.groups.iter().all(|group| group.interval.to_string() == "1s"));
        let queue = rules.all().find(|rule| rule.name() == "PlimsollQueueDepthHigh").expect("the rule");
        assert_eq!(queue.expr(), "max by (job, instance) (min_over_time(plimsoll_queue_depth[4s])) > 50");
        let Rule::Alert(queue) = queue else { panic!("an alert") };
        assert_eq!(queue.pending_for, Span::parse("2s"));
    }
}
