//! The registry: from definitions to handles, and from handles to the exposition.

use std::sync::Arc;

use metrics::{Key, Label, Metadata, Recorder as _};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::metric::{Counter, Counters, Definition, Gauge, Gauges, Histogram, Histograms, Kind};
use super::metrics::SERIES_OVERFLOW;

/// Makes the handles of all metrics and renders them. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Registry {
    /// A registry that knows the help text and the buckets of every metric in `catalogue`.
    ///
    /// # Errors
    /// [`BuildError`] when a histogram has no buckets.
    pub fn new(catalogue: &[Definition]) -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for definition in catalogue {
            if let Kind::Histogram { buckets, .. } = definition.kind {
                builder =
                    builder.set_buckets_for_metric(Matcher::Full(definition.name.to_owned()), buckets)?;
            }
        }
        let recorder = builder.build_recorder();
        for definition in catalogue {
            let (name, help) = (definition.name.into(), definition.help.into());
            match definition.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram { .. } => recorder.describe_histogram(name, None, help),
            }
        }
        Ok(Self { handle: recorder.handle(), recorder: Arc::new(recorder) })
    }

    /// The family of a counter.
    #[must_use]
    pub fn counters<const N: usize>(&self, counter: &Counter<N>) -> Counters<N> {
        let (recorder, overflow) = (Arc::clone(&self.recorder), self.overflow(counter.0.name));
        Counters::new(counter.0, move |d, v| recorder.register_counter(&key(d, v), &METADATA), overflow)
    }

    /// The family of a gauge.
    #[must_use]
    pub fn gauges<const N: usize>(&self, gauge: &Gauge<N>) -> Gauges<N> {
        let (recorder, overflow) = (Arc::clone(&self.recorder), self.overflow(gauge.0.name));
        Gauges::new(gauge.0, move |d, v| recorder.register_gauge(&key(d, v), &METADATA), overflow)
    }

    /// The family of a histogram.
    #[must_use]
    pub fn histograms<const N: usize>(&self, histogram: &Histogram<N>) -> Histograms<N> {
        let (recorder, overflow) = (Arc::clone(&self.recorder), self.overflow(histogram.0.name));
        Histograms::new(histogram.0, move |d, v| recorder.register_histogram(&key(d, v), &METADATA), overflow)
    }

    /// The recorder itself, for crates that report through the `metrics` macros.
    #[must_use]
    pub fn recorder(&self) -> Arc<PrometheusRecorder> {
        Arc::clone(&self.recorder)
    }

    /// All series in the Prometheus text format. Takes milliseconds at thousands of series: call it off the runtime.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Empties the sample queues of histograms; without it each keeps every sample. Call it every few seconds.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn overflow(&self, metric: &'static str) -> impl Fn() + Send + Sync + 'static {
        let labels = vec![Label::from_static_parts("metric", metric)];
        let counter =
            self.recorder.register_counter(&Key::from_parts(SERIES_OVERFLOW.0.name, labels), &METADATA);
        move || counter.increment(1)
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), metrics::Level::INFO, None);

fn key<const N: usize>(definition: &Definition, values: &[String; N]) -> Key {
    let labels: Vec<Label> =
        definition.labels.iter().zip(values).map(|(name, value)| Label::new(*name, value.clone())).collect();
    Key::from_parts(definition.name, labels)
}
