//! The trace context of spans: which trace a span belongs to, where it came from, and what goes on to others.
//!
//! Every span has a trace id and a span id. With OTLP they are those of the OpenTelemetry layer; without it
//! [`SpanIds`] makes them, so that log lines and model calls carry a trace id and a caller's trace goes on to the
//! agent either way.

use std::sync::{Arc, OnceLock};

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceState};
use tracing::dispatcher::WeakDispatch;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::{Layer, Registry};

use super::TraceContext;
use crate::ids::TraceId;

/// The trace of the current span; `None` outside of any span, or before telemetry is installed.
#[must_use]
pub fn current_trace_id() -> Option<TraceId> {
    trace_id_of(&Span::current())
}

/// The trace of a span; `None` if the span is not recorded anywhere.
#[must_use]
pub fn trace_id_of(span: &Span) -> Option<TraceId> {
    traceparent_of(span).map(|context| context.trace_id)
}

/// What a call made inside this span sends as `traceparent`; `None` if the span is not recorded anywhere. After
/// this the span's own parent can no longer be set.
#[must_use]
pub fn traceparent_of(span: &Span) -> Option<TraceContext> {
    let otel = span.context();
    own_context(otel.span().span_context()).or_else(|| {
        span.with_subscriber(|(id, dispatch)| {
            let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
            span.extensions().get::<TraceContext>().copied()
        })
        .flatten()
    })
}

/// Puts a new span into the caller's trace. Has no effect once the span was entered or asked for its context.
pub fn set_parent(span: &Span, caller: &TraceContext) {
    let remote = SpanContext::new(
        opentelemetry::TraceId::from(caller.trace_id.to_bits()),
        SpanId::from(caller.parent_span_id),
        if caller.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
        true,
        TraceState::default(),
    );
    let parent = opentelemetry::Context::new().with_remote_span_context(remote);
    // Only fails when there is no such layer; then the other one keeps the ids.
    if OpenTelemetrySpanExt::set_parent(span, parent).is_err() {
        span.with_subscriber(|(id, dispatch)| {
            let span = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id));
            if let Some(span) = span {
                span.extensions_mut().replace(next_in(Some(*caller)));
            }
        });
    }
}

/// How the OpenTelemetry layer's ids are found from inside another layer, where the current dispatcher cannot be asked
/// for.
#[derive(Clone, Default)]
pub(super) struct ContextLookup {
    dispatch: Arc<OnceLock<WeakDispatch>>,
}

impl ContextLookup {
    pub(super) fn register(&self, dispatch: &Dispatch) {
        // Set once: one subscriber stack, one lookup.
        let _first_wins = self.dispatch.set(dispatch.downgrade());
    }

    /// The trace of a span that is looked at from inside a layer.
    pub(super) fn trace_id<'a, S: LookupSpan<'a>>(&self, span: &SpanRef<'a, S>) -> Option<TraceId> {
        if let Some(context) = span.extensions().get::<TraceContext>() {
            return Some(context.trace_id);
        }
        let dispatch = self.dispatch.get()?.upgrade()?;
        let context = tracing_opentelemetry::get_otel_context(&span.id(), &dispatch)?;
        own_context(context.span().span_context()).map(|context| context.trace_id)
    }
}

fn own_context(context: &SpanContext) -> Option<TraceContext> {
    let trace_id = TraceId::from_bits(u128::from_be_bytes(context.trace_id().to_bytes()))?;
    let parent_span_id = u64::from_be_bytes(context.span_id().to_bytes());
    context.is_valid().then_some(TraceContext { trace_id, parent_span_id, sampled: context.is_sampled() })
}

/// Gives each span its ids where OpenTelemetry is not installed.
///
/// A root made here says that it is sampled: whoever is called next may have a collector although plimsoll has none.
pub(super) struct SpanIds;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanIds {
    fn on_new_span(&self, _attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let parent = span.parent().and_then(|parent| parent.extensions().get::<TraceContext>().copied());
        span.extensions_mut().insert(next_in(parent));
    }
}

/// The context of a new span under `parent`, or of a new trace.
fn next_in(parent: Option<TraceContext>) -> TraceContext {
    // One in 2^128 and one in 2^64 are zero, which means "none".
    let fresh = || TraceId::from_bits(rand::random::<u128>() | 1).expect("the last bit is set");
    let (trace_id, sampled) = parent.map_or_else(|| (fresh(), true), |p| (p.trace_id, p.sampled));
    TraceContext { trace_id, parent_span_id: rand::random::<u64>() | 1, sampled }
}
