//! The facts that the live view shows.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::ids::{AgentId, RequestId, Seq, SessionId, TownId, TraceId};

/// How serious an event is. Filtered exactly: asking for `warn` gives no `error`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Normal.
    Info,
    /// Look at it when there is time.
    Warn,
    /// Something that was asked for did not happen.
    Error,
}

/// One entry of the event ring, as `system.events` gives it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub timestamp: Timestamp,
    /// How serious.
    pub level: Level,
    /// The part that says it, such as `agent.send`.
    pub source: Cow<'static, str>,
    /// One sentence.
    pub message: String,
    /// Ids and facts that help to find the cause; never content.
    pub context: Map<String, Value>,
}

/// One call to a model provider, as `system.metrics` gives it. Latencies in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelCall {
    /// When it ended.
    pub timestamp: Timestamp,
    /// The provider's name in GenAI conventions (`gen_ai.provider.name`).
    pub provider: String,
    /// The model that answered, or that was asked for if none did.
    pub model: String,
    /// The model that was asked for: what metrics are labelled with, because only the configuration names it.
    #[serde(skip)]
    pub requested_model: String,
    /// The agent that called.
    pub agent: AgentId,
    /// Its conversation.
    pub session: SessionId,
    /// The request it served.
    pub request_id: RequestId,
    /// Its trace.
    #[schemars(with = "String")]
    pub trace_id: TraceId,
    /// From the call to its end.
    pub latency: f64,
    /// From the call to the first token, if it was streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<f64>,
    /// Tokens read, cache included; `null` where the provider does not say.
    pub input_tokens: Option<u64>,
    /// Tokens written; `null` where the provider does not say.
    pub output_tokens: Option<u64>,
    /// Tokens written per second of the call; `null` where they are not known.
    pub tokens_per_sec: Option<f64>,
    /// What it cost in US dollars; absent where the model has no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Whether it may be billed, and its model has no price.
    #[serde(skip)]
    pub unpriced: bool,
    /// Why it failed (`error.type` of the conventions), if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One tool call of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// How long it took, in milliseconds, if both ends were seen.
    pub duration: Option<f64>,
}

/// What every stream (SSE, WebSocket `event`) carries.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// What happened, such as `request.finished`.
    pub r#type: Cow<'static, str>,
    /// When.
    pub ts: Timestamp,
    /// How serious.
    pub level: Level,
    /// The part that says it.
    pub source: Cow<'static, str>,
    /// The instance it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<AgentId>,
    /// The town it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub town: Option<TownId>,
    /// One readable sentence.
    pub summary: String,
    /// The facts.
    pub detail: Value,
    /// Its trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// Its place in the journal; only journaled events have one, and only they are replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
}
