//! `session.*`: conversations, as far as they are kept in memory.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::method::{Call, CallResult, NoParams, json, now};
use crate::gateway::SessionSummary;
use crate::ids::{AgentId, SessionId};
use crate::provider::Message;

/// Which session.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionParams {
    /// The agent.
    agent: AgentId,
    /// The conversation with it.
    session: SessionId,
}

/// The sessions in memory.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SessionList {
    sessions: Vec<SessionSummary>,
}

/// Lists the sessions.
pub(crate) fn list(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| SessionList { sessions: call.state().gateway.sessions() }))
}

/// What was said, the oldest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct History {
    messages: Vec<Message>,
}

/// Shows what was said.
pub(crate) fn history(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().and_then(|SessionParams { agent, session }| {
        Ok(History { messages: call.state().gateway.history(&agent, &session)? })
    }))
}

/// A session that begins anew.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ResetResult {
    /// Always true.
    reset: bool,
}

/// Forgets what was said.
pub(crate) fn reset(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let SessionParams { agent, session } = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let (gateway, actor) = (call.state().gateway.clone(), call.ctx.identity.actor.clone());
    async move {
        gateway.reset(&actor, &agent, &session).await?;
        json(&ResetResult { reset: true })
    }
    .boxed()
}
