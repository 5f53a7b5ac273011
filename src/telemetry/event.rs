//! From `tracing` events to live events: each event of level info, warn or error with a field `source` is one.
//!
//! `tracing::error!(source = "agent.send", session_id = %id, "request failed")` becomes a [`TracedEvent`] whose
//! context has `sessionId`. Events without `source` are log lines only. Where they go is up to the [`EventSink`].

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::field::each_field;
use super::span::ContextLookup;
use crate::clock::{Clock, Timestamp};
use crate::ids::TraceId;

/// Where live events go.
pub type EventSink = Arc<dyn Fn(TracedEvent) + Send + Sync>;

/// A `tracing` event that has a source.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedEvent {
    /// When.
    pub timestamp: Timestamp,
    /// How serious.
    pub level: EventLevel,
    /// The field `source`.
    pub source: Cow<'static, str>,
    /// The message.
    pub message: String,
    /// Every other field, its name in camelCase.
    pub context: Map<String, Value>,
    /// The trace it happened in.
    pub trace_id: Option<TraceId>,
}

/// The level of a [`TracedEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventLevel {
    /// Normal.
    Info,
    /// Look at it when there is time.
    Warn,
    /// Something that was asked for did not happen.
    Error,
}

/// Makes live events of `tracing` events.
pub(super) struct EventLayer {
    sink: EventSink,
    clock: Clock,
    lookup: ContextLookup,
}

impl EventLayer {
    pub(super) fn new(sink: EventSink, clock: Clock, lookup: ContextLookup) -> Self {
        Self { sink, clock, lookup }
    }
}

/// The level of a live event; `None` for what is none.
pub(super) fn live_level(metadata: &Metadata<'_>) -> Option<EventLevel> {
    let level = match *metadata.level() {
        Level::ERROR => EventLevel::Error,
        Level::WARN => EventLevel::Warn,
        Level::INFO => EventLevel::Info,
        _ => return None,
    };
    (metadata.is_event() && metadata.fields().field(SOURCE).is_some()).then_some(level)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for EventLayer {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.lookup.register(dispatch);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let Some(level) = live_level(event.metadata()) else { return };
        let mut fields = Fields::default();
        each_field(event, |name, value| fields.put(name, value));
        let trace_id = ctx.event_span(event).and_then(|span| self.lookup.trace_id(&span));
        let Fields { source, message, context } = fields;
        (self.sink)(TracedEvent {
            timestamp: self.clock.now(),
            level,
            source: source.into(),
            message,
            context,
            trace_id,
        });
    }
}

const SOURCE: &str = "source";

#[derive(Default)]
struct Fields {
    source: String,
    message: String,
    context: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        match (name, value) {
            (SOURCE, Value::String(text)) => self.source = text,
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.context.insert(camel_case(name), value);
            }
        }
    }
}

/// `session_id` → `sessionId`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn events_of(emit: impl FnOnce()) -> Vec<TracedEvent> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: EventSink = {
            let seen = Arc::clone(&seen);
            Arc::new(move |event| seen.lock().expect("no panic while held").push(event))
        };
        let (clock, _hand) = Clock::manual(Timestamp::from_millis(7));
        let layer = EventLayer::new(sink, clock, ContextLookup::default());
        let stack = tracing_subscriber::registry().with(super::super::span::SpanIds::testing()).with(layer);
        tracing::subscriber::with_default(stack, emit);
        Arc::try_unwrap(seen).expect("the stack is gone").into_inner().expect("no panic while held")
    }

    #[test]
    fn an_event_with_a_source_carries_its_fields_in_camel_case_and_its_trace() {
        let mut trace = None;
        let events = events_of(|| {
            let span = tracing::info_span!("agent.send");
            trace = super::super::span::trace_id_of(&span);
            let _entered = span.enter();
            tracing::error!(source = "agent.send", session_id = %"s1", attempt = 2_u64, "request failed");
        });
        let [event] = events.as_slice() else { panic!("one event, not {events:?}") };
        assert_eq!(serde_json::json!(event.context), serde_json::json!({ "sessionId": "s1", "attempt": 2 }));
        assert_eq!(
            (event.level, &*event.source, &*event.message),
            (EventLevel::Error, "agent.send", "request failed")
        );
        assert_eq!((event.timestamp, event.trace_id), (Timestamp::from_millis(7), trace));
        assert!(trace.is_some());
    }

    #[test]
    fn events_without_a_source_or_below_info_are_not_live() {
        assert_eq!(events_of(|| tracing::error!("no source")), []);
        assert_eq!(events_of(|| tracing::debug!(source = "x", "detail")), []);
    }
}
