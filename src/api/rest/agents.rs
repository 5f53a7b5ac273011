//! `GET /agents`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::Readiness;
use super::super::request::Request;
use super::super::response::{Outcome, json_reply};
use super::super::state::ApiState;
use super::NoQuery;
use crate::gateway::AgentSummary;
use crate::ids::AgentId;

/// The agents with their state.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Agents {
    agents: Vec<AgentEntry>,
}

/// One agent.
#[derive(Serialize, JsonSchema)]
struct AgentEntry {
    id: AgentId,
    /// What it is for.
    role: Option<String>,
    /// Where it lives.
    mode: Mode,
    /// When its instance starts.
    start: Start,
    /// The kind of its provider.
    provider: String,
    /// Whether it takes messages.
    status: Status,
    /// Whether an operator paused it.
    paused: bool,
    state: State,
}

/// Where an agent lives.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Inside plimsoll.
    Host,
}

/// When an agent's instance starts.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Start {
    /// With plimsoll.
    Hot,
}

/// Whether an agent takes messages.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ready,
    Draining,
    /// An operator paused it.
    Paused,
}

/// The lifecycle of an agent's instance; both are null where it has none of its own.
#[derive(Serialize, JsonSchema)]
struct State {
    lifecycle_state: Option<String>,
    lifecycle_metrics: Option<serde_json::Map<String, serde_json::Value>>,
}

pub(crate) async fn agents(state: Arc<ApiState>, request: Request) -> Outcome {
    let NoQuery {} = request.query()?;
    let draining = state.readiness() == Readiness::Draining;
    let entry = |agent: AgentSummary| AgentEntry {
        id: agent.id,
        role: agent.role,
        mode: Mode::Host,
        start: Start::Hot,
        provider: agent.provider,
        status: match (draining, agent.paused) {
            (true, _) => Status::Draining,
            (false, true) => Status::Paused,
            (false, false) => Status::Ready,
        },
        paused: agent.paused,
        state: State { lifecycle_state: None, lifecycle_metrics: None },
    };
    json_reply(&Agents { agents: state.gateway.agents().into_iter().map(entry).collect() })
}
