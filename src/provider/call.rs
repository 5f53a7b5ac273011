//! One model call, from its start to its end: measured, priced and recorded, whatever happens.
//!
//! [`Call`] is a guard: dropped without an end, the call is recorded as cancelled. It knows no wire format.

use std::borrow::Cow;
use std::time::Duration;

use super::{CallSummary, Price, ProviderDeps, ProviderError, Turn};
use crate::telemetry::TraceContext;

/// Who is asked.
pub(crate) struct Asked<'a> {
    /// `gen_ai.provider.name`.
    pub(crate) provider: &'a str,
    /// `gen_ai.request.model`.
    pub(crate) model: &'a str,
    /// `server.address` and `server.port`, where there is a server.
    pub(crate) server: Option<(&'a str, u16)>,
}

/// What a provider says about a call that went well, as far as it says it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// The model that answered.
    pub(crate) model: Option<String>,
    /// Tokens read, cache included.
    pub(crate) input_tokens: Option<u64>,
    /// How many of them came from a cache.
    pub(crate) cached_tokens: Option<u64>,
    /// Tokens written.
    pub(crate) output_tokens: Option<u64>,
    /// Why it stopped.
    pub(crate) finish_reason: Option<String>,
    /// The provider's id of the answer.
    pub(crate) response_id: Option<String>,
}

/// A call under way.
pub(crate) struct Call {
    deps: ProviderDeps,
    model: String,
    started: Duration,
    first_token: Option<Duration>,
    ended: bool,
}

impl Call {
    /// Begins a call now.
    pub(crate) fn start(deps: &ProviderDeps, _turn: &Turn, asked: &Asked<'_>) -> Self {
        Self {
            deps: deps.clone(),
            model: asked.model.to_owned(),
            started: deps.clock.elapsed(),
            first_token: None,
            ended: false,
        }
    }

    /// What the request on the wire says about its trace.
    pub(crate) fn traceparent(&self) -> Option<TraceContext> {
        None
    }

    /// Notes that a piece of the answer arrived; only the first one counts.
    pub(crate) fn token_arrived(&mut self) {
        if self.first_token.is_none() {
            self.first_token = Some(self.deps.clock.elapsed().saturating_sub(self.started));
        }
    }

    /// Ends it well.
    pub(crate) fn finish(mut self, report: &Report) -> CallSummary {
        self.record(report, None)
    }

    /// Ends it badly, with what is known until then.
    pub(crate) fn fail(mut self, error: &ProviderError, report: &Report) -> CallSummary {
        self.record(report, Some(error.error_type()))
    }

    fn record(&mut self, report: &Report, _error: Option<Cow<'static, str>>) -> CallSummary {
        self.ended = true;
        let model = report.model.as_deref().unwrap_or(&self.model);
        let price = self.deps.prices.get(model).or_else(|| self.deps.prices.get(&self.model));
        CallSummary {
            input_tokens: report.input_tokens,
            output_tokens: report.output_tokens,
            cost_usd: price.and_then(|price| cost(price, report)),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.record(&Report::default(), Some("cancelled".into()));
        }
    }
}

/// US dollars for a call; `None` if the tokens are not known.
fn cost(price: &Price, report: &Report) -> Option<f64> {
    let (input, output) = (report.input_tokens?, report.output_tokens?);
    let cached = report.cached_tokens.unwrap_or(0).min(input);
    let read =
        (input - cached) as f64 * price.input + cached as f64 * price.cache_read.unwrap_or(price.input);
    Some((read + output as f64 * price.output) / 1e6)
}
