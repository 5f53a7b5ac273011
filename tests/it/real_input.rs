//! Everything real at once: people over WebSockets, LiteLLM behind the binary, a Prometheus that scrapes it, and a
//! collector that takes its traces.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use plimsoll::telemetry::OtlpProtocol;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::certificates::Certificates;
use crate::support::gate::Gate;
use crate::support::http::Ws;
use crate::support::litellm::{ANSWER, KEY, LiteLlm};
use crate::support::prometheus::Prometheus;
use crate::support::receiver::{Receiver, Security};
use crate::support::rotel::Rotel;
use crate::support::server::{Server, until};
use crate::support::tools::needs;

const SESSIONS: usize = 50;
const SESSIONS_PER_PERSON: usize = 5;
const MESSAGES: usize = 3;

fn configuration(litellm: &LiteLlm, otlp: &Value) -> Value {
    let provider = |stream: bool| json!({"kind": "openai", "base_url": litellm.base_url(), "api_key": KEY, "stream": stream, "retries": 0});
    json!({
        // A town has traces of its own.
        "towns": {},
        "telemetry": {"otlp": otlp},
        "providers": {"streamed": provider(true), "whole": provider(false)},
        "prices": {"m-1": {"input": 1.0, "output": 10.0}},
        "agents": {
            "streamed": {"provider": "streamed", "model": "m-1"},
            "whole": {"provider": "whole", "model": "m-1"},
            "busy": {"provider": "streamed", "model": "m-busy"},
        },
    })
}

/// Who answers in a session: every tenth one has a model that refuses.
fn agent_of(session: usize) -> &'static str {
    match session % 10 {
        9 => "busy",
        even if even % 2 == 0 => "streamed",
        _ => "whole",
    }
}

/// What people saw.
#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    failed: u64,
    input_tokens: u64,
    output_tokens: u64,
    /// The trace of each request, as its model call tells it.
    traces: BTreeMap<String, String>,
}

/// Sends all messages of all its sessions at once over one WebSocket, and looks at what comes back.
async fn person(mut ws: Ws, sessions: Range<usize>) -> Seen {
    let mut asked = BTreeMap::new();
    for message in 0..MESSAGES {
        for session in sessions.clone() {
            let params = json!({
                "agent": agent_of(session),
                "session": format!("s{session}"),
                "message": format!("message {message}"),
                "requestId": format!("s{session}-{message}"),
                "stream": true,
            });
            asked.insert(ws.begin("agent.send", params).await, format!("s{session}-{message}"));
        }
    }
    let (mut heard, mut answers) = (BTreeMap::<String, Vec<Value>>::new(), 0);
    while answers < asked.len() {
        let message = ws.next().await;
        let request = match message["id"].as_u64() {
            Some(id) => asked[&id].clone(),
            None => message["params"]["requestId"].as_str().expect("of a request").to_owned(),
        };
        answers += usize::from(message["id"].is_u64());
        let session = request.split('-').next().expect("its session").to_owned();
        heard.entry(session).or_default().push(json!({"request": request, "said": message}));
    }
    let mut seen = Seen::default();
    for session in sessions {
        let heard = &heard[&format!("s{session}")];
        assert_eq!(steps(heard), expected_steps(session));
        heard.iter().for_each(|one| seen.take(session, &one["said"], heard));
    }
    // Nothing is waited for: who has an answer finds its model call.
    let metrics = ws.call("system.metrics", json!({})).await;
    for request in asked.values() {
        let calls = metrics["result"]["modelCalls"]["recentCalls"].as_array().expect("a list");
        let call =
            calls.iter().find(|call| call["requestId"] == *request).expect("every call is in the ring");
        seen.traces.insert(request.clone(), check_call(call));
    }
    seen
}

/// What happened in a session, in order; pieces of one answer are one step.
fn steps(heard: &[Value]) -> Vec<String> {
    let step = |one: &Value| {
        let said = &one["said"];
        let what = said["params"]["type"].as_str().unwrap_or("answer");
        format!("{what} {}", one["request"].as_str().expect("a request"))
    };
    let mut steps: Vec<String> = heard.iter().map(step).filter(|step| !step.starts_with("queued")).collect();
    steps.dedup();
    steps
}

