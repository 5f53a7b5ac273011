//! The live view: the last model calls, the last events, the counts of the snapshot, what agents print, and the
//! fan-out to streams.
//!
//! Nothing here survives a restart. Each fact has one function that records it for ring, snapshot and Prometheus at
//! once, so that they cannot disagree. Start at [`Live`].

mod config;
mod event;
mod failing;
pub mod gen_ai;
pub mod metrics;
mod output;
mod ring;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

pub use config::Config;
pub use event::{Envelope, Event, Level, ModelCall, ToolCall};
pub use failing::FailingAgents;
pub use output::{Heard, OutputLine, OutputPage, OutputStream, OutputWanted};

use self::failing::Streaks;
use self::metrics::Metrics;
use self::output::Outputs;
use self::ring::Ring;
use crate::clock::Clock;
use crate::ids::{AgentId, RequestId, TraceId};
use crate::limits::STREAM_CLIENT_ENVELOPES_MAX;
use crate::telemetry::{EventLevel, EventSink, Registry, TracedEvent};

/// Sources of error events that are known before the first error, so that their counters stand at 0 from the start.
pub const ERROR_SOURCES: &[&str] = &["agent.send", "model.call", "tool.call", "journal", "api", "panic"];

/// What is known of the running process and is gone when it ends.
pub struct Live {
    metrics: Metrics,
    clock: Clock,
    events: Ring<Event>,
    model_calls: Ring<ModelCall>,
    streaks: Streaks,
    outputs: Outputs,
    messages: AtomicU64,
    errors: AtomicU64,
    hub: broadcast::Sender<Arc<Envelope>>,
    records: bool,
}

/// Which events are asked for. What is `None` is not filtered by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Exactly this level: `warn` gives no `error`.
    pub level: Option<Level>,
    /// Exactly this source.
    pub source: Option<String>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

/// The snapshot's part about model calls.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelCalls {
    /// Calls since the process started.
    pub total: u64,
    /// Milliseconds, over the calls that are kept; 0 if there are none.
    pub avg_latency: f64,
    /// The share of failed calls among those that are kept, 0 to 1; 0 if there are none.
    pub error_rate: f64,
    /// The calls that are kept, newest first.
    #[serde(rename = "recentCalls")]
    pub recent: Vec<Arc<ModelCall>>,
}

