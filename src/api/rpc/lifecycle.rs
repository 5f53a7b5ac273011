//! `lifecycle.start` and `lifecycle.stop`: the instances of agents.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{CONFLICT, NOT_FOUND, RpcError};
use super::method::{Call, CallResult, now};
use crate::ids::AgentId;
use crate::lifecycle::{Cause, Instances, State, Unavailable};

/// Parameters of `lifecycle.start` and `lifecycle.stop`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstanceParams {
    /// The agent whose instance it is.
    instance: AgentId,
}

/// What an instance does, the order given.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ordered {
    /// The agent whose instance it is.
    instance: AgentId,
    /// What it does now; how that ends is told on the event stream, and by `GET /agents`.
    state: State,
}

type Tell = fn(&Instances, &AgentId, Cause) -> Result<(), Unavailable>;

/// Starts an instance.
pub(crate) fn start(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    order(&call, Instances::start)
}

/// Stops an instance.
pub(crate) fn stop(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    order(&call, Instances::stop)
}

fn order(call: &Call<'_>, tell: Tell) -> BoxFuture<'static, CallResult> {
    now(call.params().and_then(|InstanceParams { instance }| {
        let instances = Arc::clone(call.state().gateway.instances());
        let refused = |unavailable| match unavailable {
            kept @ Unavailable::Kept { .. } => RpcError::new(CONFLICT, kept.to_string()),
            _ => {
                let problem =
                    format!("no agent `{instance}` has an instance: `agent.list` shows those that have one");
                RpcError::new(NOT_FOUND, problem)
            }
        };
        let actor = call.ctx.identity.actor.clone();
        let trace_id = call.ctx.trace.as_ref().map(|trace| trace.trace_id);
        tell(&instances, &instance, Cause { actor, trace_id, span: tracing::Span::none() })
            .map_err(refused)?;
        let state = instances.state(&instance).map_err(refused)?;
        Ok(Ordered { instance, state })
    }))
}
