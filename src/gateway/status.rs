//! What became of a request: while it is under way and as long as its end is kept.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::active::{Active, RequestState};
use super::answers::{Ended, EndedRequest};
use super::record::Outcome;
use super::{Gateway, Rejection};
use crate::clock::Timestamp;
use crate::ids::{AgentId, RequestId, SessionId};

/// How far a request is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestProgress {
    /// It waits in its lane.
    Queued,
    /// Its instance is being started.
    Starting,
    /// The provider is at it.
    Running,
    /// It was answered.
    Done,
    /// It failed.
    Failed,
    /// Its deadline passed.
    Deadline,
    /// It was cancelled.
    Cancelled,
}

impl From<RequestState> for RequestProgress {
    fn from(state: RequestState) -> Self {
        match state {
            RequestState::Queued => Self::Queued,
            RequestState::Starting => Self::Starting,
            RequestState::Running => Self::Running,
        }
    }
}

impl From<Outcome> for RequestProgress {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Self::Done,
            Outcome::Failed => Self::Failed,
            Outcome::Deadline => Self::Deadline,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

/// What is known of a request.
#[derive(Debug, Clone)]
pub struct RequestStatus {
    /// The request.
    pub request_id: RequestId,
    /// Who answers.
    pub agent: AgentId,
    /// Its conversation.
    pub session: SessionId,
    /// How far it is, or how it ended.
    pub state: RequestProgress,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it ended, if it did.
    pub ended_at: Option<Timestamp>,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
}

impl RequestStatus {
    fn under_way(active: &Active) -> Self {
        Self {
            request_id: active.id.clone(),
            agent: active.agent.clone(),
            session: active.session.clone(),
            state: active.progress().state.into(),
            accepted_at: active.accepted_at,
            ended_at: None,
            ended: None,
        }
    }

    fn ended(request: &RequestId, ended: &EndedRequest) -> Self {
        let EndedRequest { agent, session, accepted_at, ended_at, result } = ended;
        Self {
            request_id: request.clone(),
            agent: agent.clone(),
            session: session.clone(),
            state: Outcome::of(result.as_ref().map(drop).map_err(Arc::as_ref)).into(),
            accepted_at: *accepted_at,
            ended_at: Some(*ended_at),
            ended: Some(result.clone()),
        }
    }
}

impl Gateway {
    /// What is known of a request; waits up to `wait` for its end if it is under way. Safe to drop at any time.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] where it is not under way and its end is not kept (any more).
    pub async fn request(&self, request: &RequestId, wait: Duration) -> Result<RequestStatus, Rejection> {
        // An end is kept before its request leaves the floor: in this order nothing is missed.
        if let Some(active) = self.inner.floor.find(request) {
            return Ok(self.follow(&active, wait).await);
        }
        let ended = self.inner.answers.get(request, self.inner.clock.elapsed());
        ended
            .map(|ended| RequestStatus::ended(request, &ended))
            .ok_or(Rejection::NotFound { what: "request" })
    }

    async fn follow(&self, active: &Active, wait: Duration) -> RequestStatus {
        if wait.is_zero() {
            return RequestStatus::under_way(active);
        }
        match tokio::time::timeout(wait, active.end.wait()).await {
            Ok(ended) => RequestStatus::ended(&active.id, &ended),
            Err(_) => RequestStatus::under_way(active),
        }
    }
}
