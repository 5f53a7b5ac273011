//! One fact, one number: after a random load the snapshot, the rings, the metrics, the journal and the callers
//! themselves say the same.

use std::collections::BTreeMap;

use plimsoll::demo::{Plan, Tally, cast, drive};
use plimsoll::telemetry::metric::{Definition, Kind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::exposition::Scrape;
use crate::support::server::{Server, until};
use crate::support::tools;

/// The demo's agents, twenty times as fast.
fn configuration(seed: u64) -> Value {
    let mut providers = serde_json::to_value(cast::providers(seed)).expect("providers are JSON");
    for member in cast::AGENTS {
        providers[member.name]["latency"] = json!(format!("{}ms", member.latency_ms / 20));
    }
    json!({"providers": providers, "agents": cast::agents(), "prices": cast::prices()})
}

/// Waits until nothing runs and nothing waits.
async fn quiet(server: &Server) {
    until("quiet", async || {
        let metrics = server.call("system.metrics", json!({})).await;
        (metrics["activeRequests"] == 0 && metrics["queueDepth"] == 0).then_some(())
    })
    .await;
}

async fn load(server: &Server, seed: u64, steps: usize) -> Tally {
    let plan = Plan::new(seed, 2_000.0).take(steps);
    let client = server.tcp_client(None);
    let tally = drive(&client, plan, &CancellationToken::new()).await.expect("the load runs");
    assert_eq!(tally.lost, 0, "{tally:?}");
    quiet(server).await;
    tally
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

fn calls(metrics: &Value) -> &Vec<Value> {
    metrics["modelCalls"]["recentCalls"].as_array().expect("recentCalls is a list")
}

fn close(left: f64, right: f64, what: &str) {
    assert!(
        (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0),
        "{what}: {left} and {right}"
    );
}

async fn check(seed: u64, steps: usize) {
    let server = Server::start(configuration(seed)).await;
    let tally = load(&server, seed, steps).await;
    let metrics = server.call("system.metrics", json!({})).await;
    let scrape = server.scrape().await;
    requests_agree(&tally, &metrics, &scrape);
    model_calls_agree(&metrics, &scrape);
    events_agree(&server, &metrics, &scrape).await;
    journal_agrees(&server, &metrics).await;
    usage_agrees(&server, &metrics).await;
}

fn requests_agree(tally: &Tally, metrics: &Value, scrape: &Scrape) {
    let processed = number(&metrics["messagesProcessed"]);
    assert_eq!(processed, tally.sent - tally.refused, "{tally:?}");
    assert_eq!(processed, scrape.count("plimsoll_messages_processed_total", &[]));
    assert_eq!(processed, scrape.count("plimsoll_requests_total", &[]));
    assert_eq!(processed, scrape.count("plimsoll_request_duration_seconds_count", &[]));
    let by_outcome = scrape.by("plimsoll_requests_total", "outcome");
    let told = [
        ("ok", tally.answered),
        ("failed", tally.failed),
        ("cancelled", tally.cancelled),
        ("deadline", tally.deadline),
    ];
    for (outcome, count) in told {
        assert_eq!(by_outcome.get(outcome), Some(&count), "{outcome}: {tally:?}");
    }
    assert_eq!(scrape.count("plimsoll_rpc_calls_total", &[("method", "agent.send")]), tally.sent);
    let unknown = [("method", "agent.send"), ("code", "-32003")];
    assert_eq!(scrape.count("plimsoll_rpc_calls_total", &unknown), tally.refused);
    for (key, series) in [
        ("activeRequests", "plimsoll_requests_active"),
        ("queueDepth", "plimsoll_queue_depth"),
        ("sessions", "plimsoll_sessions"),
        ("lanes", "plimsoll_lanes"),
    ] {
        assert_eq!(number(&metrics[key]), scrape.count(series, &[]), "{key}");
    }
}

fn model_calls_agree(metrics: &Value, scrape: &Scrape) {
    let total = number(&metrics["modelCalls"]["total"]);
    assert_eq!(total, scrape.count("gen_ai_client_operation_duration_seconds_count", &[]));
    let recent = calls(metrics);
    assert_eq!(recent.len() as u64, total.min(200));
    let latencies: f64 = recent.iter().map(|call| call["latency"].as_f64().expect("a latency")).sum();
    let failed = recent.iter().filter(|call| call.get("error").is_some()).count();
    let shown = |key: &str| metrics["modelCalls"][key].as_f64().expect("a number");
    close(shown("avgLatency"), latencies / recent.len() as f64, "avgLatency");
    close(shown("errorRate"), failed as f64 / recent.len() as f64, "errorRate");
    if total <= 200 {
        let sum = |key: &str| recent.iter().filter_map(|call| call[key].as_f64()).sum::<f64>();
        let tokens = |kind| scrape.sum("gen_ai_client_token_usage_sum", &[("gen_ai_token_type", kind)]);
        close(sum("inputTokens"), tokens("input"), "input tokens");
        close(sum("outputTokens"), tokens("output"), "output tokens");
        close(sum("costUsd"), scrape.sum("plimsoll_model_call_cost_usd_sum", &[]), "cost");
        let seconds = scrape.sum("gen_ai_client_operation_duration_seconds_sum", &[]);
        close(latencies / 1_000.0, seconds, "latency");
    }
}

async fn events_agree(server: &Server, metrics: &Value, scrape: &Scrape) {
    let errors = number(&metrics["errors"]);
    assert_eq!(errors, scrape.count("plimsoll_errors_total", &[]));
    let all = server.call("system.events", json!({"limit": 500})).await;
    let all = all["events"].as_array().or(all.as_array()).expect("a list of events").clone();
    if all.len() < 500 {
        let mut by_source: BTreeMap<String, u64> = BTreeMap::new();
        for event in all.iter().filter(|event| event["level"] == "error") {
            *by_source.entry(event["source"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let mut counted = scrape.by("plimsoll_errors_total", "source");
        counted.retain(|_, count| *count > 0);
        assert_eq!(by_source, counted);
        assert_eq!(by_source.values().sum::<u64>(), errors);
    }
}

async fn journal_agrees(server: &Server, metrics: &Value) {
    let processed = number(&metrics["messagesProcessed"]);
    until("every request_finished in the journal", async || {
        let scrape = server.scrape().await;
        (scrape.count("plimsoll_journal_appends_total", &[("stream", "request")]) == processed).then_some(())
    })
    .await;
}

/// What usage says, by every side, is what the metrics counted and what the records hold.
async fn usage_agrees(server: &Server, metrics: &Value) {
    let scrape = server.scrape().await;
    let mut records = Vec::new();
    let mut cursor = 0;
    loop {
        let path = format!("/audit?kind=request_finished&order=asc&limit=1000&cursor={cursor}");
        let page = server.client().get(&path).await.expect("/audit answers");
        let page: Value = page.json().await.expect("JSON");
        records.extend(page["records"].as_array().expect("records").iter().map(|one| one["detail"].clone()));
        let Some(next) = page["next"].as_u64() else { break };
        cursor = next;
    }
    let models = || records.iter().flat_map(|record| record["models"].as_array().expect("models"));
    let recorded = |key: &str| models().map(|used| used[key].as_f64().unwrap_or(0.0)).sum::<f64>();
    let tokens = |kind| scrape.sum("gen_ai_client_token_usage_sum", &[("gen_ai_token_type", kind)]);
    let unpriced = scrape.count("plimsoll_model_unpriced_calls_total", &[]);
    for by in ["agent", "model", "session", "day"] {
        let report = server.call("usage.query", json!({"by": by, "since": "2d"})).await;
        let total = &report["total"];
        let whole = |key: &str| number(&total[key]);
        assert_eq!(whole("requests"), number(&metrics["messagesProcessed"]), "{by}");
        assert_eq!(whole("requests"), records.len() as u64, "{by}");
        let bad = |outcome| scrape.count("plimsoll_requests_total", &[("outcome", outcome)]);
        assert_eq!(whole("failed"), bad("failed") + bad("deadline"), "{by}");
        assert_eq!(whole("calls"), number(&metrics["modelCalls"]["total"]), "{by}");
        assert_eq!(whole("unpriced"), unpriced, "{by}");
        let named = report["unpricedModels"].as_array().expect("a list").iter();
        assert_eq!(named.map(|model| number(&model["calls"])).sum::<u64>(), unpriced, "{by}");
        // What has no price has no dollars.
        let dollars = |value: &Value| value["costUsd"].as_f64().unwrap_or(0.0);
        close(dollars(total), scrape.sum("plimsoll_model_call_cost_usd_sum", &[]), "cost");
        close(dollars(total), recorded("costUsd"), "cost in the records");
        let estimated = total["estimatedUsd"].as_f64().unwrap_or(0.0);
        close(estimated, recorded("estimatedUsd"), "estimates in the records");
        close(dollars(total) + estimated, scrape.sum("plimsoll_agent_spend_today_usd", &[]), "spent today");
        close(whole("inputTokens") as f64, tokens("input"), "input tokens");
        close(whole("outputTokens") as f64, tokens("output"), "output tokens");
        close(whole("outputTokens") as f64, recorded("outputTokens"), "output tokens in the records");
        let rows = report["rows"].as_array().expect("rows");
        close(rows.iter().map(dollars).sum(), dollars(total), "the rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_rings_metrics_journal_and_callers_agree_after_random_load() {
    let seeds = 1..=tools::soak(2, 20) as u64;
    for seed in seeds {
        // The first is small enough that the rings hold everything.
        let steps = if seed == 1 { 150 } else { 700 };
        println!("seed {seed}, {steps} steps");
        check(seed, steps).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_server_shows_every_metric_and_what_will_be_counted_at_zero() {
    let server = Server::start(json!({
        "providers": {"p": {"kind": "echo"}},
        "agents": {
            "a": {"provider": "p", "model": "m", "tools": ["lookup"], "usd_per_day": 5.0},
            "hosted": {"provider": "p", "instance": {"scripted": {}}},
        },
        "notify": {"team": {"url": "http://127.0.0.1:9/"}},
        "telemetry": {"otlp": {"endpoint": "http://127.0.0.1:9"}},
    }))
    .await;
    let series = |definition: &Definition| match definition.kind {
        Kind::Histogram { .. } => format!("{}_count", definition.name),
        Kind::Counter | Kind::Gauge => definition.name.to_owned(),
    };
    let catalogue: Vec<_> = plimsoll::catalogue::all().iter().map(series).collect();
    // What the disk holds is measured a moment after the start.
    let scrape = until("a series of every metric", async || {
        let scrape = server.scrape().await;
        catalogue.iter().all(|name| scrape.of(name, &[]).next().is_some()).then_some(scrape)
    })
    .await;
    let model = ["gen_ai_provider_name", "gen_ai_request_model"].into_iter().zip(["echo", "m"]);
    let of_model = |more: &[(&'static str, &'static str)]| [model.clone().collect(), more.to_vec()].concat();
    let of_agent = |more: &[(&'static str, &'static str)]| [&[("agent", "a")], more].concat();
    let expected = [
        ("gen_ai_client_operation_duration_seconds_count", of_model(&[("error_type", "")])),
        ("gen_ai_client_operation_time_to_first_chunk_seconds_count", of_model(&[])),
        ("gen_ai_client_token_usage_count", of_model(&[("gen_ai_token_type", "input")])),
        ("gen_ai_client_token_usage_count", of_model(&[("gen_ai_token_type", "output")])),
        ("plimsoll_model_call_cost_usd_count", of_agent(&[("provider", "echo"), ("model", "m")])),
        ("plimsoll_model_unpriced_calls_total", of_agent(&[("provider", "echo"), ("model", "m")])),
        ("plimsoll_tool_calls_total", of_agent(&[("tool", "lookup"), ("outcome", "ok")])),
        ("plimsoll_tool_calls_total", of_agent(&[("tool", "lookup"), ("outcome", "failed")])),
        ("plimsoll_tool_call_duration_seconds_count", of_agent(&[])),
        ("plimsoll_requests_total", of_agent(&[("outcome", "deadline")])),
        ("plimsoll_request_duration_seconds_count", of_agent(&[])),
        ("plimsoll_rpc_duration_seconds_count", vec![("method", "agent.send")]),
        ("plimsoll_errors_total", vec![("source", "panic")]),
        ("plimsoll_limit_hits_total", vec![("limit", "active_bytes_max")]),
        ("plimsoll_limit_hits_total", vec![("limit", "usd_per_day")]),
        ("plimsoll_requests_total", of_agent(&[("outcome", "refused")])),
        ("plimsoll_agent_spend_today_usd", of_agent(&[])),
        ("plimsoll_agents_paused", vec![]),
        ("plimsoll_lifecycle_events_total", vec![("agent_instance", "hosted"), ("event", "lazy_start")]),
        ("plimsoll_instance_failures_total", vec![("agent_instance", "hosted"), ("reason", "not_ready")]),
        ("plimsoll_instance_start_seconds_count", vec![("agent_instance", "hosted")]),
        ("plimsoll_dropped_total", vec![("what", "instance_records"), ("reason", "queue_full")]),
        ("plimsoll_dropped_total", vec![("what", "request_finished"), ("reason", "queue_full")]),
        ("plimsoll_dropped_total", vec![("what", "spans"), ("reason", "unreachable")]),
    ];
    for (name, labels) in expected {
        assert_eq!(scrape.count(name, &labels), 0, "{name} {labels:?}");
    }
    assert_eq!(scrape.count("plimsoll_component_up", &[("component", "otlp")]), 1);
}

fn one_agent(echo: Value) -> Value {
    let mut provider = json!({"kind": "echo"});
    provider.as_object_mut().expect("an object").extend(echo.as_object().expect("an object").clone());
    json!({"providers": {"p": provider}, "agents": {"a": {"provider": "p"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_201st_model_call_evicts_the_first() {
    let server = Server::start(one_agent(json!({}))).await;
    let send = async |n: u64| {
        let params = json!({"agent": "a", "message": "m", "requestId": format!("r{n}")});
        server.call("agent.send", params).await
    };
    for n in 1..=200 {
        send(n).await;
    }
    let has = |metrics: &Value, id: &str| calls(metrics).iter().any(|call| call["requestId"] == id);
    let metrics = server.call("system.metrics", json!({})).await;
    assert!(calls(&metrics).len() == 200 && has(&metrics, "r1"));
    send(201).await;
    let metrics = server.call("system.metrics", json!({})).await;
    assert_eq!((calls(&metrics).len(), number(&metrics["modelCalls"]["total"])), (200, 201));
    assert!(!has(&metrics, "r1") && has(&metrics, "r2") && has(&metrics, "r201"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_501st_event_evicts_the_first_and_filters_are_exact() {
    let server = Server::start(one_agent(json!({"failure_rate": 1.0}))).await;
    let client = server.client();
    let fail = async |n: u64| {
        let params = json!({"agent": "a", "message": "m", "requestId": format!("r{n}")});
        client.call("agent.send", params).await.expect_err("every answer fails");
    };
    let events = async |params: Value| {
        let answer = server.call("system.events", params).await;
        answer["events"].as_array().or(answer.as_array()).expect("a list of events").clone()
    };
    let errors = async || events(json!({"level": "error", "source": "agent.send", "limit": 500})).await;
    let before = events(json!({"limit": 500})).await.len() as u64;
    for n in 1..=500 - before {
        fail(n).await;
    }
    let id = |event: &Value| event["context"]["requestId"].as_str().unwrap_or_default().to_owned();
    let full = errors().await;
    assert_eq!(full.len() as u64, 500 - before);
    assert_eq!(id(full.last().expect("the oldest")), "r1");
    for n in 501 - before..=501 {
        fail(n).await;
    }
    let after = errors().await;
    assert_eq!(after.len(), 500);
    assert_eq!((id(&after[0]), id(&after[499])), ("r501".to_owned(), "r2".to_owned()), "newest first");
    assert_eq!(
        events(json!({"level": "error", "limit": 3})).await.iter().map(id).collect::<Vec<_>>(),
        ["r501", "r500", "r499"]
    );
    assert!(events(json!({"level": "warn"})).await.iter().all(|event| event["level"] == "warn"));
    let metrics = server.call("system.metrics", json!({})).await;
    assert_eq!(number(&metrics["errors"]), server.scrape().await.count("plimsoll_errors_total", &[]));
}
