//! What is recorded about a request that ended: in one place, once, whatever way it ended.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tracing::Span;

use super::metrics::AgentMetrics;
use super::{Channel, Rejection, Timings, Usage};
use crate::ids::{AgentId, RequestId, SessionId, TraceId};
use crate::journal::{Actor, Append, Journal, NewRecord, StreamId};

/// The kind of the record that a finished request leaves in the journal.
pub const REQUEST_FINISHED: &str = "request_finished";

/// The version of [`RequestFinished`].
pub const REQUEST_FINISHED_VERSION: u16 = 1;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Deadline, Self::Cancelled];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) const fn of(ended: Result<(), &Rejection>) -> Self {
        match ended {
            Ok(()) => Self::Ok,
            Err(Rejection::Deadline { .. }) => Self::Deadline,
            Err(Rejection::Cancelled { .. }) => Self::Cancelled,
            Err(
                Rejection::Invalid { .. }
                | Rejection::LaneFull { .. }
                | Rejection::GatewayFull { .. }
                | Rejection::UnknownAgent { .. }
                | Rejection::Provider { .. }
                | Rejection::ShuttingDown
                | Rejection::NotFound { .. }
                | Rejection::DuplicateRequest { .. },
            ) => Self::Failed,
        }
    }
}

/// The detail of `request_finished`, version 1: facts about a request, never its content.
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
    /// Its tool calls.
    pub tools: ToolCounts,
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
    /// Its error on the wire (`error.type`), where a provider failed.
    pub(super) total: Duration,
}

/// Records requests.
pub(super) struct Recorder {
    journal: Arc<dyn Journal>,
}

impl Recorder {
    pub(super) fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal }
    }

    /// Records the end of a request: counts, durations, its event if it did not go well, its journal record.
    pub(super) fn finished(&self, metrics: &AgentMetrics, finished: Finished<'_>) {
        let Finished { facts, actor, trace_id, span, rejection, total } = finished;
        match facts.outcome {
            Outcome::Ok => metrics.ok.increment(1),
            Outcome::Failed => metrics.failed.increment(1),
            Outcome::Deadline => metrics.deadline.increment(1),
            Outcome::Cancelled => metrics.cancelled.increment(1),
        }
        metrics.duration.record(total.as_secs_f64());
        if let Some(rejection) = rejection {
            tell(span, &facts, rejection);
        }
        let detail = serde_json::to_value(&facts).expect("facts are plain JSON");
        let record = NewRecord {
            kind: REQUEST_FINISHED,
            version: REQUEST_FINISHED_VERSION,
            actor,
            trace_id: Some(trace_id),
            detail,
        };
        let append = Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record] };
        if let Err(_error) = self.journal.offer(append) {
            // Counted once the shared counters are there.
        }
    }
}

/// One event for a request that was not answered. A cancelled one did what was asked for: it is no error.
fn tell(span: &Span, facts: &RequestFinished, rejection: &Rejection) {
    let RequestFinished { request_id, agent, session, .. } = facts;
    match facts.outcome {
        Outcome::Ok => {}
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
