//! `system.*`: what runs, what happened, what can be called.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::error::RpcError;
use super::method::{Call, CallResult, NoParams, now};
use crate::gateway::{ActiveRequest, Snapshot};
use crate::live::{Event, EventFilter, Level};

/// What `GET /health` says.
pub(crate) fn health(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| super::super::rest::Health::of(call.state())))
}

/// The counts and the last model calls.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SystemMetrics {
    #[serde(flatten)]
    snapshot: Snapshot,
    /// Open connections.
    connections: usize,
}

/// Shows the counts.
pub(crate) fn metrics(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| SystemMetrics {
        snapshot: call.state().gateway.snapshot(),
        connections: call.state().metrics.open(),
    }))
}

/// Parameters of `system.events`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsParams {
    /// Exactly this level.
    level: Option<Level>,
    /// At most so many; 1 to 100,000.
    limit: Option<usize>,
    /// Exactly this source.
    source: Option<String>,
}

/// The last events, the newest first.
pub(crate) type Events = Vec<Arc<Event>>;

/// Shows the last events.
pub(crate) fn events(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().and_then(|EventsParams { level, limit, source }| {
        if limit.is_some_and(|limit| !(1..=100_000).contains(&limit)) {
            return Err(RpcError::invalid("limit", "expected 1 to 100000"));
        }
        Ok::<Events, _>(call.state().sources.live.events(&EventFilter { level, source, limit }))
    }))
}

/// The requests that wait or run.
pub(crate) type ActiveRequests = Vec<ActiveRequest>;

/// Lists the requests that wait or run.
pub(crate) fn active_requests(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| call.state().gateway.active()))
}

/// The methods there are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MethodList {
    methods: Vec<MethodEntry>,
}

/// A method with the schema of its parameters.
#[derive(Debug, Serialize, JsonSchema)]
struct MethodEntry {
    name: &'static str,
    /// What it does, in a sentence.
    summary: &'static str,
    /// The role it asks for.
    role: &'static str,
    /// JSON Schema 2020-12 of its parameters.
    params: Schema,
}

/// Lists the methods.
pub(crate) fn methods(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| {
        let entry = |method: &super::Method| MethodEntry {
            name: method.name,
            summary: method.summary,
            role: method.access.as_str(),
            params: {
                let mut settings = SchemaSettings::draft2020_12();
                settings.inline_subschemas = true;
                settings.meta_schema = None;
                (method.params)(&mut settings.for_deserialize().into_generator())
            },
        };
        MethodList { methods: super::METHODS.iter().map(entry).collect() }
    }))
}
