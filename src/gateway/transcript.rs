//! What has come together of one request so far.

use std::time::Duration;

use tracing::Span;

use super::active::Active;
use super::record::ToolCounts;
use super::service::Inner;
use super::{Timings, ToolSummary};
use crate::limits::TOOLS_PER_REQUEST_MAX;
use crate::provider::RequestCalls;

/// What has come together so far.
#[derive(Default)]
pub(super) struct Transcript {
    pub(super) text: String,
    pub(super) tools: Vec<ToolSummary>,
    pub(super) tool_counts: ToolCounts,
    pub(super) running: Vec<ToolAtWork>,
    pub(super) calls: RequestCalls,
    pub(super) queued: Option<Duration>,
    pub(super) called: Option<Duration>,
    pub(super) first_token: Option<Duration>,
}

pub(super) struct ToolAtWork {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) started: Duration,
    pub(super) span: Span,
}

impl Transcript {
    /// Ends the tools that were at work when the request was stopped. That is no error of theirs.
    pub(super) fn stop_tools(&mut self, inner: &Inner, active: &Active) {
        for ToolAtWork { id: _, name, started, span } in std::mem::take(&mut self.running) {
            span.record("error.type", "cancelled");
            inner.recorder.stopped_tool(active, name.clone(), inner.clock.elapsed().saturating_sub(started));
            self.tool_counts.failed += 1;
            self.list_tool(ToolSummary { name, ok: Some(false) });
        }
    }

    pub(super) fn list_tool(&mut self, tool: ToolSummary) {
        if self.tools.len() < TOOLS_PER_REQUEST_MAX {
            self.tools.push(tool);
        }
    }

    pub(super) fn timings(&self, total: Duration) -> Timings {
        // To the microsecond: more is noise, and costs bytes in every answer and record.
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        Timings {
            queued_ms: ms(self.queued.unwrap_or(total)),
            start_ms: None,
            first_token_ms: self.first_token.map(ms),
            total_ms: ms(total),
        }
    }
}
