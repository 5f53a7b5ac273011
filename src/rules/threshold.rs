//! The numbers in the rules that a reader may set, by names that stay: `alerts/thresholds.yaml` says where each stands.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::source::Rules;
use crate::telemetry::metric::{Definition, Kind};

const TABLE: &str = include_str!("../../alerts/thresholds.yaml");

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    thresholds: Vec<Threshold>,
    /// Rules without anything to set, with the reason.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test looks whether a rule was forgotten"))]
    fixed: BTreeMap<String, String>,
}

/// A number in the rules that may be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threshold {
    pub(crate) name: String,
    pub(crate) meaning: String,
    /// What is counted; `seconds` and `ratio` (0 to 1) are measured.
    pub(crate) unit: String,
    pub(crate) default: f64,
    /// The histogram of whose buckets it has to be an edge.
    #[serde(default)]
    edge_of: Option<String>,
    /// By rule, what stands in its texts around the number.
    places: BTreeMap<String, Vec<String>>,
}

/// A threshold and what it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// Why a threshold cannot be set.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum ThresholdError {
    #[error("there is no threshold `{name}`: it is one of {known}")]
    Unknown { name: String, known: String },
    #[error("the threshold `{0}` is set twice")]
    Twice(String),
    #[error("`{name}` ({unit}) cannot be {value}: it is a number from 0 to {most}")]
    Range { name: String, unit: String, value: f64, most: f64 },
    #[error("`{name}` cannot be {value}: it has to be an edge of the buckets of {metric}, which are {edges}")]
    NoEdge { name: String, value: f64, metric: String, edges: String },
}

impl Setting {
    /// Reads `NAME=VALUE`.
    ///
    /// # Errors
    /// What it has to look like, if it does not.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let problem = || "a threshold is set like queue_depth=100".to_owned();
        let (name, value) = text.split_once('=').ok_or_else(problem)?;
        let value = value.trim().parse().map_err(|_| problem())?;
        Ok(Self { name: name.trim().to_owned(), value })
    }
}

/// The thresholds there are.
pub(crate) fn thresholds() -> Vec<Threshold> {
    table().thresholds
}

fn table() -> Table {
    serde_saphyr::from_str(TABLE)
        .unwrap_or_else(|error| panic!("alerts/thresholds.yaml, which a test reads: {error}"))
}

impl Threshold {
    /// The rules in which it stands.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// What it may be if it can only be the edge of a bucket, in the unit.
    pub(crate) fn edges(&self, catalogue: &[Definition]) -> Option<&'static [f64]> {
        let name = self.edge_of.as_deref()?;
        catalogue.iter().find(|metric| metric.name == name).and_then(|metric| match metric.kind {
            Kind::Histogram { buckets, .. } => Some(buckets),
            Kind::Counter | Kind::Gauge => None,
        })
    }

    fn check(&self, value: f64, catalogue: &[Definition]) -> Result<(), ThresholdError> {
        // A trillion: far beyond what anything here counts, and still exact in a float.
        let most = if self.unit == "ratio" { 1.0 } else { 1e12 };
        if !(0.0..=most).contains(&value) {
            let Self { name, unit, .. } = self.clone();
            return Err(ThresholdError::Range { name, unit, value, most });
        }
        match (self.edges(catalogue), &self.edge_of) {
            (Some(edges), Some(metric)) if !edges.contains(&value) => Err(ThresholdError::NoEdge {
                name: self.name.clone(),
                value,
                metric: metric.clone(),
                edges: listed(edges),
            }),
            _ => Ok(()),
        }
    }

    fn set(&self, rules: &mut Rules, value: f64) {
        for rule in rules.all_mut() {
            let Some(places) = self.places.get(rule.name()).cloned() else { continue };
            for text in rule.texts_mut() {
                for place in &places {
                    *text = text.replace(&with(place, self.default), &with(place, value));
                }
            }
        }
    }
}

impl Rules {
    /// Sets thresholds; each of `catalogue` is a metric, whose buckets limit what some can be.
    ///
    /// # Errors
    /// The first that is not known, set twice, or cannot be that.
    pub(crate) fn set(
        &mut self,
        settings: &[Setting],
        catalogue: &[Definition],
    ) -> Result<(), ThresholdError> {
        let all = thresholds();
        for (at, Setting { name, value }) in settings.iter().enumerate() {
            let threshold = all.iter().find(|one| one.name == *name).ok_or_else(|| {
                let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
                ThresholdError::Unknown { name: name.clone(), known: known.join(", ") }
            })?;
            if settings[..at].iter().any(|before| before.name == *name) {
                return Err(ThresholdError::Twice(name.clone()));
            }
            threshold.check(*value, catalogue)?;
            threshold.set(self, *value);
        }
        Ok(())
    }
}

/// Numbers as people read them in a row.
pub(crate) fn listed(numbers: &[f64]) -> String {
    numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")
}

/// The place with the number in it.
fn with(place: &str, value: f64) -> String {
    let times = |factor: f64| ((value * factor * 1e6).round() / 1e6).to_string();
    place
        .replace("{le}", &bucket(value))
        .replace("{ms}", &times(1000.0))
        .replace("{percent}", &times(100.0))
        .replace("{}", &value.to_string())
}

/// How a bucket's edge is matched: Prometheus 2 keeps `1` as it is exposed, Prometheus 3 makes `1.0` of it.
fn bucket(edge: f64) -> String {
    if edge.fract() == 0.0 { format!("=~\"{edge}([.]0)?\"") } else { format!("=\"{edge}\"") }
}

#[cfg(test)]
mod tests {
    use super::super::source::Rule;
    use super::*;

