//! `GET /v1/models` and `GET /v1/models/{id}`: the agents, as models (<https://platform.openai.com/docs/api-reference/models>).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::request::Request;
use super::super::response::{Outcome, json_reply};
use super::super::state::ApiState;
use super::fault::Fault;
use crate::gateway::AgentSummary;
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
        let created = state.started_at.as_millis() / 1_000;
        Self { id, object: "model", created, owned_by: "plimsoll" }
    }
}

/// Those that do not fit the configuration take no messages.
fn serving(state: &ApiState) -> impl Iterator<Item = AgentSummary> {
    state.gateway.agents().into_iter().filter(|agent| agent.unfit.is_none())
}

/// Lists the agents.
pub(crate) async fn models(state: Arc<ApiState>, _request: Request) -> Outcome {
    let data = serving(&state).map(|agent| Model::of(agent.id, &state)).collect();
    json_reply(&ModelList { object: "list", data })
}

/// Shows one agent.
pub(crate) async fn model(state: Arc<ApiState>, request: Request) -> Outcome {
    let wanted = request.param("id").unwrap_or_default();
    match serving(&state).find(|agent| agent.id.as_str() == wanted) {
        Some(agent) => json_reply(&Model::of(agent.id, &state)),
        None => Ok(Fault::unknown_model(wanted).into_reply()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::{Config, fixture};
    use super::*;
    use crate::clock::{Clock, Timestamp};

    #[test]
    fn a_model_is_as_old_as_the_server_whenever_it_is_asked() {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(10_600));
        let state = fixture::state_at(Config::default(), clock);
        let created = || Model::of(AgentId::parse("a").expect("valid"), &state).created;
        for _ in 0..4 {
            hand.advance(Duration::from_millis(300));
            assert_eq!(created(), 10);
        }
        hand.set_wall(Timestamp::from_millis(0));
        assert_eq!(created(), 10, "nor does a clock that is set change it");
    }
}
