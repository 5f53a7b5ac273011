//! docs/traces.md lists every span, attribute and event that plimsoll sends, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::Span;
use plimsoll::telemetry::OtlpProtocol;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::http::{Ask, Ws};
use crate::support::receiver::{Receiver, Security};
use crate::support::server::{Server, until};
use crate::support::upstream::{STOP, Upstream, delta, refusal, stream, whole};

/// What is said of the spans of one name, or of the events of one name on spans of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Shape {
    /// Kind and parent; empty for an event.
    place: String,
    attributes: BTreeSet<String>,
}

type Shapes = BTreeMap<String, Shape>;

/// Spans that a healthy run may well go without.
const RARE: &str = "journal.commit";

/// What the document lists: rows of four cells are spans, those of three are events.
fn listed() -> Shapes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/traces.md");
    let text = std::fs::read_to_string(path).expect("docs/traces.md");
    let (_, part) = text.split_once("## What is in them").expect("the part about spans");
    let mut shapes = Shapes::new();
    for row in part.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let words =
            |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        let (name, place, attributes) = match cells.as_slice() {
            [name, kind, parent, attributes] => (
                (*name).to_owned(),
                format!("{kind} in {}", words(parent).first().map_or("none", String::as_str)),
                words(attributes),
            ),
            [event, span, attributes] => (format!("{event} on {span}"), String::new(), words(attributes)),
            _ => continue,
        };
        shapes.insert(name.replace('`', ""), Shape { place, attributes });
    }
    shapes
}

/// `chat m-1` → `chat {model}`.
fn general(name: &str) -> String {
    let variable = [("chat ", "{model}"), ("invoke_agent ", "{agent}"), ("execute_tool ", "{tool}")];
    let found = variable.iter().find(|(prefix, _)| name.starts_with(prefix));
    found.map_or_else(|| name.to_owned(), |(prefix, rest)| format!("{prefix}{rest}"))
}

/// What was sent, with the attributes of all spans of one name together.
fn sent(spans: &[Span]) -> Shapes {
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (&span.span_id, span)).collect();
    let mut shapes = Shapes::new();
    for span in spans {
        let name = general(&span.name);
        let parent =
            by_id.get(&span.parent_span_id).map_or("none".to_owned(), |parent| general(&parent.name));
        // A town is a caller as any.
        let parent = if parent == "reconciler.effect" { "none".to_owned() } else { parent };
        let kind =
            ["unspecified", "internal", "server", "client"][usize::try_from(span.kind).expect("a kind")];
        let place = format!("{kind} in {parent}");
        let shape =
            shapes.entry(name.clone()).or_insert_with(|| Shape { place: place.clone(), ..Shape::default() });
        assert_eq!(shape.place, place, "{name}");
        shape.attributes.extend(span.attributes.iter().map(|attribute| attribute.key.clone()));
        for event in &span.events {
            let shape = shapes.entry(format!("{} on {name}", event.name)).or_default();
            shape.attributes.extend(event.attributes.iter().map(|attribute| attribute.key.clone()));
        }
    }
    shapes
}

/// Everything that can happen to a message: answered with a tool, a failed tool, tried again, with a cache, over the
/// OpenAI-compatible door, failed, cancelled.
async fn run(server: &Server) {
    let client = server.client();
    let send =
        async |agent: &str| client.call("agent.send", json!({"agent": agent, "message": "one two"})).await;
    for agent in ["talks", "fumbles", "remote", "caches"] {
        send(agent).await.unwrap_or_else(|error| panic!("{agent}: {error}"));
    }
    for agent in ["fails", "remote"] {
        send(agent).await.expect_err("a failure");
    }
    let message = json!({"model": "talks", "messages": [{"role": "user", "content": "hi"}]});
    let answer = Ask::post("/v1/chat/completions", message.to_string())
        .header("content-type", "application/json")
        .send(server.address())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut ws = Ws::open(server, None).await;
    ws.begin("agent.send", json!({"agent": "sleeps", "message": "hi", "requestId": "mine"})).await;
    until("the request is cancelled", async || {
        let answer = client.call("agent.cancel", json!({"requestId": "mine"})).await.expect("answered");
        (answer["cancelled"] == true).then_some(())
    })
    .await;
    assert_eq!(ws.next().await["error"]["code"], -32005);
    client
        .call("town.addBead", json!({"town": "main", "id": "a", "title": "do it"}))
        .await
        .expect("it is added");
    until("the bead is closed", async || {
        let bead = client.call("town.bead", json!({"town": "main", "bead": "a"})).await.expect("it is there");
        (bead["status"] == "closed").then_some(())
    })
    .await;
}

fn configuration(receiver: &Receiver, upstream: &Upstream, caching: &Upstream) -> Value {
    let messages_api = caching.base_url().trim_end_matches("/v1").to_owned();
    json!({
        "providers": {
            "talks": {"kind": "echo", "tool_rate": 1.0},
            "fumbles": {"kind": "echo", "tool_rate": 1.0, "tool_failure_rate": 1.0},
            "fails": {"kind": "echo", "failure_rate": 1.0},
            "sleeps": {"kind": "echo", "latency": "1h"},
            "remote": {"kind": "openai", "base_url": upstream.base_url(), "retries": 1},
            "caches": {"kind": "anthropic", "base_url": messages_api, "stream": false},
        },
        "agents": {
            "talks": {"provider": "talks"},
            "fumbles": {"provider": "fumbles"},
            "fails": {"provider": "fails"},
            "sleeps": {"provider": "sleeps"},
            "remote": {"provider": "remote", "model": "m-1"},
            "caches": {"provider": "caches", "model": "m-1"},
        },
        "towns": {"main": {"agents": {"talks": {}}}},
        "telemetry": {"otlp": {"endpoint": receiver.endpoint()}},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_lists_every_span_that_is_sent() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    let busy = refusal("503 Service Unavailable", "", "");
    let answered = stream(&[&delta("ok"), STOP, usage, "[DONE]"]);
    let refused = refusal("401 Unauthorized", "", "");
    let upstream = Upstream::start(vec![busy, answered, refused]).await;
    let message = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m-2","content":[{"type":"text","text":"ok"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":1}}"#;
    let caching = Upstream::start(vec![whole(message)]).await;
    let receiver = Receiver::start(OtlpProtocol::Grpc, Security::Plain, &[]).await;
    let mut server = Server::start(configuration(&receiver, &upstream, &caching)).await;
    run(&server).await;
    server.signal(Signal::TERM);
    server.ended().await;
    let (listed, mut sent) = (listed(), sent(&receiver.inbox().spans));
    // Only a slow disk makes one; what it has on it is claimed where it is made.
    let rare = listed.get(RARE).expect("listed").clone();
    sent.insert(RARE.to_owned(), rare);
    let names: BTreeSet<_> = listed.keys().chain(sent.keys()).collect();
    for name in names {
        assert_eq!(sent.get(name), listed.get(name), "{name}: left is sent, right is in docs/traces.md");
    }
}
