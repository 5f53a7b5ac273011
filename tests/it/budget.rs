//! Budgets, rates, pauses and usage over the real binary: what is refused, what survives, and that all sums agree.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use plimsoll::clock::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::http::Ask;
use crate::support::server::{Server, clean_command, rpc, until};
use crate::support::upstream::{Reply, STOP, USAGE, Upstream, delta, refusal, stream, stream_head};

/// An echo agent whose every word, read and written, costs USD 0.002, so that `one two` costs 0.008.
fn priced(agent: Value, echo: Value) -> Value {
    let mut provider = json!({"kind": "echo"});
    let mut a = json!({"provider": "p", "model": "m"});
    for (to, from) in [(&mut provider, echo), (&mut a, agent)] {
        to.as_object_mut().expect("an object").extend(from.as_object().expect("an object").clone());
    }
    json!({
        "providers": {"p": provider},
        "prices": {"m": {"input": 2_000.0, "output": 2_000.0}},
        "agents": {"a": a, "b": {"provider": "p", "model": "m"}},
        "gateway": {"time_zone": zone_at_noon()},
    })
}

/// A zone where it is about noon, so that no day ends while a test runs.
fn zone_at_noon() -> String {
    let hour = Clock::system().now().as_millis() / 3_600_000 % 24;
    // The sign of these names says how far Greenwich lies ahead.
    match 12u64.checked_sub(hour) {
        Some(ahead) => format!("Etc/GMT-{ahead}"),
        None => format!("Etc/GMT+{}", hour - 12),
    }
}

/// Sends `one two` in a session of its own.
async fn send(server: &Server, agent: &str, session: usize) -> Value {
    let params = json!({"agent": agent, "message": "one two", "session": format!("s{session}")});
    rpc(server, "agent.send", params).await
}

fn code(answer: &Value) -> Option<i64> {
    answer["error"]["code"].as_i64()
}

/// Asserts that the answer is a refusal by this limit, and gives when to try again.
fn limited_by(answer: &Value, limit: &str) -> u64 {
    let error = &answer["error"];
    assert_eq!((code(answer), error["data"]["limit"].as_str()), (Some(-32010), Some(limit)), "{answer}");
    error["data"]["retryAfterMs"].as_u64().expect("it says when")
}

async fn usage(server: &Server, by: &str) -> Value {
    rpc(server, "usage.query", json!({"by": by, "since": "2d"})).await["result"].clone()
}

/// Waits until the journal holds the records of so many requests.
async fn recorded(server: &Server, requests: u64) {
    until("the records", async || {
        (usage(server, "agent").await["total"]["requests"] == requests).then_some(())
    })
    .await;
}

async fn restarted(dir: TempDir, config: Value) -> Server {
    let mut server = Server::spawn(dir, config);
    server.ready().await;
    server
}

/// Ends it as a service manager does, and starts it again.
async fn stopped_and_started(mut server: Server, config: Value) -> Server {
    server.signal(rustix::process::Signal::TERM);
    server.ended().await;
    restarted(server.kill(), config).await
}

async fn budget_events(server: &Server) -> Vec<Value> {
    let params = json!({"source": "agent.budget", "limit": 500});
    let answer = server.call("system.events", params).await;
    answer["events"].as_array().or(answer.as_array()).expect("a list").clone()
}

#[tokio::test]
async fn a_budget_refuses_past_its_end_says_when_and_is_told_once() {
    let server = Server::start(priced(json!({"usd_per_day": 0.01}), json!({}))).await;
    for n in 0..2 {
        assert!(send(&server, "a", n).await["result"].is_object());
    }
    for n in 0..5 {
        let wait = limited_by(&send(&server, "a", n).await, "usd_per_day");
        assert!((1..=25 * 3_600_000).contains(&wait), "{wait}");
    }
    assert!(send(&server, "b", 0).await["result"].is_object(), "the other agent has no budget");
    let events = budget_events(&server).await;
    assert_eq!(events.len(), 1, "{events:?}");
    let context = &events[0]["context"];
    assert_eq!((&context["agent"], &context["limit"]), (&json!("a"), &json!("usd_per_day")), "{context}");
    assert_eq!(events[0]["level"], "warn");
    let scrape = server.scrape().await;
    assert_eq!(scrape.count("plimsoll_limit_hits_total", &[("limit", "usd_per_day")]), 5);
    assert_eq!(scrape.count("plimsoll_requests_total", &[("agent", "a")]), 2, "refused at the door");
    let spent = scrape.sum("plimsoll_agent_spend_today_usd", &[("agent", "a")]);
    assert!((spent - 0.016).abs() < 1e-12, "{spent}");
    assert_eq!(scrape.sum("plimsoll_agent_budget_usd", &[("agent", "a")]), 0.01);
}

