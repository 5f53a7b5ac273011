//! What has come together of one request so far.

use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use super::active::Active;
use super::agent_sessions::{How, TurnEnd};
use super::record::ToolCounts;
use super::service::Inner;
use super::{Answer, Timings, ToolSummary, Usage};
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
    /// The agent's own name for the conversation, as it told it last.
    pub(super) agent_session: Option<String>,
    /// Whether it was given one.
    pub(super) resumed: bool,
    pub(super) queued: Option<Duration>,
    /// How long its instance took, where the agent has one.
    pub(super) start: Option<Duration>,
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

    /// What it showed of the agent's own session.
    pub(super) fn turn_end(&mut self, how: How) -> TurnEnd {
        let spoke = !self.text.is_empty() || !self.tools.is_empty() || !self.running.is_empty();
        TurnEnd { told: self.agent_session.take(), resumed: self.resumed, spoke, how }
    }

    /// The answer that it comes to.
    pub(super) fn answer(self, active: &Active, mut text: String, timings: Timings) -> Arc<Answer> {
        // It may be kept for an hour.
        text.shrink_to_fit();
        let used = self.calls.used();
        Arc::new(Answer {
            request_id: active.id.clone(),
            session: active.session.clone(),
            text,
            tool_calls: self.tools,
            usage: Usage { input_tokens: used.input_tokens, output_tokens: used.output_tokens },
            finish_reason: self.calls.finish_reason(),
            timings,
        })
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
            start_ms: self.start.map(ms),
            first_token_ms: self.first_token.map(ms),
            total_ms: ms(total),
        }
    }
}
