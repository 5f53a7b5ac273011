//! The route table: from it come the filters, the contract and the authorisation test.
//!
//! A new route is one handler in `rest/` and one entry here.

use futures_util::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::sync::Arc;

use super::access::Access;
use super::openai;
use super::request::Request;
use super::response::Outcome;
use super::rest;
use super::state::ApiState;
use super::towns::{self, Operation};
use super::ws;

/// One route.
pub(crate) struct Route {
    pub(crate) method: Verb,
    /// A segment in braces stands for any one.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) summary: &'static str,
    /// Whether names are checked: `Host` and `Origin`.
    pub(crate) names: Names,
    /// Whether the answer is compressed for those who take it.
    pub(crate) compression: Compression,
    /// The schema of the query.
    pub(crate) query: Option<SchemaOf>,
    /// The schema of the body.
    pub(crate) body: Option<SchemaOf>,
    /// The answer that is meant: its types, and the schema of the first.
    pub(crate) answer: Answer,
    pub(crate) handler: fn(Arc<ApiState>, Request) -> BoxFuture<'static, Outcome>,
}

/// The methods that routes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// And HEAD, which is GET without the body.
    Get,
    Post,
    Delete,
}

impl Verb {
    /// As in the contract and in `Allow`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a request with this method is meant.
    pub(crate) fn takes(self, method: &http::Method) -> bool {
        match self {
            Self::Get => *method == http::Method::GET || *method == http::Method::HEAD,
            Self::Post => *method == http::Method::POST,
            Self::Delete => *method == http::Method::DELETE,
        }
    }
}

/// Whether `Host` and `Origin` must be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// As everywhere.
    Checked,
    /// Health probes come by any name.
    Free,
}

/// Whether compressing an answer pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    None,
}

/// What a route answers when all is well.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) types: &'static [&'static str],
    pub(crate) schema: Option<SchemaOf>,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

const fn schema<T: JsonSchema>() -> Option<SchemaOf> {
    Some(|generator| generator.subschema_for::<T>())
}

const JSON: &[&str] = &["application/json"];

