//! Metrics of the live view: each is stepped by the one function that records its fact.

use super::event::{Event, Level, ModelCall, ToolCall};
use super::gen_ai;
use crate::ids::AgentId;
use crate::telemetry::Registry;
use crate::telemetry::metric::{Counter, Counters, Definition, Histogram, Histograms};

/// Messages answered, whether well or not.
pub static MESSAGES: Counter<0> = Counter::new(
    "plimsoll_messages_processed_total",
    &[],
    "Messages processed: answered, failed, cancelled or out of time; what was refused at the door is not in it.",
);

/// Error events, by the part that says it.
pub static ERRORS: Counter<1> = Counter::new(
    "plimsoll_errors_total",
    &["source"],
    "Error events, by the part that reported them; the snapshot counts the same.",
);

/// How long model calls took.
pub static OPERATION_DURATION: Histogram<4> = Histogram::new(
    gen_ai::OPERATION_DURATION,
    &[gen_ai::OPERATION_NAME, gen_ai::PROVIDER_NAME, gen_ai::REQUEST_MODEL, gen_ai::ERROR_TYPE],
    "Duration of model calls in seconds; error_type is empty where they succeeded.",
    (
        gen_ai::SECONDS,
        "the edges of the OpenTelemetry GenAI conventions, and on for calls of several minutes",
    ),
);

/// How long the first piece of a streamed answer took.
pub static TIME_TO_FIRST_CHUNK: Histogram<3> = Histogram::new(
    gen_ai::TIME_TO_FIRST_CHUNK,
    &[gen_ai::OPERATION_NAME, gen_ai::PROVIDER_NAME, gen_ai::REQUEST_MODEL],
    "Time from a streamed model call to the first piece of its answer, in seconds.",
    (
        gen_ai::SECONDS,
        "the edges of the OpenTelemetry GenAI conventions, and on for calls of several minutes",
    ),
);

/// Tokens of model calls.
pub static TOKEN_USAGE: Histogram<4> = Histogram::new(
    gen_ai::TOKEN_USAGE,
    &[gen_ai::OPERATION_NAME, gen_ai::PROVIDER_NAME, gen_ai::REQUEST_MODEL, gen_ai::TOKEN_TYPE],
    "Tokens of model calls, read (input, cache included) and written (output); only where the provider says.",
    (gen_ai::TOKENS, "the edges of the OpenTelemetry GenAI conventions"),
);

/// What model calls cost.
pub static CALL_COST: Histogram<3> = Histogram::new(
    "plimsoll_model_call_cost_usd",
    &["agent", "provider", "model"],
    "Cost of model calls in US dollars, where the model has a price or the agent says it; the sum is the spend since start, estimates left out.",
    (
        &[0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 2.5, 10.5, 100.0],
        "from a short answer of a small model to an agent that reads a whole repository",
    ),
);

/// Model calls without a price.
pub static UNPRICED_CALLS: Counter<3> = Counter::new(
    "plimsoll_model_unpriced_calls_total",
    &["agent", "provider", "model"],
    "Model calls that may be billed and whose cost is not known: their model has no price, and the agent does not say.",
);

/// Tool calls of agents.
pub static TOOL_CALLS: Counter<3> = Counter::new(
    "plimsoll_tool_calls_total",
    &["agent", "tool", "outcome"],
    "Tool calls of agents, by their outcome (ok or failed).",
);

/// How long tools took.
pub static TOOL_DURATION: Histogram<1> = Histogram::new(
    "plimsoll_tool_call_duration_seconds",
    &["agent"],
    "Duration of tool calls in seconds, where both ends were seen.",
    (
        &[0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1_200.0, 3_600.0],
        "a lookup answers in milliseconds; a build or a test run takes up to an hour",
    ),
)
.internal();

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[
    &MESSAGES.0,
    &ERRORS.0,
    &OPERATION_DURATION.0,
    &TIME_TO_FIRST_CHUNK.0,
    &TOKEN_USAGE.0,
    &CALL_COST.0,
    &UNPRICED_CALLS.0,
    &TOOL_CALLS.0,
    &TOOL_DURATION.0,
];

