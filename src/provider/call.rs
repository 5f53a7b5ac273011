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

use super::calls::{CallUsed, Estimate};
use super::{Asked, Price, ProviderDeps, ProviderError, RequestCalls, Turn};
use crate::live::{ModelCall, gen_ai};
use crate::telemetry::{TraceContext, span};
use crate::units::Money;

/// What was used of one model, as far as it is said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Used {
    /// The model that answered; `None` where nobody says.
    pub(super) model: Option<String>,
    /// Tokens read, cache included.
    pub(super) input_tokens: Option<u64>,
    /// How many of them came from a cache.
    pub(super) cached_tokens: Option<u64>,
    /// How many of them were written to a cache.
    pub(super) cache_write_tokens: Option<u64>,
    /// Tokens written, reasoning included: so far, in a call that was stopped.
    pub(super) output_tokens: Option<u64>,
    /// US dollars, where the provider says so itself: then no price of ours counts.
    pub(super) cost_usd: Option<f64>,
    /// Why the model stopped.
    pub(super) finish_reason: Option<String>,
    /// Bytes that it wrote and that its tokens do not hold.
    pub(super) uncounted: usize,
    /// A later call, or the next turn of the conversation, will be charged with what this one used.
    pub(super) charged_later: bool,
}

/// Tokens that a call read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reading {
    /// All of them, caches included.
    pub(super) input: u64,
    pub(super) cached: u64,
    pub(super) cache_write: u64,
}

/// What a provider says about a call, as far as it says it.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) used: Used,
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
    /// What it reads at least, should nobody say it: the text that was sent.
    reads: Reading,
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
            unpriced: false,
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
            reads: Reading { input: about(text_bytes(turn)), ..Reading::default() },
        }
    }

    /// It will have read about as much, if nobody says it: an agent reads more than what was sent to it.
    pub(super) fn expects(&mut self, reading: Reading) {
        if reading.input > self.reads.input {
            self.reads = reading;
        }
    }

    /// What the request on the wire says about its trace.
    pub(super) fn traceparent(&self) -> Option<TraceContext> {
        span::traceparent_of(&self.span)
    }

    /// Notes so many bytes that the model wrote: text, thoughts, arguments of tools.
    pub(super) fn wrote(&mut self, bytes: usize) {
        let uncounted = &mut self.report.used.uncounted;
        *uncounted = uncounted.saturating_add(bytes);
    }

    /// The report holds all that was written so far.
    pub(super) fn counted(&mut self) {
        self.report.used.uncounted = 0;
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
            reads: Reading::default(),
        }
    }

    /// Ends it, well or not.
    pub(super) fn end(mut self, result: &Result<(), ProviderError>) {
        let answered = self.report.used.is_told();
        let free = result.as_ref().is_err_and(|error| error.is_free(answered));
        self.record(result.as_ref().err().map(ProviderError::error_type), !free);
    }

    /// Ends it where it is certain that no model was called: it is free.
    pub(super) fn end_uncalled(mut self, error: &ProviderError) {
        self.record(Some(error.error_type()), false);
    }

    fn record(&mut self, error: Option<Cow<'static, str>>, paid: bool) {
        self.ended = true;
        let said = &self.report.used;
        let (free, paid) = (!paid, paid && !said.charged_later);
        let latency = self.elapsed_ms();
        let answered = said.model.as_deref().unwrap_or(&self.known.requested_model);
        let price = price_of(&self.deps.prices, answered);
        let cost_usd = said.cost_usd.or_else(|| cost(price?, said)).map(Money::clean);
        let Used { input_tokens, output_tokens, .. } = *said;
        let used = CallUsed {
            provider: &self.known.provider,
            model: answered,
            input_tokens,
            output_tokens,
            cache_read_tokens: said.cached_tokens,
            cache_write_tokens: said.cache_write_tokens,
            cost_usd,
            paid,
            free,
            estimated: if paid { self.unsaid(error.is_none()).estimate(said, price) } else { None },
        };
        let unpriced = used.is_unpriced();
        self.calls.add(&used, said.finish_reason.clone());
        trace_end(&self.span, &self.report, error.as_deref());
        let record = ModelCall {
            timestamp: self.deps.clock.now(),
            model: answered.to_owned(),
            latency,
            input_tokens,
            output_tokens,
            tokens_per_sec: output_tokens.and_then(|tokens| per_second(tokens, latency)),
            cost_usd,
            unpriced,
            error: error.map(Cow::into_owned),
            ..self.known.clone()
        };
        self.deps.live.record_model_call(record);
    }

    /// Tokens that the report lacks. In a call that ended well it lacks none of a number that it says.
    fn unsaid(&self, well: bool) -> Unsaid {
        let Used { input_tokens, output_tokens, uncounted, .. } = self.report.used;
        let reads = if input_tokens.is_some() { Reading::default() } else { self.reads };
        let output = if well && output_tokens.is_some() { 0 } else { about(uncounted) };
        Unsaid { reads, output }
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
    let Report { used, response_id } = report;
    let Used {
        model,
        input_tokens,
        cached_tokens,
        cache_write_tokens,
        output_tokens,
        // The conventions know no money.
        cost_usd: _,
        finish_reason,
        uncounted: _,
        charged_later: _,
    } = used;
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
    let name = unmarked(model);
    let versions = || prices.iter().filter(|(known, _)| is_version(name, known));
    let own = prices.get(model).or_else(|| prices.get(name));
    own.or_else(|| Some(versions().max_by_key(|(known, _)| known.len())?.1))
}

