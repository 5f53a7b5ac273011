//! The trace context of spans: which trace a span belongs to, where it came from, and what goes on to others.
//!
//! Every span has a trace id and a span id. With OTLP they are those of the OpenTelemetry layer; without it
//! `SpanIds` makes them, so that log lines and model calls carry a trace id and a caller's trace goes on to the
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
    context_of(span).map(|context| context.trace_id)
}

/// What a call made inside this span sends as `traceparent` and `tracestate`; `None` if the span is not recorded anywhere, or
/// `OTEL_PROPAGATORS` says to send none. After this the span's own parent can no longer be set.
#[must_use]
pub fn traceparent_of(span: &Span) -> Option<TraceContext> {
    propagates(span).then(|| context_of(span)).flatten()
}

fn context_of(span: &Span) -> Option<TraceContext> {
    let otel = span.context();
    own_context(otel.span().span_context()).or_else(|| {
        span.with_subscriber(|(id, dispatch)| {
            let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
            span.extensions().get::<TraceContext>().cloned()
        })
        .flatten()
    })
}

/// Puts a new span into the caller's trace. Has no effect once the span was entered or asked for its context.
pub fn set_parent(span: &Span, caller: &TraceContext) {
    if !propagates(span) {
        return;
    }
    let remote = SpanContext::new(
        opentelemetry::TraceId::from(caller.trace_id.to_bits()),
        SpanId::from(caller.parent_span_id),
        if caller.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
        true,
        caller.state.clone(),
    );
    let parent = opentelemetry::Context::new().with_remote_span_context(remote);
    // Only fails when there is no such layer; then the other one keeps the ids.
    if OpenTelemetrySpanExt::set_parent(span, parent).is_err() {
        span.with_subscriber(|(id, dispatch)| {
            let span = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id));
            if let Some(span) = span {
                span.extensions_mut().replace(next_in(Some(caller)));
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
    let (sampled, state) = (context.is_sampled(), context.trace_state().clone());
    context.is_valid().then_some(TraceContext { trace_id, parent_span_id, sampled, state })
}

/// Gives each span its ids where OpenTelemetry is not installed, and knows whether they go to others.
///
/// A root made here says that it is sampled: whoever is called next may have a collector although plimsoll has none.
pub(super) struct SpanIds {
    source: IdSource,
    propagation: Propagation,
}

/// Who makes the ids of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdSource {
    /// The OpenTelemetry layer.
    OpenTelemetry,
    /// [`SpanIds`] itself.
    Own,
}

/// Whether trace contexts are taken from callers and passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    /// As W3C trace context.
    On,
    /// Not at all.
    Off,
}

impl SpanIds {
    pub(super) fn new(source: IdSource, propagation: Propagation) -> Self {
        Self { source, propagation }
    }

    #[cfg(test)]
    pub(super) fn testing() -> Self {
        Self::new(IdSource::Own, Propagation::On)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanIds {
    fn on_new_span(&self, _attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id).filter(|_| self.source == IdSource::Own) else { return };
        let parent = span.parent().and_then(|parent| parent.extensions().get::<TraceContext>().cloned());
        span.extensions_mut().insert(next_in(parent.as_ref()));
    }
}

fn propagates(span: &Span) -> bool {
    let propagation = |(_, dispatch): (&Id, &Dispatch)| {
        dispatch.downcast_ref::<SpanIds>().is_none_or(|ids| ids.propagation == Propagation::On)
    };
    span.with_subscriber(propagation).unwrap_or(false)
}

/// The context of a new span under `parent`, or of a new trace.
fn next_in(parent: Option<&TraceContext>) -> TraceContext {
    // One in 2^128 and one in 2^64 are zero, which means "none".
    let fresh = || TraceId::from_bits(rand::random::<u128>() | 1).expect("the last bit is set");
    let (trace_id, sampled) = parent.map_or_else(|| (fresh(), true), |p| (p.trace_id, p.sampled));
    let state = parent.map_or(TraceState::NONE, |p| p.state.clone());
    TraceContext { trace_id, parent_span_id: rand::random::<u64>() | 1, sampled, state }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn within<T>(ids: SpanIds, check: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(ids), check)
    }

    #[test]
    fn a_span_joins_its_callers_trace_and_its_children_follow() {
        within(SpanIds::testing(), || {
            let caller = TraceContext::parse(CALLER).expect("valid").with_state("rojo=1");
            let span = tracing::info_span!("agent.send");
            set_parent(&span, &caller);
            let own = traceparent_of(&span).expect("it has a context");
            assert_eq!((own.trace_id, own.sampled, &own.state), (caller.trace_id, false, &caller.state));
            assert_ne!(own.parent_span_id, caller.parent_span_id);
            let child = span.in_scope(|| tracing::info_span!("lane.wait"));
            let child = traceparent_of(&child).expect("it has a context");
            assert_eq!((child.trace_id, child.state), (caller.trace_id, caller.state));
            assert_ne!(child.parent_span_id, own.parent_span_id);
        });
    }

    #[test]
    fn roots_have_traces_of_their_own() {
        within(SpanIds::testing(), || {
            let roots = [tracing::info_span!("a"), tracing::info_span!("b")].map(|span| trace_id_of(&span));
            assert!(roots[0].is_some() && roots[0] != roots[1]);
            assert_eq!(current_trace_id(), None);
        });
    }

    #[test]
    fn without_propagation_nothing_comes_in_or_goes_out() {
        within(SpanIds::new(IdSource::Own, Propagation::Off), || {
            let caller = TraceContext::parse(CALLER).expect("valid");
            let span = tracing::info_span!("agent.send");
            set_parent(&span, &caller);
            assert_eq!(traceparent_of(&span), None);
            assert!(trace_id_of(&span).is_some_and(|own| own != caller.trace_id));
        });
    }
}
