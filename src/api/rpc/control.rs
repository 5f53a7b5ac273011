//! `agent.pause` and `agent.resume`: whether agents take new work.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::method::{Call, CallResult, json, now};
use crate::gateway::UnderWay;
use crate::ids::AgentId;

/// Parameters of `agent.pause`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseParams {
    /// The agent; without one, all, those included that are configured later.
    agent: Option<AgentId>,
    /// Whether what runs and waits is cancelled too. Otherwise what runs may end, and what waits is refused when its
    /// turn comes.
    #[serde(default)]
    cancel: bool,
}

/// Agents that take no new work.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Paused {
    /// Those that did before.
    paused: Vec<AgentId>,
    /// How many requests were cancelled.
    cancelled: usize,
    /// False where the journal could not take it: they are paused now, but a restart may end that.
    durable: bool,
}

/// Stops new work.
pub(crate) fn pause(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let PauseParams { agent, cancel } = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let (state, actor) = (call.state().clone(), call.ctx.identity.actor.clone());
    let under_way = if cancel { UnderWay::Cancel } else { UnderWay::Finish };
    let work = async move {
        let done = state.gateway.pause(actor, agent, under_way).await?;
        json(&Paused { paused: done.changed, cancelled: done.cancelled, durable: done.durable })
    };
    work.boxed()
}

/// Parameters of `agent.resume`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeParams {
    /// The agent; without one, all that are paused.
    agent: Option<AgentId>,
}

/// Agents that take work again.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Resumed {
    /// Those that did not before.
    resumed: Vec<AgentId>,
}

/// Takes new work again.
pub(crate) fn resume(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let ResumeParams { agent } = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let (state, actor) = (call.state().clone(), call.ctx.identity.actor.clone());
    let work = async move {
        let done = state.gateway.resume(actor, agent).await?;
        json(&Resumed { resumed: done.changed })
    };
    work.boxed()
}
