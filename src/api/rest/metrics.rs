//! `GET /metrics`.

use std::sync::Arc;

use http::StatusCode;

use super::super::Readiness;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, reply};
use super::super::state::ApiState;
use crate::telemetry::CONTENT_TYPE;

/// All series. Not before everything is recovered: a counter that is seen too low looks like a reset.
pub(crate) async fn metrics(state: Arc<ApiState>, _request: Request) -> Outcome {
    if state.readiness() == Readiness::Recovering {
        let message = "counters are being restored: scrape again in a moment";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "recovering", message));
    }
    let gateway = state.gateway.clone();
    let text = state.registry.scrape(move || gateway.refresh_gauges()).await.ok_or_else(Problem::internal)?;
    Ok(reply(StatusCode::OK, CONTENT_TYPE, text.as_bytes().to_vec()))
}
