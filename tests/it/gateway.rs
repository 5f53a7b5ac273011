//! The gateway with the echo provider, in this process: what goes in comes out, in order, whatever happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use opentelemetry::trace::{SpanKind, Status};
use plimsoll::clock::Clock;
use plimsoll::gateway::{
    self, Accepted, AgentConfig, AgentEvent, Answer, Caller, Channel, Gateway, GatewayParts, OnDisconnect,
    Outcome, REQUEST_FINISHED, REQUEST_FINISHED_VERSION, Rejection, RequestFinished, SendRequest, Timings,
    ToolCounts, Usage,
};
use plimsoll::ids::{AgentId, IdempotencyKey, RequestId, SessionId};
use plimsoll::journal::{Actor, Journal as _, MemoryJournal, Scan};
use plimsoll::live::{self, Live};
use plimsoll::process::Processes;
use plimsoll::provider::{
    self, Asked, EchoConfig, Hosting, Mask, Message, ModelUsed, Provider, ProviderDeps, ProviderError,
    ProviderEvent, Speaker, Turn,
};
use plimsoll::telemetry::{Registry, Shared};
use plimsoll::units::Period;
use serde_json::json;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::provider::events::Heard;
use crate::provider::spans::{Spans, attribute};
use crate::support::instances::no_instances;
use crate::support::subscriber::listen;

/// A gateway and what it writes to.
struct House {
    gateway: Gateway,
    journal: Arc<MemoryJournal>,
    registry: Registry,
}

fn house(config: gateway::Config, provider: EchoConfig) -> House {
    house_of(config, |deps| {
        provider::build("p", &provider::Config::Echo(provider), &deps).expect("echo needs nothing")
    })
}

fn house_of(config: gateway::Config, provider: impl FnOnce(ProviderDeps) -> Arc<dyn Provider>) -> House {
    let clock = Clock::system();
    let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
    let live = Live::new(&live::Config::default(), &registry, clock.clone());
    let deps = ProviderDeps {
        prices: Arc::default(),
        live: Arc::clone(&live),
        clock: clock.clone(),
        mask: Mask::default(),
        processes: Processes::default(),
    };
    let provider = provider(deps);
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    let agents = ["a", "b"].map(|id| (agent(id), AgentConfig::of_provider("p")));
    let parts = GatewayParts {
        config,
        templates: BTreeMap::new(),
        agents: BTreeMap::from(agents),
        providers: BTreeMap::from([("p".to_owned(), provider)]),
        instances: no_instances(&journal, &registry, &clock),
        read_entry: Arc::new(|_, _| Err(Vec::new())),
        live,
        journal: journal.clone(),
        registry: registry.clone(),
        shared: Shared::new(&registry),
        clock,
    };
    House { gateway: Gateway::new(parts).expect("the provider is there"), journal, registry }
}

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).expect("valid")
}

fn caller() -> Caller {
    Caller { actor: Actor::Local, channel: Channel::Ws, trace: None }
}

fn to(session: &str, message: &str) -> SendRequest {
    SendRequest {
        session: Some(SessionId::parse(session).expect("valid")),
        ..SendRequest::new(agent("a"), message.to_owned())
    }
}

/// Reads a request to its end.
async fn finish(accepted: Accepted) -> (Vec<AgentEvent>, Result<Answer, Rejection>) {
    let Accepted { mut events, outcome, .. } = accepted;
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        seen.push(event);
    }
    let ended = outcome.await.expect("every request has an outcome");
    (seen, ended.map(Arc::unwrap_or_clone).map_err(Arc::unwrap_or_clone))
}

async fn ask(house: &House, request: SendRequest) -> Result<Answer, Rejection> {
    finish(house.gateway.send(caller(), request)?).await.1
}

fn journaled(house: &House) -> Vec<serde_json::Value> {
    let page = house.journal.scan(&Scan { limit: 10_000, ..Scan::default() }).expect("memory can be read");
    page.records.into_iter().map(|record| record.detail).collect()
}

