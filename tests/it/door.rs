//! The OpenAI-compatible door as bytes: what is answered, refused, cancelled and recorded.

mod clients;

use plimsoll::clock::Clock;
use serde_json::{Value, json};

use crate::support::http::{Answer, Ask, Flow};
use crate::support::server::{Server, until};
use crate::support::upstream::{Reply, STOP, USAGE, Upstream, delta, refusal, stream, stream_head, whole};

const PATH: &str = "/v1/chat/completions";

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn said(text: &str) -> Value {
    json!({"model": "echo", "messages": [user(text)]})
}

fn ask(body: &Value) -> Ask {
    Ask::post(PATH, body.to_string()).header("content-type", "application/json")
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

/// A server whose agent `a` asks this upstream.
async fn before(upstream: &Upstream) -> Server {
    let provider = json!({"kind": "openai", "base_url": upstream.base_url(), "retries": 0});
    Server::start(json!({
        "providers": {"up": provider},
        "agents": {"a": {"provider": "up", "model": "m-1", "system": "be brief"}},
    }))
    .await
}

fn to_a(messages: &Value) -> Value {
    json!({"model": "a", "messages": messages})
}

/// A server whose agent `slow` answers after an hour.
async fn slow(gateway: &Value) -> Server {
    Server::start(json!({
        "gateway": gateway,
        "providers": {"slow": {"kind": "echo", "latency": "1h"}, "echo": {"kind": "echo"}},
        "agents": {"slow": {"provider": "slow"}, "echo": {"provider": "echo"}},
    }))
    .await
}

fn slowly() -> Value {
    json!({"model": "slow", "messages": [user("hi")]})
}

#[tokio::test]
async fn instructions_that_an_agent_cannot_take_are_the_callers_mistake() {
    let server = Server::start(json!({
        "providers": {"p": {"kind": "exec", "program": "true", "dialect": "gemini"}},
        "agents": {"a": {"provider": "p", "cwd": std::env::temp_dir()}},
    }))
    .await;
    let messages = json!([{"role": "system", "content": "in French"}, user("hi")]);
    let made = server.call("token.create", json!({"name": "op", "role": "operator"})).await;
    let answer = ask(&to_a(&messages)).token(made["token"].as_str()).send(server.address()).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["param"], "messages");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("system")), "{error}");
}

/// The events of a stream: JSON, or the text of what is none.
fn events(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    let frames = text.split("\n\n").filter(|frame| !frame.is_empty());
    let read = |frame: &str| {
        let data = frame.strip_prefix("data: ").unwrap_or_else(|| panic!("{frame:?}"));
        serde_json::from_str(data).unwrap_or_else(|_| json!(data))
    };
    frames.map(read).collect()
}

fn masked(mut value: Value) -> Value {
    for (key, kind) in [("id", "chatcmpl-"), ("created", "")] {
        if let Some(member) = value.get_mut(key) {
            assert!(member.as_str().is_none_or(|text| text.starts_with(kind)), "{member}");
            *member = json!("…");
        }
    }
    value
}

/// What `error` holds, with what stands in the head of the answer.
fn fault(answer: &Answer) -> (u16, Value, Option<&str>) {
    let error = answer.json()["error"].clone();
    let members = error.as_object().unwrap_or_else(|| panic!("{}", answer.text()));
    for member in ["message", "type", "param", "code"] {
        assert!(members.contains_key(member), "{member} of {error}");
    }
    (answer.status, error, answer.header("x-should-retry"))
}

fn expect_fault(answer: &Answer, status: u16, code: &str) -> Value {
    let (found, error, _) = fault(answer);
    assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{error}");
    error
}

async fn under_way(server: &Server, wanted: usize) -> Vec<Value> {
    until("as many requests under way", async || {
        let active = server.call("system.activeRequests", json!({})).await;
        let active = active.as_array().expect("a list").clone();
        (active.len() == wanted).then_some(active)
    })
    .await
}

async fn counted(server: &Server, code: &str) -> u64 {
    server.scrape().await.count("plimsoll_openai_requests_total", &[("code", code)])
}