#[tokio::test]
async fn overshoot_is_at_most_what_is_in_flight_and_who_waits_is_refused_in_its_turn() {
    let agent = json!({"usd_per_day": 0.01, "max_concurrent": 3});
    let server = Server::start(priced(agent, json!({"latency": "50ms"}))).await;
    // All of them arrive before anything is spent.
    let answers = join_all((0..20).map(|n| send(&server, "a", n))).await;
    let answered = answers.iter().filter(|answer| answer["result"].is_object()).count();
    assert!((2..=4).contains(&answered), "two are within the budget, two more may run beside the second");
    answers.iter().filter(|answer| answer["error"].is_object()).for_each(|answer| {
        limited_by(answer, "usd_per_day");
    });
    let scrape = server.scrape().await;
    let outcome = |outcome| scrape.count("plimsoll_requests_total", &[("agent", "a"), ("outcome", outcome)]);
    assert_eq!((outcome("ok"), outcome("failed")), (answered as u64, 0));
    assert_eq!(outcome("ok") + outcome("refused"), scrape.count("plimsoll_messages_processed_total", &[]));
    assert!(outcome("refused") > 0, "some were accepted, and refused when their turn came");
    assert_eq!(scrape.count("plimsoll_errors_total", &[]), 0, "a refusal is no error");
    assert_eq!(scrape.count("plimsoll_limit_hits_total", &[("limit", "usd_per_day")]), 20 - answered as u64);
    assert_eq!(server.call("system.metrics", json!({})).await["activeRequests"], 0, "the lanes are free");
    assert_eq!(budget_events(&server).await.len(), 1);
}

#[tokio::test]
async fn a_budget_is_used_up_after_a_restart_and_after_a_kill() {
    let config = priced(json!({"usd_per_day": 0.015}), json!({}));
    let server = Server::start(config.clone()).await;
    assert!(send(&server, "a", 1).await["result"].is_object());
    assert!(send(&server, "a", 2).await["result"].is_object());
    limited_by(&send(&server, "a", 3).await, "usd_per_day");
    // Ended by itself, everything is written.
    let server = stopped_and_started(server, config.clone()).await;
    limited_by(&send(&server, "a", 4).await, "usd_per_day");
    let spent = server.scrape().await.sum("plimsoll_agent_spend_today_usd", &[("agent", "a")]);
    assert!((spent - 0.016).abs() < 1e-12, "{spent}");
    // With a larger one it goes on where it stood, and a kill takes nothing of what is recorded.
    let larger = priced(json!({"usd_per_day": 0.03}), json!({}));
    let server = restarted(server.kill(), larger.clone()).await;
    assert!(send(&server, "a", 5).await["result"].is_object());
    recorded(&server, 3).await;
    let server = restarted(server.kill(), larger.clone()).await;
    assert!(send(&server, "a", 6).await["result"].is_object());
    limited_by(&send(&server, "a", 7).await, "usd_per_day");
    recorded(&server, 4).await;
    let server = restarted(server.kill(), larger).await;
    limited_by(&send(&server, "a", 8).await, "usd_per_day");
}

/// The zone decides when the day ends: what one says to wait, the other says from its own midnight.
#[tokio::test]
async fn the_day_ends_in_the_configured_zone() {
    let mut waits = Vec::new();
    for zone in ["Etc/GMT-6", "Etc/GMT+6"] {
        let mut config = priced(json!({"usd_per_day": 0}), json!({}));
        config["gateway"] = json!({"time_zone": zone});
        let server = Server::start(config).await;
        let wait = limited_by(&send(&server, "a", 0).await, "usd_per_day");
        assert!(wait <= 24 * 3_600_000, "{wait}");
        waits.push(wait);
    }
    let apart = waits[0].abs_diff(waits[1]);
    assert!(apart.abs_diff(12 * 3_600_000) < 120_000, "half a day apart: {waits:?}");
}

