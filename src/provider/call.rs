//! One model call, from its start to its end: measured, priced, traced and recorded, whatever happens.
//!
//! [`Call`] is a guard: dropped without an end, the call is recorded with why its request was stopped, and with what was
//! known of it until then. It knows no wire format. The names of its span's attributes are those of the GenAI conventions
//! that [`gen_ai`] names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::{Array, StringValue, Value};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::calls::CallUsed;
use super::{Asked, Price, ProviderDeps, ProviderError, RequestCalls, Turn};
use crate::live::{ModelCall, gen_ai};
use crate::telemetry::{TraceContext, span};

/// What a provider says about a call, as far as it says it.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// The model that answered.
    pub(super) model: Option<String>,
    /// Tokens read, cache included.
    pub(super) input_tokens: Option<u64>,
    /// How many of them came from a cache.
    pub(super) cached_tokens: Option<u64>,
    /// How many of them were written to a cache.
    pub(super) cache_write_tokens: Option<u64>,
    /// Tokens written.
    pub(super) output_tokens: Option<u64>,
    /// US dollars, where the provider says so itself: then no price of ours counts.
    pub(super) cost_usd: Option<f64>,
    /// Why it stopped.
    pub(super) finish_reason: Option<String>,
    /// The provider's id of the answer.
    pub(super) response_id: Option<String>,
}

/// A call under way.
pub(super) struct Call {
    deps: ProviderDeps,
    /// What is known from the start; the rest is filled in at the end.
    known: ModelCall,
    /// What the provider has said so far.
    pub(super) report: Report,
    calls: RequestCalls,
    span: Span,
    started: Duration,
    ended: bool,
    /// Bytes of text that were sent, and that came back.
    sent: usize,
    heard: usize,
}

impl Call {
    /// Begins a call now.
    pub(super) fn start(deps: &ProviderDeps, turn: &Turn, asked: &Asked<'_>) -> Self {
        let known = ModelCall {
            timestamp: deps.clock.now(),
            provider: asked.provider.to_owned(),
            model: asked.model.to_owned(),
            requested_model: asked.model.to_owned(),
            agent: turn.agent.clone(),
            session: turn.session.clone(),
            request_id: turn.request_id.clone(),
            trace_id: turn.trace_id,
            latency: 0.0,
            time_to_first_token: None,
            input_tokens: None,
            output_tokens: None,
            tokens_per_sec: None,
            cost_usd: None,
            error: None,
        };
        let span = chat_span(turn, asked);
        Self {
            deps: deps.clone(),
            known,
            report: Report::default(),
            calls: turn.calls.clone(),
            span,
            started: deps.clock.elapsed(),
            ended: false,
            sent: text_bytes(turn),
            heard: 0,
        }
    }

    /// What the request on the wire says about its trace.
    pub(super) fn traceparent(&self) -> Option<TraceContext> {
        span::traceparent_of(&self.span)
    }

    /// Notes text of the answer that came.
    pub(super) fn text_came(&mut self, text: &str) {
        self.heard = self.heard.saturating_add(text.len());
    }

    /// Notes that a piece of the answer arrived; only the first one counts.
    pub(super) fn token_arrived(&mut self) {
        if self.known.time_to_first_token.is_none() {
            self.known.time_to_first_token = Some(self.elapsed_ms());
        }
    }

    /// Another call of the same turn, to another model: nothing tells one from the other but what each used.
    pub(super) fn beside(&self, turn: &Turn, asked: &Asked<'_>) -> Self {
        Self {
            deps: self.deps.clone(),
            known: self.known.clone(),
            report: Report::default(),
            calls: self.calls.clone(),
            span: chat_span(turn, asked),
            started: self.started,
            ended: false,
            sent: 0,
            heard: 0,
        }
    }

    /// Ends it, well or not.
    pub(super) fn end(mut self, result: &Result<(), ProviderError>) {
        // Nobody pays for what failed before there was an answer.
        let paid = result.is_ok() || self.heard > 0;
        self.record(result.as_ref().err().map(ProviderError::error_type), paid);
    }

