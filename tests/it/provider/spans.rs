//! Collects the spans of one test, as OpenTelemetry would export them.

use std::sync::{Arc, Mutex};

use opentelemetry::Value;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::subscriber::DefaultGuard;

use crate::support::subscriber::listen;

/// The spans that ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no panic under it").extend(batch);
        Ok(())
    }
}

impl Spans {
    /// Collects on this thread until the guard is dropped.
    pub(crate) fn collect(&self) -> DefaultGuard {
        let provider = SdkTracerProvider::builder().with_simple_exporter(self.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        listen(layer)
    }

    /// Everything that would be exported, as text.
    pub(crate) fn all(&self) -> String {
        format!("{:?}", self.0.lock().expect("no panic under it"))
    }

    /// The span of this name that ended last.
    pub(crate) fn last(&self, name: &str) -> SpanData {
        let spans = self.0.lock().expect("no panic under it");
        spans.iter().rev().find(|span| span.name == name).expect(name).clone()
    }

    /// The one span of this name.
    pub(crate) fn named(&self, name: &str) -> SpanData {
        let spans = self.0.lock().expect("no panic under it");
        let mut found = spans.iter().filter(|span| span.name == name);
        let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
        let span = found.next().unwrap_or_else(|| panic!("{name} is not among {names:?}"));
        assert!(found.next().is_none(), "{name} is there twice");
        span.clone()
    }
}

/// An attribute as text; empty if it is not there.
pub(crate) fn attribute(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| Value::to_string(&attribute.value)).unwrap_or_default()
}