#[tokio::test]
async fn tokens_of_a_minute_refuse_and_outlive_a_kill_and_a_stop() {
    // Without a price: nothing but the tokens is known of it.
    let config = priced(json!({"tokens_per_min": 5, "model": "new"}), json!({}));
    let server = Server::start(config.clone()).await;
    assert!(send(&server, "a", 1).await["result"].is_object(), "4 tokens");
    assert!(send(&server, "a", 2).await["result"].is_object(), "8 tokens");
    let wait = limited_by(&send(&server, "a", 3).await, "tokens_per_min");
    assert!((1..=60_000).contains(&wait), "{wait}");
    recorded(&server, 2).await;
    let server = restarted(server.kill(), config.clone()).await;
    limited_by(&send(&server, "a", 4).await, "tokens_per_min");
    let server = stopped_and_started(server, config).await;
    limited_by(&send(&server, "a", 5).await, "tokens_per_min");
}

#[tokio::test]
async fn requests_of_a_minute_count_those_in_flight_and_outlive_a_kill() {
    let config = priced(json!({"requests_per_min": 2}), json!({"latency": "100ms"}));
    let server = Server::start(config.clone()).await;
    let answers = join_all((0..6).map(|n| send(&server, "a", n))).await;
    assert_eq!(answers.iter().filter(|answer| answer["result"].is_object()).count(), 2, "{answers:?}");
    answers.iter().filter(|answer| answer["error"].is_object()).for_each(|answer| {
        assert!(limited_by(answer, "requests_per_min") <= 60_000);
    });
    recorded(&server, 2).await;
    let server = restarted(server.kill(), config).await;
    limited_by(&send(&server, "a", 9).await, "requests_per_min");
}

#[tokio::test]
async fn a_model_without_a_price_is_named_and_never_counted_as_free() {
    let mut config = priced(json!({"usd_per_day": 0.01, "model": "new"}), json!({}));
    config["agents"]["b"]["usd_per_day"] = json!(5.0);
    let server = Server::start(config).await;
    for n in 0..3 {
        assert!(send(&server, "a", n).await["result"].is_object());
    }
    send(&server, "b", 0).await;
    recorded(&server, 4).await;
    let events = budget_events(&server).await;
    assert_eq!(events.len(), 1, "once a day, and only of the model without a price: {events:?}");
    assert_eq!(events[0]["context"]["model"], "new");
    let report = usage(&server, "model").await;
    assert_eq!(report["unpricedModels"], json!([{"provider": "echo", "model": "new", "calls": 3}]));
    let row = |model: &str| {
        let rows = report["rows"].as_array().expect("rows");
        rows.iter().find(|row| row["model"] == model).expect("its row").clone()
    };
    assert_eq!((&row("new")["unpriced"], &row("new")["costUsd"]), (&json!(3), &Value::Null));
    assert_eq!((&row("m")["unpriced"], &row("m")["calls"]), (&json!(0), &json!(1)));
    let printed = run(&server, &["usage", "--by", "model"]);
    assert!(printed.contains("unpriced: 3 calls of new (echo)"), "{printed}");
}

/// Who hangs up in the middle of an answer pays for the part that came.
#[tokio::test]
async fn a_call_that_is_stopped_counts_by_what_was_sent_and_said() {
    let echo = json!({"latency": "60s"});
    let server = Server::start(priced(json!({"usd_per_day": 0.002, "deadline": "1s"}), echo)).await;
    assert_eq!(code(&send(&server, "a", 0).await), Some(-32004));
    limited_by(&send(&server, "a", 1).await, "usd_per_day");
    assert_eq!(budget_events(&server).await.len(), 1, "its model has a price: only the limit is told");
    recorded(&server, 1).await;
    let report = usage(&server, "agent").await;
    let told = |of: &Value| ["costUsd", "estimatedUsd", "estimatedTokens"].map(|key| of[key].clone());
    let expected = [json!(0.0), json!(0.004), json!(2)];
    assert_eq!((told(&report["total"]), told(&report["rows"][0])), (expected.clone(), expected));
    assert_eq!((&report["total"]["unpriced"], &report["unpricedModels"]), (&json!(0), &json!([])));
    let printed = run(&server, &["usage"]);
    assert!(printed.contains("EST_USD") && printed.contains("0.0040"), "{printed}");
    assert!(printed.contains("unreported: 1 call"), "{printed}");
    let csv = server.client().get("/usage?format=csv").await.expect("answered").text().await.expect("text");
    assert!(csv.contains(",estimated_usd,") && csv.contains(",0.004,"), "{csv}");
    let used = used(&server).await;
    assert_eq!((&used["estimatedTokens"], &used["estimatedUsd"]), (&json!(2), &json!(0.004)), "{used}");
}