    fn record(&mut self, error: Option<Cow<'static, str>>, paid: bool) {
        self.ended = true;
        let latency = self.elapsed_ms();
        let report = &self.report;
        let answered = report.model.as_deref().unwrap_or(&self.known.requested_model);
        let price = || price_of(&self.deps.prices, answered);
        let cost_usd = report.cost_usd.or_else(|| cost(price()?, report));
        let Report { input_tokens, output_tokens, .. } = *report;
        let used = CallUsed {
            provider: &self.known.provider,
            model: answered,
            input_tokens,
            output_tokens,
            cache_read_tokens: report.cached_tokens,
            cache_write_tokens: report.cache_write_tokens,
            cost_usd,
            estimated: price().filter(|_| paid && cost_usd.is_none()).and_then(|price| {
                let (missing, whole) = estimated(report, self.sent, self.heard);
                Some((missing, cost(price, &whole)?))
            }),
        };
        self.calls.add(&used, report.finish_reason.clone());
        trace_end(&self.span, report, error.as_deref());
        let record = ModelCall {
            timestamp: self.deps.clock.now(),
            model: answered.to_owned(),
            latency,
            input_tokens,
            output_tokens,
            tokens_per_sec: output_tokens.and_then(|tokens| per_second(tokens, latency)),
            cost_usd,
            error: error.map(Cow::into_owned),
            ..self.known.clone()
        };
        self.deps.live.record_model_call(record);
    }

    fn elapsed_ms(&self) -> f64 {
        self.deps.clock.elapsed().saturating_sub(self.started).as_secs_f64() * 1e3
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.record(Some(self.calls.stopped_by()), true);
        }
    }
}

fn chat_span(turn: &Turn, asked: &Asked<'_>) -> Span {
    let Asked { provider, model, server } = asked;
    tracing::info_span!(
        parent: &turn.span,
        "chat",
        otel.name = %format_args!("chat {model}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        gen_ai.operation.name = gen_ai::CHAT,
        gen_ai.provider.name = provider,
        gen_ai.request.model = model,
        gen_ai.agent.name = %turn.agent,
        gen_ai.conversation.id = %turn.session,
        gen_ai.response.model = field::Empty,
        gen_ai.response.id = field::Empty,
        gen_ai.usage.input_tokens = field::Empty,
        gen_ai.usage.output_tokens = field::Empty,
        gen_ai.usage.cache_read.input_tokens = field::Empty,
        gen_ai.usage.cache_creation.input_tokens = field::Empty,
        server.address = server.map(|(host, _)| host),
        server.port = server.map(|(_, port)| port),
        error.type = field::Empty,
    )
}

fn trace_end(span: &Span, report: &Report, error: Option<&str>) {
    if span.is_disabled() {
        return;
    }
    let Report {
        model,
        input_tokens,
        cached_tokens,
        cache_write_tokens,
        output_tokens,
        // The conventions know no money.
        cost_usd: _,
        finish_reason,
        response_id,
    } = report;
    span.record("gen_ai.response.model", model.as_deref());
    span.record("gen_ai.response.id", response_id.as_deref());
    span.record("gen_ai.usage.input_tokens", *input_tokens);
    span.record("gen_ai.usage.output_tokens", *output_tokens);
    span.record("gen_ai.usage.cache_read.input_tokens", *cached_tokens);
    span.record("gen_ai.usage.cache_creation.input_tokens", *cache_write_tokens);
    if let Some(reason) = finish_reason {
        // A list by the conventions; the fields of `tracing` know none.
        let reasons = vec![StringValue::from(reason.clone())];
        span.set_attribute("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons)));
    }
    if let Some(error) = error {
        span.record("error.type", error);
        span.record("otel.status_code", "ERROR");
    }
}

/// Tokens a second; `None` where no time passed.
fn per_second(tokens: u64, latency_ms: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a call has far fewer than 2^53 tokens")]
    let rate = tokens as f64 * 1e3 / latency_ms;
    rate.is_finite().then_some(rate)
}

/// What this model costs: by its own name, or by the name of which it is a dated version. No other model's price counts:
/// who asks for one may be answered by another, which costs ten times as much or as little.
pub(crate) fn price_of<'a>(prices: &'a BTreeMap<String, Price>, model: &str) -> Option<&'a Price> {
    let versions = || prices.iter().filter(|(name, _)| is_version(model, name));
    prices.get(model).or_else(|| Some(versions().max_by_key(|(name, _)| name.len())?.1))
}

/// Whether a model is what another name stands for: `gpt-4o-2024-08-06` is `gpt-4o`, and `gpt-4o-mini` is not.
fn is_version(model: &str, name: &str) -> bool {
    let name = name.strip_suffix("-latest").unwrap_or(name);
    let Some(rest) = model.strip_prefix(name) else { return false };
    let Some(version) = rest.strip_prefix(['-', '@', ':']) else { return false };
    let numbers = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    // One or two digits are another generation: `claude-opus-4-1` is not `claude-opus-4`.
    let first = version.bytes().take_while(u8::is_ascii_digit).count();
    version == "latest" || (numbers && first >= 3)
}

/// Bytes of a token, about.
const TOKEN_BYTES: usize = 4;

