//! The `openai` provider behind the real gateway, against servers that answer, stumble and lie over real sockets.

pub(crate) mod events;
pub(crate) mod spans;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use plimsoll::clock::Clock;
use plimsoll::gateway::{
    self, Accepted, AgentConfig, AgentEvent, Answer, Caller, Channel, Gateway, GatewayParts, Rejection,
    SendRequest,
};
use plimsoll::ids::{AgentId, SessionId};
use plimsoll::journal::{Actor, Journal as _, MemoryJournal, Scan};
use plimsoll::limits::ANSWER_BYTES_MAX;
use plimsoll::live::{self, Live, ModelCall};
use plimsoll::process::Processes;
use plimsoll::provider::{self, Mask, Message, OpenAiConfig, Price, ProviderDeps, RemoteConfig, Speaker};
use plimsoll::secret::Secret;
use plimsoll::telemetry::{Registry, Shared, TraceContext};
use plimsoll::units::Period;
use serde_json::json;
use tokio::net::TcpStream;

use self::events::Heard;
use self::spans::{Spans, attribute};
use crate::support::http::Ask;
use crate::support::instances::no_instances;
use crate::support::server::Server;
use crate::support::upstream::{Reply, STOP, USAGE, Upstream, delta, refusal, stream, stream_head, whole};

pub(crate) const KEY: &str = "sk-very-secret";

const PROMPT: &str = "between-you-and-me";

/// A gateway with one agent, `a`, and where it records.
pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) live: Arc<Live>,
    journal: Arc<MemoryJournal>,
    registry: Registry,
}

impl House {
    /// Sends as a caller that brings a trace.
    pub(crate) fn send(&self, request: SendRequest) -> Accepted {
        let trace = TraceContext::parse(TRACEPARENT).map(|trace| trace.with_state(TRACESTATE));
        let caller = Caller { actor: Actor::Local, channel: Channel::Ws, trace };
        self.gateway.send(caller, request).expect("accepted")
    }
}

pub(crate) fn config(base_url: String) -> OpenAiConfig {
    OpenAiConfig { base_url: Some(base_url), remote: remote() }
}

pub(crate) fn remote() -> RemoteConfig {
    RemoteConfig {
        api_key: Some(Secret::new(KEY.to_owned(), "${KEY}")),
        retries: 0,
        idle_timeout: Period::from_secs(30),
        ..RemoteConfig::default()
    }
}

pub(crate) fn house(config: OpenAiConfig) -> House {
    house_of(&provider::Config::OpenAi(config))
}

pub(crate) fn house_of(config: &provider::Config) -> House {
    let clock = Clock::system();
    let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
    let live = Live::new(&live::Config::default(), &registry, clock.clone());
    let price = Price { input: 1.0, output: 10.0, cache_read: Some(0.1), cache_write: Some(1.25) };
    // `m-1` is asked for and `m-2` answers: what the one costs says nothing of the other.
    let dear = Price { input: 1e6, ..price };
    let prices = Arc::new(BTreeMap::from([("m-1".to_owned(), dear), ("m-2".to_owned(), price)]));
    let deps = ProviderDeps {
        prices,
        live: Arc::clone(&live),
        clock: clock.clone(),
        mask: Mask::default(),
        processes: Processes::default(),
    };
    let provider = provider::build("p", config, &deps).expect("a good configuration");
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    let agent = AgentConfig {
        model: Some("m-1".to_owned()),
        system: Some("be brief".to_owned()),
        ..AgentConfig::of_provider("p")
    };
    let parts = GatewayParts {
        config: gateway::Config::default(),
        templates: BTreeMap::new(),
        agents: BTreeMap::from([(agent_id(), agent)]),
        providers: BTreeMap::from([("p".to_owned(), provider)]),
        instances: no_instances(&journal, &registry, &clock),
        read_entry: Arc::new(|_, _| Err(Vec::new())),
        live: Arc::clone(&live),
        journal: journal.clone(),
        registry: registry.clone(),
        shared: Shared::new(&registry),
        clock,
    };
    House { gateway: Gateway::new(parts).expect("the provider is there"), live, journal, registry }
}