/// What the only request that ended used of its only model.
async fn used(server: &Server) -> Value {
    recorded(server, 1).await;
    let page = server.client().get("/audit?kind=request_finished").await.expect("answered");
    let page: Value = page.json().await.expect("JSON");
    page["records"][0]["detail"]["models"][0].clone()
}

/// An agent at this server, with these limits; a token of `m-2` costs a tenth of a cent.
async fn asking(upstream: &Upstream, kind: &str, limits: Value) -> Server {
    let mut agent = json!({"provider": "p", "model": "m-2"});
    agent.as_object_mut().expect("an object").extend(limits.as_object().expect("an object").clone());
    let provider = json!({"kind": kind, "base_url": upstream.base_url(), "retries": 1, "idle_timeout": "1s"});
    Server::start(json!({
        "providers": {"p": provider},
        "prices": {"m-2": {"input": 1_000.0, "output": 1_000.0}},
        "agents": {"a": agent, "unpriced": {"provider": "p", "model": "new", "tokens_per_min": 1}},
        "gateway": {"time_zone": zone_at_noon()},
    }))
    .await
}

fn event(event: &Value) -> Vec<u8> {
    format!("data: {event}\n\n").into_bytes()
}

/// What the Messages API says at the start of the output is one token, whatever comes.
#[tokio::test]
async fn who_hangs_up_on_a_stream_pays_for_all_that_came_and_not_for_one_token() {
    let usage_so_far = json!({"input_tokens": 3, "output_tokens": 1});
    let message = json!({"id": "m", "model": "m-2", "usage": usage_so_far});
    let start = event(&json!({"type": "message_start", "message": message}));
    let piece = |delta: Value| event(&json!({"type": "content_block_delta", "delta": delta}));
    let thought = piece(json!({"type": "thinking_delta", "thinking": "12345678"}));
    let text = piece(json!({"type": "text_delta", "text": "word"})).repeat(1_000);
    let upstream = Upstream::start(vec![Reply::Hang([stream_head(), start, thought, text].concat())]).await;
    let server = asking(&upstream, "anthropic", json!({"usd_per_day": 1.0})).await;
    assert_eq!(code(&send(&server, "a", 0).await), Some(-32007));
    limited_by(&send(&server, "a", 1).await, "usd_per_day");
    let used = used(&server).await;
    assert_eq!(
        (&used["costUsd"], &used["outputTokens"]),
        (&json!(0.004), &json!(1)),
        "as it was said: {used}"
    );
    assert_eq!((&used["estimatedUsd"], &used["estimatedTokens"]), (&json!(1.002), &json!(1_002)), "{used}");
}

/// A server that is too slow to say a word has done its work all the same; and a limit of tokens asks for no price.
#[tokio::test]
async fn calls_that_say_neither_tokens_nor_text_count_in_both_limits() {
    let upstream = Upstream::start(vec![Reply::Hang(Vec::new())]).await;
    let server = asking(&upstream, "openai", json!({"usd_per_day": 0.002})).await;
    assert_eq!(code(&send(&server, "a", 0).await), Some(-32007));
    limited_by(&send(&server, "a", 1).await, "usd_per_day");
    let used = used(&server).await;
    assert_eq!((&used["costUsd"], &used["estimatedUsd"]), (&Value::Null, &json!(0.002)), "{used}");
    assert_eq!(code(&send(&server, "unpriced", 0).await), Some(-32007));
    limited_by(&send(&server, "unpriced", 1).await, "tokens_per_min");
    recorded(&server, 2).await;
    let report = usage(&server, "model").await;
    assert_eq!(report["unpricedModels"], json!([{"provider": "openai", "model": "new", "calls": 1}]));
}