/// A model's name without a mark behind it, such as Claude Code's for a long context: `claude-opus-4-8[1m]`.
pub(super) fn unmarked(model: &str) -> &str {
    let marked = || model.strip_suffix(']')?.split_once('[');
    marked().map_or(model, |(name, _)| name)
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

fn about(bytes: usize) -> u64 {
    bytes.div_ceil(TOKEN_BYTES) as u64
}

/// Tokens that a report lacks, about.
#[derive(Debug, Clone, Copy)]
struct Unsaid {
    reads: Reading,
    output: u64,
}

impl Unsaid {
    /// What they are, and what they cost beside what the report says of money; `None` where it says all.
    fn estimate(self, said: &Used, price: Option<&Price>) -> Option<Estimate> {
        let Reading { input, cached, cache_write } = self.reads;
        let tokens = input.saturating_add(self.output);
        let tokens_said = said.input_tokens.is_some() && said.output_tokens.is_some();
        if tokens == 0 && (tokens_said || said.cost_usd.is_some()) {
            return None;
        }
        let sum = |known: Option<u64>, more: u64| Some(known.unwrap_or(0).saturating_add(more));
        let beside = if tokens_said || said.cost_usd.is_some() {
            // Who names the cost of a call, but not its tokens, names all of it.
            let output = if said.output_tokens.is_some() { self.output } else { 0 };
            Used { input_tokens: Some(0), output_tokens: Some(output), ..Used::default() }
        } else {
            Used {
                input_tokens: sum(said.input_tokens, input),
                cached_tokens: sum(said.cached_tokens, cached),
                cache_write_tokens: sum(said.cache_write_tokens, cache_write),
                output_tokens: sum(said.output_tokens, self.output),
                ..said.clone()
            }
        };
        Some(Estimate { tokens, usd: price.and_then(|price| cost(price, &beside)).map(Money::clean) })
    }
}

impl Used {
    /// What it says that was read.
    pub(super) fn reading(&self) -> Option<Reading> {
        let Self { cached_tokens, cache_write_tokens, .. } = *self;
        let (cached, cache_write) = (cached_tokens.unwrap_or(0), cache_write_tokens.unwrap_or(0));
        let input = self.input_tokens.filter(|input| *input > 0)?;
        Some(Reading { input, cached, cache_write })
    }

    /// Whether anything was told of it: tokens, money, or a piece of what was written.
    pub(super) fn is_told(&self) -> bool {
        let tokens = self.input_tokens.unwrap_or(0).saturating_add(self.output_tokens.unwrap_or(0));
        tokens > 0 || self.uncounted > 0 || self.cost_usd.is_some_and(|cost| cost > 0.0)
    }
}

/// Bytes of text that a turn sends.
fn text_bytes(turn: &Turn) -> usize {
    let said: usize = turn.history.iter().map(|message| message.text.len()).sum();
    said + turn.system.as_ref().map_or(0, String::len) + turn.message.len()
}

/// US dollars for a call; `None` if the tokens are not known.
fn cost(price: &Price, used: &Used) -> Option<f64> {
    let (input, output) = (used.input_tokens?, used.output_tokens?);
    let cached = used.cached_tokens.unwrap_or(0).min(input);
    let cache_read = price.cache_read.unwrap_or(price.input);
    let written = used.cache_write_tokens.unwrap_or(0).min(input - cached);
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

    /// What a report lacks at these prices: tokens, and millionths of a dollar.
    fn lacks(said: &Used, input: u64, output: u64) -> Option<(u64, Option<u64>)> {
        let price = Price { input: 2.0, output: 10.0, cache_read: Some(1.0), cache_write: None };
        let unsaid = Unsaid { reads: Reading { input, ..Reading::default() }, output };
        let priced = unsaid.estimate(said, Some(&price));
        let unpriced = unsaid.estimate(said, None);
        assert_eq!(unpriced.map(|all| all.tokens), priced.map(|all| all.tokens), "tokens need no price");
        assert_eq!(unpriced.and_then(|all| all.usd), None);
        priced.map(|all| (all.tokens, all.usd.map(|usd| (usd * 1e6).round() as u64)))
    }

    #[test]
    fn what_was_not_said_is_estimated_beside_what_was() {
        let nothing = Used::default();
        assert_eq!(lacks(&nothing, 11, 2), Some((13, Some(42))));
        let input = Used { input_tokens: Some(500), cached_tokens: Some(100), ..nothing };
        assert_eq!(lacks(&input, 0, 2), Some((2, Some(920))), "with the input, which is in no cost");
        assert_eq!(lacks(&input, 0, 0), Some((0, Some(900))), "stopped before the first word");
        let both = Used { output_tokens: Some(1), ..input };
        assert_eq!(lacks(&both, 0, 0), None);
        assert_eq!(lacks(&both, 0, 7), Some((7, Some(70))), "beside the cost of what was said");
        let named = Used { cost_usd: Some(0.5), ..Used::default() };
        assert_eq!(lacks(&named, 3, 4), Some((7, Some(0))), "all of the cost was named");
        let counted = Used { output_tokens: Some(1), ..named };
        assert_eq!(lacks(&counted, 0, 4), Some((4, Some(40))), "what came after that is not in it");
        let reads = Reading { input: 1_000_000, cached: 400_000, cache_write: 100_000 };
        let price = Price { input: 2.0, output: 10.0, cache_read: Some(1.0), cache_write: Some(3.0) };
        let estimate = Unsaid { reads, output: 0 }.estimate(&Used::default(), Some(&price));
        let expected = Estimate { tokens: 1_000_000, usd: Some(1.7) };
        assert_eq!(estimate, Some(expected), "what is cached has its own price here too");
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
            ("claude-opus-4[1m]", Some(2.0)),
            ("claude-opus-4-1-20250805[1m]", Some(3.0)),
            ("gpt-4o[", None),
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
        let report = Used {
            input_tokens: Some(1_000_000),
            cached_tokens: Some(400_000),
            output_tokens: Some(100_000),
            ..Used::default()
        };
        let known = cost(&price, &report).expect("all is known");
        assert!((known - 2.4).abs() < 1e-9, "{known}");
        let written = Used { cache_write_tokens: Some(200_000), ..report.clone() };
        let known = cost(&price, &written).expect("all is known");
        assert!((known - 2.5).abs() < 1e-9, "{known}");
        let unpriced = Price { cache_read: None, cache_write: None, ..price };
        let known = cost(&unpriced, &written).expect("all is known");
        assert!((known - 3.0).abs() < 1e-9, "caches cost what the input costs: {known}");
        assert_eq!(cost(&price, &Used { output_tokens: None, ..report }), None);
    }
}