pub(crate) fn agent_id() -> AgentId {
    AgentId::parse("a").expect("valid")
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACESTATE: &str = "rojo=00f067aa0ba902b7,congo=t61";

pub(crate) fn request(session: &str, message: &str) -> SendRequest {
    SendRequest {
        session: Some(SessionId::parse(session).expect("valid")),
        deadline: Some(Duration::from_secs(60)),
        ..SendRequest::new(agent_id(), message.to_owned())
    }
}

pub(crate) async fn ask(house: &House, message: &str) -> (Vec<AgentEvent>, Result<Answer, Rejection>) {
    let Accepted { mut events, outcome, .. } = house.send(request("s", message));
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        seen.push(event);
    }
    let ended = outcome.await.expect("every request has an outcome");
    (seen, ended.map(Arc::unwrap_or_clone).map_err(Arc::unwrap_or_clone))
}

pub(crate) fn last_call(house: &House) -> ModelCall {
    house.live.model_calls().recent.first().expect("a model call").as_ref().clone()
}

/// What the journal says of the last request.
pub(crate) fn recorded(house: &House) -> serde_json::Value {
    let page = house.journal.scan(&Scan { limit: 1, newest_first: true, ..Scan::default() });
    page.expect("memory can be read").records.remove(0).detail
}

fn counted(house: &House, outcome: &str) -> bool {
    let series = format!(r#"plimsoll_requests_total{{agent="a",outcome="{outcome}"}} 1"#);
    house.registry.render().lines().any(|line| line == series)
}

#[tokio::test]
async fn a_streamed_answer_is_measured_priced_and_remembered() {
    let (one, two) = (delta("Hello"), delta(" world"));
    let upstream = Upstream::start(vec![stream(&[&one, &two, STOP, USAGE, "[DONE]"])]).await;
    let house = house(config(upstream.base_url()));
    let (events, answer) = ask(&house, "hi").await;
    let answer = answer.expect("answered");
    assert_eq!(answer.text, "Hello world");
    assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (Some(12), Some(3)));
    assert!(answer.timings.first_token_ms.is_some());
    assert!(events.contains(&AgentEvent::Delta { text: " world".to_owned() }));
    let call = last_call(&house);
    assert_eq!((call.provider.as_str(), call.model.as_str(), call.error), ("openai", "m-2", None));
    assert!(call.time_to_first_token.is_some() && call.tokens_per_sec.is_some());
    assert!((call.cost_usd.expect("m-2 has a price") - 0.000_042).abs() < 1e-9);
    assert_eq!(call.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");

    ask(&house, "again").await.1.expect("answered");
    let requests = upstream.requests();
    let body = &requests[1].body;
    let said: Vec<_> = body["messages"].as_array().expect("a list").iter().map(|m| &m["content"]).collect();
    assert_eq!(said, ["be brief", "hi", "Hello world", "again"]);
    assert_eq!((&body["model"], &body["stream"]), (&"m-1".into(), &true.into()));
    assert_eq!(body["stream_options"]["include_usage"], true);
    assert!(requests[1].head.contains(&format!("authorization: bearer {KEY}")), "{}", requests[1].head);
    assert!(requests[1].head.contains("accept: text/event-stream"));
    assert!(requests[1].head.contains("user-agent: plimsoll/"));
}

#[tokio::test]
async fn a_conversation_that_its_caller_keeps_is_sent_as_given_and_not_remembered() {
    let upstream = Upstream::start(vec![stream(&[&delta("yes"), STOP, "[DONE]"])]).await;
    let house = house(config(upstream.base_url()));
    let say = |role, text: &str| Message { role, text: text.into() };
    let given = vec![say(Speaker::User, "one"), say(Speaker::Assistant, "two")];
    let alone = SendRequest {
        session: None,
        system: Some("in French".to_owned()),
        history: Some(given),
        ..request("s", "three")
    };
    for _ in 0..2 {
        let Accepted { request_id, session, events, outcome } = house.send(alone.clone());
        drop(events);
        assert_eq!(session.as_str(), request_id.as_str(), "a lane of its own");
        let answer = outcome.await.expect("an outcome").expect("an answer");
        assert_eq!((answer.text.as_str(), answer.finish_reason.as_deref()), ("yes", Some("stop")));
    }
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let expected = json!([
        said("system", "be brief\n\nin French"),
        said("user", "one"),
        said("assistant", "two"),
        said("user", "three")
    ]);
    for request in upstream.requests() {
        assert_eq!(request.body["messages"], expected);
    }
    assert_eq!((upstream.requests().len(), house.gateway.sessions()), (2, vec![]));
}

#[tokio::test]
async fn a_whole_answer_is_one_delta_and_has_no_first_token() {
    let body = r#"{"model":"m-2","choices":[{"message":{"role":"assistant","content":"All"},"finish_reason":"stop"}]}"#;
    let upstream = Upstream::start(vec![whole(body)]).await;
    let house = house(OpenAiConfig {
        base_url: Some(upstream.base_url()),
        remote: RemoteConfig { stream: false, ..remote() },
    });
    let answer = ask(&house, "hi").await.1.expect("answered");
    assert_eq!(answer.text, "All");
    assert_eq!(answer.usage.input_tokens, None, "no usage is null, not 0");
    assert_eq!((last_call(&house).time_to_first_token, last_call(&house).cost_usd), (None, None));
    assert_eq!(upstream.requests()[0].body.get("stream_options"), None);
}

#[tokio::test]
async fn tools_that_the_model_asks_for_are_listed_not_run() {
    let call = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"search","arguments":""}}]}}]}"#;
    let more = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#;
    let end = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
    let upstream = Upstream::start(vec![stream(&[call, more, end, "[DONE]"])]).await;
    let house = house(config(upstream.base_url()));
    let answer = ask(&house, "hi").await.1.expect("answered");
    let tools: Vec<_> = answer.tool_calls.iter().map(|tool| (tool.name.as_str(), tool.ok)).collect();
    assert_eq!(tools, [("search", None)]);
}

