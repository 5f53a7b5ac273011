//! What is recorded about a request that ended: in one place, once, whatever way it ended.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::active::Active;
use super::answers::Evicted;
use super::meter;
use super::metrics::AgentMetrics;
use super::{Channel, Fingerprint, Rejection, Timings, Usage};
use crate::ids::{AgentId, RequestId, SessionId, TraceId};
use crate::journal::{Actor, Append, AppendError, Journal, NewRecord, StreamId};
use crate::limits::TOOL_NAMES_MAX;
use crate::live::{Live, ToolCall};
use crate::provider::ModelUsed;
use crate::telemetry::Shared;

/// The kind of the record that a finished request leaves in the journal.
pub const REQUEST_FINISHED: &str = "request_finished";

/// The version of [`RequestFinished`].
pub const REQUEST_FINISHED_VERSION: u16 = 2;

/// The configuration keys whose limits the gateway enforces, as labels of the limits that were hit.
const LIMITS: &[&str] = &[
    LANE_DEPTH,
    QUEUED,
    ACTIVE_BYTES,
    SESSIONS,
    SESSIONS_BYTES,
    MESSAGE_BYTES,
    ANSWERS,
    ANSWERS_BYTES,
    KEYS,
    INSTANCE_WAITING,
    AGENT_SESSIONS,
    MADE_AGENTS,
    MADE_AGENT_BYTES,
    AGENT_CHANGES,
];
const LANE_DEPTH: &str = "lane_depth_max";
pub(super) const QUEUED: &str = "queued_max";
pub(super) const ACTIVE_BYTES: &str = "active_bytes_max";
pub(super) const SESSIONS: &str = "sessions_max";
pub(super) const SESSIONS_BYTES: &str = "sessions_bytes_max";
pub(super) const MESSAGE_BYTES: &str = "message_bytes_max";
const ANSWERS: &str = "answers_max";
/// Not a key of the configuration: [`IDEMPOTENCY_KEYS_MAX`](crate::limits::IDEMPOTENCY_KEYS_MAX).
const KEYS: &str = "idempotency_keys";
const INSTANCE_WAITING: &str = "waiting_max";
/// Nor this: [`AGENT_SESSIONS_MAX`](crate::limits::AGENT_SESSIONS_MAX).
pub(super) const AGENT_SESSIONS: &str = "agent_sessions";
/// Nor this: [`MADE_AGENTS_MAX`](crate::limits::MADE_AGENTS_MAX).
pub(super) const MADE_AGENTS: &str = "made_agents";
/// [`MADE_AGENT_BYTES_MAX`](crate::limits::MADE_AGENT_BYTES_MAX).
pub(super) const MADE_AGENT_BYTES: &str = "made_agent_bytes";
/// [`AGENT_CHANGES_AT_ONCE_MAX`](crate::limits::AGENT_CHANGES_AT_ONCE_MAX).
pub(super) const AGENT_CHANGES: &str = "agent_changes";
const ANSWERS_BYTES: &str = "answers_bytes_max";

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It failed.
    Failed,
    /// Its deadline passed.
    Deadline,
    /// It was cancelled.
    Cancelled,
    /// Nothing of it ran: a limit or a pause of its agent, the journal or the end of plimsoll kept it from that.
    Refused,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Failed, Self::Deadline, Self::Cancelled, Self::Refused];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }

    pub(super) const fn of(ended: Result<(), &Rejection>) -> Self {
        match ended {
            Ok(()) => Self::Ok,
            Err(Rejection::Deadline { .. }) => Self::Deadline,
            Err(Rejection::Cancelled { .. }) => Self::Cancelled,
            Err(
                Rejection::Limited { .. }
                | Rejection::Paused { .. }
                | Rejection::JournalUnavailable { .. }
                | Rejection::ShuttingDown,
            ) => Self::Refused,
            Err(
                Rejection::Invalid { .. }
                | Rejection::LaneFull { .. }
                | Rejection::GatewayFull { .. }
                | Rejection::KeysFull { .. }
                | Rejection::InstanceFull
                | Rejection::UnknownAgent { .. }
                | Rejection::Provider { .. }
                | Rejection::Bug { .. }
                | Rejection::NotFound { .. }
                | Rejection::NotStarted { .. }
                | Rejection::Conflict { .. }
                | Rejection::DuplicateRequest { .. },
            ) => Self::Failed,
        }
    }
}