fn series(house: &House, name: &str) -> f64 {
    house.gateway.refresh_gauges();
    let text = house.registry.render();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

fn slow() -> EchoConfig {
    EchoConfig { latency: Period::from_secs(3_600), ..EchoConfig::default() }
}

#[tokio::test]
async fn an_answer_comes_back_with_its_events_in_order() {
    let house = house(gateway::Config::default(), EchoConfig::default());
    let accepted = house.gateway.send(caller(), to("s", "one two three")).expect("accepted");
    let (events, answer) = finish(accepted).await;
    let answer = answer.expect("answered");
    assert_eq!(answer.text, "one two three");
    assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (Some(3), Some(3)));
    assert!(matches!(events[0], AgentEvent::Queued { ahead: 0 }), "{events:?}");
    assert!(matches!(events[1], AgentEvent::Start { .. }), "{events:?}");
    assert_eq!(events[2], AgentEvent::Delta { text: "one ".to_owned() });
    assert_eq!((events.len(), events.last()), (6, Some(&AgentEvent::End)));
    let history = house.gateway.history(&agent("a"), &answer.session).expect("kept");
    assert_eq!(history.len(), 2);
}

#[tokio::test]
async fn a_lane_answers_in_order_and_everything_is_counted_once() {
    let house = house(gateway::Config::default(), EchoConfig::default());
    let sent: Vec<_> = (0..100)
        .map(|i| house.gateway.send(caller(), to(&format!("s{}", i % 5), &i.to_string())).expect("accepted"))
        .collect();
    for (i, accepted) in sent.into_iter().enumerate() {
        assert_eq!(finish(accepted).await.1.expect("answered").text, i.to_string());
    }
    assert_eq!(journaled(&house).len(), 100);
    let ids: Vec<_> =
        house.gateway.history(&agent("a"), &SessionId::parse("s3").expect("valid")).expect("kept");
    let said: Vec<_> = ids.iter().step_by(2).map(|m| m.text.to_string()).collect();
    assert_eq!(said, (0..20).map(|i| (i * 5 + 3).to_string()).collect::<Vec<_>>());
    assert_eq!(series(&house, r#"plimsoll_requests_total{agent="a",outcome="ok"}"#), 100.0);
    assert_eq!(series(&house, r#"plimsoll_requests_total{agent="b",outcome="ok"}"#), 0.0);
    assert_eq!(series(&house, r#"plimsoll_requests_active{agent="a"}"#), 0.0);
    assert_eq!(series(&house, "plimsoll_lanes"), 0.0);
    assert_eq!(series(&house, "plimsoll_sessions"), 5.0);
}

#[tokio::test]
async fn a_cancelled_request_frees_its_lane_at_once() {
    let house = house(gateway::Config::default(), slow());
    let mut request = to("s", "hello");
    request.request_id = Some(RequestId::parse("mine").expect("valid"));
    let running = house.gateway.send(caller(), request.clone()).expect("accepted");
    let waiting = house.gateway.send(caller(), to("s", "next")).expect("accepted");
    let duplicate = house.gateway.send(caller(), request.clone());
    assert!(matches!(duplicate, Err(Rejection::DuplicateRequest { .. })));
    assert_eq!(house.gateway.active().len(), 2);
    assert!(house.gateway.cancel(&running.request_id, "by its caller"));
    let (events, result) = finish(running).await;
    assert!(matches!(result, Err(Rejection::Cancelled { reason: "by its caller", .. })));
    assert!(matches!(events.last(), Some(AgentEvent::Error { code: -32005, .. })));
    assert!(house.gateway.cancel(&waiting.request_id, "too"));
    assert!(finish(waiting).await.1.is_err());
    assert!(house.gateway.active().is_empty());
    assert_eq!(series(&house, r#"plimsoll_requests_total{agent="a",outcome="cancelled"}"#), 2.0);
    assert!(!house.gateway.cancel(&RequestId::parse("mine").expect("valid"), "again"));
}

#[tokio::test]
async fn a_deadline_ends_a_request_that_runs_and_one_that_waits() {
    let house = house(gateway::Config::default(), slow());
    let mut request = to("s", "hello");
    request.deadline = Some(Duration::from_millis(30));
    let running = house.gateway.send(caller(), request.clone()).expect("accepted");
    let waiting = house.gateway.send(caller(), request).expect("accepted");
    for accepted in [running, waiting] {
        let result = finish(accepted).await.1;
        assert!(matches!(result, Err(Rejection::Deadline { deadline_ms: 30, .. })), "{result:?}");
    }
    assert_eq!(series(&house, r#"plimsoll_requests_total{agent="a",outcome="deadline"}"#), 2.0);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_only_if_it_asked_for_that() {
    let house = house(gateway::Config::default(), EchoConfig::default());
    drop(house.gateway.send(caller(), to("s", "finish")).expect("accepted"));
    assert_eq!(ask(&house, to("s", "after")).await.expect("answered").text, "after");
    let ok = || series(&house, r#"plimsoll_requests_total{agent="a",outcome="ok"}"#);
    assert_eq!(ok(), 2.0, "the first one ran to its end");

    let mut request = to("t", "cancel");
    request.on_disconnect = OnDisconnect::Cancel;
    drop(house.gateway.send(caller(), request).expect("accepted"));
    assert_eq!(ask(&house, to("t", "after")).await.expect("answered").text, "after");
    assert_eq!(series(&house, r#"plimsoll_requests_total{agent="a",outcome="cancelled"}"#), 1.0);
}

#[tokio::test]
async fn a_provider_that_fails_gives_its_code_and_the_partial_text() {
    let config = EchoConfig { failure_rate: 1.0, ..EchoConfig::default() };
    let house = house(gateway::Config::default(), config);
    let result = ask(&house, to("s", "half of this")).await;
    let Err(rejection) = result else { panic!("{result:?}") };
    assert_eq!((rejection.code(), rejection.partial()), (-32007, Some("half ")));
    assert!(house.gateway.active().is_empty());
}

#[tokio::test]
async fn full_lanes_and_a_full_gateway_refuse_with_a_hint() {
    let config =
        gateway::Config { running_max: 1, lane_depth_max: 2, queued_max: 3, ..gateway::Config::default() };
    let house = house(config, slow());
    let kept: Vec<_> =
        (0..3).map(|_| house.gateway.send(caller(), to("s", "x")).expect("accepted")).collect();
    let lane = house.gateway.send(caller(), to("s", "x")).expect_err("the lane is full");
    assert_eq!((lane.code(), lane.retry_after().is_some()), (-32001, true));
    let other = house.gateway.send(caller(), to("t", "x")).expect("another lane has room");
    let full = house.gateway.send(caller(), to("u", "x")).expect_err("the gateway is full");
    assert_eq!((full.code(), full.retry_after().is_some()), (-32002, true));
    assert_eq!(series(&house, "plimsoll_queue_depth"), 3.0);
    assert_eq!(house.gateway.active().len(), 4);
    drop((kept, other));
    house.gateway.drain(Duration::ZERO).await;
    assert!(house.gateway.active().is_empty());
    assert_eq!(house.gateway.send(caller(), to("s", "x")).expect_err("closed").code(), -32009);
}

#[tokio::test]
async fn messages_under_way_are_bounded_in_bytes_together() {
    let bytes = plimsoll::units::Bytes;
    let config =
        gateway::Config { message_bytes_max: bytes(6), active_bytes_max: bytes(10), ..Default::default() };
    let house = house(config, slow());
    let running = house.gateway.send(caller(), to("s", "123456")).expect("accepted");
    let waiting = house.gateway.send(caller(), to("s", "1234")).expect("accepted: exactly the limit");
    let full = house.gateway.send(caller(), to("t", "1")).expect_err("one byte too many");
    assert_eq!((full.code(), full.retry_after().is_some()), (-32002, true));
    assert!(full.to_string().contains("gateway.active_bytes_max"), "{full}");
    assert_eq!(series(&house, r#"plimsoll_limit_hits_total{limit="active_bytes_max"}"#), 1.0);
    assert!(house.gateway.cancel(&waiting.request_id, "by its caller"));
    assert!(finish(waiting).await.1.is_err());
    let after = house.gateway.send(caller(), to("t", "1234")).expect("what left has made room");
    drop((running, after));
    house.gateway.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_conversation_that_its_caller_keeps_counts_whole() {
    let bytes = plimsoll::units::Bytes;
    let config = gateway::Config {
        message_bytes_max: bytes(6),
        active_bytes_max: bytes(20_000),
        ..Default::default()
    };
    let house = house(config, slow());
    let history = |messages: usize| Some(vec![Message { role: Speaker::User, text: "x".into() }; messages]);
    let alone = |messages| SendRequest { session: None, history: history(messages), ..to("s", "hi") };
    let kept = house.gateway.send(caller(), alone(100)).expect("there is room");
    let full = house.gateway.send(caller(), alone(1_000)).expect_err("many small messages are not small");
    assert_eq!(full.code(), -32002);
    assert!(house.gateway.sessions().is_empty(), "what stands alone is no session");
    drop(kept);
    house.gateway.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let config = gateway::Config { message_bytes_max: plimsoll::units::Bytes(4), ..Default::default() };
    let house = house(config, EchoConfig::default());
    for (message, code) in [("", -32602), ("  \n", -32602), ("12345", -32602)] {
        let refused = house.gateway.send(caller(), to("s", message)).expect_err("refused");
        assert_eq!(refused.code(), code, "{message:?}");
        assert!(refused.to_string().starts_with("message: "), "{refused}");
    }
    assert!(ask(&house, to("s", "1234")).await.is_ok());
    let unknown = SendRequest { agent: agent("nobody"), ..to("s", "x") };
    assert_eq!(house.gateway.send(caller(), unknown).expect_err("refused").code(), -32003);
}

#[tokio::test]
async fn drain_lets_finish_what_can_and_cancels_the_rest() {
    let config = EchoConfig { latency: Period::from_millis(50), ..EchoConfig::default() };
    let house = house(gateway::Config::default(), config);
    let accepted = house.gateway.send(caller(), to("s", "finish me")).expect("accepted");
    house.gateway.drain(Duration::from_secs(60)).await;
    assert_eq!(finish(accepted).await.1.expect("answered").text, "finish me");
}

/// A provider made of one function.
struct Made<F>(F);

impl<F: Fn(Turn) -> BoxStream<'static, ProviderEvent> + Send + Sync> Provider for Made<F> {
    fn kind(&self) -> &'static str {
        "made"
    }

    fn asks<'a>(&'a self, _model: Option<&'a str>) -> Asked<'a> {
        Asked { provider: "made", model: "made", server: None }
    }

    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent> {
        (self.0)(turn)
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(std::future::ready(Ok(String::new())))
    }
}

fn made(
    send: impl Fn(Turn) -> BoxStream<'static, ProviderEvent> + Send + Sync + 'static,
) -> impl FnOnce(ProviderDeps) -> Arc<dyn Provider> {
    |_| Arc::new(Made(send))
}

#[tokio::test]
async fn a_provider_that_panics_fails_its_request_and_no_other() {
    let panics = made(|turn| {
        let bad = &*turn.message == "panic";
        stream::poll_fn(move |_| {
            assert!(!bad, "a bug, on purpose");
            std::task::Poll::Ready(Some(ProviderEvent::End(Ok(()))))
        })
        .boxed()
    });
    let heard = Heard::default();
    let _listening = heard.listen();
    let house = house_of(gateway::Config::default(), panics);
    let failed = ask(&house, to("s", "panic")).await.expect_err("failed");
    assert_eq!((failed.code(), failed.to_string().contains("a bug in plimsoll")), (-32603, true));
    let recorded = &journaled(&house)[0];
    assert_eq!((&recorded["outcome"], &recorded["code"]), (&"failed".into(), &(-32603).into()));
    assert!(matches!(heard.errors().as_slice(), [only] if only.contains("source=agent.send")));
    assert!(ask(&house, to("s", "fine")).await.is_ok(), "the lane is free");
    assert_eq!(series(&house, r#"plimsoll_requests_total{agent="a",outcome="failed"}"#), 1.0);
    assert_eq!(series(&house, r#"plimsoll_requests_active{agent="a"}"#), 0.0);
    assert_eq!(house.gateway.snapshot().messages_processed, 2);
}

/// Panics whenever somebody reports an error.
struct Faulty;

impl<S: Subscriber> Layer<S> for Faulty {
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        assert!(*event.metadata().level() != Level::ERROR, "a bug, on purpose");
    }
}

#[tokio::test]
async fn a_panic_while_recording_loses_neither_the_record_nor_the_lane() {
    let faulty = listen(Faulty);
    let fails = EchoConfig { failure_rate: 1.0, ..EchoConfig::default() };
    let house = house(gateway::Config::default(), fails);
    for _ in 0..2 {
        assert_eq!(ask(&house, to("s", "half of this")).await.expect_err("failed").code(), -32007);
    }
    drop(faulty);
    assert_eq!(journaled(&house).len(), 2);
    assert_eq!(series(&house, r#"plimsoll_requests_total{agent="a",outcome="failed"}"#), 2.0);
    assert!(house.gateway.active().is_empty());
}

#[tokio::test]
async fn a_slow_reader_makes_the_provider_wait_and_a_gone_one_does_not() {
    const DELTAS: usize = 10_000;
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let talks = made(move |_| {
        let counter = Arc::clone(&counter);
        let deltas = stream::iter(0..DELTAS).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            ProviderEvent::Delta("x".to_owned())
        });
        deltas.chain(stream::iter([ProviderEvent::End(Ok(()))])).boxed()
    });
    let house = house_of(gateway::Config::default(), talks);
    let accepted = house.gateway.send(caller(), to("s", "talk")).expect("accepted");
    // Another lane is served to its end meanwhile, so the first one had its turn.
    let Accepted { events, outcome, .. } = house.gateway.send(caller(), to("t", "talk")).expect("accepted");
    drop(events);
    assert_eq!(outcome.await.expect("an outcome").expect("answered").text.len(), DELTAS);
    let by_the_slow_one = told.load(Ordering::SeqCst) - DELTAS;
    assert!(by_the_slow_one <= plimsoll::limits::REQUEST_EVENTS_MAX + 1, "{by_the_slow_one}");
    assert_eq!(finish(accepted).await.1.expect("answered").text.len(), DELTAS);
}

#[tokio::test]
async fn tools_are_shown_while_they_work_and_counted_when_they_end() {
    let (release, released) = tokio::sync::watch::channel(false);
    let works = made(move |_| {
        let mut released = released.clone();
        let start = |id: &str| ProviderEvent::ToolStart { id: id.to_owned(), name: "search".to_owned() };
        let end = |id: &str, error: Option<&str>| ProviderEvent::ToolEnd {
            id: id.to_owned(),
            name: "search".to_owned(),
            error: error.map(str::to_owned),
        };
        let wait = async move {
            released.wait_for(|released| *released).await.expect("the test goes on");
            end("1", None)
        };
        stream::iter([start("1"), start("2")])
            .chain(stream::once(wait))
            .chain(stream::iter([end("2", Some("not found")), ProviderEvent::End(Ok(()))]))
            .boxed()
    });
    let house = house_of(gateway::Config::default(), works);
    let mut accepted = house.gateway.send(caller(), to("s", "work")).expect("accepted");
    let mut running = 0;
    while running < 2 {
        let event = accepted.events.recv().await.expect("not ended");
        running += usize::from(matches!(event, AgentEvent::Tool { state: "running", .. }));
    }
    let active = house.gateway.active();
    let shape = serde_json::to_value(&active[0]).expect("plain JSON");
    assert_eq!(shape["state"], "running");
    assert_eq!(
        (&shape["sessionId"], &shape["channel"], &shape["agent"]),
        (&"s".into(), &"ws".into(), &"a".into())
    );
    assert_eq!(shape["tools"]["running"].as_array().map(Vec::len), Some(2));
    assert!(shape["startedAt"].is_u64() && shape["durationMs"].is_f64());
    release.send(true).expect("the provider waits");
    let answer = finish(accepted).await.1.expect("answered");
    let tools: Vec<_> = answer.tool_calls.iter().map(|tool| tool.ok).collect();
    assert_eq!(tools, [Some(true), Some(false)]);
    assert_eq!(journaled(&house)[0]["tools"], serde_json::json!({"done": 1, "failed": 1}));
    let failed = r#"plimsoll_tool_calls_total{agent="a",tool="search",outcome="failed"}"#;
    assert_eq!(series(&house, failed), 1.0);
    assert_eq!(house.gateway.health().tools, 1);
}

/// The attributes are those of <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-agent-spans/#execute-tool-span>.
#[tokio::test]
async fn a_tool_has_a_span_as_the_conventions_want_it() {
    let spans = Spans::default();
    let collecting = spans.collect();
    let config = EchoConfig { tool_rate: 1.0, tool_failure_rate: 1.0, ..EchoConfig::default() };
    let house = house(gateway::Config::default(), config);
    ask(&house, to("s", "work")).await.expect("answered");
    drop(collecting);
    let (invoke, tool) = (spans.named("invoke_agent a"), spans.named("execute_tool lookup"));
    assert_eq!((&tool.span_kind, tool.parent_span_id), (&SpanKind::Internal, invoke.span_context.span_id()));
    assert!(matches!((&tool.status, &invoke.status), (Status::Error { .. }, Status::Unset)));
    for (name, value) in [
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "lookup"),
        ("gen_ai.tool.call.id", "1"),
        ("error.type", "tool_error"),
    ] {
        assert_eq!(attribute(&tool, name), value, "{name}");
    }
}

#[test]
fn the_record_of_a_finished_request_is_golden() {
    let finished = RequestFinished {
        request_id: RequestId::parse("01KAH5V0000000000000000000").expect("valid"),
        agent: agent("a"),
        session: SessionId::parse("s").expect("valid"),
        channel: Channel::Http,
        outcome: Outcome::Failed,
        code: Some(-32007),
        timings: Timings { queued_ms: 1.5, start_ms: None, first_token_ms: Some(20.0), total_ms: 100.25 },
        tokens: Usage { input_tokens: Some(12), output_tokens: None },
        cost_usd: None,
        model_calls: 2,
        provider: "openai",
        models: vec![ModelUsed {
            provider: "openai".to_owned(),
            model: "m".to_owned(),
            calls: 2,
            input_tokens: 12,
            output_tokens: 3,
            cache_read_tokens: 4,
            cache_write_tokens: 2,
            cost_usd: Some(0.25),
            unpriced: 1,
            unreported: 1,
            ..ModelUsed::default()
        }],
        tools: ToolCounts { done: 1, failed: 1 },
        ran: true,
        key_hash: None,
    };
    assert_eq!((REQUEST_FINISHED, REQUEST_FINISHED_VERSION), ("request_finished", 2));
    insta::assert_json_snapshot!("request_finished_v2", finished);
}

/// What stands in journals stays: a new meaning is a new version.
#[tokio::test]
async fn the_record_of_an_accepted_key_is_the_golden_one() {
    let house = house(gateway::Config::default(), EchoConfig::default());
    let request = SendRequest {
        request_id: Some(RequestId::parse("r").expect("valid")),
        idempotency_key: Some(IdempotencyKey::parse("k").expect("valid")),
        ..to("s", "hi")
    };
    ask(&house, request).await.expect("answered");
    let [accepted, finished] = &journaled(&house)[..] else { panic!("two records") };
    insta::assert_json_snapshot!("request_accepted_v1", accepted);
    assert_eq!(accepted["keyHash"], finished["keyHash"]);
}

#[tokio::test]
async fn without_a_journal_nothing_runs_that_must_be_in_it() {
    let house = house(gateway::Config::default(), EchoConfig::default());
    house.journal.close();
    let key = IdempotencyKey::parse("k").expect("valid");
    let keyed = || SendRequest { idempotency_key: Some(key.clone()), ..to("s", "hi") };
    // Twice: the key is free again.
    for _ in 0..2 {
        let (events, ended) =
            finish(house.gateway.send(caller(), keyed()).expect("it stands in its lane")).await;
        assert!(matches!(ended, Err(Rejection::JournalUnavailable { .. })), "{ended:?}");
        assert!(!events.iter().any(|event| matches!(event, AgentEvent::Start { .. })), "{events:?}");
    }
    assert_eq!(house.gateway.snapshot().model_calls.total, 0);
    assert_eq!(house.gateway.snapshot().active_requests, 0);
    assert!(ask(&house, to("s", "hi")).await.is_ok(), "what has no key still runs");
}

fn keyed(session: &str, key: &str) -> SendRequest {
    SendRequest { idempotency_key: IdempotencyKey::parse(key).ok(), ..to(session, "hi") }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waits_for_the_disk_takes_no_turn_and_gives_up() {
    let house = house(gateway::Config { running_max: 1, ..Default::default() }, EchoConfig::default());
    house.journal.hang();
    let waiting = house.gateway.send(caller(), keyed("s", "k")).expect("it stands in its lane");
    assert!(ask(&house, to("other", "hi")).await.is_ok(), "the only turn is free");
    house.journal.go_on();
    assert!(finish(waiting).await.1.is_ok());
    house.journal.hang();
    let ended = ask(&house, keyed("s", "late")).await;
    assert!(matches!(ended, Err(Rejection::JournalUnavailable { .. })), "{ended:?}");
    let calls = house.gateway.snapshot().model_calls.total;
    assert_eq!(calls, 2, "nothing of it ran");
    house.journal.go_on();
    assert!(ask(&house, keyed("s", "late")).await.is_ok(), "its key is free");
}

#[tokio::test]
async fn who_still_waits_when_plimsoll_ends_is_told_that_nothing_ran() {
    let slow = EchoConfig { latency: Period::from_secs(600), ..EchoConfig::default() };
    let house = house(gateway::Config::default(), slow);
    let running = house.gateway.send(caller(), keyed("s", "runs")).expect("it stands in its lane");
    let waiting = house.gateway.send(caller(), keyed("s", "waits")).expect("it stands in its lane");
    let runs = || house.gateway.active().iter().any(|one| json!(one.state) == "running");
    tokio::time::timeout(Duration::from_secs(30), async {
        while journaled(&house).len() < 2 || !runs() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("one runs and one waits");
    house.gateway.drain(Duration::ZERO).await;
    assert!(matches!(finish(running).await.1, Err(Rejection::Cancelled { .. })));
    assert_eq!(finish(waiting).await.1, Err(Rejection::ShuttingDown));
    let ends: Vec<_> = journaled(&house)[2..]
        .iter()
        .map(|end| (end["outcome"].clone(), end["code"].clone(), end["ran"].clone()))
        .collect();
    let expected =
        [(json!("refused"), json!(-32009), json!(false)), (json!("cancelled"), json!(-32005), json!(null))];
    assert!(expected.iter().all(|end| ends.contains(end)) && ends.len() == 2, "{ends:?}");
}

/// An agent that never answers.
struct Silent(Hosting);

impl Provider for Silent {
    fn kind(&self) -> &'static str {
        "silent"
    }

    fn hosting(&self) -> Hosting {
        self.0
    }

    fn asks<'a>(&'a self, _model: Option<&'a str>) -> Asked<'a> {
        Asked { provider: "silent", model: "", server: None }
    }

    fn send(&self, _turn: Turn) -> BoxStream<'static, ProviderEvent> {
        stream::pending().boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(std::future::ready(Ok(String::new())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_has_an_hour_where_a_model_has_five_minutes() {
    for (hosting, minutes) in [(Hosting::Remote, 5), (Hosting::Process, 60)] {
        let house = house_of(gateway::Config::default(), |_| Arc::new(Silent(hosting)));
        let sent = house.gateway.send(caller(), to("s", "hi")).expect("accepted");
        let mut ended = std::pin::pin!(finish(sent));
        let all_but_a_second = Duration::from_secs(minutes * 60 - 1);
        assert!(tokio::time::timeout(all_but_a_second, &mut ended).await.is_err(), "too early");
        let (_, ended) = tokio::time::timeout(Duration::from_secs(2), ended).await.expect("in time");
        let deadline_ms = minutes * 60_000;
        assert_eq!(ended, Err(Rejection::Deadline { deadline_ms, partial: String::new() }));
        let own = SendRequest { deadline: Some(Duration::from_secs(7)), ..to("s", "hi") };
        assert!(matches!(ask(&house, own).await, Err(Rejection::Deadline { deadline_ms: 7_000, .. })));
    }
}

/// An agent that keeps its conversations itself: it names a new one `c1`, goes on with what it knows, and says so where
/// it does not know a name.
struct Keeper {
    knows: std::sync::Mutex<Vec<String>>,
    given: Arc<std::sync::Mutex<Vec<Option<String>>>>,
}

impl Provider for Keeper {
    fn kind(&self) -> &'static str {
        "keeper"
    }

    fn asks<'a>(&'a self, _model: Option<&'a str>) -> Asked<'a> {
        Asked { provider: "keeper", model: "", server: None }
    }

    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent> {
        self.given.lock().expect("no panic under it").push(turn.agent_session.clone());
        let mut knows = self.knows.lock().expect("no panic under it");
        let end = ProviderEvent::End;
        let events = match turn.agent_session {
            Some(name) if !knows.contains(&name) => {
                vec![end(Err(ProviderError::Stopped { reason: "session_not_found", quoted: String::new() }))]
            }
            known => {
                let name = known.unwrap_or_else(|| format!("c{}", knows.len() + 1));
                knows.push(name.clone());
                vec![ProviderEvent::AgentSession(name), ProviderEvent::Delta("ok".to_owned()), end(Ok(()))]
            }
        };
        stream::iter(events).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(std::future::ready(Ok(String::new())))
    }
}

/// A gateway over a [`Keeper`] that knows these, and the names that it was given, turn by turn.
fn keeper(knows: &[&str]) -> (House, Arc<std::sync::Mutex<Vec<Option<String>>>>) {
    let given = Arc::new(std::sync::Mutex::new(Vec::new()));
    let knows = std::sync::Mutex::new(knows.iter().map(|&name| name.to_owned()).collect());
    let provider = Keeper { knows, given: Arc::clone(&given) };
    (house_of(gateway::Config::default(), |_| Arc::new(provider)), given)
}

/// Takes what a journal holds into another gateway, as a restart does.
fn replay(from: &House, into: &House) {
    let page = from.journal.scan(&Scan { limit: 10_000, ..Scan::default() }).expect("memory can be read");
    for fold in into.gateway.folds() {
        page.records.iter().filter(|r| fold.wants() == r.stream.kind()).for_each(|record| fold.apply(record));
    }
}

#[tokio::test]
async fn an_agents_own_session_is_given_back_also_after_a_restart_until_it_is_reset() {
    let (house, given) = keeper(&[]);
    for _ in 0..2 {
        ask(&house, to("s", "hi")).await.expect("answered");
    }
    ask(&house, to("t", "hi")).await.expect("answered");
    let (next, later) = keeper(&["c1"]);
    replay(&house, &next);
    ask(&next, to("s", "hi")).await.expect("answered");
    let session = SessionId::parse("s").expect("valid");
    next.gateway.reset(&Actor::Local, &agent("a"), &session).await.expect("known");
    ask(&next, to("s", "hi")).await.expect("answered");
    let told = |given: &std::sync::Mutex<Vec<Option<String>>>| given.lock().expect("no panic").clone();
    assert_eq!(told(&given), [None, Some("c1".to_owned()), None]);
    assert_eq!(told(&later), [Some("c1".to_owned()), None]);
    let started = journaled(&house).into_iter().filter(|detail| detail.get("agentSession").is_some());
    insta::assert_json_snapshot!("agent_session_started_v1", started.collect::<Vec<_>>()[0]);
    let reset = gateway::AGENT_SESSION_FORGOTTEN.to_owned();
    let page = next.journal.scan(&Scan { kind: Some(reset), limit: 9, ..Scan::default() }).expect("reads");
    insta::assert_json_snapshot!("agent_session_forgotten_v1", page.records[0].detail);
}

#[tokio::test]
async fn a_conversation_that_its_agent_forgot_fails_once_and_begins_anew() {
    let (house, _) = keeper(&[]);
    ask(&house, to("s", "hi")).await.expect("answered");
    let (next, given) = keeper(&[]);
    replay(&house, &next);
    let failed = ask(&next, to("s", "hi")).await.expect_err("it does not know the name");
    assert_eq!(failed.code(), -32007);
    assert!(failed.to_string().contains("send the message again"), "{failed}");
    ask(&next, to("s", "hi")).await.expect("anew");
    assert_eq!(*given.lock().expect("no panic"), [Some("c1".to_owned()), None]);
    // The caller brings the conversation along: the agent's own is neither used nor replaced.
    let alone = SendRequest { session: None, history: Some(Vec::new()), ..to("s", "hi") };
    ask(&next, alone).await.expect("answered");
    assert_eq!(given.lock().expect("no panic").last(), Some(&None));
}