    fn set(settings: &[(&str, f64)]) -> Result<Rules, ThresholdError> {
        let settings: Vec<Setting> = settings
            .iter()
            .map(|(name, value)| Setting { name: (*name).to_owned(), value: *value })
            .collect();
        let mut rules = Rules::embedded();
        rules.set(&settings, &crate::catalogue::all())?;
        Ok(rules)
    }

    fn texts(rules: &mut Rules, name: &str) -> Vec<String> {
        let rule =
            rules.all_mut().find(|rule| rule.name() == name).unwrap_or_else(|| panic!("no rule {name}"));
        rule.texts_mut().into_iter().map(|text| text.clone()).collect()
    }

    /// Another value that the threshold may have.
    fn other(threshold: &Threshold) -> f64 {
        match threshold.edges(&crate::catalogue::all()) {
            Some(edges) => *edges.iter().find(|edge| **edge > threshold.default).expect("a higher edge"),
            None if threshold.unit == "ratio" => threshold.default / 2.0,
            None => threshold.default * 2.0 + 1.0,
        }
    }

    #[test]
    fn every_place_stands_in_its_rule_alone_and_beside_all_others() {
        let all = thresholds();
        let every: Vec<(&str, f64)> = all.iter().map(|one| (one.name.as_str(), other(one))).collect();
        let mut together = set(&every).expect("all at once");
        for threshold in &all {
            assert!(!threshold.places.is_empty(), "{} stands nowhere", threshold.name);
            let mut alone = set(&[(&threshold.name, other(threshold))]).expect("one");
            for (rule, places) in &threshold.places {
                assert!(!places.is_empty(), "{} has no place in {rule}", threshold.name);
                for place in places {
                    let holds = |rules: &mut Rules, value| {
                        texts(rules, rule).iter().any(|text| text.contains(&with(place, value)))
                    };
                    let name = &threshold.name;
                    assert!(
                        holds(&mut Rules::embedded(), threshold.default),
                        "{name}: {rule} has no {place:?}"
                    );
                    assert!(holds(&mut alone, other(threshold)), "{name} does not reach {place:?} of {rule}");
                    assert!(!holds(&mut alone, threshold.default), "{name} leaves {place:?} of {rule}");
                    assert!(
                        holds(&mut together, other(threshold)),
                        "{name} and another meet in {place:?} of {rule}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_alert_has_a_threshold_or_a_reason_for_none() {
        let Table { thresholds, fixed } = table();
        let rules = Rules::embedded();
        for rule in rules.all() {
            let set = thresholds.iter().any(|one| one.places.contains_key(rule.name()));
            let reason = fixed.get(rule.name());
            match rule {
                Rule::Alert(_) => assert!(
                    set != reason.is_some(),
                    "alerts/thresholds.yaml: {} belongs either to a threshold or to `fixed`",
                    rule.name()
                ),
                Rule::Recording(_) => assert_eq!(reason, None, "a recording rule needs no reason"),
            }
        }
        let known: Vec<&str> = rules.all().map(Rule::name).collect();
        let named = thresholds.iter().flat_map(Threshold::rules).chain(fixed.keys().map(String::as_str));
        for name in named {
            assert!(known.contains(&name), "alerts/thresholds.yaml: there is no rule {name}");
        }
        let mut names: Vec<&str> = thresholds.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), thresholds.len(), "each name stands once");
    }

    #[test]
    fn every_default_is_a_value_that_it_could_be_set_to() {
        let catalogue = crate::catalogue::all();
        for threshold in thresholds() {
            assert_eq!(threshold.check(threshold.default, &catalogue), Ok(()));
            assert_eq!(
                threshold.edge_of.is_some(),
                threshold.edges(&catalogue).is_some(),
                "{}",
                threshold.name
            );
        }
    }

    #[test]
    fn a_threshold_on_ticks_is_an_edge_of_their_buckets() {
        let mut rules = set(&[("tick_seconds", 0.25)]).expect("an edge");
        let slow = texts(&mut rules, "PlimsollTickSlow").join("\n");
        assert!(slow.contains("_bucket{le=\"0.25\"}[11m]") && slow.contains("take over 250 ms"), "{slow}");
        assert!(!slow.contains("le=\"0.5\"") && !slow.contains("500 ms"), "{slow}");
        let mut rules = set(&[("tick_seconds", 1.0)]).expect("an edge");
        let slow = texts(&mut rules, "PlimsollTickSlow").join("\n");
        assert!(slow.contains("_bucket{le=~\"1([.]0)?\"}[11m]"), "{slow}");
        let refused = set(&[("tick_seconds", 0.3)]).expect_err("no edge").to_string();
        assert!(refused.contains("0.25, 0.5, 1"), "{refused}");
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let unknown = set(&[("queue", 1.0)]).expect_err("unknown").to_string();
        assert!(unknown.contains("queue_depth"), "{unknown}");
        assert_eq!(
            set(&[("queue_depth", 1.0), ("queue_depth", 2.0)]).expect_err("twice"),
            ThresholdError::Twice("queue_depth".to_owned())
        );
        for value in [-1.0, f64::NAN, f64::INFINITY, 1.1e12] {
            assert!(matches!(set(&[("queue_depth", value)]), Err(ThresholdError::Range { .. })), "{value}");
        }
        for value in [0.0, 51.5, 1e12] {
            set(&[("queue_depth", value)]).unwrap_or_else(|error| panic!("{value}: {error}"));
        }
        for text in ["queue_depth", "queue_depth=", "queue_depth=many"] {
            Setting::parse(text).expect_err(text);
        }
    }
}
