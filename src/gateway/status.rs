//! What became of a request: while it is under way and as long as its end is kept.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::active::{Active, RequestState};
use super::answers::{Ended, EndedRequest};
use super::keys::{Found, Known};
use super::record::Outcome;
use super::{Fingerprint, Gateway, Rejection};
use crate::clock::Timestamp;
use crate::ids::{AgentId, IdempotencyKey, RequestId, SessionId};
use crate::journal::Actor;

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
    /// Nothing of it ran: a limit or a pause of its agent, the journal or the end of plimsoll kept it from that.
    Refused,
    /// plimsoll ended while it was under way; known of those with an idempotency key.
    Interrupted,
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
            Outcome::Refused => Self::Refused,
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
    /// How it ended, if it did and as long as that is kept.
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
        let EndedRequest { agent, session, key: _, accepted_at, ended_at, result } = ended;
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

    /// The same for a caller's idempotency key, which also knows requests of before a restart. Without an agent, all
    /// are looked at.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] where the key is not known, [`Rejection::UnknownAgent`], or [`Rejection::Invalid`] where
    /// the caller sent messages with this key to more than one agent.
    pub async fn request_of_key(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
        agent: Option<&AgentId>,
        wait: Duration,
    ) -> Result<RequestStatus, Rejection> {
        let known = self.inner.agents.all();
        let agents: Vec<&AgentId> = match agent {
            Some(agent) if !known.contains_key(agent) => {
                return Err(Rejection::UnknownAgent { agent: agent.clone() });
            }
            Some(agent) => vec![agent],
            None => known.keys().collect(),
        };
        let now = self.inner.clock.elapsed();
        let find = |agent: &AgentId| {
            let key = Fingerprint::of_key(actor, agent, key);
            self.inner.keys.find(key, now).map(|found| (key, found))
        };
        let mut found: Vec<_> = agents.into_iter().filter_map(find).collect();
        let (key, first) = found.pop().ok_or(Rejection::NotFound { what: "request" })?;
        if !found.is_empty() {
            let problem = "you used this key with more than one agent: say which".to_owned();
            return Err(Rejection::Invalid { field: "agent", problem });
        }
        match first {
            Found::UnderWay(active) => Ok(self.follow(&active, wait).await),
            Found::Before(known) => Ok(self.before(key, known)),
        }
    }

    fn before(&self, key: Fingerprint, known: Known) -> RequestStatus {
        let kept = self.inner.answers.get(&known.request_id, self.inner.clock.elapsed());
        if let Some(ended) = kept.filter(|ended| ended.key == Some(key)) {
            return RequestStatus::ended(&known.request_id, &ended);
        }
        RequestStatus {
            request_id: known.request_id,
            agent: known.agent,
            session: known.session,
            state: known.outcome.map_or(RequestProgress::Interrupted, RequestProgress::from),
            accepted_at: known.accepted_at,
            ended_at: None,
            ended: None,
        }
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
