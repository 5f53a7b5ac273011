//! `agent.*`: messages to agents.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::ws::TurnStart;
use super::error::RpcError;
use super::method::{Call, CallResult, Context, NoParams, json, now};
use crate::gateway::{Accepted, AgentEvent, AgentSummary, Caller, OnDisconnect, SendRequest};
use crate::ids::{AgentId, RequestId, SessionId};
use crate::telemetry::TraceContext;

/// A day: no model call and no coding agent takes longer.
const DEADLINE_MS_MAX: u64 = 86_400_000;

/// Parameters of `agent.send`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SendParams {
    /// Who shall answer.
    agent: AgentId,
    /// The message; not empty.
    message: String,
    /// The conversation; without one, a default of this caller and agent.
    session: Option<SessionId>,
    /// Sends notifications `agent.event` before the result; WebSocket only.
    #[serde(default)]
    stream: bool,
    /// How long it may take, in milliseconds; 1 to 86,400,000.
    deadline_ms: Option<u64>,
    /// What becomes of it when the connection goes away.
    #[serde(default)]
    on_disconnect: OnDisconnect,
    /// The caller's own id for this request.
    request_id: Option<RequestId>,
    /// What goes beside the message; `traceparent` joins the caller's trace.
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
}

/// What may go beside a message. Other members are passed over.
#[derive(Debug, Deserialize, JsonSchema)]
struct Meta {
    /// A W3C traceparent.
    traceparent: Option<String>,
}

/// Sends a message.
pub(crate) fn send(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    match accept(&call) {
        Ok((agent, accepted, stream)) => {
            let turn = call.ctx.link.as_ref().map(|link| {
                let (start, end) = link.turns.take(agent, accepted.session.clone());
                call.ends.borrow_mut().push(end);
                start
            });
            answer(Arc::clone(call.ctx), accepted, stream, turn).boxed()
        }
        Err(error) => now(Err::<(), _>(error)),
    }
}

fn accept(call: &Call<'_>) -> Result<(AgentId, Accepted, bool), RpcError> {
    let params: SendParams = call.params()?;
    if params.stream && call.ctx.link.is_none() {
        return Err(RpcError::invalid("stream", "only a WebSocket can be streamed to: connect to /ws"));
    }
    if params.deadline_ms.is_some_and(|ms| !(1..=DEADLINE_MS_MAX).contains(&ms)) {
        return Err(RpcError::invalid("deadlineMs", "expected 1 to 86400000"));
    }
    let traceparent = params.meta.and_then(|meta| meta.traceparent);
    let trace = traceparent.as_deref().and_then(TraceContext::parse).or(call.ctx.trace);
    let caller = Caller { actor: call.ctx.identity.actor.clone(), channel: call.ctx.channel, trace };
    let request = SendRequest {
        agent: params.agent,
        message: params.message,
        session: params.session,
        request_id: params.request_id,
        deadline: params.deadline_ms.map(Duration::from_millis),
        on_disconnect: params.on_disconnect,
    };
    let agent = request.agent.clone();
    Ok((agent, call.state().gateway.send(caller, request)?, params.stream))
}

/// The parameters of a notification `agent.event`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notified<'a> {
    request_id: &'a RequestId,
    #[serde(flatten)]
    event: &'a AgentEvent,
}

async fn answer(
    ctx: Arc<Context>,
    accepted: Accepted,
    stream: bool,
    mut turn: Option<TurnStart>,
) -> CallResult {
    let Accepted { request_id, session: _, mut events, outcome } = accepted;
    match &ctx.link {
        Some(link) if stream => {
            while let Some(event) = events.recv().await {
                if let (Some(turn), AgentEvent::Start { .. }) = (&mut turn, &event) {
                    turn.wait().await;
                }
                let notified = Notified { request_id: &request_id, event: &event };
                if link.notify("agent.event", &notified).await.is_err() {
                    break;
                }
            }
        }
        Some(_) | None => drop(events),
    }
    let outcome = outcome.await;
    if let Some(mut turn) = turn {
        turn.wait().await;
    }
    match outcome {
        Ok(Ok(answer)) => json(&answer),
        Ok(Err(rejection)) => Err(RpcError::from(rejection).about(&request_id)),
        Err(_gone) => Err(RpcError::internal().about(&request_id)),
    }
}

/// Parameters of `agent.cancel`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CancelParams {
    /// The request.
    request_id: RequestId,
}

/// Whether there was something to cancel.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Cancelled {
    /// False if the request is not there or already ended.
    cancelled: bool,
}

/// Cancels a request.
pub(crate) fn cancel(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|CancelParams { request_id }| {
        let cancelled = call.state().gateway.cancel(&request_id, "agent.cancel");
        Cancelled { cancelled }
    }))
}

/// The agents there are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AgentList {
    agents: Vec<AgentSummary>,
}

/// Lists the agents.
pub(crate) fn list(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| AgentList { agents: call.state().gateway.agents() }))
}