#[tokio::test]
async fn an_answer_is_what_a_client_of_openai_expects() {
    let server = Server::start(json!({})).await;
    let answer = ask(&said("how are you?")).send(server.address()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let request = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(answer.json()["id"], format!("chatcmpl-{request}"));
    insta::assert_json_snapshot!("whole", masked(answer.json()));

    let mut body = streamed(said("how are you?"));
    body["stream_options"] = json!({"include_usage": true});
    let answer = ask(&body).send(server.address()).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(answer.header("x-request-id").is_some());
    insta::assert_json_snapshot!("streamed", events(&answer).into_iter().map(masked).collect::<Vec<_>>());
    assert_eq!(counted(&server, "ok").await, 2);

    let finished = server.call("system.metrics", json!({})).await;
    assert_eq!(finished["messagesProcessed"], 2);
    let journal = Ask::get("/audit?kind=request_finished&limit=1").send(server.address()).await.json();
    assert_eq!(journal["records"][0]["detail"]["channel"], "openai", "{journal}");
}

#[tokio::test]
async fn agents_are_listed_as_models() {
    let server = slow(&json!({})).await;
    let list = Ask::get("/v1/models").send(server.address()).await.json();
    let ids: Vec<_> = list["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!((&list["object"], ids), (&json!("list"), vec![&json!("echo"), &json!("slow")]));
    let one = Ask::get("/v1/models/slow").send(server.address()).await.json();
    let expected =
        json!({"id": "slow", "object": "model", "created": one["created"], "owned_by": "plimsoll"});
    assert_eq!(one, expected);
    let (now, created) =
        (Clock::system().now().as_millis() / 1_000, one["created"].as_u64().expect("seconds"));
    assert!((0..120).contains(&(now - created)), "{created} is when it started, not {now}");
    expect_fault(&Ask::get("/v1/models/nobody").send(server.address()).await, 404, "model_not_found");
    expect_fault(&Ask::get("/v1/nothing").send(server.address()).await, 404, "not_found");
    let answer = Ask::get(PATH).send(server.address()).await;
    expect_fault(&answer, 405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
}

#[tokio::test]
async fn without_a_session_the_clients_messages_are_the_conversation() {
    let upstream = Upstream::start(vec![stream(&[&delta("yes"), STOP, "[DONE]"])]).await;
    let server = before(&upstream).await;
    let messages = json!([
        {"role": "system", "content": "in French"},
        user("one"),
        {"role": "assistant", "content": "two"},
        user("three"),
    ]);
    for session in [None, Some("s"), Some("s")] {
        let mut request = ask(&to_a(&messages));
        if let Some(session) = session {
            request = request.header("x-plimsoll-session", session);
        }
        let answer = request.send(server.address()).await.json();
        assert_eq!(answer["choices"][0]["message"]["content"], "yes");
        assert!(answer.get("usage").is_none(), "the provider says nothing of tokens: {answer}");
    }
    let system = json!({"role": "system", "content": "be brief\n\nin French"});
    let said = |texts: &[(&str, &str)]| {
        let texts = texts.iter().map(|(role, text)| json!({"role": role, "content": text}));
        Value::Array([system.clone()].into_iter().chain(texts).collect())
    };
    let sent: Vec<Value> =
        upstream.requests().iter().map(|request| request.body["messages"].clone()).collect();
    assert_eq!(sent[0], said(&[("user", "one"), ("assistant", "two"), ("user", "three")]));
    assert_eq!(sent[1], said(&[("user", "three")]), "a session begins with nothing");
    assert_eq!(sent[2], said(&[("user", "three"), ("assistant", "yes"), ("user", "three")]), "and remembers");
    let sessions = server.call("session.list", json!({})).await;
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(1), "{sessions}");
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_by_name() {
    let server = Server::start(json!({"server": {"body_bytes_max": 1024}})).await;
    let image = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
    for (body, param, code) in [
        (json!({"messages": []}), "model", "invalid_value"),
        (json!({"model": "echo", "messages": []}), "messages", "invalid_value"),
        (json!({"model": "echo", "messages": [user("  ")]}), "messages", "invalid_value"),
        (
            json!({"model": "echo", "messages": [{"role": "user", "content": image}]}),
            "messages[0].content",
            "invalid_value",
        ),
        (json!({"model": "echo", "messages": [user("x")], "n": 2}), "n", "unsupported_parameter"),
        (json!({"model": "echo", "messages": [user("x")], "wheels": 4}), "wheels", "unknown_parameter"),
    ] {
        let error = expect_fault(&ask(&body).send(server.address()).await, 400, code);
        assert_eq!((error["param"].as_str(), &error["type"]), (Some(param), &json!("invalid_request_error")));
    }
    for model in ["nobody", "GPT 4/o"] {
        let answer = ask(&json!({"model": model, "messages": [user("x")]})).send(server.address()).await;
        assert_eq!(expect_fault(&answer, 404, "model_not_found")["param"], "model");
    }
    for (header, value) in [
        ("x-plimsoll-session", "a\tb"),
        ("x-plimsoll-on-disconnect", "maybe"),
        ("x-plimsoll-deadline-ms", "soon"),
        ("x-plimsoll-deadline-ms", "0"),
    ] {
        let answer = ask(&said("x")).header(header, value).send(server.address()).await;
        assert_eq!(expect_fault(&answer, 400, "invalid_value")["param"], header);
    }
    let post = |body: &str| Ask::post(PATH, body).header("content-type", "application/json");
    expect_fault(&post("{\"model\"").send(server.address()).await, 400, "bad_request");
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let body = format!(r#"{{"model":"echo","messages":{nested}}}"#);
    expect_fault(&post(&body).send(server.address()).await, 400, "bad_request");
    expect_fault(&ask(&said(&"x".repeat(1_024))).send(server.address()).await, 413, "body_too_large");
    expect_fault(&Ask::post(PATH, "{}").send(server.address()).await, 415, "unsupported_media_type");
    assert_eq!(counted(&server, "invalid_value").await, 8);
    assert_eq!(counted(&server, "body_too_large").await, 1);
}

#[tokio::test]
async fn a_key_is_asked_for_once_there_are_tokens() {
    let server = Server::start(json!({})).await;
    let ask = |key: Option<&str>| ask(&said("hi")).token(key);
    assert_eq!(ask(Some("anything")).send(server.address()).await.status, 200, "there is no right one");
    let create = async |name: &str, role: &str| {
        let made = server.call("token.create", json!({"name": name, "role": role})).await;
        made["token"].as_str().expect("a token").to_owned()
    };
    let (operator, viewer) = (create("op", "operator").await, create("view", "viewer").await);
    for key in [None, Some("anything")] {
        let answer = ask(key).send(server.address()).await;
        assert_eq!(expect_fault(&answer, 401, "invalid_api_key")["type"], "invalid_request_error");
        assert!(answer.header("www-authenticate").is_some());
    }
    expect_fault(&ask(Some(&viewer)).send(server.address()).await, 403, "forbidden");
    assert_eq!(ask(Some(&operator)).send(server.address()).await.status, 200);
    assert_eq!(Ask::get("/v1/models").token(Some(&viewer)).send(server.address()).await.status, 200);
    expect_fault(&Ask::get("/v1/models").send(server.address()).await, 401, "invalid_api_key");
    let foreign = ask(Some(&operator)).header("origin", "http://evil.example").send(server.address()).await;
    expect_fault(&foreign, 403, "foreign_origin");
}

#[tokio::test]
async fn full_queues_and_rates_say_when_to_come_again() {
    let server = slow(&json!({"running_max": 1, "lane_depth_max": 1, "queued_max": 2})).await;
    let in_session = || ask(&slowly()).header("x-plimsoll-session", "s");
    let mut open = vec![in_session().open(server.address()).await, in_session().open(server.address()).await];
    under_way(&server, 2).await;
    let busy = |answer: &Answer, code: &str| {
        let error = expect_fault(answer, 429, code);
        assert_eq!(error["type"], "rate_limit_error");
        assert!(answer.header("retry-after").is_some() && answer.header("retry-after-ms").is_some());
        assert_eq!(answer.header("x-should-retry"), None, "the clients may try again");
    };
    busy(&in_session().send(server.address()).await, "lane_full");
    open.push(ask(&slowly()).open(server.address()).await);
    under_way(&server, 3).await;
    busy(&ask(&slowly()).send(server.address()).await, "gateway_full");
    drop(open);

    let server = Server::start(json!({"server": {"requests_per_second": 1}})).await;
    let mut last = ask(&said("x")).send(server.address()).await;
    while last.status == 200 {
        last = ask(&said("x")).send(server.address()).await;
    }
    busy(&last, "rate_limit_exceeded");
}

#[tokio::test]
async fn what_may_have_asked_a_model_is_not_tried_again() {
    let words = r#"{"error":{"message":"your balance is 3 cents"}}"#;
    let upstream = Upstream::start(vec![
        refusal("402 Payment Required", "", words),
        stream(&[&delta("Hel")]),
        refusal("402 Payment Required", "", words),
        stream(&[&delta("Hel")]),
    ])
    .await;
    let server = before(&upstream).await;
    let hi = to_a(&json!([user("hi")]));
    for body in [hi.clone(), streamed(hi.clone())] {
        let answer = ask(&body).send(server.address()).await;
        let error = expect_fault(&answer, 502, "provider_failed");
        assert!(error["message"].as_str().is_some_and(|text| text.ends_with("your balance is 3 cents")));
        assert_eq!((fault(&answer).2, &error["type"]), (Some("false"), &json!("server_error")));
        assert!(answer.header("x-request-id").is_some());

        let answer = ask(&body).send(server.address()).await;
        if body["stream"] == true {
            assert_eq!(answer.status, 200);
            let events = events(&answer);
            assert_eq!(events[1]["choices"][0]["delta"]["content"], "Hel");
            let last = &events.last().expect("events")["error"];
            assert_eq!((&last["code"], &last["partial"]), (&json!("provider_failed"), &json!("Hel")));
            assert_eq!(events.len(), 3, "{events:?}");
        } else {
            assert_eq!(expect_fault(&answer, 502, "provider_failed")["partial"], "Hel");
        }
    }
    assert_eq!((upstream.requests().len(), counted(&server, "provider_failed").await), (4, 4));
    assert!(!server.log().contains("balance"), "{}", server.log());
}

#[tokio::test]
async fn limits_of_the_provider_are_told_from_those_of_plimsoll() {
    let words = r#"{"error":{"message":"slow down, plum"}}"#;
    let (busy, later) = ("429 Too Many Requests", "retry-after: 7\r\n");
    let cases = [
        (busy, later, 429, "provider_rate_limited", "rate_limit_error"),
        (busy, "", 429, "provider_rate_limited", "rate_limit_error"),
        (busy, "retry-after: 3600\r\n", 429, "provider_rate_limited", "rate_limit_error"),
        ("529 Overloaded", "", 503, "provider_overloaded", "server_error"),
        ("503 Service Unavailable", later, 503, "provider_overloaded", "server_error"),
        ("500 Internal Server Error", "", 502, "provider_failed", "server_error"),
    ];
    let twice = cases
        .iter()
        .flat_map(|(status, head, ..)| [refusal(status, head, words), refusal(status, head, words)]);
    let upstream = Upstream::start(twice.collect()).await;
    let server = before(&upstream).await;
    let hi = to_a(&json!([user("hi")]));
    for (_, head, status, code, kind) in cases {
        for body in [hi.clone(), streamed(hi.clone())] {
            let answer = ask(&body).send(server.address()).await;
            let error = expect_fault(&answer, status, code);
            assert_eq!(error["type"], kind);
            assert!(
                error["message"].as_str().is_some_and(|text| text.ends_with("slow down, plum")),
                "{error}"
            );
            let wait = head.trim().strip_prefix("retry-after: ");
            assert_eq!(answer.header("retry-after"), wait);
            assert_eq!(fault(&answer).2, (wait != Some("7")).then_some("false"), "{head} {code}");
        }
    }
    assert_eq!(counted(&server, "provider_rate_limited").await, 6);
    assert!(!server.log().contains("plum"), "{}", server.log());
}

#[tokio::test]
async fn a_deadline_and_an_operator_end_a_request() {
    let server = slow(&json!({})).await;
    for body in [slowly(), streamed(slowly())] {
        let answer = ask(&body).header("x-plimsoll-deadline-ms", "50").send(server.address()).await;
        expect_fault(&answer, 504, "deadline_exceeded");
        assert_eq!(fault(&answer).2, Some("false"));
        let address = server.address();
        let waiting = tokio::spawn(async move { ask(&body).send(address).await });
        let id = under_way(&server, 1).await[0]["id"].clone();
        server.call("agent.cancel", json!({"requestId": id})).await;
        let answer = waiting.await.expect("no panic");
        expect_fault(&answer, 499, "cancelled");
        assert_eq!((fault(&answer).2, answer.header("x-request-id")), (Some("false"), id.as_str()));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_and_frees_the_lane() {
    let hello = format!("data: {}\n\n", delta("Hel")).into_bytes();
    let hangs = Reply::Hang([stream_head(), hello].concat());
    let answers = stream(&[&delta("yes"), STOP, USAGE, "[DONE]"]);
    let upstream = Upstream::start(vec![hangs.clone(), hangs.clone(), answers, hangs]).await;
    let server = before(&upstream).await;
    let hi = to_a(&json!([user("hi")]));
    let in_session = |body: &Value| ask(body).header("x-plimsoll-session", "s");

    let mut flow: Flow = in_session(&streamed(hi.clone())).open(server.address()).await;
    flow.until("Hel").await;
    drop(flow);
    under_way(&server, 0).await;
    let flow = in_session(&hi).open(server.address()).await;
    until("the call", async || (upstream.requests().len() == 2).then_some(())).await;
    drop(flow);
    under_way(&server, 0).await;
    let answer = in_session(&hi).send(server.address()).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "yes", "the lane is free");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}));
    until("the count", async || (counted(&server, "cancelled").await == 2).then_some(())).await;

    let stays = in_session(&streamed(hi)).header("x-plimsoll-on-disconnect", "finish");
    let mut flow = stays.open(server.address()).await;
    flow.until("Hel").await;
    drop(flow);
    // Had it been cancelled, it would be gone before this one, which comes later, is.
    let other = ask(&said("x")).send(server.address()).await;
    assert_eq!(other.status, 404);
    let id = under_way(&server, 1).await[0]["id"].clone();
    until("that its client is known to be gone", async || {
        (counted(&server, "cancelled").await == 3).then_some(())
    })
    .await;
    assert_eq!(under_way(&server, 1).await[0]["id"], id, "it runs on");
}

#[tokio::test]
async fn a_message_with_an_idempotency_key_is_paid_for_once() {
    let upstream = Upstream::start(vec![stream(&[&delta("y"), &delta("es"), STOP, USAGE, "[DONE]"])]).await;
    let server = before(&upstream).await;
    let hi = to_a(&json!([user("hi")]));
    let keyed = |body: &Value| ask(body).header("Idempotency-Key", "k");
    let mut ids = Vec::new();
    for body in [hi.clone(), hi.clone(), streamed(hi.clone())] {
        let answer = keyed(&body).send(server.address()).await;
        let text = match body["stream"].as_bool() {
            Some(true) => events(&answer)[1]["choices"][0]["delta"]["content"].clone(),
            _ => answer.json()["choices"][0]["message"]["content"].clone(),
        };
        assert_eq!(text, "yes");
        ids.push(answer.header("x-request-id").expect("an id").to_owned());
    }
    assert_eq!(upstream.requests().len(), 1);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = keyed(&to_a(&json!([user("other")]))).send(server.address()).await;
    expect_fault(&other, 409, "conflict");
    assert_eq!(fault(&other).2, Some("false"));
    let both = keyed(&hi).header("x-plimsoll-on-disconnect", "cancel").send(server.address()).await;
    assert_eq!(expect_fault(&both, 400, "invalid_value")["param"], "x-plimsoll-on-disconnect");
    let found = server.call("request.get", json!({"idempotencyKey": "k", "agent": "a"})).await;
    assert_eq!((&found["state"], &found["requestId"]), (&json!("done"), &json!(ids[0])));
}

#[tokio::test]
async fn budgets_rates_and_pauses_have_codes_of_their_own() {
    let server = Server::start(json!({
        "providers": {"e": {"kind": "echo"}},
        "prices": {"echo": {"input": 1_000_000.0, "output": 1_000_000.0}},
        "agents": {
            "poor": {"provider": "e", "usd_per_day": 1},
            "calm": {"provider": "e", "requests_per_min": 1},
            "still": {"provider": "e"},
        },
    }))
    .await;
    let to = |agent: &str| ask(&json!({"model": agent, "messages": [user("hi")]}));
    assert_eq!(to("poor").send(server.address()).await.status, 200);
    let spent = to("poor").send(server.address()).await;
    let error = expect_fault(&spent, 429, "insufficient_quota");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("usd_per_day")), "{error}");
    assert_eq!((fault(&spent).2, spent.header("retry-after").is_some()), (Some("false"), true));
    assert_eq!(to("calm").send(server.address()).await.status, 200);
    expect_fault(&to("calm").send(server.address()).await, 429, "rate_limit_exceeded");
    server.call("agent.pause", json!({"agent": "still"})).await;
    let paused = to("still").send(server.address()).await;
    expect_fault(&paused, 503, "paused");
    assert_eq!(fault(&paused).2, Some("false"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_agent_that_keeps_its_conversations_is_given_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = r#"cat > /dev/null; echo '{"type":"delta","text":"done"}'"#;
    std::fs::write(dir.path().join("agent.sh"), script).expect("written");
    let server = Server::start(json!({
        "providers": {"p": {"kind": "exec", "program": "sh", "args": ["agent.sh"]}},
        "agents": {"a": {"provider": "p", "cwd": dir.path()}},
    }))
    .await;
    let made = server.call("token.create", json!({"name": "op", "role": "operator"})).await;
    let ask = |body: &Value| ask(body).token(made["token"].as_str());
    let answer = ask(&to_a(&json!([user("hi")]))).send(server.address()).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "done", "{answer}");
    let more = to_a(&json!([user("one"), {"role": "assistant", "content": "two"}, user("three")]));
    let refused = ask(&more).send(server.address()).await;
    assert_eq!(expect_fault(&refused, 400, "invalid_value")["param"], "messages");
    let in_session = ask(&more).header("x-plimsoll-session", "s").send(server.address()).await;
    assert_eq!(in_session.status, 200, "{}", in_session.text());
}

#[tokio::test]
async fn the_trace_of_the_client_goes_on_to_the_model() {
    let usage = r#"{"id":"c","model":"m","choices":[{"index":0,"message":{"content":"cut"},"finish_reason":"length"}]}"#;
    let upstream = Upstream::start(vec![whole(usage)]).await;
    let server = before(&upstream).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = ask(&to_a(&json!([user("hi")])));
    let request = request.header("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"));
    let answer = request.send(server.address()).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let metrics = server.call("system.metrics", json!({})).await;
    assert_eq!(metrics["modelCalls"]["recentCalls"][0]["traceId"], trace);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sessions_at_once_are_answered_in_order() {
    let server = Server::start(json!({"providers": {"e": {"kind": "echo", "latency": "20ms"}}, "agents": {"echo": {"provider": "e"}}})).await;
    let address = server.address();
    let mut sessions = tokio::task::JoinSet::new();
    for session in 0..50 {
        sessions.spawn(async move {
            for message in 0..3 {
                let text = format!("message {message} of {session}");
                let mut body = said(&text);
                body["stream"] = json!(session % 2 == 0);
                let request = ask(&body).header("x-plimsoll-session", &format!("s{session}"));
                let answer = request.send(address).await;
                let heard: String = match session % 2 {
                    0 => {
                        let events = events(&answer);
                        let texts =
                            events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
                        texts.collect()
                    }
                    _ => answer.json()["choices"][0]["message"]["content"].as_str().expect("text").to_owned(),
                };
                assert_eq!(heard, text);
            }
        });
    }
    sessions.join_all().await;
    for session in 0..50 {
        let history =
            server.call("session.history", json!({"agent": "echo", "session": format!("s{session}")})).await;
        let texts =
            history["messages"].as_array().expect("a list").iter().map(|message| message["text"].clone());
        let expected =
            (0..3).flat_map(|message| [(); 2].map(|()| json!(format!("message {message} of {session}"))));
        assert!(texts.eq(expected), "{history}");
    }
    assert_eq!(counted(&server, "ok").await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_requests_are_told_to_come_again_while_it_drains() {
    let config = json!({
        "server": {"shutdown_grace": "10s"},
        "providers": {"e": {"kind": "echo", "latency": "1500ms"}},
        "agents": {"echo": {"provider": "e"}},
    });
    let mut server = Server::start(config).await;
    let client = server.tcp_client(None);
    let mut connection = client.connect().await.expect("a WebSocket");
    connection.call("agent.send", json!({"agent": "echo", "message": "m"})).await.expect("sent");
    under_way(&server, 1).await;
    let address = server.address();
    server.signal(rustix::process::Signal::TERM);
    until("unreadiness", async || client.get("/ready").await.err()).await;
    let refused = ask(&said("x")).send(address).await;
    expect_fault(&refused, 503, "shutting_down");
    assert_eq!(refused.header("retry-after"), Some("1"));
    server.ended().await;
}
