//! `GET /v1/models` and `GET /v1/models/{id}`: the agents, as models (<https://platform.openai.com/docs/api-reference/models>).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::request::Request;
use super::super::response::{Outcome, json_reply};
use super::super::state::ApiState;
use super::fault::Fault;
use crate::ids::AgentId;

/// All models.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<Model>,
}

/// One model: an agent.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Model {
    /// The agent.
    id: AgentId,
    /// `model`.
    object: &'static str,
    /// When plimsoll started, in epoch seconds.
    created: u64,
    /// `plimsoll`.
    owned_by: &'static str,
}

impl Model {
    fn of(id: AgentId, state: &ApiState) -> Self {
        let clock = &state.sources.clock;
        let started = clock.now().as_millis() / 1_000 - clock.elapsed().as_secs();
        Self { id, object: "model", created: started, owned_by: "plimsoll" }
    }
}

/// Lists the agents.
pub(crate) async fn models(state: Arc<ApiState>, _request: Request) -> Outcome {
    let data = state.gateway.agents().into_iter().map(|agent| Model::of(agent.id, &state)).collect();
    json_reply(&ModelList { object: "list", data })
}

/// Shows one agent.
pub(crate) async fn model(state: Arc<ApiState>, request: Request) -> Outcome {
    let wanted = request.param.as_deref().unwrap_or_default();
    match state.gateway.agents().into_iter().find(|agent| agent.id.as_str() == wanted) {
        Some(agent) => json_reply(&Model::of(agent.id, &state)),
        None => Ok(Fault::unknown_model(wanted).into_reply()),
    }
}