/// Every route. The busiest stand first: a request asks them in this order.
pub(crate) const ROUTES: &[Route] = &[
    Route {
        method: Verb::Post,
        path: "/rpc",
        access: Access::Token,
        summary: "Calls JSON-RPC 2.0 methods, one or a batch; system.methods lists them.",
        body: schema::<rest::RpcMessage>(),
        answer: Answer { status: 200, types: JSON, schema: schema::<rest::RpcAnswer>() },
        ..route("/rpc", |state, request| Box::pin(rest::rpc(state, request)))
    },
    Route {
        method: Verb::Post,
        access: Access::Operator,
        summary: "Answers a conversation as the OpenAI API does, streamed or whole; a model is an agent.",
        body: schema::<openai::ChatRequest>(),
        answer: Answer {
            status: 200,
            types: &["application/json", "text/event-stream"],
            schema: schema::<openai::ChatCompletion<'_>>(),
        },
        ..route("/v1/chat/completions", |state, request| Box::pin(openai::complete(state, request)))
    },
    Route {
        access: Access::FirstMessage,
        summary: "Upgrades to a WebSocket that speaks JSON-RPC 2.0; the token comes as Bearer or in a first message `auth`.",
        answer: Answer { status: 101, types: &[], schema: None },
        ..route("/ws", |state, request| Box::pin(ws::upgrade(state, request)))
    },
    Route {
        access: Access::Public,
        names: Names::Free,
        summary: "Says that it lives, and what is degraded.",
        answer: Answer { status: 200, types: JSON, schema: schema::<rest::Health>() },
        ..route("/health", |state, request| Box::pin(rest::health(state, request)))
    },
    Route {
        access: Access::Public,
        names: Names::Free,
        summary: "Says whether it serves: 200, or 503 while it recovers or drains.",
        answer: Answer { status: 200, types: JSON, schema: schema::<rest::Ready>() },
        ..route("/ready", |state, request| Box::pin(rest::ready(state, request)))
    },
    Route {
        access: Access::Scrape,
        compression: Compression::Gzip,
        summary: "Exposes all metrics in the Prometheus text format.",
        answer: Answer { status: 200, types: &["text/plain"], schema: None },
        ..route("/metrics", |state, request| Box::pin(rest::metrics(state, request)))
    },
    Route {
        summary: "Streams events (server-sent events); Last-Event-ID resumes journaled ones.",
        query: schema::<rest::EventsQuery>(),
        answer: Answer { status: 200, types: &["text/event-stream"], schema: None },
        ..route("/events", |state, request| Box::pin(rest::events(state, request)))
    },
    Route {
        compression: Compression::Gzip,
        summary: "Queries the journal; JSON, or NDJSON or CSV by Accept or ?format.",
        query: schema::<rest::AuditQuery>(),
        answer: Answer {
            status: 200,
            types: &["application/json", "application/x-ndjson", "text/csv"],
            schema: schema::<rest::AuditPage>(),
        },
        ..route("/audit", |state, request| Box::pin(rest::audit(state, request)))
    },
    Route {
        summary: "Lists the agents with their state.",
        answer: Answer { status: 200, types: JSON, schema: schema::<rest::Agents>() },
        ..route("/agents", |state, request| Box::pin(rest::agents(state, request)))
    },
    Route {
        method: Verb::Post,
        access: Access::Operator,
        summary: "Makes an agent of an entry as it would stand under `agents:`; survives a restart.",
        body: schema::<super::rpc::NewAgent>(),
        answer: Answer { status: 201, types: JSON, schema: schema::<rest::AgentEntry>() },
        ..route("/agents", |state, request| Box::pin(rest::create_agent(state, request)))
    },
    Route {
        method: Verb::Delete,
        access: Access::Operator,
        summary: "Deletes an agent that was made so, with what it has under way.",
        answer: Answer { status: 200, types: JSON, schema: schema::<super::rpc::AgentDeleted>() },
        ..route("/agents/{id}", |state, request| Box::pin(rest::delete_agent(state, request)))
    },
    Route {
        summary: "Lists the agents as models, as the OpenAI API does.",
        answer: Answer { status: 200, types: JSON, schema: schema::<openai::ModelList>() },
        ..route("/v1/models", |state, request| Box::pin(openai::models(state, request)))
    },
    Route {
        summary: "Shows an agent as a model.",
        answer: Answer { status: 200, types: JSON, schema: schema::<openai::Model>() },
        ..route("/v1/models/{id}", |state, request| Box::pin(openai::model(state, request)))
    },
    Route {
        compression: Compression::Gzip,
        summary: "Tells what agents used: requests, tokens, cost; JSON, or CSV by ?format.",
        query: schema::<rest::UsageParams>(),
        answer: Answer {
            status: 200,
            types: &["application/json", "text/csv"],
            schema: schema::<crate::gateway::UsageReport>(),
        },
        ..route("/usage", |state, request| Box::pin(rest::usage(state, request)))
    },
    Route {
        compression: Compression::Gzip,
        summary: "Lists the alerts that fire and the last that are over, as Alertmanager and Grafana told them.",
        answer: Answer { status: 200, types: JSON, schema: schema::<crate::alerts::AlertList>() },
        ..route("/api/alerts", |state, request| Box::pin(rest::alerts(state, request)))
    },
    Route {
        method: Verb::Post,
        access: Access::Ingest,
        summary: "Takes alerts as the webhooks of Alertmanager (version 4) and Grafana post them; what changed is durable then.",
        body: schema::<crate::alerts::PostedBody>(),
        answer: Answer { status: 200, types: JSON, schema: schema::<crate::alerts::Taken>() },
        ..route("/api/alerts", |state, request| Box::pin(rest::post_alerts(state, request)))
    },
    asks::<towns::ListTowns>("/api/towns"),
    tells::<towns::CreateTown>("/api/towns"),
    asks::<towns::ShowStatus>("/api/towns/{town}/status"),
    tells::<towns::Drain>("/api/towns/{town}/drain"),
    tells::<towns::ChangePolicy>("/api/towns/{town}/policy"),
    asks::<towns::ListBeads>("/api/towns/{town}/beads"),
    tells::<towns::AddBead>("/api/towns/{town}/beads"),
    asks::<towns::ShowBead>("/api/towns/{town}/beads/{bead}"),
    tells::<towns::CancelBead>("/api/towns/{town}/beads/{bead}/cancel"),
    tells::<towns::HoldBead>("/api/towns/{town}/beads/{bead}/hold"),
    tells::<towns::ReleaseBead>("/api/towns/{town}/beads/{bead}/release"),
    tells::<towns::AddDependency>("/api/towns/{town}/beads/{bead}/dependencies"),
    tells::<towns::StartConvoy>("/api/towns/{town}/convoys"),
    asks::<towns::ListAgents>("/api/towns/{town}/agents"),
    tells::<towns::AddAgent>("/api/towns/{town}/agents"),
    Route { method: Verb::Delete, ..asks::<towns::RemoveAgent>("/api/towns/{town}/agents/{agent}") },
    asks::<towns::ShowDispatch>("/api/towns/{town}/agents/{agent}/dispatch"),
    tells::<towns::TryNextTick>("/api/towns/{town}/debug/reconcile-dry-run"),
    tells::<towns::ReplayPast>("/api/towns/{town}/debug/replay-events"),
    Route {
        body: schema::<towns::ReportedEvent>(),
        answer: Answer { status: 201, types: JSON, schema: schema::<<towns::Report as Operation>::Answer>() },
        handler: |state, request| Box::pin(towns::report(state, request)),
        ..tells::<towns::Report>("/api/towns/{town}/events")
    },
    Route {
        access: Access::Public,
        compression: Compression::Gzip,
        summary: "This contract.",
        answer: Answer { status: 200, types: JSON, schema: None },
        ..route("/openapi.json", |state, request| Box::pin(rest::contract(state, request)))
    },
    Route {
        access: Access::Public,
        summary: "A page that says what this is.",
        answer: Answer { status: 200, types: &["text/html"], schema: None },
        ..route("/", |state, request| Box::pin(rest::page(state, request)))
    },
];