fn expected_steps(session: usize) -> Vec<String> {
    let of_each: &[&str] = match agent_of(session) {
        "busy" => &["start", "error", "answer"],
        _ => &["start", "delta", "end", "answer"],
    };
    let step = |message: usize| of_each.iter().map(move |what| format!("{what} s{session}-{message}"));
    (0..MESSAGES).flat_map(step).collect()
}

impl Seen {
    /// Counts an answer and compares it with the pieces that came before it.
    fn take(&mut self, session: usize, said: &Value, heard: &[Value]) {
        if said["error"].is_object() {
            assert_eq!((agent_of(session), &said["error"]["code"]), ("busy", &json!(-32007)), "{said}");
            assert!(
                said["error"]["message"].as_str().is_some_and(|text| text.contains("HTTP 429")),
                "{said}"
            );
            self.failed += 1;
        }
        let result = &said["result"];
        if !result.is_object() {
            return;
        }
        let of_this = |params: &&Value| params["requestId"] == result["requestId"];
        let pieces: Vec<&str> = heard
            .iter()
            .map(|one| &one["said"]["params"])
            .filter(of_this)
            .filter_map(|params| params["text"].as_str())
            .collect();
        assert_eq!((result["text"].as_str(), pieces.concat().as_str()), (Some(ANSWER), ANSWER));
        assert_eq!(pieces.len() > 1, agent_of(session) == "streamed", "{pieces:?}");
        self.answered += 1;
        self.input_tokens += result["usage"]["inputTokens"].as_u64().expect("LiteLLM counts tokens");
        self.output_tokens += result["usage"]["outputTokens"].as_u64().expect("LiteLLM counts tokens");
    }
}

/// Looks at a row of `recentCalls`; gives its trace.
fn check_call(call: &Value) -> String {
    let positive = |key: &str| call[key].as_f64().is_some_and(|number| number > 0.0);
    assert!(call["provider"] == "openai" && positive("latency"), "{call}");
    if call["agent"] == "busy" {
        assert_eq!((&call["model"], &call["error"]), (&json!("m-busy"), &json!("429")));
    } else {
        assert!(call["model"] == "m-1" && call["error"].is_null(), "{call}");
        for key in ["inputTokens", "outputTokens", "tokensPerSec", "costUsd"] {
            assert!(positive(key), "{key} of {call}");
        }
        assert_eq!(positive("timeToFirstToken"), call["agent"] == "streamed", "{call}");
    }
    call["traceId"].as_str().expect("a trace").to_owned()
}

/// All people at once.
async fn crowd(server: &Server) -> Seen {
    let mut people = JoinSet::new();
    for first in (0..SESSIONS).step_by(SESSIONS_PER_PERSON) {
        people.spawn(person(Ws::open(server, None).await, first..first + SESSIONS_PER_PERSON));
    }
    let mut all = Seen::default();
    for seen in people.join_all().await {
        all.answered += seen.answered;
        all.failed += seen.failed;
        all.input_tokens += seen.input_tokens;
        all.output_tokens += seen.output_tokens;
        all.traces.extend(seen.traces);
    }
    assert_eq!(all.answered + all.failed, (SESSIONS * MESSAGES) as u64);
    assert_eq!(all.failed, (SESSIONS / 10 * MESSAGES) as u64);
    all
}

async fn sessions_remember_in_order(server: &Server) {
    for session in (0..SESSIONS).filter(|session| agent_of(*session) != "busy") {
        let params = json!({"agent": agent_of(session), "session": format!("s{session}")});
        let history = server.call("session.history", params).await;
        let said = history["messages"].as_array().expect("a list").iter().map(|message| &message["text"]);
        let expected = (0..MESSAGES).flat_map(|message| [format!("message {message}"), ANSWER.to_owned()]);
        assert!(said.eq(expected.collect::<Vec<_>>().iter()), "{history}");
    }
}

