//! Families: the handles of one metric, by label values, up to the metric's cap.
//!
//! Past the cap the open labels (those whose values come from outside) become `other` and the overflow is counted;
//! closed ones, such as `outcome`, keep their value. Looking up a series that exists, or one that is folded, takes a
//! read lock and allocates nothing.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use super::metric::{Definition, is_open_label};
use crate::limits::LABEL_BYTES_MAX;

/// The handles of one metric, one for each set of label values seen so far. Cheap to clone.
///
/// A std read-write lock suffices: it is written once for each new series, and hot paths hold the handle that
/// [`Family::with`] returned.
#[derive(Clone)]
pub struct Family<const N: usize, H> {
    inner: Arc<Inner<N, H>>,
}

type Register<const N: usize, H> = dyn Fn(&Definition, &[String; N]) -> H + Send + Sync;

struct Inner<const N: usize, H> {
    definition: Definition,
    series: RwLock<Series<N, H>>,
    register: Box<Register<N, H>>,
    overflow: Box<dyn Fn() + Send + Sync>,
}

struct Series<const N: usize, H> {
    handles: HashMap<Values<N>, H>,
    /// Those under `other`, which the cap does not count.
    folded: usize,
}

pub(super) const OTHER: &str = "other";

impl<const N: usize, H: Clone> Family<N, H> {
    pub(super) fn new(
        definition: Definition,
        register: impl Fn(&Definition, &[String; N]) -> H + Send + Sync + 'static,
        overflow: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let series = RwLock::new(Series { handles: HashMap::new(), folded: 0 });
        let (register, overflow) = (Box::new(register), Box::new(overflow));
        Self { inner: Arc::new(Inner { definition, series, register, overflow }) }
    }

    /// The handle for these label values, made (at 0) when first asked for. Past the metric's cap open labels become
    /// `other`, and the overflow is counted. Values longer than
    /// [`LABEL_BYTES_MAX`] are cut.
    #[must_use]
    pub fn with(&self, values: [&str; N]) -> H {
        let values = values.map(cut);
        let (found, full) = self.find(values);
        match (found, full) {
            (Some(handle), _) => handle,
            (None, false) => self.make(values),
            (None, true) => self.folded(values),
        }
    }

    /// The same, but `None` where it would be shared under `other`: for a gauge that is set, which is true of one only.
    #[must_use]
    pub fn unshared(&self, values: [&str; N]) -> Option<H> {
        let values = values.map(cut);
        match self.find(values) {
            (Some(handle), _) => Some(handle),
            (None, false) => Some(self.make(values)),
            (None, true) => {
                (self.inner.overflow)();
                None
            }
        }
    }

    fn find(&self, values: [&str; N]) -> (Option<H>, bool) {
        let series = self.inner.series.read().unwrap_or_else(PoisonError::into_inner);
        (series.handles.get(&values as &dyn LabelValues).cloned(), self.is_full(&series))
    }

    fn is_full(&self, series: &Series<N, H>) -> bool {
        series.handles.len() - series.folded >= self.inner.definition.series_max
    }

    fn folded(&self, values: [&str; N]) -> H {
        (self.inner.overflow)();
        let folded = self.fold(values);
        self.find(folded).0.unwrap_or_else(|| self.insert(folded, 1))
    }

    /// Open labels become `other`; if there is none, all do, so that a forgotten value cannot go past the cap.
    fn fold<'a>(&self, values: [&'a str; N]) -> [&'a str; N] {
        let labels = self.inner.definition.labels;
        let any_open = labels.iter().any(|label| is_open_label(label));
        let mut folded = values;
        for (value, label) in folded.iter_mut().zip(labels) {
            if !any_open || is_open_label(label) {
                *value = OTHER;
            }
        }
        folded
    }

    fn make(&self, values: [&str; N]) -> H {
        let full = {
            // Two threads may make the last series at once: whoever comes second is folded.
            let series = self.inner.series.read().unwrap_or_else(PoisonError::into_inner);
            self.is_full(&series)
        };
        if full { self.folded(values) } else { self.insert(values, 0) }
    }

    fn insert(&self, values: [&str; N], folded: usize) -> H {
        let mut series = self.inner.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = series.handles.get(&values as &dyn LabelValues) {
            return handle.clone();
        }
        let values = values.map(str::to_owned);
        let handle = (self.inner.register)(&self.inner.definition, &values);
        series.handles.insert(Values(values), handle.clone());
        series.folded += folded;
        handle
    }
}

impl<H: Clone> Family<0, H> {
    /// The handle of a metric without labels.
    #[must_use]
    pub fn handle(&self) -> H {
        self.with([])
    }
}

pub(super) fn cut(value: &str) -> &str {
    value.get(..value.floor_char_boundary(LABEL_BYTES_MAX)).unwrap_or(value)
}

/// Owned label values, looked up by borrowed ones.
#[derive(PartialEq, Eq)]
struct Values<const N: usize>([String; N]);

trait LabelValues {
    fn value(&self, index: usize) -> Option<&str>;
}

impl<const N: usize> LabelValues for [&str; N] {
    fn value(&self, index: usize) -> Option<&str> {
        self.get(index).copied()
    }
}