#[tokio::test]
async fn arguments_of_tools_and_thoughts_are_paid_like_text() {
    let thought = json!({"choices": [{"index": 0, "delta": {"reasoning_content": "12345678"}}]});
    let function = json!({"name": "f", "arguments": "{\"a\":1}."});
    let tool =
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": function}]}}]});
    let parts = vec![stream_head(), event(&thought), event(&tool)];
    let upstream = Upstream::start(vec![Reply::Parts(parts)]).await;
    let server = asking(&upstream, "openai", json!({"usd_per_day": 5.0})).await;
    assert_eq!(code(&send(&server, "a", 0).await), Some(-32007), "it was cut");
    let used = used(&server).await;
    assert_eq!((&used["estimatedTokens"], &used["estimatedUsd"]), (&json!(6), &json!(0.006)), "{used}");
}

#[tokio::test]
async fn who_is_refused_by_a_provider_or_cannot_reach_it_pays_nothing() {
    for reachable in [true, false] {
        let upstream = Upstream::start(vec![refusal("429 Too Many Requests", "", "{}")]).await;
        let limits = json!({"usd_per_day": 0.000_001, "tokens_per_min": 1});
        let server = asking(&upstream, "openai", limits).await;
        let _kept = if reachable { Ok(upstream) } else { Err(upstream.closed().await) };
        for n in 0..2 {
            for agent in ["a", "unpriced"] {
                assert_eq!(code(&send(&server, agent, n).await), Some(-32007), "{agent}");
            }
        }
        recorded(&server, 4).await;
        let report = usage(&server, "model").await;
        let told = ["calls", "estimatedTokens", "unpriced", "unreported"].map(|key| &report["total"][key]);
        assert_eq!(told, [8, 0, 0, 0], "each was tried twice: {report}");
        assert_eq!(report["unpricedModels"], json!([]));
        assert_eq!(budget_events(&server).await, Vec::<Value>::new());
        assert_eq!(server.scrape().await.count("plimsoll_model_unpriced_calls_total", &[]), 0);
    }
}

/// A try that failed without a word about tokens does not hide what the next one cost.
#[tokio::test]
async fn what_a_retry_cost_is_counted_beside_the_try_that_said_nothing() {
    let broken = refusal("500 Internal Server Error", "", "{}");
    let answers = stream(&[&delta("hello"), STOP, USAGE, "[DONE]"]);
    let upstream = Upstream::start(vec![broken, answers]).await;
    let server = Server::start(json!({
        "providers": {"p": {"kind": "openai", "base_url": upstream.base_url()}},
        "prices": {"m-2": {"input": 1_000.0, "output": 1_000.0}},
        "agents": {"a": {"provider": "p", "model": "m-2", "usd_per_day": 0.015}},
    }))
    .await;
    assert_eq!(send(&server, "a", 0).await["result"]["text"], "hello");
    limited_by(&send(&server, "a", 1).await, "usd_per_day");
    recorded(&server, 1).await;
    let events = budget_events(&server).await;
    assert_eq!(events.len(), 1, "its model has a price, and the try that failed costs nothing: {events:?}");
    assert_eq!(events[0]["context"]["limit"], "usd_per_day");
    let report = usage(&server, "agent").await;
    let total = &report["total"];
    let told = ["calls", "unpriced", "unreported", "estimatedTokens"].map(|key| total[key].clone());
    assert_eq!((told, &report["unpricedModels"]), ([json!(2), json!(0), json!(0), json!(0)], &json!([])));
    assert!((total["costUsd"].as_f64().expect("a number") - 0.015).abs() < 1e-12, "{total}");
    let page = server.client().get("/audit?kind=request_finished").await.expect("answered");
    let page: Value = page.json().await.expect("JSON");
    let record = &page["records"][0];
    assert_eq!((&record["version"], &record["detail"]["costUsd"]), (&json!(2), &json!(0.015)));
    assert_eq!(record["detail"]["models"][0]["costUsd"], json!(0.015));
}

