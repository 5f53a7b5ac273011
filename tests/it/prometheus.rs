//! A real Prometheus scrapes the real binary under load, and what it stored is what `system.metrics` says.

use plimsoll::demo::{PACE, People, Plan, cast, crew, drive, keep_busy};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::prometheus::Prometheus;
use crate::support::server::{Server, until};
use crate::support::tools::{needs, soak};

/// The demo's agents and its town, faster.
pub(crate) fn demo(seed: u64) -> Value {
    let mut providers = serde_json::to_value(cast::providers(seed)).expect("providers are JSON");
    for member in cast::AGENTS {
        providers[member.name]["latency"] = json!(format!("{}ms", member.latency_ms / 20));
    }
    for hand in crew::CREW {
        providers[hand.name]["latency"] = json!(format!("{}ms", hand.latency_ms / 20));
    }
    json!({"providers": providers, "agents": cast::agents(), "prices": cast::prices(), "towns": crew::towns()})
}

/// Sends `requests` of the demo's load, many a second, and waits until nothing runs.
pub(crate) async fn load(server: &Server, seed: u64, requests: usize, per_second: f64) -> Value {
    let plan = Plan::new(seed, per_second).take(requests);
    let client = server.tcp_client(None);
    drive(&client, plan, &CancellationToken::new()).await.expect("the load runs");
    until("quiet", async || {
        let metrics = client.call("system.metrics", json!({})).await.ok()?;
        (metrics["activeRequests"] == 0).then_some(metrics)
    })
    .await
}

/// The same load, and beside it people who give the town work, without waiting for what is left of that.
pub(crate) async fn load_and_work(server: &Server, seed: u64, requests: usize, per_second: f64) {
    let client = server.tcp_client(None);
    let stop = CancellationToken::new();
    let mut people = People::new(seed, PACE / 20);
    let load = async {
        let plan = Plan::new(seed, per_second).take(requests);
        drive(&client, plan, &stop).await.expect("the load runs");
        stop.cancel();
    };
    tokio::join!(load, keep_busy(&client, &mut people, &stop));
}

#[tokio::test]
async fn what_prometheus_stored_is_what_the_snapshot_says() {
    if needs("prometheus").is_none() {
        return;
    }
    let server = Server::start(demo(7)).await;
    let mut prometheus = Prometheus::scraping(&server).await.expect("it was there a moment ago");
    let metrics = load(&server, 7, soak(300, 5_000), 500.0).await;
    let number = |pointer: &str| metrics.pointer(pointer).and_then(Value::as_f64).expect(pointer);
    let processed = number("/messagesProcessed");
    assert!(processed > 100.0, "the load went through: {metrics}");
    assert!(number("/errors") > 0.0, "some requests of the demo fail: {metrics}");
    for (expression, pointer) in [
        ("sum(plimsoll_messages_processed_total)", "/messagesProcessed"),
        ("sum(plimsoll_requests_total)", "/messagesProcessed"),
        ("sum(plimsoll_request_duration_seconds_count)", "/messagesProcessed"),
        ("sum(plimsoll_errors_total)", "/errors"),
        ("sum(plimsoll_requests_active)", "/activeRequests"),
        ("sum(plimsoll_queue_depth)", "/queueDepth"),
        ("sum(plimsoll_sessions)", "/sessions"),
        ("sum(gen_ai_client_operation_duration_seconds_count)", "/modelCalls/total"),
    ] {
        prometheus.until_value(expression, number(pointer)).await;
    }
    let counted = prometheus.values("count({job=\"plimsoll\"})").await.expect("it answers");
    assert!(counted[0] < 5_000.0, "{} series of five agents", counted[0]);
}

#[tokio::test]
async fn prometheus_finds_nothing_to_complain_about_in_the_exposition() {
    let Some(promtool) = needs("promtool") else { return };
    let server = Server::start(demo(8)).await;
    load(&server, 8, 60, 500.0).await;
    let text = server.client().get("/metrics").await.expect("/metrics").text().await.expect("text");
    let file = server.dir().join("exposition");
    std::fs::write(&file, &text).expect("the exposition is written");
    let input = std::fs::File::open(&file).expect("it was just written");
    let checked = std::process::Command::new(promtool).args(["check", "metrics"]).stdin(input).output();
    let checked = checked.expect("promtool runs");
    let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && complaints.is_empty(), "{complaints}");
}
