//! The `anthropic` provider behind the real gateway, against servers that answer, stumble and lie over real sockets. What
//! it shares with `openai` is tested there; here, that it shares it, and what is its own.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::Clock;
use plimsoll::gateway::{Accepted, AgentEvent, SendRequest};
use plimsoll::limits::ANSWER_BYTES_MAX;
use plimsoll::live::{self, Live};
use plimsoll::process::Processes;
use plimsoll::provider::{self, AnthropicConfig, Mask, Message, ProviderDeps, RemoteConfig, Speaker};
use plimsoll::telemetry::Registry;
use plimsoll::units::Period;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::provider::spans::{Spans, attribute};
use crate::provider::{KEY, ask, fails_of, house_of, last_call, recorded, remote, request};
use crate::support::upstream::{Reply, Upstream, refusal, stream_head, whole};

fn config(upstream: &Upstream) -> AnthropicConfig {
    AnthropicConfig {
        base_url: upstream.base_url().trim_end_matches("/v1").to_owned(),
        max_tokens: 1_000,
        remote: remote(),
    }
}

fn kind(config: AnthropicConfig) -> provider::Config {
    provider::Config::Anthropic(config)
}

/// Events as the API sends them: each with its name.
fn bytes(events: &[Value]) -> Vec<u8> {
    let text = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("?"));
    events.iter().map(text).collect::<String>().into_bytes()
}

fn stream(events: &[Value]) -> Reply {
    Reply::Parts(vec![stream_head(), bytes(events)])
}

fn start() -> Value {
    let usage = json!({"input_tokens": 12, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 200, "output_tokens": 1});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m-2", "content": [], "stop_reason": null, "usage": usage});
    json!({"type": "message_start", "message": message})
}

fn delta(text: &str) -> Value {
    json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
}

fn end(reason: &str) -> [Value; 2] {
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    [
        json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ]
}

/// An answer with all that stands around its text.
fn answer(pieces: &[&str]) -> Vec<Value> {
    let text = json!({"type": "text", "text": ""});
    let mut events = vec![
        start(),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": text}),
    ];
    events.extend(pieces.iter().map(|piece| delta(piece)));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    events.extend(end("end_turn"));
    events
}

async fn fails_on(reply: Reply, error_type: &str, says: &str, partial: &str) {
    let upstream = Upstream::start(vec![reply]).await;
    fails_of(&kind(config(&upstream)), error_type, says, partial).await;
}

#[tokio::test]
async fn a_streamed_answer_is_measured_priced_traced_and_remembered() {
    let spans = Spans::default();
    let collecting = spans.collect();
    let upstream = Upstream::start(vec![stream(&answer(&["Hello", " world"]))]).await;
    let house = house_of(&kind(config(&upstream)));
    let (events, answer) = ask(&house, "hi").await;
    let answer = answer.expect("answered");
    assert_eq!(answer.text, "Hello world");
    assert!(events.contains(&AgentEvent::Delta { text: " world".to_owned() }));
    // What came from a cache and what went to one is input too.
    assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (Some(312), Some(7)));
    let call = last_call(&house);
    assert_eq!((call.provider.as_str(), call.model.as_str(), call.error), ("anthropic", "m-2", None));
    assert!(call.time_to_first_token.is_some() && call.tokens_per_sec.is_some());
    // 12 at 1, 200 from the cache at 0.1, 100 to it at 1.25, 7 written at 10 US dollars a million.
    assert!((call.cost_usd.expect("m-2 has a price") - 0.000_227).abs() < 1e-9, "{:?}", call.cost_usd);
    drop(collecting);
    let chat = spans.named("chat m-1");
    for (name, value) in [
        ("gen_ai.provider.name", "anthropic"),
        ("gen_ai.request.model", "m-1"),
        ("gen_ai.response.model", "m-2"),
        ("gen_ai.response.id", "msg_1"),
        ("gen_ai.response.finish_reasons", r#"["end_turn"]"#),
        ("gen_ai.usage.input_tokens", "312"),
        ("gen_ai.usage.cache_read.input_tokens", "200"),
        ("gen_ai.usage.cache_creation.input_tokens", "100"),
        ("gen_ai.usage.output_tokens", "7"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(&chat, name), value, "{name}");
    }

    ask(&house, "again").await.1.expect("answered");
    let requests = upstream.requests();
    let text = |role: &str, text: &str| json!({"role": role, "content": [{"type": "text", "text": text}]});
    let expected = json!({
        "model": "m-1",
        "max_tokens": 1_000,
        "system": "be brief",
        "messages": [text("user", "hi"), text("assistant", "Hello world"), text("user", "again")],
        "stream": true,
    });
    assert_eq!(requests[1].body, expected);
    let sent = format!("traceparent: 00-0af7651916cd43dd8448eb211c80319c-{}", chat.span_context.span_id());
    assert!(requests[0].head.contains(&sent), "{sent} in {}", requests[0].head);
    for header in [
        "post /v1/messages ",
        &format!("x-api-key: {KEY}"),
        "anthropic-version: 2023-06-01",
        "accept: text/event-stream",
        "user-agent: plimsoll/",
    ] {
        assert!(requests[1].head.contains(header), "{header} in {}", requests[1].head);
    }
    assert!(!requests[1].head.contains("authorization"));
}

