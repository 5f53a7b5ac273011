//! Metrics of the API shell.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{openai, rpc};
use crate::telemetry::Registry;
use crate::telemetry::metric::{Counter, Counters, Definition, Gauge, Gauges, Histogram, Histograms};

/// Open connections, by what is spoken on them.
pub static CONNECTIONS: Gauge<1> =
    Gauge::new("plimsoll_connections", &["transport"], "Open connections, by what is spoken on them.");

/// JSON-RPC calls answered, by method and code.
pub static RPC_CALLS: Counter<2> = Counter::new(
    "plimsoll_rpc_calls_total",
    &["method", "code"],
    "JSON-RPC calls answered, by method (`unknown` for any that does not exist) and code (`ok` or the error's).",
)
.series_max(1_000);

/// How long JSON-RPC calls took, by method.
pub static RPC_DURATION: Histogram<1> = Histogram::new(
    "plimsoll_rpc_duration_seconds",
    &["method"],
    "Time from reading a JSON-RPC call to its answer.",
    (
        &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0, 3_600.0],
        "most methods answer in microseconds; agent.send waits for a model, and coding agents work for minutes",
    ),
);

/// Requests of the OpenAI-compatible door, by how they ended.
pub static OPENAI_REQUESTS: Counter<1> = Counter::new(
    "plimsoll_openai_requests_total",
    &["code"],
    "Requests for a completion at the OpenAI-compatible door, by code (`ok` or the error's).",
);

/// Clients that follow events.
pub static STREAM_CLIENTS: Gauge<1> =
    Gauge::new("plimsoll_stream_clients", &["transport"], "Clients that follow the stream of events.");

/// Requests refused for want of a valid token.
pub static AUTH_FAILURES: Counter<1> = Counter::new(
    "plimsoll_auth_failures_total",
    &["reason"],
    "Requests refused because their token was missing, wrong, not allowed to do this, or tried too often.",
);

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] =
    &[&CONNECTIONS.0, &RPC_CALLS.0, &RPC_DURATION.0, &OPENAI_REQUESTS.0, &STREAM_CLIENTS.0, &AUTH_FAILURES.0];

/// Limits that are counted here under `plimsoll_limit_hits_total`; each stands at 0 from the start.
pub(crate) const LIMITS: &[&str] = &[
    "accept",
    "audit_verifications",
    "auth_failures_per_minute",
    "body_bytes",
    "body_timeout",
    "connections",
    "control_connections",
    "header_timeout",
    "idle_timeout",
    "requests_per_second",
    "tls_handshake_timeout",
    "town_content",
    "town_pending_events",
    "town_questions",
    "towns",
    "write_stall",
    "ws_auth_timeout",
    "ws_in_flight",
    "ws_message_bytes",
    "ws_stranger_bytes",
    "ws_subscriptions",
];

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP from the network.
    Http,
    /// WebSocket.
    Ws,
    /// HTTP on the control socket.
    Socket,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Http, Self::Ws, Self::Socket];

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Ws => "ws",
            Self::Socket => "socket",
        }
    }
}

/// Why somebody was refused, as the label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthFailure {
    Missing,
    Wrong,
    Limited,
    Forbidden,
}

impl AuthFailure {
    const ALL: [Self; 4] = [Self::Missing, Self::Wrong, Self::Limited, Self::Forbidden];

    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Limited => "limited",
            Self::Forbidden => "forbidden",
        }
    }
}

/// The handles of this module.
pub(crate) struct Metrics {
    rpc_calls: Counters<2>,
    rpc_duration: Histograms<1>,
    openai_requests: Counters<1>,
    connections: Gauges<1>,
    stream_clients: Gauges<1>,
    auth_failures: Counters<1>,
    open: AtomicUsize,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Arc<Self> {
        let metrics = Self {
            rpc_calls: registry.counters(&RPC_CALLS),
            rpc_duration: registry.histograms(&RPC_DURATION),
            openai_requests: registry.counters(&OPENAI_REQUESTS),
            connections: registry.gauges(&CONNECTIONS),
            stream_clients: registry.gauges(&STREAM_CLIENTS),
            auth_failures: registry.counters(&AUTH_FAILURES),
            open: AtomicUsize::new(0),
        };
        metrics.write_zeros();
        Arc::new(metrics)
    }

    fn write_zeros(&self) {
        for transport in Transport::ALL {
            self.connections.with([transport.as_str()]).set(0.0);
        }
        for transport in ["sse", "ws"] {
            self.stream_clients.with([transport]).set(0.0);
        }
        for failure in AuthFailure::ALL {
            self.auth_failures.with([failure.as_str()]).increment(0);
        }
        for code in openai::CODES {
            self.openai_requests.with([code]).increment(0);
        }
        for (method, code) in rpc::outcomes() {
            self.rpc_calls.with([method, code]).increment(0);
            let _born_at_zero = self.rpc_duration.with([method]);
        }
    }

    pub(crate) fn rpc_call(&self, method: &'static str, code: &'static str, took: std::time::Duration) {
        self.rpc_calls.with([method, code]).increment(1);
        self.rpc_duration.with([method]).record(took.as_secs_f64());
    }

    pub(crate) fn openai_request(&self, code: &'static str) {
        self.openai_requests.with([code]).increment(1);
    }

    pub(crate) fn auth_failure(&self, failure: AuthFailure) {
        self.auth_failures.with([failure.as_str()]).increment(1);
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection until it is dropped.
    pub(crate) fn connection(self: &Arc<Self>, transport: Transport) -> OpenConnection {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.connections.with([transport.as_str()]).increment(1.0);
        OpenConnection { metrics: Arc::clone(self), transport }
    }

    /// Counts a follower of events until it is dropped.
    pub(crate) fn stream_client(&self, transport: &'static str) -> StreamClient {
        let gauge = self.stream_clients.with([transport]);
        gauge.increment(1.0);
        StreamClient(gauge)
    }
}

/// One open connection in the gauge.
pub(crate) struct OpenConnection {
    metrics: Arc<Metrics>,
    transport: Transport,
}

impl OpenConnection {
    /// It speaks something else from now on.
    pub(crate) fn becomes(&mut self, transport: Transport) {
        self.metrics.connections.with([self.transport.as_str()]).decrement(1.0);
        self.metrics.connections.with([transport.as_str()]).increment(1.0);
        self.transport = transport;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections.with([self.transport.as_str()]).decrement(1.0);
    }
}

/// One follower of events in the gauge.
pub(crate) struct StreamClient(metrics::Gauge);

impl Drop for StreamClient {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
