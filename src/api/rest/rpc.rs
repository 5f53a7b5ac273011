//! `POST /rpc`: JSON-RPC 2.0 over HTTP.
//!
//! 200 once a call is parsed and authorised, whatever its result; 204 if there is nothing to answer; 400 for what is no
//! call; 403 for a call that the token may not make; 429 when it comes too often; 503 while plimsoll drains.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::Readiness;
use super::super::guard;
use super::super::jsonrpc;
use super::super::request::Request;
use super::super::response::{Outcome, Reply, reply, seconds};
use super::super::rpc::{self, Answered, Context, RpcError};
use super::super::state::ApiState;
use crate::gateway::Channel;

/// A call, or a batch of calls.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the contract's picture of a message; calls are read by `jsonrpc`")]
pub(crate) enum RpcMessage {
    /// One call.
    Call(RpcCall),
    /// A batch.
    Batch(Vec<RpcCall>),
}

/// One JSON-RPC 2.0 call.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the contract's picture of a call")]
pub(crate) struct RpcCall {
    /// `2.0`.
    jsonrpc: String,
    /// A string or a number; without it the call is a notification and gets no answer.
    id: Option<Value>,
    /// One of `system.methods`.
    method: String,
    /// By name.
    params: Option<serde_json::Map<String, Value>>,
}

/// An answer, or the answers of a batch.
#[derive(serde::Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the contract's picture of an answer")]
pub(crate) enum RpcAnswer {
    /// One answer.
    One(RpcResult),
    /// A batch, in the order of its calls.
    Batch(Vec<RpcResult>),
}

/// `result` or `error`, never both.
#[derive(serde::Serialize, JsonSchema)]
pub(crate) struct RpcResult {
    /// `2.0`.
    jsonrpc: String,
    /// The call's own; null where it could not be read.
    id: Value,
    /// What the method returns.
    result: Option<Value>,
    /// Code, message, and data for programs.
    error: Option<Value>,
}

/// When to try again after a drain: what takes over listens soon, or answers at once behind the same name.
const AFTER_DRAIN: Duration = Duration::from_secs(1);

/// Answers a call or a batch.
pub(crate) async fn rpc(state: Arc<ApiState>, mut request: Request) -> Outcome {
    let identity = request.identity()?;
    // What is no message counts here, as no call of it will.
    let text = match state.read_json(&mut request).await {
        Ok(text) => text,
        Err(problem) => return Err(guard::count(&state, &identity).err().unwrap_or(problem)),
    };
    guard::recheck(&state, &request.head, &identity)?;
    let draining = state.readiness() == Readiness::Draining;
    let trace = request.trace();
    let ctx = Context { state, identity, channel: Channel::Http, trace, link: None };
    let begun = rpc::begin(&Arc::new(ctx), &text, usize::MAX);
    drop(text);
    let mut reply = into_reply(begun.answer.await);
    if draining {
        *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        reply.headers_mut().insert(RETRY_AFTER, seconds(AFTER_DRAIN));
    }
    Ok(reply)
}

fn into_reply(answered: Answered) -> Reply {
    let (status, wait) = match &answered {
        Answered::Single(Some(Err((error, _)))) => match error.code {
            jsonrpc::PARSE_ERROR | jsonrpc::INVALID_REQUEST => (StatusCode::BAD_REQUEST, None),
            rpc::FORBIDDEN => (StatusCode::FORBIDDEN, None),
            rpc::SHUTTING_DOWN => (StatusCode::SERVICE_UNAVAILABLE, Some(AFTER_DRAIN)),
            rpc::RATE_LIMITED => (StatusCode::TOO_MANY_REQUESTS, wait_of(error)),
            _ => (StatusCode::OK, wait_of(error)),
        },
        Answered::Single(Some(Ok(_))) | Answered::Batch(Some(_)) => (StatusCode::OK, None),
        Answered::Single(None) | Answered::Batch(None) => (StatusCode::NO_CONTENT, None),
    };
    let mut reply = reply(status, "application/json", answered.into_text().unwrap_or_default());
    if let Some(wait) = wait {
        reply.headers_mut().insert(RETRY_AFTER, seconds(wait));
    }
    reply
}

fn wait_of(error: &RpcError) -> Option<Duration> {
    error.data.retry_after_ms.map(Duration::from_millis)
}
