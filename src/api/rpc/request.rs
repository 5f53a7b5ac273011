//! `request.*`: requests that outlive the connection they came by.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::RpcError;
use super::method::{Call, CallResult, json, now};
use crate::clock::Timestamp;
use crate::gateway::{Answer, Rejection, RequestProgress, RequestStatus};
use crate::ids::{AgentId, IdempotencyKey, RequestId, SessionId};
use crate::limits::REQUEST_WAIT_MS_MAX;

/// Parameters of `request.get`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct GetParams {
    /// The request; or else `idempotencyKey`.
    request_id: Option<RequestId>,
    /// The caller's own key, which also knows requests of before a restart.
    idempotency_key: Option<IdempotencyKey>,
    /// The agent that the key was used with; needed only where there were several.
    agent: Option<AgentId>,
    /// How long to wait for its end, in milliseconds; 0 (the default) to 60,000.
    #[serde(default)]
    wait_ms: u64,
}

/// What is known of a request.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The request.
    request_id: RequestId,
    /// Who answers.
    agent: AgentId,
    /// Its conversation.
    session: SessionId,
    /// How far it is, or how it ended.
    state: RequestProgress,
    /// When it was accepted, in epoch milliseconds.
    accepted_at: Timestamp,
    /// When it ended, in epoch milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
    /// The answer, of one that is `done`.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Arc<Answer>>,
    /// What `agent.send` answers, of one that ended otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RpcError>,
}

impl From<RequestStatus> for Status {
    fn from(status: RequestStatus) -> Self {
        let RequestStatus { request_id, agent, session, state, accepted_at, ended_at, ended } = status;
        let (answer, error) = match ended {
            None => (None, None),
            Some(Ok(answer)) => (Some(answer), None),
            Some(Err(rejection)) => (None, Some(RpcError::from(&*rejection).about(&request_id))),
        };
        Self { request_id, agent, session, state, accepted_at, ended_at, answer, error }
    }
}

/// Says how far a request is, or how it ended.
pub(crate) fn get(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let GetParams { request_id, idempotency_key, agent, wait_ms } = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    if wait_ms > REQUEST_WAIT_MS_MAX {
        let problem = format!("expected 0 to {REQUEST_WAIT_MS_MAX}: ask again after that");
        return now(Err::<(), _>(RpcError::invalid("waitMs", &problem)));
    }
    let (gateway, actor) = (call.state().gateway.clone(), call.ctx.identity.actor.clone());
    let wait = Duration::from_millis(wait_ms);
    match (request_id, idempotency_key) {
        (Some(request), None) if agent.is_none() => async move {
            let status = gateway.request(&request, wait).await;
            status.map_err(|rejection| explained(rejection).about(&request)).and_then(told)
        }
        .boxed(),
        (None, Some(key)) => async move {
            let status = gateway.request_of_key(&actor, &key, agent.as_ref(), wait).await;
            status.map_err(explained).and_then(told)
        }
        .boxed(),
        (Some(_), None) => {
            now(Err::<(), _>(RpcError::invalid("agent", "belongs to an idempotencyKey: leave it out")))
        }
        (Some(_), Some(_)) | (None, None) => now(Err::<(), _>(RpcError::invalid(
            "requestId",
            "expected a requestId, or else an idempotencyKey",
        ))),
    }
}

fn told(status: RequestStatus) -> CallResult {
    json(&Status::from(status))
}

/// A request that is not known may have been one.
fn explained(rejection: Rejection) -> RpcError {
    let unknown = matches!(rejection, Rejection::NotFound { .. });
    let mut error = RpcError::from(rejection);
    if unknown {
        error.message = "no such request is known: it never was, or its end is no longer kept (see \
                         gateway.answers_kept), or plimsoll was started after it"
            .to_owned();
    }
    error
}
