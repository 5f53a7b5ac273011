//! The registry: from definitions to handles, and from handles to the exposition.

use std::sync::Arc;

use metrics::{Key, Label, Metadata, Recorder as _};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::exposition::sorted;
use super::hidden::Hidden;
use super::histogram;
use super::metric::{Counter, Counters, Definition, Gauge, Gauges, Histogram, Histograms, Kind};
use super::metrics::SERIES_OVERFLOW;
use super::process::ProcessObserver;
use super::scrape::Scrapes;
use super::shared::Components;

/// Makes the handles of all metrics and renders them. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    histograms: Arc<histogram::Histograms>,
    process: Arc<ProcessObserver>,
    scrapes: Arc<Scrapes>,
    components: Components,
    hidden: Arc<Hidden>,
    records: bool,
}

/// What the exposition is called: Prometheus 3 refuses a scrape that does not say so.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Registry {
    /// A registry that knows the help text and the buckets of every metric in `catalogue`.
    ///
    /// # Errors
    /// [`BuildError`] when a histogram has no buckets.
    pub fn new(catalogue: &[Definition]) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new().build_recorder();
        for definition in catalogue {
            let (name, help) = (definition.name.into(), definition.help.into());
            match definition.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                // Kept and described here, not by the exporter.
                Kind::Histogram { buckets: [], .. } => return Err(BuildError::EmptyBucketsOrQuantiles),
                Kind::Histogram { .. } => {}
            }
        }
        let handle = recorder.handle();
        let (process, scrapes) = (Arc::new(ProcessObserver::new()), Arc::new(Scrapes::default()));
        let (histograms, components) = (Arc::default(), Components::default());
        Ok(Self {
            recorder: Arc::new(recorder),
            handle,
            histograms,
            process,
            scrapes,
            components,
            hidden: Arc::default(),
            records: true,
        })
    }

    /// The same, with handles that record nothing: what recording costs is measured against it.
    #[must_use]
    pub fn silent(self) -> Self {
        Self { records: false, ..self }
    }

    /// Whether it records anything.
    #[must_use]
    pub fn records(&self) -> bool {
        self.records
    }

    /// The family of a counter.
    #[must_use]
    pub fn counters<const N: usize>(&self, counter: &Counter<N>) -> Counters<N> {
        let (registry, overflow) = (self.clone(), self.overflow(counter.0.name));
        let make = move |d: &Definition, v: &[String; N]| {
            if !registry.records {
                return metrics::Counter::noop();
            }
            registry.recorder.register_counter(&key(d, v), &METADATA)
        };
        Counters::new(counter.0, make, overflow)
    }

    /// The family of a gauge.
    #[must_use]
    pub fn gauges<const N: usize>(&self, gauge: &Gauge<N>) -> Gauges<N> {
        let (registry, overflow) = (self.clone(), self.overflow(gauge.0.name));
        let make = move |d: &Definition, v: &[String; N]| {
            if !registry.records {
                return metrics::Gauge::noop();
            }
            registry.recorder.register_gauge(&key(d, v), &METADATA)
        };
        Gauges::new(gauge.0, make, overflow)
    }

    /// The family of a histogram.
    #[must_use]
    pub fn histograms<const N: usize>(&self, histogram: &Histogram<N>) -> Histograms<N> {
        let (registry, overflow) = (self.clone(), self.overflow(histogram.0.name));
        Histograms::new(histogram.0, move |d, v| registry.histogram(d, v), overflow)
    }

    /// One series of a histogram, whatever the metric's cap says; a handle that records nothing if the definition is
    /// none of a histogram, or the registry is silent.
    pub fn histogram(&self, definition: &Definition, values: &[impl AsRef<str>]) -> metrics::Histogram {
        match definition.kind {
            Kind::Histogram { buckets, .. } if self.records => {
                metrics::Histogram::from_arc(self.histograms.series(definition, buckets, values))
            }
            Kind::Histogram { .. } | Kind::Counter | Kind::Gauge => metrics::Histogram::noop(),
        }
    }

    /// Where components say how they are: the same for all who share the registry.
    pub(super) fn components(&self) -> Components {
        Arc::clone(&self.components)
    }

    /// The recorder itself, for crates that report through the `metrics` macros.
    #[must_use]
    pub fn recorder(&self) -> Arc<PrometheusRecorder> {
        Arc::clone(&self.recorder)
    }

    /// All series in the Prometheus text format, sorted. Takes milliseconds at thousands of series: inside the runtime
    /// use [`Registry::scrape`].
    #[must_use]
    pub fn render(&self) -> String {
        self.process.observe(&self.recorder, self);
        let mut text = self.handle.render();
        self.histograms.write(&mut text);
        sorted(&text, self.hidden.names().as_ref())
    }

    /// Leaves all series of an agent out of the exposition, but for those that it shares with others.
    pub fn hide_agent(&self, agent: &str) {
        self.hidden.hide(agent);
    }

    /// Leaves one out: of a gauge that has nothing to show.
    pub fn hide_series(&self, metric: &'static str, agent: &str) {
        self.hidden.hide_of(metric, agent);
    }

    /// Shows all of them again: counters go on from where they are.
    pub fn show_agent(&self, agent: &str) {
        self.hidden.show(agent);
    }

    #[cfg(test)]
    pub(super) fn hidden(&self) -> Option<super::hidden::Names> {
        self.hidden.names()
    }

    /// All series, rendered off the runtime after `refresh` brought gauges up to date. Scrapes at the same time share
    /// one rendering that began after each of them asked. `None` if rendering panicked.
    pub async fn scrape(&self, refresh: impl FnOnce() + Send + 'static) -> Option<Arc<str>> {
        let registry = self.clone();
        let render = move || {
            refresh();
            registry.render()
        };
        Arc::clone(&self.scrapes).share(render).await
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
