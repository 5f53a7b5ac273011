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
use crate::lifecycle::{self, FailureView, InstanceCounts, Start};

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
    /// Where it lives: `host` (inside plimsoll, or at a model's API), `process` or `container`.
    mode: &'static str,
    /// When its instance starts.
    start: Start,
    /// The kind of its provider.
    provider: String,
    /// Whether it takes messages.
    status: Status,
    /// Whether an operator paused it.
    paused: bool,
    /// How its instance failed, for one that did.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
    state: State,
}

/// Whether an agent takes messages.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ready,
    Draining,
    /// An operator paused it.
    Paused,
    /// Its instance failed, and is not tried again before its time.
    Failed,
}

/// The lifecycle of an agent's instance; both are null where it has none, or one that starts with plimsoll.
#[derive(Serialize, JsonSchema)]
struct State {
    lifecycle_state: Option<lifecycle::State>,
    lifecycle_metrics: Option<InstanceCounts>,
}

pub(crate) async fn agents(state: Arc<ApiState>, request: Request) -> Outcome {
    let NoQuery {} = request.query()?;
    let draining = state.readiness() == Readiness::Draining;
    let entries = state.gateway.agents().into_iter().map(|agent| entry(agent, draining)).collect();
    json_reply(&Agents { agents: entries })
}

fn entry(agent: AgentSummary, draining: bool) -> AgentEntry {
    let failed = agent.instance.as_ref().is_some_and(|instance| instance.state == lifecycle::State::Failed);
    let failure = agent.instance.as_ref().and_then(|instance| instance.failure.clone());
    let lazy = agent.instance.filter(|instance| instance.start == Start::Lazy);
    let (lifecycle_state, lifecycle_metrics) = lazy.map(|instance| (instance.state, instance.counts)).unzip();
    AgentEntry {
        id: agent.id,
        role: agent.role,
        mode: agent.mode,
        start: agent.start,
        provider: agent.provider,
        status: match (draining, agent.paused, failed) {
            (true, _, _) => Status::Draining,
            (false, true, _) => Status::Paused,
            (false, false, true) => Status::Failed,
            (false, false, false) => Status::Ready,
        },
        paused: agent.paused,
        failure,
        state: State { lifecycle_state, lifecycle_metrics },
    }
}