impl<const N: usize> LabelValues for Values<N> {
    fn value(&self, index: usize) -> Option<&str> {
        self.0.get(index).map(String::as_str)
    }
}

fn all(values: &dyn LabelValues) -> impl Iterator<Item = &str> {
    (0..).map_while(|index| values.value(index))
}

impl Hash for dyn LabelValues + '_ {
    fn hash<S: Hasher>(&self, state: &mut S) {
        all(self).for_each(|value| value.hash(state));
    }
}

impl<const N: usize> Hash for Values<N> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        (self as &dyn LabelValues).hash(state);
    }
}

impl PartialEq for dyn LabelValues + '_ {
    fn eq(&self, other: &Self) -> bool {
        all(self).eq(all(other))
    }
}

impl Eq for dyn LabelValues + '_ {}

impl<'a, const N: usize> Borrow<dyn LabelValues + 'a> for Values<N> {
    fn borrow(&self) -> &(dyn LabelValues + 'a) {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::super::metric::{Counter, Counters};
    use super::*;

    static CALLS: Counter<2> =
        Counter::new("plimsoll_calls_total", &["agent", "outcome"], "Calls.").series_max(3);
    static CLOSED: Counter<1> = Counter::new("plimsoll_closed_total", &["outcome"], "Closed.").series_max(1);

    fn registry() -> Registry {
        let overflow = super::super::metrics::SERIES_OVERFLOW.0;
        Registry::new(&[CALLS.0, CLOSED.0, overflow]).expect("valid")
    }

    fn value(registry: &Registry, series: &str) -> Option<u64> {
        let text = registry.render();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    fn step(calls: &Counters<2>, agent: &str, outcome: &str) {
        calls.with([agent, outcome]).increment(1);
    }

    #[test]
    fn the_last_series_that_fits_is_kept_and_the_next_becomes_other() {
        let registry = registry();
        let calls = registry.counters(&CALLS);
        ["a", "b", "c"].iter().for_each(|agent| step(&calls, agent, "ok"));
        assert_eq!(value(&registry, "plimsoll_calls_total{agent=\"c\",outcome=\"ok\"}"), Some(1));
        let overflow = "plimsoll_series_overflow_total{metric=\"plimsoll_calls_total\"}";
        assert_eq!(value(&registry, overflow), Some(0));

        step(&calls, "d", "ok");
        step(&calls, "e", "failed");
        step(&calls, "e", "failed");
        assert_eq!(value(&registry, "plimsoll_calls_total{agent=\"other\",outcome=\"ok\"}"), Some(1));
        assert_eq!(value(&registry, "plimsoll_calls_total{agent=\"other\",outcome=\"failed\"}"), Some(2));
        assert_eq!(value(&registry, overflow), Some(3));
        step(&calls, "a", "ok");
        assert_eq!(value(&registry, "plimsoll_calls_total{agent=\"a\",outcome=\"ok\"}"), Some(2));
        assert_eq!(value(&registry, overflow), Some(3));
    }

    #[test]
    fn what_is_not_shared_is_missing_past_the_cap_and_counted() {
        let registry = registry();
        let calls = registry.counters(&CALLS);
        let own = |agent: &str| calls.unshared([agent, "ok"]).map(|counter| counter.increment(1));
        assert_eq!(
            ["a", "b", "c", "d", "a"].map(|agent| own(agent).is_some()),
            [true, true, true, false, true]
        );
        let overflow = "plimsoll_series_overflow_total{metric=\"plimsoll_calls_total\"}";
        assert_eq!(value(&registry, overflow), Some(1));
        assert_eq!(value(&registry, "plimsoll_calls_total{agent=\"other\",outcome=\"ok\"}"), None);
    }

    #[test]
    fn a_hundred_thousand_made_up_names_make_no_more_series() {
        let registry = registry();
        let calls = registry.counters(&CALLS);
        for n in 0..100_000 {
            step(&calls, &format!("made-up-{n}"), "ok");
        }
        let series =
            registry.render().lines().filter(|line| line.starts_with("plimsoll_calls_total{")).count();
        assert_eq!(series, 4);
        assert_eq!(value(&registry, "plimsoll_calls_total{agent=\"other\",outcome=\"ok\"}"), Some(99_997));
    }

    #[test]
    fn a_metric_without_open_labels_folds_them_all() {
        let registry = registry();
        let closed = registry.counters(&CLOSED);
        closed.with(["ok"]).increment(1);
        closed.with(["surprise"]).increment(1);
        assert_eq!(value(&registry, "plimsoll_closed_total{outcome=\"other\"}"), Some(1));
    }

    #[test]
    fn label_values_are_cut_between_characters() {
        assert_eq!(cut(&"a".repeat(LABEL_BYTES_MAX)).len(), LABEL_BYTES_MAX);
        assert_eq!(cut(&"a".repeat(LABEL_BYTES_MAX + 1)).len(), LABEL_BYTES_MAX);
        assert_eq!(cut(&"\u{20ac}".repeat(LABEL_BYTES_MAX)).len(), LABEL_BYTES_MAX / 3 * 3);
    }
}
