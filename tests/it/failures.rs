//! Whatever goes wrong behind the binary, its caller is told, it is recorded once, and the session goes on.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::http::Ws;
use crate::support::server::Server;
use crate::support::upstream::{Reply, Request, STOP, Upstream, delta, refusal, stream, stream_head, whole};

const KEY: &str = "sk-very-secret";

/// A way to fail: the agent and model of this name does it.
struct Failure {
    name: &'static str,
    code: i64,
    /// What the caller reads.
    says: &'static str,
    /// The `error.type` of its model call.
    error_type: &'static str,
    /// What had been answered by then.
    partial: Option<&'static str>,
}

const fn failed(
    name: &'static str,
    says: &'static str,
    error_type: &'static str,
    partial: Option<&'static str>,
) -> Failure {
    Failure { name, code: -32007, says, error_type, partial }
}

const FAILURES: &[Failure] = &[
    failed("down", "no connection to the provider: it is refused", "connection", None),
    failed("hangs", "silent for 1000 ms", "timeout", None),
    failed("stalls", "silent for 1000 ms", "timeout", Some("Hel")),
    failed("cuts", "cut its answer short", "stream_cut", Some("Hel")),
    failed("rubbish", "cannot be read", "unreadable_answer", None),
    failed("empty", "is empty", "empty_answer", None),
    failed("unauthorised", "answered HTTP 401", "401", None),
    failed("busy", "answered HTTP 429", "429", None),
    failed("broken", "answered HTTP 500", "500", None),
    Failure { code: -32004, ..failed("late", "the deadline of 100 ms passed", "deadline", None) },
];

