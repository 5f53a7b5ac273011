//! Agents whose series leave the exposition: the exporter cannot take a series back.
//!
//! What is hidden goes on being counted, so that a counter that is shown again goes on from where it is. Start at
//! [`Hidden`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use super::family::{OTHER, cut};

/// The labels that name an agent.
const AGENT_LABELS: [&str; 2] = ["agent", "agent_instance"];

/// What is not shown. A std read-write lock suffices: it is read once for each scrape.
#[derive(Default)]
pub(super) struct Hidden(RwLock<Names>);

#[derive(Default, Clone)]
pub(super) struct Names {
    agents: BTreeSet<String>,
    /// Of one metric each.
    series: BTreeSet<(&'static str, String)>,
}

impl Hidden {
    /// Hides all series of an agent, but for those that it shares with others.
    pub(super) fn hide(&self, agent: &str) {
        if agent != OTHER {
            self.change(|names| names.agents.insert(cut(agent).to_owned()));
        }
    }

    /// Hides its series of one metric, also while its others are shown.
    pub(super) fn hide_of(&self, metric: &'static str, agent: &str) {
        self.change(|names| names.series.insert((metric, cut(agent).to_owned())));
    }

    /// Shows all of them again.
    pub(super) fn show(&self, agent: &str) {
        self.change(|names| {
            names.series.retain(|(_, hidden)| hidden != cut(agent));
            names.agents.remove(cut(agent))
        });
    }

    /// As it is now; nothing where nothing is hidden.
    pub(super) fn names(&self) -> Option<Names> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let empty = names.agents.is_empty() && names.series.is_empty();
        (!empty).then(|| names.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Names) -> bool) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Names {
    /// Whether a line of the exposition is not to be shown.
    pub(super) fn hide(&self, line: &str) -> bool {
        let (Some(open), Some(close)) = (line.find('{'), line.rfind('}')) else { return false };
        let (name, mut rest) = (&line[..open], &line[open + 1..close]);
        while let Some((label, value, more)) = next_label(rest) {
            if AGENT_LABELS.contains(&label) {
                let value = unescaped(value);
                let of_metric = |(metric, agent): &(&str, String)| *metric == name && *agent == value;
                if self.agents.contains(&*value) || self.series.iter().any(of_metric) {
                    return true;
                }
            }
            rest = more;
        }
        false
    }
}

/// A label's name, its value as it is written, and what comes after.
fn next_label(text: &str) -> Option<(&str, &str, &str)> {
    let (label, rest) = text.split_once("=\"")?;
    let mut escaped = false;
    let end = rest.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((label.trim_start_matches(','), &rest[..end], &rest[end + 1..]))
}

/// A value as it was before it was written: `\\`, `\"` and `\n` are one character each
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut characters = value.chars();
    let mut text = String::with_capacity(value.len());
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => text.push('\n'),
            other => text.extend(other),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::super::metric::{Counter, Gauge, Histogram};
    use super::*;

    static CALLS: Counter<2> = Counter::new("plimsoll_calls_total", &["tool", "agent"], "Calls.");
    static STARTS: Gauge<1> = Gauge::new("plimsoll_starts", &["agent_instance"], "Starts.");
    static WAIT: Histogram<1> =
        Histogram::new("plimsoll_wait_seconds", &["agent"], "Waits.", (&[1.0], "enough"));

    fn registry() -> Registry {
        let overflow = super::super::metrics::SERIES_OVERFLOW.0;
        Registry::new(&[CALLS.0, STARTS.0, WAIT.0, overflow]).expect("valid")
    }

    fn step(registry: &Registry, tool: &str, agent: &str) {
        registry.counters(&CALLS).with([tool, agent]).increment(1);
        registry.gauges(&STARTS).with([agent]).set(1.0);
        registry.histograms(&WAIT).with([agent]).record(0.5);
    }

    /// The lines about plimsoll's own series that the test makes.
    fn shown(registry: &Registry) -> Vec<String> {
        let text = registry.render();
        let own = |line: &&str| {
            ["plimsoll_calls", "plimsoll_starts", "plimsoll_wait"].iter().any(|n| line.starts_with(n))
        };
        text.lines().filter(own).map(str::to_owned).collect()
    }

    #[test]
    fn every_series_of_a_hidden_agent_leaves_and_comes_back_where_it_was() {
        let registry = registry();
        step(&registry, "grep", "a");
        step(&registry, "grep", "ab");
        let all = shown(&registry);
        registry.hide_agent("a");
        let rest: Vec<_> = all.iter().filter(|line| !line.contains("=\"a\"")).cloned().collect();
        assert_eq!((shown(&registry), rest.len() * 2), (rest, all.len()));
        registry.counters(&CALLS).with(["grep", "a"]).increment(1);
        registry.show_agent("a");
        let again = shown(&registry);
        assert!(again.contains(&"plimsoll_calls_total{tool=\"grep\",agent=\"a\"} 2".to_owned()), "{again:?}");
        assert_eq!(again.len(), all.len());
    }

    #[test]
    fn a_family_whose_series_are_all_hidden_leaves_with_its_comments() {
        let registry = registry();
        step(&registry, "grep", "a");
        registry.hide_agent("a");
        assert!(!registry.render().contains("HELP plimsoll_starts"), "{}", registry.render());
    }

    #[test]
    fn names_are_compared_as_they_are_and_no_other_value_is_taken_for_one() {
        let registry = registry();
        let (hostile, escaped) = ("x\",agent=\"a", "a\"\nb\\c");
        step(&registry, hostile, "safe");
        step(&registry, "a", "tool-a");
        step(&registry, "\\", escaped);
        registry.hide_agent("a");
        assert_eq!(shown(&registry).iter().filter(|line| line.contains("safe")).count(), 6);
        assert_eq!(shown(&registry).iter().filter(|line| line.contains("tool-a")).count(), 6);
        let before = shown(&registry).len();
        registry.hide_agent(escaped);
        assert_eq!(shown(&registry).len(), before - 6);
    }

    #[test]
    fn one_metric_is_hidden_alone_until_the_agent_is_shown_anew() {
        let registry = registry();
        step(&registry, "grep", "a");
        registry.hide_series(STARTS.0.name, "a");
        assert_eq!(shown(&registry).len(), 5);
        registry.show_agent("a");
        assert_eq!(shown(&registry).len(), 6);
    }

    #[test]
    fn what_several_agents_share_is_never_hidden_and_nothing_hidden_costs_nothing() {
        let registry = registry();
        step(&registry, "grep", OTHER);
        registry.hide_agent(OTHER);
        assert!(registry.hidden().is_none(), "no line is looked at");
        assert_eq!(shown(&registry).len(), 6);
        registry.hide_agent("a");
        registry.show_agent("a");
        assert!(registry.hidden().is_none());
    }
}
