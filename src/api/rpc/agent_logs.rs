//! `agent.logs`: what an agent's program printed.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::Readiness;
use super::error::RpcError;
use super::method::{Call, CallResult, json, now};
use crate::gateway::Rejection;
use crate::ids::AgentId;
use crate::limits::{OUTPUT_LINES_MAX, OUTPUT_WAIT_MS_MAX};
use crate::live::OutputWanted;

/// Lines that are told where nobody says how many: a screen or two.
const LINES: usize = 100;

/// Parameters of `agent.logs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LogsParams {
    /// The agent.
    agent: AgentId,
    /// At most so many lines; 1 to 2,000, and 100 if it is not there.
    lines: Option<usize>,
    /// Only lines after this one: the `next` of the answer before. Without it, the last lines.
    after: Option<u64>,
    /// How long to wait for a line if there is none yet, in milliseconds; 0 to 30,000. Goes with `after`.
    #[serde(default)]
    wait_ms: u64,
}

/// Shows what an agent's program printed.
pub(crate) fn logs(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    match begin(&call) {
        Ok(answer) => answer,
        Err(error) => now(Err::<(), _>(error)),
    }
}

fn begin(call: &Call<'_>) -> Result<BoxFuture<'static, CallResult>, RpcError> {
    let LogsParams { agent, lines, after, wait_ms } = call.params()?;
    let lines = lines.unwrap_or(LINES);
    if !(1..=OUTPUT_LINES_MAX).contains(&lines) {
        return Err(RpcError::invalid("lines", "expected 1 to 2000"));
    }
    if wait_ms > OUTPUT_WAIT_MS_MAX {
        return Err(RpcError::invalid("waitMs", "expected 0 to 30000"));
    }
    if !call.state().gateway.has_agent(&agent) {
        return Err(Rejection::UnknownAgent { agent }.into());
    }
    let state = call.state().clone();
    let live = &state.sources.live;
    let Some(seq) = after else {
        return Ok(now(Ok(live.output(&agent, OutputWanted::Last(lines)))));
    };
    let answer = async move {
        let live = &state.sources.live;
        if wait_ms > 0 {
            let mut readiness = state.readiness.clone();
            let wait = Duration::from_millis(wait_ms);
            tokio::select! {
                () = live.output_arrived(&agent, seq, wait) => {}
                // Who waits for what may never come must not hold up the end. A server that is gone ends it as well.
                _ = readiness.wait_for(|readiness| *readiness == Readiness::Draining) => {}
            }
        }
        json(&live.output(&agent, OutputWanted::After { seq, lines }))
    };
    Ok(answer.boxed())
}