/// What others spend while a request waits to be tried again holds for it too.
#[tokio::test]
async fn a_call_is_not_tried_again_past_a_limit() {
    let busy = refusal("503 Service Unavailable", "retry-after: 2\r\n", "{}");
    let answers = stream(&[&delta("hello"), STOP, USAGE, "[DONE]"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let upstream = Upstream::choosing(listener, move |request| {
        let waits = request.body["messages"].to_string().contains("again");
        if waits { busy.clone() } else { answers.clone() }
    });
    for limit in [json!({"usd_per_day": 0.015}), json!({"tokens_per_min": 15})] {
        let before = upstream.requests().len();
        let key = limit.as_object().and_then(|limit| limit.keys().next().cloned()).expect("one");
        let server = asking(&upstream, "openai", limit).await;
        let waiting = rpc(&server, "agent.send", json!({"agent": "a", "message": "again", "session": "w"}));
        let spending = async {
            until("the first try", async || (upstream.requests().len() > before).then_some(())).await;
            send(&server, "a", 0).await
        };
        let (waited, spent) = tokio::join!(waiting, spending);
        assert_eq!(spent["result"]["text"], "hello");
        assert_eq!(code(&waited), Some(-32007), "it ends as the provider ended it: {waited}");
        assert_eq!(upstream.requests().len(), before + 2, "{key}");
        limited_by(&send(&server, "a", 1).await, &key);
    }
}

#[tokio::test]
async fn a_paused_agent_refuses_also_after_a_kill_until_it_is_resumed() {
    let config = priced(json!({}), json!({}));
    let server = Server::start(config.clone()).await;
    assert_eq!(
        rpc(&server, "agent.pause", json!({"agent": "a"})).await["result"],
        json!({"paused": ["a"], "cancelled": 0, "durable": true})
    );
    let refused = send(&server, "a", 0).await;
    assert_eq!(code(&refused), Some(-32011));
    let advice = refused["error"]["message"].as_str().expect("a message");
    assert!(advice.contains("`plimsoll resume a`"), "{advice}");
    assert!(send(&server, "b", 0).await["result"].is_object());
    assert_eq!(code(&rpc(&server, "agent.pause", json!({"agent": "nobody"})).await), Some(-32003));
    assert_eq!(server.scrape().await.count("plimsoll_agents_paused", &[]), 1);
    let server = restarted(server.kill(), config.clone()).await;
    assert_eq!(code(&send(&server, "a", 0).await), Some(-32011));
    let listed = server.call("agent.list", json!({})).await;
    let paused = |list: &Value| -> BTreeMap<String, bool> {
        let agents = list["agents"].as_array().expect("a list").iter();
        agents.map(|one| (one["id"].as_str().expect("an id").to_owned(), one["paused"] == true)).collect()
    };
    let expected = BTreeMap::from([("a".to_owned(), true), ("b".to_owned(), false)]);
    assert_eq!(paused(&listed), expected);
    let shown: Value = server.client().get("/agents").await.expect("answered").json().await.expect("JSON");
    assert_eq!(paused(&shown), expected);
    assert_eq!(shown["agents"][0]["status"], "paused");
    assert_eq!(run(&server, &["pause"]).trim(), "paused b");
    assert_eq!(code(&send(&server, "b", 0).await), Some(-32011));
    assert_eq!(run(&server, &["resume"]).trim(), "resumed a, b");
    assert!(send(&server, "a", 0).await["result"].is_object());
    let page = server.client().get("/audit?stream=operator&order=asc").await.expect("answered");
    let page: Value = page.json().await.expect("JSON");
    let records = page["records"].as_array().expect("records").iter();
    let told: Vec<_> = records
        .filter(|record| record["kind"].as_str().is_some_and(|kind| kind.starts_with("agent_")))
        .map(|record| (record["kind"].clone(), record["actor"].clone(), record["detail"]["agents"].clone()))
        .collect();
    let local = json!("local");
    assert_eq!(
        told,
        [
            (json!("agent_paused"), local.clone(), json!(["a"])),
            (json!("agent_paused"), local.clone(), json!(["a", "b"])),
            (json!("agent_resumed"), local, json!(["a", "b"])),
        ]
    );
}

#[tokio::test]
async fn a_pause_refuses_who_waits_in_its_turn_and_with_cancel_ends_all() {
    let server = Server::start(priced(json!({"max_concurrent": 1}), json!({"latency": "300ms"}))).await;
    let both = async |pause: Value| {
        let sends = join_all([send(&server, "a", 1), send(&server, "a", 2)]);
        let pause = async {
            until("one that runs and one that waits", async || {
                let list = server.call("system.activeRequests", json!({})).await;
                let states = list["requests"].as_array().or(list.as_array()).expect("a list").clone();
                let has = |state: &str| states.iter().any(|one| one["state"] == state);
                (has("running") && has("queued")).then_some(())
            })
            .await;
            rpc(&server, "agent.pause", pause).await
        };
        tokio::join!(sends, pause)
    };
    let (answers, _) = both(json!({"agent": "a"})).await;
    let mut codes: Vec<_> = answers.iter().map(code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [None, Some(-32011)], "what ran ended well, what waited was refused");
    rpc(&server, "agent.resume", json!({})).await;
    let (answers, paused) = both(json!({"agent": "a", "cancel": true})).await;
    assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), [Some(-32005), Some(-32005)]);
    assert_eq!(paused["result"], json!({"paused": ["a"], "cancelled": 2, "durable": true}));
}

