//! `agent.*`: messages to agents.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Receiver;

use super::super::ws::{Link, TurnStart};
use super::error::RpcError;
use super::method::{Call, CallResult, Context, NoParams, json, now};
use crate::gateway::{Accepted, AgentEvent, AgentSummary, Answer, Caller, OnDisconnect, SendRequest};
use crate::ids::{AgentId, IdempotencyKey, RequestId, SessionId};
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
    /// Answers with the request's id as soon as it stands in its lane; `request.get` then tells how it ended.
    #[serde(default, rename = "async")]
    detached: bool,
    /// Runs the message once, however often it is sent with this key in 24 hours.
    idempotency_key: Option<IdempotencyKey>,
    /// What becomes of it when the connection goes away.
    #[serde(default)]
    on_disconnect: OnDisconnect,
    /// The caller's own id for this request.
    request_id: Option<RequestId>,
    /// What goes beside the message; `traceparent` and `tracestate` join the caller's trace.
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
}

impl SendParams {
    fn hearing(&self) -> Result<Hearing, RpcError> {
        match (self.detached, self.stream) {
            (true, true) => Err(RpcError::invalid(
                "stream",
                "an async request is answered before it begins: leave out one of the two",
            )),
            (true, false) if self.on_disconnect == OnDisconnect::Cancel => Err(RpcError::invalid(
                "onDisconnect",
                "an async request outlives its connection: leave out one of the two",
            )),
            (true, false) => Ok(Hearing::Detached),
            (false, true) => Ok(Hearing::Stream),
            (false, false) => Ok(Hearing::Answer),
        }
    }
}

/// What may go beside a message. Other members are passed over.
#[derive(Debug, Deserialize, JsonSchema)]
struct Meta {
    /// A W3C traceparent.
    traceparent: Option<String>,
    /// The W3C tracestate that belongs to it.
    tracestate: Option<String>,
}

impl Meta {
    fn trace(self) -> Option<TraceContext> {
        let context = TraceContext::parse(&self.traceparent?)?;
        Some(context.with_state(&self.tracestate.unwrap_or_default()))
    }
}

/// What `agent.send` answers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Sent {
    /// The answer.
    Answered(Arc<Answer>),
    /// With `async`: where the request can be asked for.
    Queued(Ticket),
}

/// Where a request can be asked for.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ticket {
    /// For `request.get` and `agent.cancel`.
    request_id: RequestId,
    /// Its conversation.
    session: SessionId,
}

/// How the caller wants to hear of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// By `request.get`.
    Detached,
    /// By the answer.
    Answer,
    /// By notifications and the answer.
    Stream,
}

/// Sends a message.
pub(crate) fn send(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    match accept(&call) {
        Ok((_, Accepted { request_id, session, .. }, Hearing::Detached)) => {
            now(Ok(Sent::Queued(Ticket { request_id, session })))
        }
        Ok((agent, accepted, hearing)) => {
            let turn = call.ctx.link.as_ref().map(|link| {
                let (start, end) = link.turns.take(agent, accepted.session.clone());
                call.held.borrow_mut().turn = Some(end);
                start
            });
            answer(Arc::clone(call.ctx), accepted, hearing, turn).boxed()
        }
        Err(error) => now(Err::<(), _>(error)),
    }
}

fn accept(call: &Call<'_>) -> Result<(AgentId, Accepted, Hearing), RpcError> {
    let params: SendParams = call.params()?;
    let hearing = params.hearing()?;
    if hearing == Hearing::Stream && call.ctx.link.is_none() {
        return Err(RpcError::invalid("stream", "only a WebSocket can be streamed to: connect to /ws"));
    }
    if params.deadline_ms.is_some_and(|ms| !(1..=DEADLINE_MS_MAX).contains(&ms)) {
        return Err(RpcError::invalid("deadlineMs", "expected 1 to 86400000"));
    }
    let trace = params.meta.and_then(Meta::trace).or_else(|| call.ctx.trace.clone());
    let caller = Caller { actor: call.ctx.identity.actor.clone(), channel: call.ctx.channel, trace };
    let request = SendRequest {
        session: params.session,
        request_id: params.request_id,
        idempotency_key: params.idempotency_key,
        deadline: params.deadline_ms.map(Duration::from_millis),
        on_disconnect: params.on_disconnect,
        ..SendRequest::new(params.agent, params.message)
    };
    let agent = request.agent.clone();
    Ok((agent, call.state().gateway.send(caller, request)?, hearing))
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
    hearing: Hearing,
    turn: Option<TurnStart>,
) -> CallResult {
    let Accepted { request_id, session: _, mut events, outcome } = accepted;
    let began = match (&ctx.link, &turn) {
        (Some(link), Some(turn)) if hearing == Hearing::Stream => {
            pass_on(&mut events, link, &request_id, turn).await
        }
        (Some(_), Some(_)) => begins(&mut events).await,
        (None, _) | (_, None) => false,
    };
    // Nobody reads on: the provider need not wait.
    drop(events);
    let outcome = outcome.await;
    // What was stopped before it began is not told in its turn: others may be at work for long.
    if let Some(turn) = turn.filter(|_| began) {
        turn.wait().await;
    }
    match outcome {
        Ok(Ok(answer)) => json(&Sent::Answered(answer)),
        Ok(Err(rejection)) => Err(RpcError::from(&*rejection).about(&request_id)),
        Err(_gone) => Err(RpcError::internal().about(&request_id)),
    }
}

/// Sends all events to the client, from the first that is told in its turn on; whether the request began.
async fn pass_on(
    events: &mut Receiver<AgentEvent>,
    link: &Link,
    request_id: &RequestId,
    turn: &TurnStart,
) -> bool {
    let mut began = false;
    while let Some(event) = events.recv().await {
        if matches!(event, AgentEvent::Start { .. }) {
            began = true;
            turn.wait().await;
        }
        if link.notify("agent.event", &Notified { request_id, event: &event }).await.is_err() {
            break;
        }
    }
    began
}

/// Whether the request begins.
async fn begins(events: &mut Receiver<AgentEvent>) -> bool {
    while let Some(event) = events.recv().await {
        if matches!(event, AgentEvent::Start { .. }) {
            return true;
        }
    }
    false
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