#[tokio::test]
async fn a_whole_answer_is_one_delta_and_has_no_first_token() {
    let usage = json!({"input_tokens": 12, "cache_read_input_tokens": null, "output_tokens": 3});
    let content = json!([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "All"}]);
    let body = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m-2", "content": content, "stop_reason": "end_turn", "usage": usage});
    let upstream = Upstream::start(vec![whole(&body.to_string())]).await;
    let config = AnthropicConfig {
        base_url: upstream.base_url(),
        remote: RemoteConfig { stream: false, ..remote() },
        ..config(&upstream)
    };
    let house = house_of(&kind(config));
    let answer = ask(&house, "hi").await.1.expect("answered");
    assert_eq!(answer.text, "All");
    assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (Some(12), Some(3)));
    assert_eq!(last_call(&house).time_to_first_token, None);
    let request = &upstream.requests()[0];
    assert_eq!(request.body["stream"], false);
    assert!(
        request.head.starts_with("post /v1/messages "),
        "a base_url with /v1 is meant so: {}",
        request.head
    );
}

#[tokio::test]
async fn tools_are_listed_not_run_and_thoughts_are_not_said() {
    let block = |block: Value| json!({"type": "content_block_start", "index": 1, "content_block": block});
    let piece = |delta: Value| json!({"type": "content_block_delta", "index": 1, "delta": delta});
    let mut events = vec![
        start(),
        block(json!({"type": "thinking", "thinking": ""})),
        piece(json!({"type": "thinking_delta", "thinking": "secret"})),
        piece(json!({"type": "signature_delta", "signature": "x"})),
        block(json!({"type": "server_tool_use", "id": "t0", "name": "web_search", "input": {}})),
        block(json!({"type": "tool_use", "id": "t", "name": "search", "input": {}})),
        piece(json!({"type": "input_json_delta", "partial_json": "{}"})),
        json!({"type": "of_the_future", "x": 1}),
    ];
    events.extend(end("tool_use"));
    let upstream = Upstream::start(vec![stream(&events)]).await;
    let house = house_of(&kind(config(&upstream)));
    let answer = ask(&house, "hi").await.1.expect("answered");
    let tools: Vec<_> = answer.tool_calls.iter().map(|tool| (tool.name.as_str(), tool.ok)).collect();
    assert_eq!((answer.text.as_str(), &tools[..]), ("", &[("search", None)][..]));
}

