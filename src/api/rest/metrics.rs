//! `GET /metrics`.

use std::sync::Arc;

use http::StatusCode;

use super::super::Readiness;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, reply};
use super::super::state::ApiState;

/// What Prometheus 3 demands of the text format: it refuses a scrape without it.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All series. Not before everything is recovered: a counter that is seen too low looks like a reset.
pub(crate) async fn metrics(state: Arc<ApiState>, _request: Request) -> Outcome {
    if state.readiness() == Readiness::Recovering {
        let message = "counters are being restored: scrape again in a moment";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "recovering", message));
    }
    let rendered = tokio::task::spawn_blocking(move || {
        state.gateway.refresh_gauges();
        state.registry.render()
    });
    let text = rendered.await.map_err(|_panic| Problem::internal())?;
    Ok(reply(StatusCode::OK, CONTENT_TYPE, text))
}