impl Live {
    /// An empty view; one that stays empty if the registry is silent.
    #[must_use]
    pub fn new(config: &Config, registry: &Registry, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            metrics: Metrics::new(registry),
            clock,
            events: Ring::new(config.events),
            model_calls: Ring::new(config.model_calls),
            streaks: Streaks::default(),
            outputs: Outputs::default(),
            messages: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            hub: broadcast::Sender::new(STREAM_CLIENT_ENVELOPES_MAX),
            records: registry.records(),
        })
    }

    /// Records an event: in the ring, on the streams, and, if it is an error, in the count of errors.
    pub fn record_event(&self, event: Event) {
        if !self.records {
            return;
        }
        if event.level == Level::Error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.metrics.event(&event);
        let event = Arc::new(event);
        self.publish_with(|| envelope_of_event(&event));
        self.events.push(event);
    }

    /// Records a model call: in the ring, on the streams, in the model metrics, and in what `/health` says.
    pub fn record_model_call(&self, call: ModelCall) {
        if !self.records {
            return;
        }
        self.metrics.model_call(&call);
        self.streaks.note(&call);
        let call = Arc::new(call);
        self.publish_with(|| envelope_of_model_call(&call));
        self.model_calls.push(call);
    }

    /// Records a tool call of an agent.
    pub fn record_tool_call(&self, agent: &AgentId, call: &ToolCall) {
        if !self.records {
            return;
        }
        self.metrics.tool_call(agent, call);
        self.publish_with(|| envelope_of_tool_call(agent, call, self.clock.now()));
    }

    /// Takes what `tracing` says with a source: these are live events.
    #[must_use]
    pub fn sink(self: &Arc<Self>) -> EventSink {
        let live = Arc::clone(self);
        Arc::new(move |event: TracedEvent| {
            let TracedEvent { timestamp, level, source, message, mut context, trace_id } = event;
            if let Some(id) = trace_id {
                context.entry("traceId").or_insert_with(|| id.to_string().into());
            }
            let level = match level {
                EventLevel::Info => Level::Info,
                EventLevel::Warn => Level::Warn,
                EventLevel::Error => Level::Error,
            };
            live.record_event(Event { timestamp, level, source, message, context });
        })
    }

    /// Keeps a line that an agent's program printed. It is content: the caller has taken secrets out, and nobody but
    /// [`Live::output`] ever tells it.
    pub fn record_output(
        &self,
        agent: &AgentId,
        request: Option<&RequestId>,
        stream: OutputStream,
        text: &str,
    ) {
        if self.records {
            self.outputs.record(agent, request, stream, text, self.clock.now());
        }
    }

    /// Records that a message was processed, whether well or not.
    pub fn record_message(&self) {
        if !self.records {
            return;
        }
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.metrics.message();
    }

    /// Makes what calls of an agent to its model, and of its tools, will step stand at 0 before the first one.
    pub fn expect_agent(&self, agent: &AgentId, provider: &str, model: &str, tools: &[String]) {
        self.metrics.expect_agent(agent, provider, model, tools);
    }

    /// Forgets what an agent printed, and that its calls fail.
    pub fn forget_agent(&self, agent: &AgentId) {
        self.streaks.forget(agent);
        self.outputs.forget(agent);
    }

    /// The events asked for, newest first.
    #[must_use]
    pub fn events(&self, filter: &EventFilter) -> Vec<Arc<Event>> {
        let EventFilter { level, source, limit } = filter;
        let mut events = self.events.newest_first();
        events.retain(|event| level.is_none_or(|level| event.level == level));
        events.retain(|event| source.as_ref().is_none_or(|source| event.source == *source));
        events.truncate(limit.unwrap_or(usize::MAX));
        events
    }

    /// The model calls since start, and those that are kept.
    #[must_use]
    pub fn model_calls(&self) -> ModelCalls {
        let recent = self.model_calls.newest_first();
        let failed = recent.iter().filter(|call| call.error.is_some()).count();
        let latency: f64 = recent.iter().map(|call| call.latency).sum();
        #[expect(clippy::cast_precision_loss, reason = "a ring holds at most 100,000 calls")]
        let mean = |sum: f64| if recent.is_empty() { 0.0 } else { sum / recent.len() as f64 };
        #[expect(clippy::cast_precision_loss, reason = "a ring holds at most 100,000 calls")]
        let error_rate = mean(failed as f64);
        ModelCalls { total: self.model_calls.pushed(), avg_latency: mean(latency), error_rate, recent }
    }

    /// What an agent's program printed, as far as it is kept.
    #[must_use]
    pub fn output(&self, agent: &AgentId, wanted: OutputWanted) -> OutputPage {
        self.outputs.page(agent, wanted)
    }

    /// Waits until an agent has printed a line after number `seq`, or `wait` is over.
    pub async fn output_arrived(&self, agent: &AgentId, seq: u64, wait: Duration) {
        self.outputs.arrived(agent, seq, wait).await;
    }

    /// Agents whose model calls fail again and again, if there are any.
    #[must_use]
    pub fn failing_agents(&self) -> Option<FailingAgents> {
        self.streaks.failing()
    }

    /// Messages processed since start.
    #[must_use]
    pub fn messages_processed(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Error events since start.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Puts an envelope on the streams.
    pub fn publish(&self, envelope: Envelope) {
        self.publish_with(|| envelope);
    }

    /// Puts an envelope on the streams; it is only made if somebody listens.
    pub fn publish_with(&self, envelope: impl FnOnce() -> Envelope) {
        if self.hub.receiver_count() > 0 {
            // Nobody is left to hear it if this fails, and each listener counts what it missed itself.
            let _last_listener_left = self.hub.send(Arc::new(envelope()));
        }
    }

    /// Every envelope from now on. Who falls behind by more than
    /// [`STREAM_CLIENT_ENVELOPES_MAX`] is told how many it missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Envelope>> {
        self.hub.subscribe()
    }
}

fn envelope_of_event(event: &Event) -> Envelope {
    let text = |key: &str| event.context.get(key).and_then(Value::as_str);
    Envelope {
        r#type: Cow::Borrowed("event"),
        ts: event.timestamp,
        level: event.level,
        source: event.source.clone(),
        instance: text("agent").and_then(|agent| AgentId::parse(agent).ok()),
        town: None,
        summary: event.message.clone(),
        detail: Value::Object(event.context.clone()),
        trace_id: text("traceId").and_then(|id| TraceId::parse(id).ok()),
        seq: None,
    }
}

fn envelope_of_model_call(call: &Arc<ModelCall>) -> Envelope {
    let took = format!("the model {} answered agent {} after {:.0} ms", call.model, call.agent, call.latency);
    let failed = |error: &String| format!("the model {} failed agent {}: {error}", call.model, call.agent);
    Envelope {
        r#type: Cow::Borrowed("model.call"),
        ts: call.timestamp,
        level: if call.error.is_some() { Level::Warn } else { Level::Info },
        source: Cow::Borrowed("model.call"),
        instance: Some(call.agent.clone()),
        town: None,
        summary: call.error.as_ref().map_or(took, failed),
        detail: serde_json::to_value(&**call).unwrap_or_default(),
        trace_id: Some(call.trace_id),
        seq: None,
    }
}

fn envelope_of_tool_call(agent: &AgentId, call: &ToolCall, ts: crate::clock::Timestamp) -> Envelope {
    let ToolCall { name, error, duration } = call;
    Envelope {
        r#type: Cow::Borrowed("tool.call"),
        ts,
        level: if error.is_some() { Level::Warn } else { Level::Info },
        source: Cow::Borrowed("tool.call"),
        instance: Some(agent.clone()),
        town: None,
        summary: match error {
            None => format!("agent {agent} used the tool {name}"),
            Some(error) => format!("the tool {name} failed agent {agent}: {error}"),
        },
        detail: serde_json::json!({ "agent": agent, "tool": name, "error": error, "durationMs": duration }),
        trace_id: None,
        seq: None,
    }
}

#[cfg(test)]
mod tests;
