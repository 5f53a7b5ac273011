//! `GET /health` and `GET /ready`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::Readiness;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, json_reply, reply};
use super::super::state::ApiState;
use crate::clock::Timestamp;
use crate::gateway::Channel;
use crate::lifecycle::EngineStatus;
use crate::limits::MODEL_FAILURES_DEGRADED;
use crate::telemetry;

/// What a probe wants to know. Holds counts, never names or paths.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Health {
    status: Status,
    /// Seconds since the start.
    uptime: f64,
    /// plimsoll's own version.
    version: &'static str,
    /// Sessions in memory.
    sessions: usize,
    /// Open connections.
    connections: usize,
    /// Distinct tools known to or used by the agents.
    tools: usize,
    /// Roads by which messages come in.
    channels: usize,
    /// Each part.
    components: BTreeMap<&'static str, Component>,
}

/// Whether all parts work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// It works.
    Ok,
    /// It goes on with less.
    Degraded,
}

/// One part.
#[derive(Serialize, JsonSchema)]
struct Component {
    status: Status,
    /// What does not work now.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Cow<'static, str>>,
    /// When that began, in epoch milliseconds, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

impl Component {
    const OK: Self = Self { status: Status::Ok, problem: None, since: None };

    fn degraded(problem: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::Degraded, problem: Some(problem.into()), since: None }
    }

    fn providers(state: &ApiState) -> Self {
        let Some(failing) = state.sources.live.failing_agents() else { return Self::OK };
        let agents =
            if failing.agents == 1 { "1 agent".to_owned() } else { format!("{} agents", failing.agents) };
        let problem = format!(
            "the last {MODEL_FAILURES_DEGRADED} or more model calls of {agents} failed; system.events says why"
        );
        Self { since: Some(failing.since), ..Self::degraded(problem) }
    }
}

impl Health {
    /// How things stand.
    pub(crate) fn of(state: &ApiState) -> Self {
        let counts = state.gateway.health();
        // Why it is degraded may name a path: that is for the log and for operators.
        let journal = match state.sources.journal.status().degraded {
            None => Component::OK,
            Some(_) => Component::degraded("nothing can be appended now; the log says why"),
        };
        let gateway = match state.readiness() {
            Readiness::Serving => Component::OK,
            Readiness::Recovering => Component::degraded("starting"),
            Readiness::Draining => Component::degraded("shutting down"),
        };
        let providers = Component::providers(state);
        let mut components =
            BTreeMap::from([("gateway", gateway), ("journal", journal), ("providers", providers)]);
        // Only there if an agent lives in a container.
        if let Some(engine) = state.gateway.instances().engine_status() {
            components.insert(
                "engine",
                match engine {
                    EngineStatus::Up | EngineStatus::Unknown => Component::OK,
                    EngineStatus::Down { .. } => Component::degraded(
                        "the container engine does not answer; `plimsoll doctor` says why",
                    ),
                },
            );
        }
        // Only there if traces are sent.
        if let Some(health) = state.sources.shared.health_of("otlp") {
            components.insert(
                "otlp",
                match health {
                    telemetry::Health::Up => Component::OK,
                    telemetry::Health::Down => Component::degraded("traces are lost; the log says why"),
                },
            );
        }
        let all_ok = components.values().all(|component| component.status == Status::Ok);
        Self {
            status: if all_ok { Status::Ok } else { Status::Degraded },
            uptime: state.sources.clock.elapsed().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION"),
            sessions: counts.sessions,
            connections: state.metrics.open(),
            tools: counts.tools,
            channels: Channel::ALL.len(),
            components,
        }
    }
}

/// 200 while it lives; the body says what is degraded.
pub(crate) async fn health(state: Arc<ApiState>, _request: Request) -> Outcome {
    json_reply(&Health::of(&state))
}

/// Whether it serves.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Ready {
    ready: bool,
    state: Readiness,
}

/// 200 once it serves, 503 while it recovers or drains.
pub(crate) async fn ready(state: Arc<ApiState>, _request: Request) -> Outcome {
    let readiness = state.readiness();
    let ready = readiness == Readiness::Serving;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_vec(&Ready { ready, state: readiness }).map_err(|_| Problem::internal())?;
    Ok(reply(status, "application/json", body))
}
