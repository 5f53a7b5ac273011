//! Metrics of the gateway.

use crate::ids::AgentId;
use crate::telemetry::Registry;
use crate::telemetry::metric::{Counter, Counters, Definition, Gauge, Gauges, Histogram, Histograms};

/// Requests and their waiting take from under a millisecond (echo, an empty lane) to an hour (coding agents).
const REQUEST_SECONDS: (&[f64], &str) = (
    &[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
        300.0, 600.0, 1_800.0, 3_600.0,
    ],
    "from a millisecond for an empty lane to the hour that a coding agent may work",
);

/// As many as any metric has: enough for 200 agents by outcome, and for 1,000 without.
const SERIES_MAX: usize = 1_000;

/// Requests that ended, by how.
pub static REQUESTS: Counter<2> = Counter::new(
    "plimsoll_requests_total",
    &["agent", "outcome"],
    "Requests that were accepted and ended, by agent and by outcome (ok, failed, deadline, cancelled, refused).",
)
.series_max(SERIES_MAX);

/// How long requests take.
pub static REQUEST_SECONDS_HISTOGRAM: Histogram<1> = Histogram::new(
    "plimsoll_request_duration_seconds",
    &["agent"],
    "From the acceptance of a request to its end, however it ended, by agent.",
    REQUEST_SECONDS,
)
.series_max(SERIES_MAX);

/// Requests under way.
pub static REQUESTS_ACTIVE: Gauge<1> = Gauge::new(
    "plimsoll_requests_active",
    &["agent"],
    "Requests accepted and not ended: waiting, starting or running, by agent.",
)
.series_max(SERIES_MAX);

/// Requests that wait.
pub static QUEUE_DEPTH: Gauge<0> =
    Gauge::new("plimsoll_queue_depth", &[], "Requests that wait in their lanes; running ones do not count.");

/// Lanes in use.
pub static LANES: Gauge<0> = Gauge::new("plimsoll_lanes", &[], "Lanes that hold a request.");

/// How long requests wait.
pub static LANE_WAIT: Histogram<0> = Histogram::new(
    "plimsoll_lane_wait_seconds",
    &[],
    "From the acceptance of a request to its turn.",
    REQUEST_SECONDS,
);

/// How long the oldest has waited.
pub static QUEUE_OLDEST_AGE: Gauge<0> = Gauge::new(
    "plimsoll_queue_oldest_age_seconds",
    &[],
    "How long the oldest waiting request has waited; 0 if none waits.",
);

/// Sessions kept.
pub static SESSIONS: Gauge<0> = Gauge::new("plimsoll_sessions", &[], "Sessions kept in memory.");

/// What agents spent today.
pub static AGENT_SPEND: Gauge<1> = Gauge::new(
    "plimsoll_agent_spend_today_usd",
    &["agent"],
    "US dollars that an agent has spent since its day began in the configured zone, estimates included and calls without a price left out; agents past the cap have no series.",
)
.series_max(SERIES_MAX);

/// What agents may spend in a day.
pub static AGENT_BUDGET: Gauge<1> = Gauge::new(
    "plimsoll_agent_budget_usd",
    &["agent"],
    "US dollars that an agent may spend in a day, for those with a budget; agents past the cap have no series.",
)
.series_max(SERIES_MAX);

/// Agents that are paused.
pub static AGENTS_PAUSED: Gauge<0> =
    Gauge::new("plimsoll_agents_paused", &[], "Agents that an operator paused: they take no new work.");

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[
    &REQUESTS.0,
    &REQUEST_SECONDS_HISTOGRAM.0,
    &REQUESTS_ACTIVE.0,
    &QUEUE_DEPTH.0,
    &LANES.0,
    &LANE_WAIT.0,
    &QUEUE_OLDEST_AGE.0,
    &SESSIONS.0,
    &AGENT_SPEND.0,
    &AGENT_BUDGET.0,
    &AGENTS_PAUSED.0,
];

/// The handles.
pub(super) struct Metrics {
    registry: Registry,
    requests: Counters<2>,
    durations: Histograms<1>,
    active: Gauges<1>,
    spend: Gauges<1>,
    budget: Gauges<1>,
    pub(super) paused: metrics::Gauge,
    pub(super) queue_depth: metrics::Gauge,
    pub(super) lanes: metrics::Gauge,
    pub(super) lane_wait: metrics::Histogram,
    pub(super) oldest_age: metrics::Gauge,
    pub(super) sessions: metrics::Gauge,
}

/// The handles of one agent, all at 0 from the start.
pub(super) struct AgentMetrics {
    pub(super) ok: metrics::Counter,
    pub(super) failed: metrics::Counter,
    pub(super) deadline: metrics::Counter,
    pub(super) cancelled: metrics::Counter,
    pub(super) refused: metrics::Counter,
    /// None past the cap: it would be shared with others.
    pub(super) spend: Option<metrics::Gauge>,
    /// Nor where there is no budget.
    pub(super) budget: Option<metrics::Gauge>,
    pub(super) duration: metrics::Histogram,
    pub(super) active: metrics::Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            requests: registry.counters(&REQUESTS),
            durations: registry.histograms(&REQUEST_SECONDS_HISTOGRAM),
            active: registry.gauges(&REQUESTS_ACTIVE),
            spend: registry.gauges(&AGENT_SPEND),
            budget: registry.gauges(&AGENT_BUDGET),
            paused: registry.gauges(&AGENTS_PAUSED).handle(),
            queue_depth: registry.gauges(&QUEUE_DEPTH).handle(),
            lanes: registry.gauges(&LANES).handle(),
            lane_wait: registry.histograms(&LANE_WAIT).handle(),
            oldest_age: registry.gauges(&QUEUE_OLDEST_AGE).handle(),
            sessions: registry.gauges(&SESSIONS).handle(),
        }
    }

    /// Takes the series of a deleted agent out of the exposition.
    pub(super) fn hide(&self, agent: &AgentId) {
        self.registry.hide_agent(agent.as_str());
    }

    /// Shows those of an agent that is made, who may have been there before: with a budget, or without one.
    pub(super) fn show(&self, agent: &AgentId, usd_per_day: Option<f64>) {
        self.registry.show_agent(agent.as_str());
        if usd_per_day.is_none() {
            self.registry.hide_series(AGENT_BUDGET.0.name, agent.as_str());
        }
    }

    pub(super) fn of_agent(&self, agent: &AgentId, usd_per_day: Option<f64>) -> AgentMetrics {
        let requests = |outcome| self.requests.with([agent.as_str(), outcome]);
        AgentMetrics {
            ok: requests("ok"),
            failed: requests("failed"),
            deadline: requests("deadline"),
            cancelled: requests("cancelled"),
            refused: requests("refused"),
            spend: self.spend.unshared([agent.as_str()]),
            budget: usd_per_day.and_then(|_| self.budget.unshared([agent.as_str()])),
            duration: self.durations.with([agent.as_str()]),
            active: self.active.with([agent.as_str()]),
        }
    }
}
