//! The WebSocket: streamed answers in order, many calls at once, and every way to end a connection.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::{Ask, Ws, soon};
use crate::support::server::{Server, until};
use crate::support::tools::soak;

#[tokio::test]
async fn a_streamed_answer_comes_in_order_before_its_result() {
    let server = Server::start(json!({})).await;
    let mut ws = Ws::open(&server, None).await;
    let id =
        ws.begin("agent.send", json!({"agent": "echo", "message": "one two three", "stream": true})).await;
    let (mut types, mut text) = (Vec::new(), String::new());
    let answer = loop {
        let message = ws.next().await;
        if message["id"] == id {
            break message;
        }
        assert_eq!(message["method"], "agent.event");
        let event = &message["params"];
        text += event["text"].as_str().filter(|_| event["type"] == "delta").unwrap_or_default();
        types.push((event["type"].as_str().expect("a type").to_owned(), event["requestId"].clone()));
    };
    assert_eq!(answer["result"]["text"], text.as_str());
    assert!(types.iter().all(|(_, request)| *request == answer["result"]["requestId"]));
    types.dedup_by(|a, b| a.0 == b.0);
    let order: Vec<&str> = types.iter().map(|(r#type, _)| r#type.as_str()).collect();
    assert_eq!(order, ["queued", "start", "delta", "end"]);
}

#[tokio::test]
async fn pipelined_calls_of_one_session_are_answered_in_order_and_sessions_do_not_wait_for_each_other() {
    let server = Server::start(json!({})).await;
    let mut ws = Ws::open(&server, None).await;
    let (sessions, each) = (soak(10, 50), 10);
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for i in 0..each {
        for s in 0..sessions {
            let session = format!("s{s}");
            let params = json!({"agent": "echo", "message": format!("{s}/{i}"), "session": session});
            let id = ws.begin("agent.send", params).await;
            expected.entry(session).or_default().push(id);
        }
    }
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..sessions * each {
        let answer = ws.next().await;
        let session = answer["result"]["session"].as_str().unwrap_or_else(|| panic!("{answer}"));
        seen.entry(session.to_owned()).or_default().push(answer["id"].as_u64().expect("an id"));
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_is_stopped_before_it_began_is_answered_while_the_one_before_it_runs() {
    let server = slow_server().await;
    let mut ws = Ws::open(&server, None).await;
    let send = |more: Value| {
        let mut params = json!({"agent": "slow", "message": "hi", "session": "s", "onDisconnect": "cancel"});
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        params
    };
    ws.begin("agent.send", send(json!({"requestId": "first"}))).await;
    let late = ws.begin("agent.send", send(json!({"deadlineMs": 50, "stream": true}))).await;
    let cancelled = ws.begin("agent.send", send(json!({"requestId": "mine"}))).await;
    ws.begin("agent.cancel", json!({"requestId": "mine"})).await;
    let mut codes = BTreeMap::new();
    while codes.len() < 2 {
        let message = ws.next().await;
        let about = message["id"].as_u64().filter(|id| [late, cancelled].contains(id));
        codes.extend(about.map(|id| (id, message["error"]["code"].clone())));
    }
    assert_eq!(codes, BTreeMap::from([(late, json!(-32004)), (cancelled, json!(-32005))]));
    assert_eq!(active(&server).await, 1, "the first still runs");
}

#[tokio::test]
async fn binary_is_refused_with_a_reason() {
    let server = Server::start(json!({})).await;
    let mut ws = Ws::open(&server, None).await;
    ws.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(ws.closed().await, (1003, "binary messages are not spoken here: send JSON text".to_owned()));
    let mut text = Ws::open(&server, None).await;
    assert!(text.call("system.health", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn a_plain_request_to_the_websocket_is_told_what_it_is() {
    let server = Server::start(json!({})).await;
    assert_eq!(Ask::get("/ws").send(server.address()).await.status, 426);
    let mut old = Ask::get("/ws");
    for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "8")]
    {
        old = old.header(name, value);
    }
    let answer = old.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").send(server.address()).await;
    assert_eq!(answer.status, 400);
}

fn slow_config() -> Value {
    json!({
        "providers": {"slow": {"kind": "echo", "latency": "30s"}, "quick": {"kind": "echo", "latency": "300ms"}},
        "agents": {"slow": {"provider": "slow"}, "quick": {"provider": "quick"}},
    })
}

async fn slow_server() -> Server {
    Server::start(slow_config()).await
}

async fn active(server: &Server) -> usize {
    let active = server.client().call("system.activeRequests", json!({})).await.expect("an answer");
    active.as_array().expect("a list").len()
}

#[tokio::test]
async fn who_goes_away_gets_what_was_asked_for_in_that_case() {
    let server = slow_server().await;
    let mut ws = Ws::open(&server, None).await;
    ws.begin("agent.send", json!({"agent": "slow", "message": "hi", "onDisconnect": "cancel"})).await;
    ws.begin("agent.send", json!({"agent": "quick", "message": "hi", "session": "kept"})).await;
    until("both run", async || (active(&server).await == 2).then_some(())).await;
    drop(ws);
    until("both ended", async || (active(&server).await == 0).then_some(())).await;
    let finished = async || server.finished().await.filter(|records| records.len() == 2);
    let records = until("both are recorded", finished).await;
    let of = |agent: &str| {
        records.iter().map(|r| &r["detail"]).find(|d| d["agent"] == agent).expect("recorded")["outcome"]
            .clone()
    };
    assert_eq!((of("slow"), of("quick")), (json!("cancelled"), json!("ok")));
}

#[tokio::test]
async fn an_http_client_that_goes_away_is_noticed_too() {
    let server = slow_server().await;
    let params = json!({"agent": "slow", "message": "hi", "onDisconnect": "cancel"});
    let flow = Ask::call("agent.send", params).open(server.address()).await;
    until("it runs", async || (active(&server).await == 1).then_some(())).await;
    drop(flow);
    until("it ended", async || (active(&server).await == 0).then_some(())).await;
}

#[tokio::test]
async fn connections_are_counted_by_what_they_speak() {
    let server = Server::start(json!({})).await;
    let ws = Ws::open(&server, None).await;
    let shows = async |line: &str| {
        until(line, async || {
            let metrics = server.client().get("/metrics").await.ok()?.text().await.ok()?;
            metrics.lines().any(|l| l == line).then_some(())
        })
        .await;
    };
    shows(r#"plimsoll_connections{transport="ws"} 1"#).await;
    drop(ws);
    shows(r#"plimsoll_connections{transport="ws"} 0"#).await;
}

#[tokio::test]
async fn unanswered_calls_of_one_connection_are_bounded() {
    let server = slow_server().await;
    let mut ws = Ws::open(&server, None).await;
    for i in 0..1_030 {
        let params =
            json!({"agent": "slow", "message": "hi", "session": format!("s{i}"), "onDisconnect": "cancel"});
        ws.begin("agent.send", params).await;
    }
    for _ in 0..6 {
        let refused = ws.next().await;
        assert_eq!(refused["error"]["code"], -32002, "{refused}");
        assert_eq!(refused["error"]["data"]["limit"], "ws_in_flight");
    }
}

#[tokio::test]
async fn a_batch_begins_no_more_calls_than_there_is_room_for() {
    let mut config = slow_config();
    config["server"] = json!({"batch_max": 1_000});
    let server = Server::start(config).await;
    let mut ws = Ws::open(&server, None).await;
    let batch = |count: usize, deadline_ms: u64| {
        let call = |id: usize| {
            let params = json!({
                "agent": "slow", "message": "hi", "session": format!("{deadline_ms}/{id}"),
                "deadlineMs": deadline_ms, "onDisconnect": "cancel",
            });
            json!({"jsonrpc": "2.0", "id": id, "method": "agent.send", "params": params})
        };
        json!((0..count).map(call).collect::<Vec<_>>()).to_string()
    };
    ws.send_text(batch(1_000, 30_000)).await;
    ws.send_text(batch(30, 100)).await;
    let answers = ws.next().await;
    let codes: Vec<_> = answers.as_array().expect("a batch").iter().map(|a| &a["error"]["code"]).collect();
    assert_eq!(codes, [vec![&json!(-32004); 24], vec![&json!(-32002); 6]].concat(), "{answers}");
}

#[tokio::test]
async fn idle_connections_cost_little_and_others_are_served() {
    let server = Server::start(json!({})).await;
    let count = soak(300, 1_000);
    let mut warm = Ws::open(&server, None).await;
    warm.call("system.health", json!({})).await;
    let before = server.resident_kib();
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(Ws::open(&server, None).await);
    }
    soon("an answer", warm.call("system.health", json!({}))).await;
    let grown = server.resident_kib().saturating_sub(before);
    let each = grown as f64 / count as f64;
    println!("{count} idle WebSockets: {each:.1} KiB each");
    // A debug build is heavier than what is shipped; the bench holds the shipped one to 30 KiB.
    assert!(each < 60.0, "{each} KiB each");
}