/// What the model server says: the model picks how it fails, unless it is asked again.
fn reply(request: &Request) -> Reply {
    let messages = request.body["messages"].as_array();
    let last =
        messages.and_then(|all| all.last()).map(|last| last["content"].to_string()).unwrap_or_default();
    let (hel, back) = if request.head.starts_with("post /v1/messages ") {
        let start = r#"{"type":"message_start","message":{"id":"msg_1","model":"m"}}"#.to_owned();
        let delta = |text| json!({"type": "content_block_delta", "delta": {"text": text}}).to_string();
        let stop = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#.to_owned();
        let end = r#"{"type":"message_stop"}"#.to_owned();
        (vec![start.clone(), delta("Hel")], vec![start, delta("back"), stop, end])
    } else {
        (vec![delta("Hel")], vec![delta("back"), STOP.to_owned(), "[DONE]".to_owned()])
    };
    let events = |events: &[String]| stream(&events.iter().map(String::as_str).collect::<Vec<_>>());
    if last.contains("\"again\"") {
        return events(&back);
    }
    match request.body["model"].as_str().unwrap_or_default() {
        "stalls" => {
            let hel: String = hel.iter().map(|event| format!("data: {event}\n\n")).collect();
            Reply::Hang([stream_head(), hel.into_bytes()].concat())
        }
        "cuts" => events(&hel),
        "rubbish" => whole("<html>hello</html>"),
        "empty" => whole(""),
        "unauthorised" => {
            refusal("401 Unauthorized", "", &format!(r#"{{"error":"the key {KEY} is wrong"}}"#))
        }
        "busy" => refusal("429 Too Many Requests", "retry-after: 7\r\n", r#"{"error":"slow down"}"#),
        "broken" => refusal("500 Internal Server Error", "", "at src/secret.rs:1"),
        _ => Reply::Hang(Vec::new()),
    }
}

fn configuration(kind: &str, upstream: &str, down: &str) -> Value {
    let provider = |base_url: &str| json!({"kind": kind, "base_url": base_url, "api_key": KEY, "retries": 0, "idle_timeout": "1s"});
    let mut agents = json!({"clumsy": {"provider": "clumsy"}});
    for Failure { name, .. } in FAILURES {
        let provider = if *name == "down" { "down" } else { "stub" };
        agents[name] = json!({"provider": provider, "model": name});
    }
    let clumsy = json!({"kind": "echo", "tool_rate": 1.0, "tool_failure_rate": 1.0});
    json!({
        "providers": {"stub": provider(upstream), "down": provider(down), "clumsy": clumsy},
        "agents": agents,
    })
}

fn params(agent: &str, message: &str) -> Value {
    let mut params = json!({"agent": agent, "message": message});
    params["session"] = json!(format!("s-{agent}"));
    params["requestId"] = json!(format!("{agent}-{message}"));
    if agent == "late" && message == "go" {
        params["deadlineMs"] = json!(100);
    }
    params
}

async fn send(ws: &mut Ws, agent: &str, message: &str) -> Value {
    ws.call("agent.send", params(agent, message)).await
}

/// Makes each failure happen, all at once; the answers are in the order of the failures.
async fn fail(ws: &mut Ws) -> Vec<Value> {
    let mut ids = Vec::new();
    for Failure { name, .. } in FAILURES {
        ids.push(ws.begin("agent.send", params(name, "go")).await);
    }
    let mut answers = BTreeMap::new();
    while answers.len() < ids.len() {
        let answer = ws.next().await;
        answers.insert(answer["id"].as_u64().expect("an answer"), answer);
    }
    ids.iter().map(|id| answers[id].clone()).collect()
}

fn check_answer(failure: &Failure, error: &Value) {
    let Failure { name, code, says, partial, .. } = failure;
    let (data, text) = (&error["data"], error["message"].as_str().expect("a message"));
    let cause = if *code == -32004 { "deadline" } else { "provider failed" };
    assert_eq!((&error["code"], &data["cause"]), (&json!(code), &json!(cause)), "{error}");
    assert_eq!((&data["requestId"], data["partial"].as_str()), (&json!(format!("{name}-go")), *partial));
    assert!(text.contains(says), "{says} in {text}");
    let retry_after = (*name == "busy").then_some(7_000);
    assert_eq!(data["retryAfterMs"].as_u64(), retry_after, "{error}");
    for inside in [KEY, "127.0.0.1", "src/"] {
        assert!(*name == "broken" && inside == "src/" || !error.to_string().contains(inside), "{error}");
    }
}

/// The one error event of a request.
async fn event_of(server: &Server, request: &str) -> Value {
    let events = server.call("system.events", json!({"level": "error", "limit": 500})).await;
    let of_request = |event: &&Value| event["context"]["requestId"] == request;
    let found: Vec<&Value> = events.as_array().expect("a list").iter().filter(of_request).collect();
    assert_eq!(found.len(), 1, "{request}: {events}");
    found[0].clone()
}

fn check_event(event: &Value, source: &str, agent: &str, says: &str) {
    let context = &event["context"];
    assert_eq!((&event["source"], &context["agent"]), (&json!(source), &json!(agent)), "{event}");
    assert_eq!(context["sessionId"], format!("s-{agent}"), "{event}");
    assert!(context["cause"].as_str().is_some_and(|cause| cause.contains(says)), "{event}");
    assert!(event["timestamp"].is_u64() && event["message"].is_string() && !event.to_string().contains(KEY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_is_told_recorded_once_and_leaves_its_session_free() {
    fails_in_each_way("openai").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_of_the_messages_api_is_told_recorded_once_and_leaves_its_session_free() {
    fails_in_each_way("anthropic").await;
}

async fn fails_in_each_way(kind: &str) {
    let any = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = Upstream::choosing(any, reply);
    // Bound but not listening: connections are refused, and nobody else gets the port.
    let reserved = TcpSocket::new_v4().expect("a socket");
    reserved.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let down = format!("http://{}/v1", reserved.local_addr().expect("bound"));
    let server = Server::start(configuration(kind, &upstream.base_url(), &down)).await;
    let mut ws = Ws::open(&server, None).await;

    let answers = fail(&mut ws).await;
    let _up_again = Upstream::choosing(reserved.listen(16).expect("it listens"), reply);
    for (failure, answer) in FAILURES.iter().zip(answers) {
        check_answer(failure, &answer["error"]);
        let event = event_of(&server, &format!("{}-go", failure.name)).await;
        check_event(&event, "agent.send", failure.name, failure.says);
        let next = send(&mut ws, failure.name, "again").await;
        assert_eq!(next["result"]["text"], "back", "{}: {next}", failure.name);
    }
    assert_eq!(server.call("system.activeRequests", json!({})).await, json!([]));

    let scrape = server.scrape().await;
    for Failure { name, code, error_type, .. } in FAILURES {
        let outcome = if *code == -32004 { "deadline" } else { "failed" };
        for outcome in [outcome, "ok"] {
            let labels = [("agent", *name), ("outcome", outcome)];
            assert_eq!(scrape.count("plimsoll_requests_total", &labels), 1, "{labels:?}");
        }
        let labels =
            [("gen_ai_provider_name", kind), ("gen_ai_request_model", *name), ("error_type", *error_type)];
        assert_eq!(scrape.count("gen_ai_client_operation_duration_seconds_count", &labels), 1, "{labels:?}");
    }
    let errors = scrape.count("plimsoll_errors_total", &[("source", "agent.send")]);
    assert_eq!(errors, FAILURES.len() as u64);
    let told = scrape.by("plimsoll_rpc_calls_total", "code");
    assert_eq!((told["-32007"], told["-32004"]), (FAILURES.len() as u64 - 1, 1));
}

/// What a provider says of an error may quote the prompt, or a key that is not ours to know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_says_of_an_error_reaches_the_caller_and_nobody_else() {
    const PROMPT: &str = "between-you-and-me";
    let quoting = |status| refusal(status, "", &format!(r#"{{"error":"you said {PROMPT}, key {KEY}"}}"#));
    let inside = format!(r#"{{"error":{{"message":"you said {PROMPT}"}}}}"#);
    let replies = vec![
        quoting("503 Service Unavailable"),
        quoting("400 Bad Request"),
        stream(&[&delta("Hel"), &inside]),
    ];
    let upstream = Upstream::start(replies).await;
    let mut config = configuration("openai", &upstream.base_url(), "http://127.0.0.1:9/v1");
    config["providers"]["stub"]["retries"] = json!(1);
    config["telemetry"] = json!({"log": {"level": "trace"}});
    let server = Server::start(config).await;
    let mut ws = Ws::open(&server, None).await;
    for message in ["first", "second"] {
        let mut params = params("broken", message);
        params["message"] = json!(PROMPT);
        let error = &ws.call("agent.send", params).await["error"];
        let said = error["data"]["providerSaid"].as_str().expect("its words");
        assert!(said.contains(&format!("you said {PROMPT}")) && !said.contains(KEY), "{error}");
        assert!(!error["message"].to_string().contains(PROMPT), "{error}");
    }
    let seen = [
        server.call("system.events", json!({"limit": 500})).await.to_string(),
        server.call("system.metrics", json!({})).await.to_string(),
        server.client().get("/audit").await.expect("the audit").text().await.expect("text"),
    ];
    assert!(
        seen[0].contains("HTTP 400") && seen[1].contains("\"503\"") && seen[2].contains("request_finished")
    );
    let log = server.logged("model call failed, trying again").await;
    for text in seen.iter().chain([&log]) {
        assert!(!text.contains(PROMPT), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_fails_is_told_and_recorded_once_and_its_request_is_answered() {
    let nowhere = "http://127.0.0.1:9/v1";
    let server = Server::start(configuration("openai", nowhere, nowhere)).await;
    let mut ws = Ws::open(&server, None).await;
    let answer = send(&mut ws, "clumsy", "go").await;
    assert_eq!(answer["result"]["toolCalls"], json!([{"name": "lookup", "ok": false}]), "{answer}");
    check_event(&event_of(&server, "clumsy-go").await, "tool.call", "clumsy", "let tools fail");
    assert_eq!(send(&mut ws, "clumsy", "again").await["result"]["text"], "again");
    let scrape = server.scrape().await;
    let of_tool = [("agent", "clumsy"), ("tool", "lookup"), ("outcome", "failed")];
    assert_eq!(scrape.count("plimsoll_tool_calls_total", &of_tool), 2);
    assert_eq!(scrape.count("plimsoll_errors_total", &[("source", "tool.call")]), 2);
    assert_eq!(scrape.count("plimsoll_requests_total", &[("agent", "clumsy"), ("outcome", "ok")]), 2);
}
