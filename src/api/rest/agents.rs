//! `GET /agents`, `POST /agents`, `DELETE /agents/{id}`.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::Readiness;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, json_reply, reply};
use super::super::rpc;
use super::super::state::ApiState;
use super::NoQuery;
use crate::gateway::{AgentSummary, ChangeError};
use crate::ids::AgentId;
use crate::lifecycle::{self, FailureView, InstanceCounts, Start};

/// The agents with their state.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Agents {
    agents: Vec<AgentEntry>,
}

/// One agent.
#[derive(Serialize, JsonSchema)]
pub(crate) struct AgentEntry {
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
    /// Whether it was made over the API, and can be deleted there.
    made: bool,
    /// Why it takes no messages, where its status is `unfit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    unfit: Option<String>,
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
    /// It was made over the API and does not fit the configuration.
    Unfit,
}

/// The lifecycle of an agent's instance; both are null where it has none, or one that starts with plimsoll.
#[derive(Serialize, JsonSchema)]
struct State {
    lifecycle_state: Option<lifecycle::State>,
    lifecycle_metrics: Option<InstanceCounts>,
}

impl AgentEntry {
    fn of(agent: AgentSummary, readiness: Readiness) -> Self {
        let instance = agent.instance.as_ref();
        let failed = instance.is_some_and(|instance| instance.state == lifecycle::State::Failed);
        let failure = instance.and_then(|instance| instance.failure.clone());
        let status = match (readiness, agent.unfit.is_some(), agent.paused, failed) {
            (Readiness::Draining, ..) => Status::Draining,
            (_, true, _, _) => Status::Unfit,
            (_, false, true, _) => Status::Paused,
            (_, false, false, true) => Status::Failed,
            (_, false, false, false) => Status::Ready,
        };
        let lazy = agent.instance.filter(|instance| instance.start == Start::Lazy);
        let (lifecycle_state, lifecycle_metrics) =
            lazy.map(|instance| (instance.state, instance.counts)).unzip();
        Self {
            id: agent.id,
            role: agent.role,
            mode: agent.mode,
            start: agent.start,
            provider: agent.provider,
            status,
            paused: agent.paused,
            failure,
            made: agent.made,
            unfit: agent.unfit,
            state: State { lifecycle_state, lifecycle_metrics },
        }
    }
}

pub(crate) async fn agents(state: Arc<ApiState>, request: Request) -> Outcome {
    let NoQuery {} = request.query()?;
    let readiness = state.readiness();
    let entry = |agent| AgentEntry::of(agent, readiness);
    json_reply(&Agents { agents: state.gateway.agents().into_iter().map(entry).collect() })
}

pub(crate) async fn create_agent(state: Arc<ApiState>, mut request: Request) -> Outcome {
    let NoQuery {} = request.query()?;
    let actor = request.identity()?.actor;
    let body = state.read_json(&mut request).await?;
    let entry = String::from_utf8(body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let id = rpc::read_id(&entry).map_err(|(field, problem)| {
        let colon = if field.is_empty() { "" } else { ": " };
        Problem::bad_request(format!("{field}{colon}{problem}"))
    })?;
    let made = state.gateway.create_agent(actor, id, entry, state.beside()).await?;
    let body = serde_json::to_vec(&AgentEntry::of(made, state.readiness()));
    Ok(reply(StatusCode::CREATED, "application/json", body.map_err(|_| Problem::internal())?))
}

pub(crate) async fn delete_agent(state: Arc<ApiState>, request: Request) -> Outcome {
    let NoQuery {} = request.query()?;
    let actor = request.identity()?.actor;
    let id = request.param("id").unwrap_or_default();
    let id = AgentId::parse(id)
        .map_err(|rule| Problem::new(StatusCode::NOT_FOUND, "not_found", rule.to_string()))?;
    let deletion = state.gateway.delete_agent(actor, id.clone()).await?;
    json_reply(&rpc::AgentDeleted::of(id, &deletion))
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let (status, code) = match &error {
            ChangeError::Exists { .. } | ChangeError::Configured { .. } | ChangeError::Leaving { .. } => {
                (StatusCode::CONFLICT, "conflict")
            }
            ChangeError::UnknownTemplate { .. } => (StatusCode::NOT_FOUND, "unknown_template"),
            ChangeError::Unknown { .. } => (StatusCode::NOT_FOUND, "not_found"),
            ChangeError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            ChangeError::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "agent_too_large"),
            ChangeError::TooMany => (StatusCode::CONFLICT, "too_many_agents"),
            ChangeError::Busy => (StatusCode::TOO_MANY_REQUESTS, "too_many_changes"),
            ChangeError::Journal | ChangeError::Late => {
                (StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable")
            }
            ChangeError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        };
        Self::new(status, code, error.to_string())
    }
}