/// A route as most are: a viewer's GET.
pub(super) const fn route(
    path: &'static str,
    handler: fn(Arc<ApiState>, Request) -> BoxFuture<'static, Outcome>,
) -> Route {
    Route {
        method: Verb::Get,
        path,
        access: Access::Viewer,
        summary: "",
        names: Names::Checked,
        compression: Compression::None,
        query: None,
        body: None,
        answer: Answer { status: 200, types: JSON, schema: None },
        handler,
    }
}

/// A route whose parameters stand in its path and its query.
const fn asks<O: Operation>(path: &'static str) -> Route {
    Route {
        access: O::ACCESS,
        summary: O::SUMMARY,
        query: schema::<O::Params>(),
        answer: Answer { status: 200, types: JSON, schema: schema::<O::Answer>() },
        ..route(path, |state, request| Box::pin(towns::asked::<O>(state, request)))
    }
}

/// A route whose parameters stand in its path and its body.
const fn tells<O: Operation>(path: &'static str) -> Route {
    Route {
        method: Verb::Post,
        access: O::ACCESS,
        summary: O::SUMMARY,
        body: schema::<O::Params>(),
        answer: Answer { status: O::STATUS.as_u16(), types: JSON, schema: schema::<O::Answer>() },
        ..route(path, |state, request| Box::pin(towns::told::<O>(state, request)))
    }
}

impl Route {
    /// Whether this is the route of a path, whatever the method.
    fn stands_for(&self, path: &str) -> bool {
        let mut given = path.split('/');
        let fits = self.path.split('/').all(|wanted| {
            given
                .next()
                .is_some_and(|given| wanted == given || (parameter(wanted).is_some() && !given.is_empty()))
        });
        fits && given.next().is_none()
    }
}

/// The name of what stands for a segment of a route's path, if any one may.
pub(crate) fn parameter(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// In whose shape errors are told on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Own,
    OpenAi,
}

/// In whose shape errors are told on this path, also before it is known whether there is such a path.
pub(crate) fn dialect(path: &str) -> Dialect {
    if path.starts_with("/v1/") { Dialect::OpenAi } else { Dialect::Own }
}

/// The methods that a path takes, as `Allow` lists them; `None` if there is no such path.
pub(crate) fn allowed(path: &str) -> Option<String> {
    let methods: Vec<&str> =
        ROUTES.iter().filter(|route| route.stands_for(path)).map(|route| route.method.as_str()).collect();
    (!methods.is_empty()).then(|| methods.join(", "))
}

/// Whether names are free on this path.
pub(crate) fn names(path: &str) -> Names {
    let free = ROUTES.iter().any(|route| route.path == path && route.names == Names::Free);
    if free { Names::Free } else { Names::Checked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_unique_and_described() {
        for (i, route) in ROUTES.iter().enumerate() {
            assert!(route.summary.ends_with('.'), "{}", route.path);
            let again = ROUTES[i + 1..].iter().any(|r| r.path == route.path && r.method == route.method);
            assert!(!again, "{} twice", route.path);
        }
    }

    #[test]
    fn a_parameter_stands_for_one_segment() {
        assert_eq!(allowed("/v1/models").as_deref(), Some("GET"));
        assert_eq!(allowed("/v1/models/a").as_deref(), Some("GET"));
        for none in ["/v1/models/", "/v1/models/a/b", "/v1", "/v1/models/a/"] {
            assert_eq!(allowed(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_open_to_everybody_is_a_short_list() {
        let open: Vec<_> = ROUTES.iter().filter(|r| r.access == Access::Public).map(|r| r.path).collect();
        assert_eq!(open, ["/health", "/ready", "/openapi.json", "/"]);
    }
}