/// Runs a command against a server on this machine.
fn run(server: &Server, args: &[&str]) -> String {
    let output =
        clean_command().args(args).arg("--data-dir").arg(server.data_dir()).output().expect("it runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn usage_is_told_by_every_side_over_every_road() {
    let server = Server::start(priced(json!({}), json!({}))).await;
    for n in 0..3 {
        send(&server, "a", n).await;
    }
    send(&server, "b", 0).await;
    recorded(&server, 4).await;
    for (by, rows) in [("agent", 2), ("model", 1), ("session", 4), ("day", 1)] {
        let report = usage(&server, by).await;
        assert_eq!(report["rows"].as_array().map(Vec::len), Some(rows), "{report}");
        assert_eq!(
            (&report["total"]["requests"], &report["total"]["inputTokens"]),
            (&json!(4), &json!(8)),
            "{report}"
        );
        assert!((report["total"]["costUsd"].as_f64().expect("a number") - 0.032).abs() < 1e-9, "{report}");
        let path = format!("/usage?by={by}&since=2d");
        let shown: Value = server.client().get(&path).await.expect("answered").json().await.expect("JSON");
        assert_eq!((&shown["rows"], &shown["total"]), (&report["rows"], &report["total"]));
        let csv = server.client().get(&format!("{path}&format=csv")).await.expect("answered");
        let csv = csv.text().await.expect("text");
        assert_eq!(csv.lines().count(), rows + 1, "{csv}");
        let printed = run(&server, &["usage", "--by", by, "--since", "2d"]);
        assert_eq!(printed.lines().count(), rows + 3, "{printed}");
        assert!(printed.lines().nth(rows + 1).is_some_and(|line| line.starts_with("total")), "{printed}");
        assert!(printed.lines().last().is_some_and(|line| line.starts_with("from ")), "{printed}");
        let printed: Value =
            serde_json::from_str(&run(&server, &["usage", "--by", by, "--since", "2d", "--json"]))
                .expect("JSON");
        assert_eq!(printed["rows"], report["rows"]);
    }
    let of_b = rpc(&server, "usage.query", json!({"by": "agent", "agent": "b"})).await;
    assert_eq!(of_b["result"]["total"]["requests"], 1);
    assert_eq!(
        code(&rpc(&server, "usage.query", json!({"by": "agent", "agent": "nobody"})).await),
        Some(-32003)
    );
    let wrong = rpc(&server, "usage.query", json!({"by": "agent", "since": "yesterday"})).await;
    assert_eq!((code(&wrong), &wrong["error"]["data"]["field"]), (Some(-32602), &json!("since")));
    for (path, status) in
        [("/usage?since=yesterday", 400), ("/usage?by=colour", 400), ("/usage?agent=nobody", 404)]
    {
        let answer = Ask::method("GET", path).send(server.address()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}
