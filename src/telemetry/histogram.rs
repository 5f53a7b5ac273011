//! Histograms of atomics: what was recorded is in the next scrape, exactly once.
//!
//! The exporter's own histograms queue every sample until a scrape or an upkeep task drains them, and lose those that
//! are recorded while the queue is being swapped (metrics-util 0.20.4: a writer may hold the block that was just
//! read). Here a sample is two atomic additions, nothing is queued, and nothing needs upkeep.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::HistogramFn;

use super::metric::Definition;

/// One series.
pub(super) struct AtomicHistogram {
    edges: &'static [f64],
    /// One for each edge, and one for what lies above the last.
    buckets: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl AtomicHistogram {
    fn new(edges: &'static [f64]) -> Self {
        let buckets = (0..=edges.len()).map(|_| AtomicU64::new(0)).collect();
        Self { edges, buckets, sum: AtomicU64::new(0.0_f64.to_bits()) }
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        let edges = self.edges.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        // Writing to a String cannot fail.
        for (edge, bucket) in edges.zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            let _ok = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{edge}\"}} {count}");
        }
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ok = write!(out, "{name}_sum{braced} {sum}\n{name}_count{braced} {count}\n");
    }
}

impl HistogramFn for AtomicHistogram {
    fn record(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let index = self.edges.partition_point(|edge| *edge < value);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // It never refuses: `add` always has a new value.
        let _before = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// All histograms, by name and labels.
///
/// A std read-write lock suffices: it is written once for each new series and read by scrapes; recording takes none.
#[derive(Default)]
pub(super) struct Histograms {
    families: RwLock<BTreeMap<&'static str, HistogramFamily>>,
}

struct HistogramFamily {
    help: &'static str,
    series: BTreeMap<String, Arc<AtomicHistogram>>,
}

impl Histograms {
    /// The series of these label values, made empty when first asked for.
    pub(super) fn series(
        &self,
        definition: &Definition,
        edges: &'static [f64],
        values: &[impl AsRef<str>],
    ) -> Arc<AtomicHistogram> {
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        let new = || HistogramFamily { help: definition.help, series: BTreeMap::new() };
        let family = families.entry(definition.name).or_insert_with(new);
        let labels = labels_text(definition.labels, values);
        Arc::clone(family.series.entry(labels).or_insert_with(|| Arc::new(AtomicHistogram::new(edges))))
    }

    /// Writes all of them as families, each followed by an empty line.
    pub(super) fn write(&self, out: &mut String) {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        for (name, HistogramFamily { help, series }) in families.iter() {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ok = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
            series.iter().for_each(|(labels, histogram)| histogram.write(out, name, labels));
            out.push('\n');
        }
    }
}

fn labels_text(names: &[&str], values: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for (name, value) in names.iter().zip(values) {
        let value = value.as_ref().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let comma = if text.is_empty() { "" } else { "," };
        let _ok = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::metric::Histogram;
    use super::*;

    static WAIT: Histogram<1> =
        Histogram::new("plimsoll_wait_seconds", &["agent"], "Waits.", (&[0.5, 2.0], "enough for a test"));

    fn written(record: &[f64]) -> String {
        let histograms = Histograms::default();
        let series = histograms.series(&WAIT.0, &[0.5, 2.0], &["a\"b"]);
        record.iter().for_each(|value| series.record(*value));
        let mut out = String::new();
        histograms.write(&mut out);
        out
    }

    #[test]
    fn a_value_on_an_edge_lies_below_it() {
        let expected = "# HELP plimsoll_wait_seconds Waits.\n# TYPE plimsoll_wait_seconds histogram\n\
                        plimsoll_wait_seconds_bucket{agent=\"a\\\"b\",le=\"0.5\"} 2\n\
                        plimsoll_wait_seconds_bucket{agent=\"a\\\"b\",le=\"2\"} 3\n\
                        plimsoll_wait_seconds_bucket{agent=\"a\\\"b\",le=\"+Inf\"} 4\n\
                        plimsoll_wait_seconds_sum{agent=\"a\\\"b\"} 6.25\n\
                        plimsoll_wait_seconds_count{agent=\"a\\\"b\"} 4\n\n";
        assert_eq!(written(&[0.25, 0.5, 1.5, 4.0]), expected);
        assert_eq!(written(&[0.25, 0.5, 1.5, f64::NAN, 4.0]), expected);
    }

    #[test]
    fn nothing_is_lost_between_four_threads_and_a_reader() {
        let histograms = Histograms::default();
        let series = histograms.series(&WAIT.0, &[0.5, 2.0], &["a"]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50_000).for_each(|_| series.record(1.0)));
            }
            (0..100).for_each(|_| histograms.write(&mut String::new()));
        });
        let mut out = String::new();
        histograms.write(&mut out);
        assert!(
            out.contains("_count{agent=\"a\"} 200000\n") && out.contains("_sum{agent=\"a\"} 200000\n"),
            "{out}"
        );
    }
}