/// The handles of this module.
pub(super) struct Metrics {
    messages: metrics::Counter,
    errors: Counters<1>,
    operation_duration: Histograms<4>,
    time_to_first_chunk: Histograms<3>,
    token_usage: Histograms<4>,
    call_cost: Histograms<3>,
    unpriced_calls: Counters<3>,
    tool_calls: Counters<3>,
    tool_duration: Histograms<1>,
}

impl Metrics {
    /// The handles, with zeros where the labels are known.
    pub(super) fn new(registry: &Registry) -> Self {
        let errors = registry.counters(&ERRORS);
        for source in super::ERROR_SOURCES {
            let _born_at_zero = errors.with([source]);
        }
        Self {
            messages: registry.counters(&MESSAGES).handle(),
            errors,
            operation_duration: registry.histograms(&OPERATION_DURATION),
            time_to_first_chunk: registry.histograms(&TIME_TO_FIRST_CHUNK),
            token_usage: registry.histograms(&TOKEN_USAGE),
            call_cost: registry.histograms(&CALL_COST),
            unpriced_calls: registry.counters(&UNPRICED_CALLS),
            tool_calls: registry.counters(&TOOL_CALLS),
            tool_duration: registry.histograms(&TOOL_DURATION),
        }
    }

    pub(super) fn message(&self) {
        self.messages.increment(1);
    }

    pub(super) fn event(&self, event: &Event) {
        if event.level == Level::Error {
            self.errors.with([&event.source]).increment(1);
        }
    }

    pub(super) fn model_call(&self, call: &ModelCall) {
        let (provider, requested) = (call.provider.as_str(), call.requested_model.as_str());
        let error = call.error.as_deref().unwrap_or_default();
        self.operation_duration
            .with([gen_ai::CHAT, provider, requested, error])
            .record(call.latency / MILLIS_PER_SECOND);
        if let Some(millis) = call.time_to_first_token {
            self.time_to_first_chunk
                .with([gen_ai::CHAT, provider, requested])
                .record(millis / MILLIS_PER_SECOND);
        }
        for (kind, tokens) in [(gen_ai::INPUT, call.input_tokens), (gen_ai::OUTPUT, call.output_tokens)] {
            if let Some(tokens) = tokens {
                #[expect(clippy::cast_precision_loss, reason = "a call has far fewer than 2^53 tokens")]
                self.token_usage.with([gen_ai::CHAT, provider, requested, kind]).record(tokens as f64);
            }
        }
        let labels = [call.agent.as_str(), provider, requested];
        if let Some(cost) = call.cost_usd {
            self.call_cost.with(labels).record(cost);
        }
        if call.unpriced {
            self.unpriced_calls.with(labels).increment(1);
        }
    }

    /// Writes zeros for what calls of this agent to this model and of these tools will step.
    pub(super) fn expect_agent(&self, agent: &AgentId, provider: &str, model: &str, tools: &[String]) {
        let labels = [agent.as_str(), provider, model];
        let _born_at_zero = (
            self.operation_duration.with([gen_ai::CHAT, provider, model, ""]),
            self.time_to_first_chunk.with([gen_ai::CHAT, provider, model]),
            [gen_ai::INPUT, gen_ai::OUTPUT]
                .map(|kind| self.token_usage.with([gen_ai::CHAT, provider, model, kind])),
            self.call_cost.with(labels),
            self.unpriced_calls.with(labels),
            self.tool_duration.with([agent.as_str()]),
        );
        for tool in tools {
            let _born_at_zero = self.tool_outcomes(agent, tool);
        }
    }

    /// Both are made, so that the second one is not born at 1, which `increase` would miss.
    fn tool_outcomes(&self, agent: &AgentId, tool: &str) -> [metrics::Counter; 2] {
        ["ok", "failed"].map(|outcome| self.tool_calls.with([agent.as_str(), tool, outcome]))
    }

    pub(super) fn tool_call(&self, agent: &AgentId, call: &ToolCall) {
        let [ok, failed] = self.tool_outcomes(agent, &call.name);
        if call.error.is_some() { failed } else { ok }.increment(1);
        if let Some(millis) = call.duration {
            self.tool_duration.with([agent.as_str()]).record(millis / MILLIS_PER_SECOND);
        }
    }
}

const MILLIS_PER_SECOND: f64 = 1_000.0;
