//! What goes into the gateway and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Ended;
use crate::clock::Timestamp;
use crate::ids::{AgentId, IdempotencyKey, RequestId, SessionId};
use crate::journal::Actor;
use crate::provider::Message;
use crate::telemetry::TraceContext;

/// The road a message came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// JSON-RPC over WebSocket.
    Ws,
    /// JSON-RPC over `POST /rpc`.
    Http,
    /// The OpenAI-compatible door.
    OpenAi,
    /// A town gives a bead to an agent.
    Town,
}

impl Channel {
    /// Every channel; `/health` counts them.
    pub const ALL: [Self; 4] = [Self::Ws, Self::Http, Self::OpenAi, Self::Town];
}

/// Who asks, as far as the gateway needs to know.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name that the audit shows.
    pub actor: Actor,
    /// The road it came in by.
    pub channel: Channel,
    /// The trace it belongs to, if it brought one.
    pub trace: Option<TraceContext>,
}

/// What becomes of a request whose caller goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// It runs to its end.
    #[default]
    Finish,
    /// It is cancelled.
    Cancel,
}

/// One `agent.send`.
#[derive(Debug, Clone)]
pub struct SendRequest {
    /// Who shall answer.
    pub agent: AgentId,
    /// The message; not empty.
    pub message: String,
    /// The conversation; without one, a default of this caller and agent.
    pub session: Option<SessionId>,
    /// The caller's own id for this request.
    pub request_id: Option<RequestId>,
    /// Runs the message once, however often it is sent with this key.
    pub idempotency_key: Option<IdempotencyKey>,
    /// How long it may take.
    pub deadline: Option<Duration>,
    /// What becomes of it when the caller goes away.
    pub on_disconnect: OnDisconnect,
    /// Instructions for this request, after those of the agent.
    pub system: Option<String>,
    /// What was said before, oldest first, where the caller keeps the conversation. Such a request stands alone: it has
    /// a lane of its own, and nothing of it is remembered.
    pub history: Option<Vec<Message>>,
    /// The JSON Schema of the whole answer, for a provider whose models take one: every key required, and no others.
    pub answer_schema: Option<Arc<Value>>,
}

impl SendRequest {
    /// A message to an agent, and nothing else said.
    #[must_use]
    pub fn new(agent: AgentId, message: String) -> Self {
        Self {
            agent,
            message,
            session: None,
            request_id: None,
            idempotency_key: None,
            deadline: None,
            on_disconnect: OnDisconnect::default(),
            system: None,
            history: None,
            answer_schema: None,
        }
    }

    /// What it holds while it is under way, as [`Config::active_bytes_max`](super::Config::active_bytes_max) counts it:
    /// its texts, and what each message of a history costs beside its text.
    pub(super) fn bytes(&self) -> usize {
        let history = self.history.iter().flatten();
        let said: usize = history.map(|message| message.text.len() + MESSAGE_OVERHEAD_BYTES).sum();
        self.message.len() + self.system.as_ref().map_or(0, String::len) + said
    }
}

/// A message in a history and the two counts before its text.
const MESSAGE_OVERHEAD_BYTES: usize = size_of::<Message>() + 2 * size_of::<usize>();

/// A request that stands in its lane.
#[derive(Debug)]
pub struct Accepted {
    /// Its id.
    pub request_id: RequestId,
    /// Its conversation.
    pub session: SessionId,
    /// What happens on the way. Bounded: a reader that is slow makes the provider wait, so whoever does not want
    /// events drops this at once; then nobody waits for it.
    pub events: mpsc::Receiver<AgentEvent>,
    /// How it ended. Dropping it means that the caller went away.
    pub outcome: oneshot::Receiver<Ended>,
}

/// What happens to a request on its way, in this order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum AgentEvent {
    /// It waits in its lane.
    Queued {
        /// Requests before it in the lane.
        ahead: usize,
    },
    /// Its instance is being started.
    Starting,
    /// It runs.
    Start {
        /// When.
        timestamp: Timestamp,
    },
    /// A piece of the answer.
    Delta {
        /// The piece.
        text: String,
    },
    /// A tool began or ended.
    Tool {
        /// The tool's name.
        name: String,
        /// `running`, `done`, `failed`, or `requested` where the model asked for a tool that nobody here runs.
        state: &'static str,
    },
    /// The provider is asked again.
    Retry {
        /// From 1.
        attempt: u32,
        /// Milliseconds until then.
        after_ms: u64,
        /// Why.
        cause: String,
    },
    /// It was answered.
    End,
    /// It failed; the result says how.
    Error {
        /// The JSON-RPC code.
        code: i32,
        /// The message.
        message: String,
    },
}

/// The answer to a request, as `agent.send` returns it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The request.
    pub request_id: RequestId,
    /// Its conversation.
    pub session: SessionId,
    /// The whole text.
    pub text: String,
    /// The tools that were called.
    pub tool_calls: Vec<ToolSummary>,
    /// Tokens, as the provider reports them.
    pub usage: Usage,
    /// Why the model stopped, as the provider says it, such as `stop` or `length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// How long each part took.
    pub timings: Timings,
}

/// A tool call, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolSummary {
    /// The tool's name.
    pub name: String,
    /// Whether it succeeded; `null` where the model asked for a tool that nobody here runs.
    pub ok: Option<bool>,
}

/// Tokens of a request; `null` where the provider does not say, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Tokens read, cache included.
    pub input_tokens: Option<u64>,
    /// Tokens written.
    pub output_tokens: Option<u64>,
}

/// How long each part of a request took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// In its lane.
    pub queued_ms: f64,
    /// Waiting for its instance; absent where the agent has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<f64>,
    /// From the call to the first piece of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<f64>,
    /// From its acceptance to its end.
    pub total_ms: f64,
}