async fn prometheus_stored_what_was_seen(prometheus: &mut Prometheus, seen: &Seen) {
    let all = (seen.answered + seen.failed) as f64;
    let spent = (seen.input_tokens as f64 + 10.0 * seen.output_tokens as f64) / 1e6;
    for (expression, value) in [
        ("sum(plimsoll_requests_total{outcome=\"ok\"})", seen.answered as f64),
        ("sum(plimsoll_requests_total{outcome=\"failed\"})", seen.failed as f64),
        ("sum(plimsoll_requests_total)", all),
        ("sum(plimsoll_messages_processed_total)", all),
        ("sum(plimsoll_rpc_calls_total{method=\"agent.send\"})", all),
        ("sum(plimsoll_errors_total{source=\"agent.send\"})", seen.failed as f64),
        ("sum(gen_ai_client_operation_duration_seconds_count)", all),
        ("sum(gen_ai_client_operation_duration_seconds_count{error_type=\"429\"})", seen.failed as f64),
        ("sum(gen_ai_client_token_usage_sum{gen_ai_token_type=\"input\"})", seen.input_tokens as f64),
        ("sum(gen_ai_client_token_usage_sum{gen_ai_token_type=\"output\"})", seen.output_tokens as f64),
        ("sum(plimsoll_model_call_cost_usd_sum)", spent),
        ("sum(plimsoll_requests_active)", 0.0),
        ("sum(plimsoll_sessions)", SESSIONS as f64),
        ("sum(plimsoll_dropped_total)", 0.0),
    ] {
        prometheus.until_value(expression, value).await;
    }
}

/// One trace for each request: `agent.send` above all, nothing beside it, nothing twice.
fn each_message_left_one_whole_trace(spans: &[&Span], seen: &Seen) {
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), spans.len(), "no span comes twice");
    let mut by_trace = BTreeMap::<String, BTreeMap<&str, &Span>>::new();
    for span in spans {
        let trace: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = span.name.split(' ').next().expect("a name");
        assert!(by_trace.entry(trace).or_default().insert(name, span).is_none(), "{name} stands twice");
    }
    let expected: BTreeSet<&String> = seen.traces.values().collect();
    assert!(by_trace.keys().eq(expected), "as many traces as requests, and the same");
    for (request, trace) in &seen.traces {
        let trace = &by_trace[trace];
        let names: Vec<&str> = trace.keys().copied().collect();
        assert_eq!(names, ["agent.send", "chat", "invoke_agent", "lane.wait"], "{request}");
        let root = trace["agent.send"];
        assert_eq!((text(root, "request_id"), root.parent_span_id.is_empty()), (request.as_str(), true));
        for (child, parent) in
            [("lane.wait", "agent.send"), ("invoke_agent", "agent.send"), ("chat", "invoke_agent")]
        {
            assert_eq!(trace[child].parent_span_id, trace[parent].span_id, "{child} of {request}");
        }
    }
}

fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Attribute::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

/// How traces go to the collector.
enum Road {
    Grpc,
    Http,
    /// gRPC behind a proxy with a certificate of its own authority.
    Tls,
}

async fn check(road: Road) {
    let (Some(litellm), Some(_)) = (LiteLlm::shared().await, needs("prometheus")) else { return };
    let receiver = Receiver::start(OtlpProtocol::HttpProtobuf, Security::Plain, &[]).await;
    let Some(rotel) = Rotel::start(&receiver).await else { return };
    let certificates = Certificates::make();
    let gate = Gate::tls(rotel.address(OtlpProtocol::Grpc), &certificates).await;
    let plain =
        |protocol| json!({"endpoint": format!("http://{}", rotel.address(protocol)), "protocol": protocol});
    let otlp = match road {
        Road::Grpc => plain(OtlpProtocol::Grpc),
        Road::Http => plain(OtlpProtocol::HttpProtobuf),
        Road::Tls => {
            let endpoint = format!("https://localhost:{}", gate.address.port());
            json!({"endpoint": endpoint, "protocol": "grpc", "ca_file": certificates.file("ca.pem")})
        }
    };
    let mut server = Server::start(configuration(&litellm, &otlp)).await;
    let mut prometheus = Prometheus::scraping(&server).await.expect("it was there a moment ago");
    let seen = crowd(&server).await;
    sessions_remember_in_order(&server).await;
    prometheus_stored_what_was_seen(&mut prometheus, &seen).await;
    server.stop().await;
    until("every span at the receiver", async || {
        let inbox = receiver.inbox();
        // A slow disk leaves a trace of its own.
        let spans: Vec<&Span> = inbox.spans.iter().filter(|span| span.name != "journal.commit").collect();
        (spans.len() >= 4 * seen.traces.len()).then(|| each_message_left_one_whole_trace(&spans, &seen))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sessions_agree_with_prometheus_and_with_their_traces_over_grpc() {
    check(Road::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sessions_agree_with_prometheus_and_with_their_traces_over_http() {
    check(Road::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sessions_agree_with_prometheus_and_with_their_traces_over_tls() {
    check(Road::Tls).await;
}