#[tokio::test]
async fn a_conversation_is_sent_as_the_api_takes_it() {
    let upstream = Upstream::start(vec![stream(&answer(&["ok"]))]).await;
    let house = house_of(&kind(config(&upstream)));
    let said = |role, text: &str| Message { role, text: text.into() };
    let history = vec![
        said(Speaker::Assistant, "nobody asked"),
        said(Speaker::User, "one"),
        said(Speaker::Assistant, " \n"),
        said(Speaker::User, "two"),
        said(Speaker::Assistant, "yes"),
    ];
    let Accepted { mut events, outcome, .. } =
        house.send(SendRequest { history: Some(history), ..request("s", "three") });
    while events.recv().await.is_some() {}
    outcome.await.expect("an outcome").expect("answered");
    let messages = &upstream.requests()[0].body["messages"];
    let all: Vec<_> = messages.as_array().expect("a list").iter().collect();
    let text = |message: &Value| {
        let blocks = message["content"].as_array().expect("blocks");
        blocks.iter().map(|block| block["text"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let said: Vec<_> =
        all.iter().map(|message| (message["role"].as_str().expect("a role"), text(message))).collect();
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected =
        [("user", texts(&["one", "two"])), ("assistant", texts(&["yes"])), ("user", texts(&["three"]))];
    assert_eq!(said, expected);
}

/// Many servers send the end of the body in a packet of its own.
#[tokio::test]
async fn a_connection_is_used_again_also_where_the_end_of_the_body_comes_late() {
    let body = bytes(&answer(&["ok"]));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let first = [format!("{head}{:x}\r\n", body.len()).into_bytes(), body, b"\r\n".to_vec()].concat();
    let told = Arc::new(Notify::new());
    let upstream = Upstream::start(vec![Reply::Stay(first, Arc::clone(&told), b"0\r\n\r\n".to_vec())]).await;
    let house = house_of(&kind(config(&upstream)));
    // While something blocks, a clock that is paused stands still: no connection is lost to a limit of time.
    tokio::time::pause();
    let (_going, standing) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || standing.recv());
    for _ in 0..8 {
        let Accepted { mut events, outcome, .. } = house.send(request("s", "hi"));
        while !matches!(events.recv().await.expect("not ended"), AgentEvent::Delta { .. }) {}
        told.notify_one();
        while events.recv().await.is_some() {}
        assert_eq!(outcome.await.expect("an outcome").expect("answered").text, "ok");
    }
    let (requests, connections) = (upstream.requests().len(), upstream.connections());
    // A second one, where the next request came before the first was back.
    assert!(requests == 8 && connections <= 2, "{connections} connections for {requests} requests");
}

#[tokio::test]
async fn characters_and_events_cut_anywhere_arrive_whole() {
    let bytes = [stream_head(), bytes(&answer(&["grün €"]))].concat();
    let upstream = Upstream::start(vec![Reply::Parts(bytes.iter().map(|byte| vec![*byte]).collect())]).await;
    let house = house_of(&kind(config(&upstream)));
    assert_eq!(ask(&house, "hi").await.1.expect("answered").text, "grün €");
}

#[tokio::test]
async fn a_server_that_refuses_hangs_or_goes_away_is_told() {
    let gone = config(&Upstream::start(vec![stream(&[])]).await);
    fails_of(&kind(gone), "connection", "it is refused", "").await;
    let hello = [stream_head(), bytes(&[start(), delta("Hel")])].concat();
    for (bytes, partial) in [(Vec::new(), ""), (hello.clone(), "Hel")] {
        let upstream = Upstream::start(vec![Reply::Hang(bytes)]).await;
        let impatient = AnthropicConfig {
            remote: RemoteConfig { idle_timeout: Period::from_millis(200), ..remote() },
            ..config(&upstream)
        };
        let house = fails_of(&kind(impatient), "timeout", "silent for 200 ms", partial).await;
        // What had been used by then is known from the first event.
        let used = &recorded(&house)["tokens"]["inputTokens"];
        assert_eq!(used, &if partial.is_empty() { Value::Null } else { json!(312) });
    }
    fails_on(Reply::Parts(vec![hello]), "stream_cut", "cut its answer short", "Hel").await;
    let half = [stream_head(), bytes(&[start()])[..40].to_vec()].concat();
    fails_on(Reply::Parts(vec![half]), "stream_cut", "cut its answer short", "").await;
}

#[tokio::test]
async fn a_server_that_falls_silent_after_the_stop_reason_has_answered() {
    let mut events = answer(&["ok"]);
    events.pop().expect("message_stop");
    let upstream = Upstream::start(vec![Reply::Hang([stream_head(), bytes(&events)].concat())]).await;
    let house = house_of(&kind(config(&upstream)));
    let answer = ask(&house, "hi").await.1.expect("answered");
    assert_eq!((answer.text.as_str(), answer.usage.output_tokens), ("ok", Some(7)));
}

#[tokio::test]
async fn rubbish_and_nothing_are_no_answers() {
    fails_on(whole("<html>hello</html>"), "unreadable_answer", "is given without /v1", "").await;
    fails_on(whole(r#"{"type":"message","content":7}"#), "unreadable_answer", "another shape", "").await;
    fails_on(whole(r#"{"choices":[]}"#), "unreadable_answer", "another shape", "").await;
    let oops = [stream_head(), bytes(&[start(), delta("a")]), b"data: {oops\n\n".to_vec()].concat();
    fails_on(Reply::Parts(vec![oops]), "unreadable_answer", "it is no JSON", "a").await;
    fails_on(whole(""), "empty_answer", "is empty", "").await;
    fails_on(stream(&end("end_turn")), "empty_answer", "is empty", "").await;
    let long = stream(&[start(), delta("a"), delta(&"x".repeat(ANSWER_BYTES_MAX))]);
    fails_on(long, "answer_too_large", "larger than", "a").await;
}

#[tokio::test]
async fn an_error_inside_a_stream_has_the_status_of_its_kind() {
    let error =
        |kind: &str| json!({"type": "error", "error": {"type": kind, "message": format!("busy, key {KEY}")}});
    let broken = |kind: &str| stream(&[start(), delta("Hel"), error(kind)]);
    fails_on(broken("overloaded_error"), "529", "HTTP 529: busy, key ***", "Hel").await;
    fails_on(broken("new_error"), "provider_error", "reported an error: busy, key ***", "Hel").await;
    fails_on(whole(&error("api_error").to_string()), "500", "HTTP 500: busy, key ***", "").await;
    // At the very beginning, another try says nothing twice.
    let upstream =
        Upstream::start(vec![stream(&[error("overloaded_error")]), stream(&answer(&["ok"]))]).await;
    let house = house_of(&kind(AnthropicConfig {
        remote: RemoteConfig { retries: 1, ..remote() },
        ..config(&upstream)
    }));
    assert_eq!(ask(&house, "hi").await.1.expect("answered").text, "ok");
    assert_eq!(house.live.model_calls().total, 2);
}

#[tokio::test]
async fn error_statuses_are_told_with_their_words_masked() {
    let body = json!({"type": "error", "error": {"type": "x", "message": format!("bad {KEY}")}}).to_string();
    for (status, error_type) in [
        ("400 Bad Request", "400"),
        ("401 Unauthorized", "401"),
        ("429 Too Many Requests", "429"),
        ("500 Internal Server Error", "500"),
        ("529 Overloaded", "529"),
    ] {
        let says = format!("answered HTTP {error_type}: bad ***");
        fails_on(refusal(status, "", &body), error_type, &says, "").await;
    }
}

#[tokio::test]
async fn a_429_and_a_529_are_tried_again_when_they_say_so() {
    let busy = refusal("429 Too Many Requests", "retry-after: 1\r\n", r#"{"error":"slow down"}"#);
    let overloaded = refusal("529 Overloaded", "", "{}");
    let upstream = Upstream::start(vec![busy, overloaded, stream(&answer(&["ok"]))]).await;
    let house = house_of(&kind(AnthropicConfig {
        remote: RemoteConfig { retries: 2, ..remote() },
        ..config(&upstream)
    }));
    let (events, answer) = ask(&house, "hi").await;
    assert_eq!(answer.expect("answered").text, "ok");
    let retries: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Retry { after_ms, cause, .. } => Some((*after_ms >= 1_000, cause.as_str())),
            _ => None,
        })
        .collect();
    let [(true, first), (false, second)] = retries[..] else { panic!("{retries:?}") };
    assert!(first.contains("429: slow down") && second.contains("529"), "{retries:?}");
    let calls = house.live.model_calls();
    let errors: Vec<_> = calls.recent.iter().map(|call| call.error.as_deref()).collect();
    assert_eq!(errors, [None, Some("529"), Some("429")]);
}

#[tokio::test]
async fn a_redirect_to_another_host_takes_neither_message_nor_key_along() {
    let elsewhere = Upstream::start(vec![stream(&answer(&["stolen"]))]).await;
    let location = format!("location: {}/messages\r\n", elsewhere.base_url());
    fails_on(refusal("307 Temporary Redirect", &location, ""), "307", "answered HTTP 307", "").await;
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_recorded_with_what_it_had_used() {
    let hello = [stream_head(), bytes(&[start(), delta("Hel")])].concat();
    let upstream = Upstream::start(vec![Reply::Hang(hello)]).await;
    let house = house_of(&kind(config(&upstream)));
    let sent = house.send(SendRequest { deadline: Some(Duration::from_secs(60)), ..request("s", "hi") });
    let Accepted { mut events, outcome, request_id, .. } = sent;
    while !matches!(events.recv().await.expect("not ended"), AgentEvent::Delta { .. }) {}
    assert!(house.gateway.cancel(&request_id, "by its caller"));
    let rejection = outcome.await.expect("an outcome").expect_err("cancelled");
    assert_eq!((rejection.code(), rejection.partial()), (-32005, Some("Hel")));
    let call = last_call(&house);
    assert_eq!((call.error.as_deref(), call.input_tokens), (Some("cancelled"), Some(312)));
}

#[tokio::test]
async fn tls_is_trusted_through_the_ca_file_and_not_without_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ca_file = dir.path().join("ca.pem");
    let upstream = Upstream::start_tls(vec![stream(&answer(&["safe"]))], &ca_file).await;
    let trusting =
        AnthropicConfig { remote: RemoteConfig { ca_file: Some(ca_file), ..remote() }, ..config(&upstream) };
    assert_eq!(ask(&house_of(&kind(trusting)), "hi").await.1.expect("answered").text, "safe");
    fails_of(&kind(config(&upstream)), "connection", "TLS: its certificate", "").await;
}

#[tokio::test]
async fn a_check_says_whether_the_server_lets_us_in() {
    let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
    let live = Live::new(&live::Config::default(), &registry, Clock::system());
    let deps = ProviderDeps {
        prices: std::sync::Arc::default(),
        live,
        clock: Clock::system(),
        mask: Mask::default(),
        processes: Processes::default(),
    };
    for (reply, good) in [(whole(r#"{"data":[]}"#), true), (refusal("401 Unauthorized", "", "no"), false)] {
        let upstream = Upstream::start(vec![reply]).await;
        let provider = provider::build("p", &kind(config(&upstream)), &deps).expect("a good configuration");
        assert_eq!(provider.check().await.is_ok(), good);
        let head = &upstream.requests()[0].head;
        assert!(head.starts_with("get /v1/models ") && head.contains(&format!("x-api-key: {KEY}")), "{head}");
    }
}