#[tokio::test]
async fn characters_and_events_cut_anywhere_arrive_whole() {
    let events = [delta("grün €"), STOP.to_owned(), "[DONE]".to_owned()];
    let text: String = events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect();
    let bytes = [stream_head(), text.replace("\\u20ac", "€").into_bytes()].concat();
    let upstream = Upstream::start(vec![Reply::Parts(bytes.iter().map(|byte| vec![*byte]).collect())]).await;
    let house = house(config(upstream.base_url()));
    assert_eq!(ask(&house, "hi").await.1.expect("answered").text, "grün €");
}

#[tokio::test]
async fn one_trace_runs_from_the_caller_to_the_model_server() {
    let spans = Spans::default();
    let collecting = spans.collect();
    let (one, two) = (delta("Hello"), delta(" world"));
    let upstream = Upstream::start(vec![stream(&[&one, &two, STOP, USAGE, "[DONE]"])]).await;
    let house = house(config(upstream.base_url()));
    ask(&house, "hi").await.1.expect("answered");
    drop(collecting);

    let [send, wait, invoke, chat] =
        ["agent.send", "lane.wait", "invoke_agent a", "chat m-1"].map(|name| spans.named(name));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for span in [&send, &wait, &invoke, &chat] {
        assert_eq!(span.span_context.trace_id().to_string(), trace, "{}", span.name);
    }
    assert_eq!(
        (send.parent_span_id.to_string().as_str(), send.parent_span_is_remote),
        ("b7ad6b7169203331", true)
    );
    assert_eq!(wait.parent_span_id, send.span_context.span_id());
    assert_eq!(invoke.parent_span_id, send.span_context.span_id());
    assert_eq!(chat.parent_span_id, invoke.span_context.span_id());
    assert_eq!(
        [&send.span_kind, &invoke.span_kind, &chat.span_kind],
        [&SpanKind::Server, &SpanKind::Internal, &SpanKind::Client]
    );
    assert_eq!(attribute(&send, "rpc.system.name"), "jsonrpc");
    assert_eq!(attribute(&invoke, "gen_ai.agent.name"), "a");
    assert!(send.events.iter().any(|event| event.name == "request_finished"));
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "m-1"),
        ("gen_ai.response.model", "m-2"),
        ("gen_ai.response.id", "c1"),
        ("gen_ai.response.finish_reasons", r#"["stop"]"#),
        ("gen_ai.usage.input_tokens", "12"),
        ("gen_ai.usage.output_tokens", "3"),
        ("gen_ai.conversation.id", "s"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(&chat, name), value, "{name}");
    }
    let sent = format!("traceparent: 00-{trace}-{}-01", chat.span_context.span_id());
    let head = upstream.requests()[0].head.clone();
    assert!(head.contains(&sent) && head.contains(&format!("tracestate: {TRACESTATE}")), "{sent} in {head}");
}

