//! Requests that outlive the connection they came by, over the real binary.

use serde_json::{Value, json};

use crate::support::http::{Ask, Ws};
use crate::support::server::{Server, until};

/// An agent that answers at once, and one that takes its time.
fn two_agents() -> Value {
    json!({
        "providers": {
            "fast": {"kind": "echo"},
            "slow": {"kind": "echo", "latency": "300ms"},
            "stuck": {"kind": "echo", "latency": "1h"},
        },
        "agents": {
            "fast": {"provider": "fast"},
            "slow": {"provider": "slow"},
            "stuck": {"provider": "stuck"},
        },
    })
}

async fn rpc(server: &Server, method: &str, params: Value) -> Value {
    Ask::call(method, params).send(server.address()).await.json()
}

async fn get(server: &Server, params: Value) -> Value {
    rpc(server, "request.get", params).await
}

/// Waits until the request of this id is there.
async fn begun(server: &Server, request: &str) {
    let known = async || get(server, json!({"requestId": request})).await["result"].is_object();
    until("the request", async || known().await.then_some(())).await;
}

#[tokio::test]
async fn a_client_that_vanishes_finds_its_answer() {
    let server = Server::start(two_agents()).await;
    let mut ws = Ws::open(&server, None).await;
    ws.begin("agent.send", json!({"agent": "slow", "message": "are you there?", "requestId": "mine"})).await;
    begun(&server, "mine").await;
    drop(ws.into_stream());
    let found = get(&server, json!({"requestId": "mine", "waitMs": 30_000})).await["result"].clone();
    assert_eq!((&found["state"], &found["answer"]["text"]), (&json!("done"), &json!("are you there?")));
    assert!(found["endedAt"].as_u64() >= found["acceptedAt"].as_u64(), "{found}");
    // The same over HTTP.
    let params = json!({"agent": "slow", "message": "and now?", "requestId": "http"});
    let connection = Ask::call("agent.send", params).open(server.address()).await;
    begun(&server, "http").await;
    drop(connection);
    let found = get(&server, json!({"requestId": "http", "waitMs": 30_000})).await["result"].clone();
    assert_eq!((&found["state"], &found["answer"]["text"]), (&json!("done"), &json!("and now?")));
}

#[tokio::test]
async fn an_async_request_is_answered_at_once_over_both_roads() {
    let server = Server::start(two_agents()).await;
    let params = json!({"agent": "stuck", "message": "x", "session": "s", "async": true});
    let sent = rpc(&server, "agent.send", params.clone()).await["result"].clone();
    let id = &sent["requestId"];
    assert_eq!(sent, json!({"requestId": id, "session": "s"}));
    let running = get(&server, json!({"requestId": id})).await["result"].clone();
    assert!(["queued", "running"].contains(&running["state"].as_str().unwrap_or_default()), "{running}");
    assert!(
        running.get("answer").is_none() && running.get("error").is_none() && running.get("endedAt").is_none()
    );
    // The second waits for the first, whose lane it is in, and is told of its cancel.
    let mut ws = Ws::open(&server, None).await;
    let second = ws.call("agent.send", params).await["result"].clone();
    let queued = ws.call("request.get", json!({"requestId": second["requestId"]})).await["result"].clone();
    assert_eq!(queued["state"], "queued");
    let wait = json!({"requestId": second["requestId"], "waitMs": 30_000});
    let waiting = ws.begin("request.get", wait).await;
    rpc(&server, "agent.cancel", json!({"requestId": second["requestId"]})).await;
    let told = ws.next().await;
    assert_eq!((&told["id"], &told["result"]["state"]), (&json!(waiting), &json!("cancelled")), "{told}");
    let error = &told["result"]["error"];
    assert_eq!((&error["code"], &error["data"]["requestId"]), (&json!(-32005), &second["requestId"]));
}

#[tokio::test]
async fn a_wait_ends_without_an_end_and_its_bounds_are_told() {
    let server = Server::start(two_agents()).await;
    let sent = rpc(&server, "agent.send", json!({"agent": "stuck", "message": "x", "async": true})).await;
    let id = &sent["result"]["requestId"];
    let waited = get(&server, json!({"requestId": id, "waitMs": 20})).await;
    assert!(waited["result"]["state"].is_string() && waited["result"].get("endedAt").is_none(), "{waited}");
    assert!(get(&server, json!({"requestId": id, "waitMs": 0})).await["result"].is_object());
    let long = get(&server, json!({"requestId": id, "waitMs": 60_001})).await;
    assert_eq!((&long["error"]["code"], &long["error"]["data"]["field"]), (&json!(-32602), &json!("waitMs")));
    let unknown = get(&server, json!({"requestId": "nobody"})).await;
    assert_eq!(unknown["error"]["code"], -32013);
    let words = unknown["error"]["message"].as_str().unwrap_or_default();
    assert!(words.contains("gateway.answers_kept"), "{words}");
}

#[tokio::test]
async fn the_oldest_ends_make_room_and_are_counted() {
    let mut config = two_agents();
    config["gateway"] = json!({"answers_max": 2});
    let server = Server::start(config).await;
    for i in 0..3 {
        let params = json!({"agent": "fast", "message": "hi", "requestId": format!("r{i}")});
        assert_eq!(rpc(&server, "agent.send", params).await["result"]["text"], "hi");
    }
    assert_eq!(get(&server, json!({"requestId": "r0"})).await["error"]["code"], -32013);
    for id in ["r1", "r2"] {
        assert_eq!(get(&server, json!({"requestId": id})).await["result"]["state"], "done");
    }
    let metrics = Ask::get("/metrics").send(server.address()).await.text();
    assert!(metrics.contains("plimsoll_limit_hits_total{limit=\"answers_max\"} 1\n"), "{metrics}");
}