/// The detail of `request_finished`, version 2: facts about a request, never its content.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestFinished {
    /// The request.
    pub request_id: RequestId,
    /// Who answered.
    pub agent: AgentId,
    /// Its conversation.
    pub session: SessionId,
    /// The road it came in by.
    pub channel: Channel,
    /// How it ended.
    pub outcome: Outcome,
    /// The JSON-RPC code of its end; absent where it was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// How long each part took.
    pub timings: Timings,
    /// Tokens over all its model calls; `null` where a provider does not say.
    pub tokens: Usage,
    /// US dollars over all its model calls; `null` where one of them has no price.
    pub cost_usd: Option<f64>,
    /// How many model calls it made.
    pub model_calls: u64,
    /// The kind of the agent's provider; since version 2.
    pub provider: &'static str,
    /// What its model calls used, by model, as far as it is known; since version 2.
    pub models: Vec<ModelUsed>,
    /// Its tool calls.
    pub tools: ToolCounts,
    /// False where its agent was never asked, could not be run, or refused it until later: an idempotency key of it is
    /// free again. Absent where it ran.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub ran: bool,
    /// The hash of its idempotency key, of one that was accepted with `request_accepted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<Fingerprint>,
}

/// How many tools a request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ToolCounts {
    /// Those that ended well.
    pub done: u64,
    /// Those that failed.
    pub failed: u64,
}

/// A request that ended, as far as recording needs to know it.
pub(super) struct Finished<'a> {
    pub(super) facts: RequestFinished,
    pub(super) actor: Actor,
    pub(super) trace_id: TraceId,
    pub(super) span: &'a Span,
    /// Why it was not answered.
    pub(super) rejection: Option<&'a Rejection>,
    pub(super) total: Duration,
}

/// Records requests and their tools.
pub(super) struct Recorder {
    live: Arc<Live>,
    journal: Arc<dyn Journal>,
    shared: Shared,
    /// Tools that were used, for the count of `/health`; a std mutex suffices, a hold is one look-up.
    tools: Mutex<BTreeSet<String>>,
}

/// A tool that was used.
pub(super) struct UsedTool<'a> {
    pub(super) name: &'a str,
    pub(super) error: Option<&'a str>,
    pub(super) took: Option<Duration>,
}

impl Recorder {
    pub(super) fn new(live: Arc<Live>, journal: Arc<dyn Journal>, shared: Shared) -> Self {
        DROP_REASONS.iter().for_each(|reason| shared.expect_dropped(REQUEST_FINISHED, reason));
        LIMITS.iter().chain(&meter::LIMITS).for_each(|limit| shared.expect_limit(limit));
        Self { live, journal, shared, tools: Mutex::default() }
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    pub(super) fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    /// Counts a request that was refused, at the door or when its turn came, if a limit refused it.
    pub(super) fn refused(&self, rejection: &Rejection) {
        match rejection {
            Rejection::LaneFull { .. } => self.limit_hit(LANE_DEPTH),
            Rejection::KeysFull { .. } => self.limit_hit(KEYS),
            Rejection::InstanceFull => self.limit_hit(INSTANCE_WAITING),
            Rejection::GatewayFull { limit, .. } | Rejection::Limited { limit, .. } => self.limit_hit(limit),
            Rejection::Invalid { .. }
            | Rejection::UnknownAgent { .. }
            | Rejection::Deadline { .. }
            | Rejection::Cancelled { .. }
            | Rejection::Provider { .. }
            | Rejection::Bug { .. }
            | Rejection::ShuttingDown
            | Rejection::NotFound { .. }
            | Rejection::NotStarted { .. }
            | Rejection::Paused { .. }
            | Rejection::JournalUnavailable { .. }
            | Rejection::Conflict { .. }
            | Rejection::DuplicateRequest { .. } => {}
        }
    }

    /// Counts ends of requests that were not kept for their time.
    pub(super) fn answers_evicted(&self, evicted: Evicted) {
        self.evicted(ANSWERS, evicted.by_number);
        self.evicted(ANSWERS_BYTES, evicted.by_bytes);
    }

    /// Counts sessions that were forgotten, or cut, because of this limit.
    pub(super) fn evicted(&self, limit: &'static str, sessions: usize) {
        (0..sessions).for_each(|_| self.limit_hit(limit));
    }

    pub(super) fn limit_hit(&self, limit: &'static str) {
        self.shared.limit_hit(limit);
    }

    /// How many distinct tools there are: those used, and those `listed`.
    pub(super) fn tools<'a>(&self, listed: impl Iterator<Item = &'a str>) -> usize {
        let used = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        let unused: BTreeSet<&str> = listed.filter(|tool| !used.contains(*tool)).collect();
        used.len() + unused.len()
    }