#[tokio::test]
async fn the_span_says_that_the_journal_did_not_take_the_record() {
    let spans = Spans::default();
    let collecting = spans.collect();
    let upstream = Upstream::start(vec![stream(&[&delta("ok"), STOP, "[DONE]"])]).await;
    let house = house(config(upstream.base_url()));
    house.journal.close();
    ask(&house, "hi").await.1.expect("answered");
    drop(collecting);
    let send = spans.named("agent.send");
    let [event] = &send.events.events[..] else { panic!("{:?}", send.events) };
    let told: Vec<_> = event.attributes.iter().map(|a| (a.key.as_str(), a.value.as_str())).collect();
    assert_eq!(event.name, "request_finished");
    assert_eq!(told, [("stream", "request".into()), ("dropped", "closed".into())]);
    let counted = r#"plimsoll_dropped_total{what="request_finished",reason="closed"} 1"#;
    assert!(house.registry.render().lines().any(|line| line == counted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_context_goes_from_the_headers_or_the_call_to_the_model_server() {
    let upstream = Upstream::start(vec![stream(&[&delta("ok"), STOP, "[DONE]"])]).await;
    let provider = json!({"kind": "openai", "base_url": upstream.base_url()});
    let server = Server::start(
        json!({"providers": {"p": provider}, "agents": {"a": {"provider": "p", "model": "m"}}}),
    )
    .await;
    let other = TRACEPARENT.replace("00-0a", "00-1b");
    for meta in [
        json!({}),
        json!({"traceparent": other, "tracestate": "mine=3"}),
        json!({"traceparent": other}),
        json!({"tracestate": "lost=4"}),
    ] {
        let call = Ask::call("agent.send", json!({"agent": "a", "message": "hi", "_meta": meta}))
            .header("traceparent", TRACEPARENT)
            .header("tracestate", "rojo=1")
            .header("tracestate", "congo=2");
        assert_eq!(call.send(server.address()).await.json()["result"]["text"], "ok");
    }
    let heads = upstream.requests().into_iter().map(|request| request.head);
    let found: Vec<_> = heads
        .map(|head| {
            let line = head.lines().find_map(|line| line.strip_prefix("tracestate: "));
            (head.contains("traceparent: 00-1b"), line.map(str::to_owned))
        })
        .collect();
    let from_headers = (false, Some("rojo=1,congo=2".to_owned()));
    let expected = [from_headers.clone(), (true, Some("mine=3".to_owned())), (true, None), from_headers];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_failed_call_marks_its_spans() {
    let spans = Spans::default();
    let collecting = spans.collect();
    let quoting = refusal("500 Internal Server Error", "", &format!("you said {PROMPT}"));
    let upstream = Upstream::start(vec![quoting]).await;
    let house = house(OpenAiConfig {
        base_url: Some(upstream.base_url()),
        remote: RemoteConfig { retries: 1, ..remote() },
    });
    let rejection = ask(&house, PROMPT).await.1.expect_err("failed");
    assert!(rejection.quoted().is_some_and(|quoted| quoted.contains(PROMPT)));
    drop(collecting);
    assert!(!spans.all().contains(PROMPT), "{}", spans.all());
    let (send, chat) = (spans.named("agent.send"), spans.last("chat m-1"));
    assert_eq!(
        (attribute(&chat, "error.type"), attribute(&send, "error.type")),
        ("500".into(), "-32007".into())
    );
    assert_eq!(attribute(&send, "rpc.response.status_code"), "-32007");
    assert!([&send, &chat].iter().all(|span| matches!(span.status, Status::Error { .. })));
}

/// Asks once; expects a failed request with this `error.type`, this in its message and this partial text; and that all
/// of it was recorded: the model call, the error event with its context, the outcome, and a free lane.
async fn fails(config: OpenAiConfig, error_type: &str, says: &str, partial: &str) -> House {
    fails_of(&provider::Config::OpenAi(config), error_type, says, partial).await
}

pub(crate) async fn fails_of(
    config: &provider::Config,
    error_type: &str,
    says: &str,
    partial: &str,
) -> House {
    let heard = Heard::default();
    let _listening = heard.listen();
    let house = house_of(config);
    let (events, result) = ask(&house, "hi").await;
    let Err(rejection) = result else { panic!("{error_type}: {result:?}") };
    let text = [&rejection.to_string(), rejection.quoted().unwrap_or_default()].join(": ");
    assert_eq!((rejection.code(), rejection.partial()), (-32007, Some(partial)), "{text}");
    assert!(text.contains(says), "{error_type}: {text}");
    assert!(!text.contains(KEY), "{text}");
    assert!(matches!(events.last(), Some(AgentEvent::Error { code: -32007, .. })), "{events:?}");
    assert_eq!(last_call(&house).error.as_deref(), Some(error_type));
    assert_eq!(recorded(&house)["modelCalls"], house.live.model_calls().total);
    assert!(counted(&house, "failed"), "{error_type}");
    let errors = heard.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for field in ["source=agent.send", "session_id=s", "agent=a", "request_id=", "cause="] {
        assert!(errors[0].contains(field), "{field} in {errors:?}");
    }
    assert!(rejection.quoted().is_none_or(|quoted| !errors[0].contains(quoted)), "{errors:?}");
    assert!(house.gateway.active().is_empty());
    house
}

async fn fails_on(reply: Reply, error_type: &str, says: &str, partial: &str) {
    let upstream = Upstream::start(vec![reply]).await;
    fails(config(upstream.base_url()), error_type, says, partial).await;
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_a_connection_error() {
    let gone = Upstream::start(vec![stream(&[])]).await.base_url();
    fails(config(gone), "connection", "it is refused", "").await;
}

#[tokio::test]
async fn a_server_that_hangs_before_or_in_its_answer_times_out() {
    let hello = format!("data: {}\n\n", delta("Hel")).into_bytes();
    for (bytes, partial) in [(Vec::new(), ""), ([stream_head(), hello].concat(), "Hel")] {
        let upstream = Upstream::start(vec![Reply::Hang(bytes)]).await;
        let impatient = OpenAiConfig {
            base_url: Some(upstream.base_url()),
            remote: RemoteConfig { idle_timeout: Period::from_millis(200), ..remote() },
        };
        fails(impatient, "timeout", "silent for 200 ms", partial).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_fails_with_what_had_come() {
    fails_on(stream(&[&delta("Hel")]), "stream_cut", "cut its answer short", "Hel").await;
    let half = [stream_head(), format!("data: {}", &delta("lo")[..20]).into_bytes()].concat();
    fails_on(Reply::Parts(vec![half]), "stream_cut", "cut its answer short", "").await;
    let chunked =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:";
    fails_on(Reply::Parts(vec![chunked.to_vec()]), "stream_cut", "cut its answer short", "").await;
}

#[tokio::test]
async fn a_stream_without_done_is_whole_once_it_says_why_it_stopped() {
    let upstream = Upstream::start(vec![stream(&[&delta("ok"), STOP])]).await;
    let house = house(config(upstream.base_url()));
    assert_eq!(ask(&house, "hi").await.1.expect("answered").text, "ok");
}

#[tokio::test]
async fn a_server_that_falls_silent_after_the_finish_reason_has_answered_and_late_tokens_count() {
    let event = |data: &str| format!("data: {data}\n\n").into_bytes();
    let whole = [stream_head(), event(&delta("ok")), event(STOP)].concat();
    let ends = async |reply: Reply| {
        let upstream = Upstream::start(vec![reply]).await;
        let house = house(config(upstream.base_url()));
        let answer = ask(&house, "hi").await.1.expect("answered");
        assert_eq!((answer.text.as_str(), last_call(&house).error), ("ok", None));
        answer.usage.input_tokens
    };
    let (told, late, untold, chatty) = tokio::join!(
        ends(Reply::Hang([&whole[..], &event(USAGE)].concat())),
        ends(Reply::Pause(whole.clone(), Duration::from_secs(3), event(USAGE))),
        ends(Reply::Hang(whole.clone())),
        ends(Reply::Chatter([&whole[..], &event(USAGE)].concat(), b": still here\n\n".to_vec())),
    );
    assert_eq!((told, late, untold, chatty), (Some(12), Some(12), None, Some(12)));
}

/// A queue of one connection that nobody empties: Linux drops what else asks for one.
#[tokio::test]
async fn a_connection_that_does_not_come_about_costs_no_more_than_its_limit() {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("bound");
    let mut waiting = Vec::new();
    let connect = || tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address));
    while let Ok(connected) = connect().await {
        waiting.push(connected.expect("a place in the queue"));
        assert!(waiting.len() < 100, "the queue has no end");
    }
    let limit = Period::from_millis(300);
    let unreachable = OpenAiConfig {
        base_url: Some(format!("http://{address}/v1")),
        remote: RemoteConfig { connect_timeout: limit, ..remote() },
    };
    let house = fails(unreachable, "connection", "no connection to the provider: it took too long", "").await;
    let latency = last_call(&house).latency;
    assert!((300.0..30_000.0).contains(&latency), "{latency} ms, not until it had been silent for too long");
}

#[tokio::test]
async fn rubbish_is_an_answer_that_cannot_be_read() {
    fails_on(whole("<html>hello</html>"), "unreadable_answer", "it is no JSON", "").await;
    fails_on(whole(r#"{"choices": 7}"#), "unreadable_answer", "another shape", "").await;
    fails_on(stream(&[&delta("a"), "{oops"]), "unreadable_answer", "it is no JSON", "a").await;
    let not_text = [stream_head(), b"data: {\"model\":\"\xff\xfe\"}\n\n".to_vec()].concat();
    fails_on(Reply::Parts(vec![not_text]), "unreadable_answer", "it is no JSON", "").await;
    fails_on(Reply::Parts(vec![b"hello?\r\n\r\n".to_vec()]), "unreadable_answer", "it is no HTTP", "").await;
}

#[tokio::test]
async fn an_answer_without_choices_is_empty() {
    fails_on(whole(r#"{"choices":[]}"#), "empty_answer", "is empty", "").await;
    fails_on(stream(&[USAGE, "[DONE]"]), "empty_answer", "is empty", "").await;
    fails_on(whole(""), "empty_answer", "is empty", "").await;
}

#[tokio::test]
async fn an_error_inside_a_stream_or_a_good_status_is_told() {
    let error = r#"{"error":{"message":"overloaded, key sk-very-secret","type":"server_error"}}"#;
    fails_on(stream(&[&delta("Hel"), error]), "provider_error", "overloaded, key ***", "Hel").await;
    fails_on(whole(error), "provider_error", "overloaded, key ***", "").await;
}

#[tokio::test]
async fn error_statuses_are_told_with_their_words_masked() {
    let body = r#"{"error":{"message":"Incorrect API key sk-very-secret"}}"#;
    for (status, error_type) in
        [("401 Unauthorized", "401"), ("404 Not Found", "404"), ("500 Internal Server Error", "500")]
    {
        let says = format!("answered HTTP {error_type}: Incorrect API key ***");
        fails_on(refusal(status, "", body), error_type, &says, "").await;
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let elsewhere = Upstream::start(vec![stream(&[&delta("stolen"), STOP])]).await;
    let location = format!("location: {}/chat/completions\r\n", elsewhere.base_url());
    fails_on(refusal("307 Temporary Redirect", &location, ""), "307", "answered HTTP 307", "").await;
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_429_is_tried_again_when_it_says_so() {
    let busy = refusal("429 Too Many Requests", "retry-after: 1\r\n", r#"{"error":"slow down"}"#);
    let upstream = Upstream::start(vec![busy, stream(&[&delta("ok"), STOP, "[DONE]"])]).await;
    let house = house(OpenAiConfig {
        base_url: Some(upstream.base_url()),
        remote: RemoteConfig { retries: 2, ..remote() },
    });
    let (events, answer) = ask(&house, "hi").await;
    assert_eq!(answer.expect("answered").text, "ok");
    let retry = events.iter().find_map(|event| match event {
        AgentEvent::Retry { attempt, after_ms, cause } => Some((*attempt, *after_ms, cause.clone())),
        _ => None,
    });
    let (attempt, after_ms, cause) = retry.expect("a retry");
    assert!(attempt == 1 && after_ms >= 1_000 && cause.contains("429: slow down"), "{after_ms} {cause}");
    let calls = house.live.model_calls();
    assert_eq!((calls.total, calls.recent[1].error.as_deref()), (2, Some("429")));
}

#[tokio::test]
async fn tries_end_at_their_number_and_never_pass_the_deadline() {
    let upstream = Upstream::start(vec![refusal("503 Service Unavailable", "", "")]).await;
    fails(
        OpenAiConfig { base_url: Some(upstream.base_url()), remote: RemoteConfig { retries: 2, ..remote() } },
        "503",
        "HTTP 503",
        "",
    )
    .await;
    assert_eq!(upstream.requests().len(), 3);

    for later in ["3600", "18446744073709551615"] {
        let later = refusal("429 Too Many Requests", &format!("retry-after: {later}\r\n"), "");
        let upstream = Upstream::start(vec![later]).await;
        let config = OpenAiConfig {
            base_url: Some(upstream.base_url()),
            remote: RemoteConfig { retries: 5, ..remote() },
        };
        let house = fails(config, "429", "HTTP 429", "").await;
        assert_eq!(house.live.model_calls().total, 1);
    }
}

#[tokio::test]
async fn an_answer_that_was_begun_is_never_asked_for_again() {
    let upstream = Upstream::start(vec![stream(&[&delta("Hel")])]).await;
    fails(
        OpenAiConfig { base_url: Some(upstream.base_url()), remote: RemoteConfig { retries: 5, ..remote() } },
        "stream_cut",
        "cut",
        "Hel",
    )
    .await;
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_cancelled_call_is_recorded_and_its_connection_closed() {
    let hello = format!("data: {}\n\n", delta("Hel")).into_bytes();
    let upstream = Upstream::start(vec![Reply::Hang([stream_head(), hello].concat())]).await;
    let house = house(config(upstream.base_url()));
    let sent = house.send(SendRequest { session: None, ..request("s", "hi") });
    let Accepted { mut events, outcome, request_id, session } = sent;
    assert_eq!(session.as_str(), "default/local");
    while !matches!(events.recv().await.expect("not ended"), AgentEvent::Delta { .. }) {}
    assert!(house.gateway.cancel(&request_id, "by its caller"));
    let rejection = outcome.await.expect("an outcome").expect_err("cancelled");
    assert_eq!((rejection.code(), rejection.partial()), (-32005, Some("Hel")));
    assert_eq!(last_call(&house).error.as_deref(), Some("cancelled"));
    assert_eq!(recorded(&house)["modelCalls"], 1);
}

#[tokio::test]
async fn a_call_that_the_deadline_cuts_off_is_recorded_with_what_it_had_used() {
    let hello = format!("data: {}\n\ndata: {USAGE}\n\n", delta("Hel")).into_bytes();
    let upstream = Upstream::start(vec![Reply::Hang([stream_head(), hello].concat())]).await;
    let house = house(config(upstream.base_url()));
    let sent = house.send(SendRequest { deadline: Some(Duration::from_secs(1)), ..request("s", "hi") });
    let Accepted { events, outcome, .. } = sent;
    drop(events);
    let rejection = outcome.await.expect("an outcome").expect_err("out of time");
    assert_eq!((rejection.code(), rejection.partial()), (-32004, Some("Hel")));
    let call = last_call(&house);
    assert_eq!((call.error.as_deref(), call.input_tokens), (Some("deadline"), Some(12)));
    let recorded = recorded(&house);
    assert_eq!((&recorded["modelCalls"], &recorded["tokens"]["inputTokens"]), (&1.into(), &12.into()));
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_recorded_as_that() {
    let long = delta(&"x".repeat(ANSWER_BYTES_MAX));
    // In one piece, so that the end is there before anybody has taken what is too long.
    let events = [&delta("a"), &long, STOP, "[DONE]"].map(|data| format!("data: {data}\n\n").into_bytes());
    let at_once = Reply::Parts(vec![[stream_head(), events.concat()].concat()]);
    fails_on(at_once, "answer_too_large", "larger than", "a").await;
    fails_on(whole(&delta(&"x".repeat(ANSWER_BYTES_MAX + 1))), "answer_too_large", "larger than", "").await;
}

#[tokio::test]
async fn tls_is_trusted_through_the_ca_file_and_not_without_it() {
    let (one, end) = (delta("safe"), STOP);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ca_file = dir.path().join("ca.pem");
    let upstream = Upstream::start_tls(vec![stream(&[&one, end, "[DONE]"])], &ca_file).await;
    let trusting = OpenAiConfig {
        base_url: Some(upstream.base_url()),
        remote: RemoteConfig { ca_file: Some(ca_file), ..remote() },
    };
    assert_eq!(ask(&house(trusting), "hi").await.1.expect("answered").text, "safe");
    fails(config(upstream.base_url()), "connection", "TLS: its certificate", "").await;
}

#[tokio::test]
async fn a_check_says_whether_the_server_lets_us_in() {
    let deps = |live| ProviderDeps {
        prices: Arc::default(),
        live,
        clock: Clock::system(),
        mask: Mask::default(),
        processes: Processes::default(),
    };
    let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
    let live = Live::new(&live::Config::default(), &registry, Clock::system());
    for (reply, good) in [(whole(r#"{"data":[]}"#), true), (refusal("401 Unauthorized", "", "no"), false)] {
        let upstream = Upstream::start(vec![reply]).await;
        let wanted = provider::Config::OpenAi(config(upstream.base_url()));
        let provider = provider::build("p", &wanted, &deps(Arc::clone(&live))).expect("a good configuration");
        assert_eq!(provider.check().await.is_ok(), good);
        assert!(upstream.requests()[0].head.starts_with("get /v1/models "));
    }
}

#[test]
fn bad_configurations_are_refused_by_name() {
    let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
    let live = Live::new(&live::Config::default(), &registry, Clock::system());
    let deps = ProviderDeps {
        prices: Arc::default(),
        live,
        clock: Clock::system(),
        mask: Mask::default(),
        processes: Processes::default(),
    };
    let good = config("http://127.0.0.1:1/v1".to_owned());
    let of = |remote| OpenAiConfig { base_url: Some("https://h/v1".to_owned()), remote };
    let file = Some(PathBuf::from("/nowhere"));
    let broken = [
        (OpenAiConfig { base_url: Some("localhost".to_owned()), ..good.clone() }, "base_url"),
        (OpenAiConfig { base_url: Some("ftp://h/".to_owned()), ..good.clone() }, "http"),
        (OpenAiConfig { base_url: Some("http://u:p@h/".to_owned()), ..good.clone() }, "credentials"),
        (of(RemoteConfig { api_key_file: file.clone(), ..remote() }), "not both"),
        (of(RemoteConfig { api_key: None, api_key_file: file.clone(), ..remote() }), "/nowhere"),
        (of(RemoteConfig { ca_file: file, ..remote() }), "ca_file /nowhere"),
    ];
    for (config, says) in broken {
        let problem = provider::build("mine", &provider::Config::OpenAi(config), &deps).err();
        let problem = problem.expect("refused").to_string();
        assert!(problem.contains("mine") && problem.contains(says), "{problem}");
        assert!(!problem.contains("u:p"), "{problem}");
    }
    assert!(provider::build("mine", &provider::Config::OpenAi(good), &deps).is_ok());
}
