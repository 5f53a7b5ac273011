//! `GET /metrics`.

use std::sync::Arc;

use http::StatusCode;

use super::super::request::Request;
use super::super::response::{Outcome, Problem, reply};
use super::super::state::ApiState;
use crate::lifecycle::EngineStatus;
use crate::telemetry::{CONTENT_TYPE, Health};

/// All series. Never before everything is recovered, for a counter that is seen too low looks like a reset.
pub(crate) async fn metrics(state: Arc<ApiState>, _request: Request) -> Outcome {
    let shown = Arc::clone(&state);
    let refresh = move || {
        shown.gateway.refresh_gauges();
        shown.reconciler.refresh_gauges();
        let sources = &shown.sources;
        for (component, down) in [
            ("journal", sources.journal.status().degraded.is_some()),
            ("providers", sources.live.failing_agents().is_some()),
        ] {
            sources.shared.component(component, if down { Health::Down } else { Health::Up });
        }
        match shown.gateway.instances().engine_status() {
            // It was needed before, and is not any more: nothing is down.
            None if sources.shared.health_of("engine").is_some() => {
                sources.shared.component("engine", Health::Up);
            }
            None => {}
            Some(EngineStatus::Up | EngineStatus::Unknown) => sources.shared.component("engine", Health::Up),
            Some(EngineStatus::Down { .. }) => sources.shared.component("engine", Health::Down),
        }
    };
    let text = state.registry.scrape(refresh).await.ok_or_else(Problem::internal)?;
    Ok(reply(StatusCode::OK, CONTENT_TYPE, text.as_bytes().to_vec()))
}
