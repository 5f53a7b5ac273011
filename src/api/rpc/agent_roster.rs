//! `agent.create` and `agent.delete`: agents that come and go while plimsoll serves.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::RpcError;
use super::method::{Call, CallResult, json, now, read_named};
use crate::gateway::Deletion;
use crate::ids::AgentId;

/// Parameters of `agent.create`, and the body of `POST /agents`: an id, and the keys of an entry of `agents:` in the
/// configuration, with its ranges. No variables are expanded in it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it is read as the configuration reads it; this is its schema")]
pub(crate) struct NewAgent {
    /// Its id.
    id: AgentId,
    /// A key under `providers:` of the configuration; none of `kind: exec`.
    provider: String,
    /// The model to ask for.
    model: Option<String>,
    /// Instructions sent before the conversation. They stand in the journal.
    system: Option<String>,
    /// What it is for, in a word.
    role: Option<String>,
    /// Requests of it that may run at once.
    max_concurrent: Option<usize>,
    /// US dollars that it may spend in a day.
    usd_per_day: Option<f64>,
    /// Tokens that it may use in a minute.
    tokens_per_min: Option<u64>,
    /// Requests that it takes in a minute.
    requests_per_min: Option<u32>,
    /// How long one of its requests may take, such as `5m`.
    deadline: Option<String>,
    /// Names of tools it is known to have.
    tools: Option<Vec<String>>,
    /// The container that hosts it, as under `instance:`; without `process` and without `env`.
    instance: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What of a new agent is known before it is read as a whole.
#[derive(Deserialize)]
struct Named {
    id: AgentId,
}

/// The id of a new agent; an error is the parameter that is wrong, and why.
pub(crate) fn read_id(entry: &str) -> Result<AgentId, (String, String)> {
    read_named(&mut serde_json::Deserializer::from_str(entry)).map(|Named { id }| id)
}

/// Makes an agent.
pub(crate) fn create(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let entry = call.params.map_or("{}", RawValue::get).to_owned();
    let id = match read_id(&entry) {
        Ok(id) => id,
        Err((field, problem)) => {
            let field = if field.is_empty() { "params".to_owned() } else { field };
            return now(Err::<(), _>(RpcError::invalid(field, &problem)));
        }
    };
    let (state, actor) = (call.state().clone(), call.ctx.identity.actor.clone());
    let beside = state.beside();
    async move { json(&state.gateway.create_agent(actor, id, entry, beside).await?) }.boxed()
}

/// Parameters of `agent.delete`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteParams {
    /// The agent.
    agent: AgentId,
}

/// An agent that is no more.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AgentDeleted {
    /// The agent.
    deleted: AgentId,
    /// How many requests were cancelled.
    cancelled: usize,
}

impl AgentDeleted {
    pub(crate) fn of(deleted: AgentId, deletion: &Deletion) -> Self {
        Self { deleted, cancelled: deletion.cancelled }
    }
}

/// Deletes an agent.
pub(crate) fn delete(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let DeleteParams { agent } = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let (state, actor) = (call.state().clone(), call.ctx.identity.actor.clone());
    let work = async move {
        let deletion = state.gateway.delete_agent(actor, agent.clone()).await?;
        json(&AgentDeleted::of(agent, &deletion))
    };
    work.boxed()
}