    /// Records the end of a tool; one that failed leaves an error event.
    pub(super) fn tool(&self, active: &Active, span: &Span, tool: &UsedTool<'_>) {
        let UsedTool { name, error, took } = tool;
        {
            let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
            if tools.len() < TOOL_NAMES_MAX && !tools.contains(*name) {
                tools.insert((*name).to_owned());
            }
        }
        let call = ToolCall {
            name: (*name).to_owned(),
            error: error.map(str::to_owned),
            duration: took.map(|took| took.as_secs_f64() * 1e3),
        };
        self.live.record_tool_call(&active.agent, &call);
        let Some(error) = error else { return };
        span.record("error.type", "tool_error");
        span.record("otel.status_code", "ERROR");
        tracing::error!(
            parent: span,
            source = "tool.call",
            session_id = %active.session,
            request_id = %active.id,
            agent = %active.agent,
            tool = name,
            cause = error,
            "tool failed"
        );
    }

    /// Records a tool whose request was stopped while it was at work.
    pub(super) fn stopped_tool(&self, active: &Active, name: String, took: Duration) {
        let duration = Some(took.as_secs_f64() * 1e3);
        let call = ToolCall { name, error: Some("its request was stopped".to_owned()), duration };
        guarded(|| self.live.record_tool_call(&active.agent, &call));
    }

    /// Records the end of a request: counts, durations, its event if it did not go well, its journal record. Whether the
    /// journal took that.
    pub(super) fn finished(&self, metrics: &AgentMetrics, finished: Finished<'_>) -> bool {
        let Finished { facts, actor, trace_id, span, rejection, total } = finished;
        match facts.outcome {
            Outcome::Ok => metrics.ok.increment(1),
            Outcome::Failed => metrics.failed.increment(1),
            Outcome::Deadline => metrics.deadline.increment(1),
            Outcome::Cancelled => metrics.cancelled.increment(1),
            Outcome::Refused => metrics.refused.increment(1),
        }
        metrics.duration.record(total.as_secs_f64());
        self.live.record_message();
        if let Some(rejection) = rejection {
            if facts.outcome == Outcome::Refused {
                self.refused(rejection);
            }
            guarded(|| tell(span, &facts, rejection));
        }
        guarded(|| self.offer(&facts, actor, trace_id, span)).unwrap_or(false)
    }

    /// Hands the record to the journal, which makes it durable after the reply; the span says whether it was taken.
    fn offer(&self, facts: &RequestFinished, actor: Actor, trace_id: TraceId, span: &Span) -> bool {
        let detail = serde_json::to_value(facts).expect("facts are plain JSON");
        let record = NewRecord {
            kind: REQUEST_FINISHED,
            version: REQUEST_FINISHED_VERSION,
            actor,
            trace_id: Some(trace_id),
            detail,
        };
        let append = Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record] };
        let mut attributes = vec![KeyValue::new("stream", "request")];
        let offered = self.journal.offer(append);
        if let Err(error) = &offered {
            let reason = drop_reason(error);
            self.shared.dropped(REQUEST_FINISHED, reason, 1);
            attributes.push(KeyValue::new("dropped", reason));
        }
        span.add_event(REQUEST_FINISHED, attributes);
        offered.is_ok()
    }
}

/// Does one step of recording. A panic in it is told and counted by the panic hook, and keeps no other step from being
/// done.
fn guarded<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}

/// The reasons why a record is not taken.
const DROP_REASONS: &[&str] = &["queue_full", "invalid", "unavailable", "closed"];

fn drop_reason(error: &AppendError) -> &'static str {
    match error {
        AppendError::QueueFull => "queue_full",
        AppendError::Conflict { .. } | AppendError::Invalid(_) => "invalid",
        AppendError::Unavailable(_) => "unavailable",
        AppendError::Closed => "closed",
    }
}

/// One event for a request that was not answered. A cancelled one did what was asked for: it is no error.
fn tell(span: &Span, facts: &RequestFinished, rejection: &Rejection) {
    let RequestFinished { request_id, agent, session, .. } = facts;
    span.record("rpc.response.status_code", rejection.code());
    if facts.outcome != Outcome::Cancelled {
        span.record("error.type", rejection.code());
        span.record("otel.status_code", "ERROR");
    }
    match facts.outcome {
        // What refuses it was said once, when it began to refuse; a full queue would say it a thousand times.
        Outcome::Ok | Outcome::Refused => {}
        Outcome::Failed | Outcome::Deadline => tracing::error!(
            parent: span,
            source = "agent.send",
            session_id = %session,
            request_id = %request_id,
            agent = %agent,
            cause = %rejection,
            "request failed"
        ),
        Outcome::Cancelled => tracing::info!(
            parent: span,
            source = "agent.send",
            session_id = %session,
            request_id = %request_id,
            agent = %agent,
            cause = %rejection,
            "request cancelled"
        ),
    }
}
