//! What is under way: the entries of `system.activeRequests`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::answers::{End, Ended, EndedRequest};
use super::cancel::Cancel;
use super::lane::LaneKey;
use super::{Channel, Fingerprint, Rejection};
use crate::clock::{Clock, Timestamp};
use crate::ids::{AgentId, RequestId, SessionId};

/// One entry of `system.activeRequests`.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRequest {
    /// The request.
    pub id: RequestId,
    /// Its conversation.
    pub session_id: SessionId,
    /// The road it came in by.
    pub channel: Channel,
    /// Who answers.
    pub agent: AgentId,
    /// How far it is.
    pub state: RequestState,
    /// When it was accepted, in epoch milliseconds.
    pub started_at: Timestamp,
    /// Milliseconds since then, from a clock that never goes back.
    pub duration_ms: f64,
    /// Its tools.
    pub tools: ActiveTools,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits in its lane.
    Queued,
    /// Its instance is being started.
    Starting,
    /// The provider is at it.
    Running,
}

/// The tools of a request under way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, schemars::JsonSchema)]
pub struct ActiveTools {
    /// Those at work.
    pub running: Vec<RunningTool>,
    /// How many ended well.
    pub done: u64,
    /// How many failed.
    pub failed: u64,
}

/// A tool at work.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningTool {
    /// The tool's name.
    pub name: String,
    /// When it began, in epoch milliseconds.
    pub started_at: Timestamp,
}

/// A request under way, as the gateway holds it.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) id: RequestId,
    pub(super) session: SessionId,
    pub(super) agent: AgentId,
    pub(super) channel: Channel,
    /// Bytes of its message.
    pub(super) message_bytes: usize,
    pub(super) accepted_at: Timestamp,
    /// When it was accepted, on the monotonic clock.
    pub(super) accepted: Duration,
    /// Its idempotency key, if it has one.
    pub(super) key: Option<Fingerprint>,
    pub(super) cancel: Cancel,
    pub(super) end: End,
    /// Written by the request's own task, read by whoever lists; a std mutex suffices, nothing waits under it.
    pub(super) progress: Mutex<Progress>,
}

/// What changes while a request is under way.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) state: RequestState,
    pub(super) tools: ActiveTools,
    /// Whether its session was reset since its turn began.
    pub(super) session_reset: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { state: RequestState::Queued, tools: ActiveTools::default(), session_reset: false }
    }
}

impl Active {
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it stands.
    pub(super) fn lane(&self) -> LaneKey {
        LaneKey { agent: self.agent.clone(), session: self.session.clone() }
    }

    /// Tells everybody who waits how it ended, unless that is known already.
    pub(super) fn end(&self, result: Ended, now: Timestamp) -> Arc<EndedRequest> {
        self.end.set(|| EndedRequest {
            agent: self.agent.clone(),
            session: self.session.clone(),
            key: self.key,
            accepted_at: self.accepted_at,
            ended_at: now,
            result,
        })
    }

    /// Tells who waits beside it that it was not let in.
    pub(super) fn refuse(&self, rejection: &Rejection, now: Timestamp) {
        self.end(Err(Arc::new(rejection.clone())), now);
    }

    /// Ends it for who waits if nothing else did: its task was dropped or panicked.
    pub(super) fn abandon(&self, now: Timestamp) {
        self.end(Err(Arc::new(Rejection::Bug { partial: String::new() })), now);
    }

    pub(super) fn show(&self, clock: &Clock) -> ActiveRequest {
        let (state, tools) = {
            let progress = self.progress();
            (progress.state, progress.tools.clone())
        };
        ActiveRequest {
            id: self.id.clone(),
            session_id: self.session.clone(),
            channel: self.channel,
            agent: self.agent.clone(),
            state,
            started_at: self.accepted_at,
            duration_ms: clock.elapsed().saturating_sub(self.accepted).as_secs_f64() * 1e3,
            tools,
        }
    }
}