/// Tokens that a report does not say, by the bytes of text, and the report with them.
fn estimated(report: &Report, sent: usize, heard: usize) -> (u64, Report) {
    let about = |bytes: usize| bytes.div_ceil(TOKEN_BYTES) as u64;
    let missing = |known: Option<u64>, bytes| if known.is_some() { 0 } else { about(bytes) };
    let (input, output) = (missing(report.input_tokens, sent), missing(report.output_tokens, heard));
    let input_tokens = report.input_tokens.or(Some(input));
    let output_tokens = report.output_tokens.or(Some(output));
    (input + output, Report { input_tokens, output_tokens, ..report.clone() })
}

/// Bytes of text that a turn sends.
fn text_bytes(turn: &Turn) -> usize {
    let said: usize = turn.history.iter().map(|message| message.text.len()).sum();
    said + turn.system.as_ref().map_or(0, String::len) + turn.message.len()
}

/// US dollars for a call; `None` if the tokens are not known.
fn cost(price: &Price, report: &Report) -> Option<f64> {
    let (input, output) = (report.input_tokens?, report.output_tokens?);
    let cached = report.cached_tokens.unwrap_or(0).min(input);
    let cache_read = price.cache_read.unwrap_or(price.input);
    let written = report.cache_write_tokens.unwrap_or(0).min(input - cached);
    let cache_write = price.cache_write.unwrap_or(price.input);
    #[expect(clippy::cast_precision_loss, reason = "a call has far fewer than 2^53 tokens")]
    let per_million = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
    Some(
        per_million(input - cached - written, price.input)
            + per_million(cached, cache_read)
            + per_million(written, cache_write)
            + per_million(output, price.output),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_said_is_estimated_beside_what_was() {
        let nothing = Report::default();
        let (missing, whole) = estimated(&nothing, 41, 8);
        assert_eq!((missing, whole.input_tokens, whole.output_tokens), (13, Some(11), Some(2)));
        let input = Report { input_tokens: Some(500), ..nothing };
        let (missing, whole) = estimated(&input, 41, 8);
        assert_eq!((missing, whole.input_tokens, whole.output_tokens), (2, Some(500), Some(2)));
    }

    #[test]
    fn a_model_has_its_own_price_or_that_of_the_name_it_is_a_version_of() {
        let price = |input| Price { input, output: 0.0, cache_read: None, cache_write: None };
        let names = [
            ("gpt-4o", 1.0),
            ("claude-opus-4", 2.0),
            ("claude-opus-4-1", 3.0),
            ("gemini-2.5-pro", 4.0),
            ("claude-3-5-haiku-latest", 5.0),
            ("gpt-4o-2024-05-13", 6.0),
        ];
        let prices = names.map(|(name, input)| (name.to_owned(), price(input))).into();
        for (model, expected) in [
            ("gpt-4o", Some(1.0)),
            ("gpt-4o-2024-08-06", Some(1.0)),
            ("gpt-4o-2024-05-13", Some(6.0)),
            ("gpt-4o:latest", Some(1.0)),
            ("gpt-4o-mini", None),
            ("gpt-4o-mini-2024-07-18", None),
            ("claude-opus-4@20250514", Some(2.0)),
            ("claude-opus-4-1-20250805", Some(3.0)),
            ("claude-opus-4-5", None),
            ("claude-3-5-haiku-20241022", Some(5.0)),
            ("gemini-2.5-flash-lite", None),
            ("", None),
        ] {
            let found = price_of(&prices, model).map(|price| price.input);
            assert_eq!(found.map(f64::to_bits), expected.map(f64::to_bits), "{model}");
        }
    }

    #[test]
    fn cached_tokens_have_their_own_price_and_unknown_ones_none() {
        let price = Price { input: 2.0, output: 10.0, cache_read: Some(0.5), cache_write: Some(2.5) };
        let report = Report {
            input_tokens: Some(1_000_000),
            cached_tokens: Some(400_000),
            output_tokens: Some(100_000),
            ..Report::default()
        };
        let known = cost(&price, &report).expect("all is known");
        assert!((known - 2.4).abs() < 1e-9, "{known}");
        let written = Report { cache_write_tokens: Some(200_000), ..report.clone() };
        let known = cost(&price, &written).expect("all is known");
        assert!((known - 2.5).abs() < 1e-9, "{known}");
        let unpriced = Price { cache_read: None, cache_write: None, ..price };
        let known = cost(&unpriced, &written).expect("all is known");
        assert!((known - 3.0).abs() < 1e-9, "caches cost what the input costs: {known}");
        assert_eq!(cost(&price, &Report { output_tokens: None, ..report }), None);
    }
}
