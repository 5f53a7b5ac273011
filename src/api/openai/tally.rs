//! How requests of the door ended, each counted once.

use std::sync::Arc;

use super::fault::Fault;
use crate::api::metrics::Metrics;
use crate::api::response::Reply;
use crate::api::state::ApiState;

/// One request, counted when it is dropped: as `cancelled`, unless it was said before how it ended.
pub(super) struct Tally {
    metrics: Arc<Metrics>,
    code: &'static str,
}

impl Tally {
    pub(super) fn begin(state: &ApiState) -> Self {
        Self { metrics: Arc::clone(&state.metrics), code: "cancelled" }
    }

    pub(super) fn ended(&mut self, code: &'static str) {
        self.code = code;
    }

    /// The answer to a request that failed.
    pub(super) fn failed(mut self, fault: Fault) -> Reply {
        self.ended(fault.code());
        fault.into_reply()
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.metrics.openai_request(self.code);
    }
}
