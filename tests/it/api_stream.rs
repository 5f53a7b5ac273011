//! Following events over SSE and over a WebSocket: journaled ones without gaps, live ones as they come.

use serde_json::{Value, json};

use crate::support::http::{Ask, Ws};
use crate::support::server::{Server, token_hash};

async fn make_tokens(server: &Server, names: impl IntoIterator<Item = String>) {
    for name in names {
        let params = json!({"name": name, "role": "viewer"});
        server.client().call("token.create", params).await.expect("a token");
    }
}

/// A server that knows a token from the beginning, so that making more shuts no door in the test.
async fn with_operator() -> Server {
    with_operator_and(json!({})).await
}

async fn with_operator_and(mut config: Value) -> Server {
    config["auth"] =
        json!({"tokens": [{"name": "op", "role": "operator", "sha256": token_hash("operator")}]});
    Server::start(config).await
}

/// The frames of a stream: id and data.
fn frames(text: &str) -> Vec<(Option<u64>, Value)> {
    let frame = |block: &str| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let data = serde_json::from_str(field("data: ")?).ok()?;
        Some((field("id: ").and_then(|id| id.parse().ok()), data))
    };
    text.split("\n\n").filter_map(frame).collect()
}

fn plain(text: &str) -> String {
    // Chunk sizes stand on lines of their own; taking them out leaves the stream.
    let hex = |line: &str| !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
    text.split("\r\n").filter(|line| !hex(line)).collect()
}

#[tokio::test]
async fn a_stream_resumes_after_its_last_event_without_gaps() {
    let server = with_operator().await;
    make_tokens(&server, (0..5).map(|i| format!("t{i}"))).await;
    let ask = Ask::get("/events?type=token.created").token(Some("operator"));
    let mut all = ask.clone().header("last-event-id", "0").open(server.address()).await;
    all.until("t4").await;
    let seen = frames(&plain(all.seen()));
    let names: Vec<&str> = seen.iter().filter_map(|(_, d)| d["detail"]["name"].as_str()).collect();
    assert_eq!(names, ["t0", "t1", "t2", "t3", "t4"]);
    let ids: Vec<u64> = seen.iter().filter_map(|(id, _)| *id).collect();
    assert!(ids.len() == 5 && ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert!(seen.iter().all(|(id, data)| data["seq"].as_u64() == *id && data["type"] == "token.created"));
    drop(all);

    let mut rest = ask.header("last-event-id", &ids[2].to_string()).open(server.address()).await;
    make_tokens(&server, ["t5".to_owned()]).await;
    rest.until("t5").await;
    let names: Vec<String> = frames(&plain(rest.seen()))
        .iter()
        .filter_map(|(_, d)| d["detail"]["name"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(names, ["t3", "t4", "t5"], "the backlog first, then what comes");
}

#[tokio::test]
async fn a_cursor_from_elsewhere_is_told_to_begin_anew_and_goes_on_from_now() {
    let server = with_operator().await;
    let mut flow = Ask::get("/events")
        .token(Some("operator"))
        .header("last-event-id", "999999")
        .open(server.address())
        .await;
    flow.until("stream.reset").await;
    let reset = frames(&plain(flow.seen())).remove(0);
    assert_eq!(reset.0, None, "only journaled events have an id");
    assert!(reset.1["detail"]["firstSeq"].is_u64() && reset.1["detail"]["lastSeq"].is_u64(), "{}", reset.1);
    make_tokens(&server, ["after".to_owned()]).await;
    flow.until("\"after\"").await;
    let bad = Ask::get("/events")
        .token(Some("operator"))
        .header("last-event-id", "abc")
        .send(server.address())
        .await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn a_long_backlog_comes_whole_and_in_order_while_more_is_appended() {
    let server = with_operator().await;
    let first = 300;
    make_tokens(&server, (0..first).map(|i| format!("n{i}"))).await;
    let mut flow = Ask::get("/events?type=token.created")
        .token(Some("operator"))
        .header("last-event-id", "0")
        .open(server.address())
        .await;
    make_tokens(&server, (first..first + 50).map(|i| format!("n{i}"))).await;
    flow.until(&format!("\"n{}\"", first + 49)).await;
    let names: Vec<String> = frames(&plain(flow.seen()))
        .iter()
        .filter_map(|(_, d)| d["detail"]["name"].as_str().map(str::to_owned))
        .collect();
    let expected: Vec<String> = (0..first + 50).map(|i| format!("n{i}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn filters_and_names_do_what_they_say() {
    let server = with_operator().await;
    let open = async |query: &str| {
        let ask = Ask::get(&format!("/events?{query}")).token(Some("operator"));
        ask.header("last-event-id", "0").open(server.address()).await
    };
    make_tokens(&server, ["x".to_owned()]).await;
    let mut named = open("type=token.created&named=1").await;
    named.until("event: token.created\n").await;
    let mut revoked = open("type=token.revoked,nothing.else&level=info").await;
    server.client().call("token.revoke", json!({"name": "x"})).await.expect("revoked");
    revoked.until("token.revoked").await;
    assert!(!revoked.seen().contains("token.created"));
    assert!(!revoked.seen().contains("event:"), "plain onmessage clients see all");
    for bad in ["colour=red", "level=loud", "named=2", "instance=A%20B"] {
        let refused =
            Ask::get(&format!("/events?{bad}")).token(Some("operator")).send(server.address()).await;
        assert_eq!(refused.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn live_events_come_without_a_place_in_the_journal() {
    let server = Server::start(json!({
        "providers": {"bad": {"kind": "echo", "failure_rate": 1.0}},
        "agents": {"bad": {"provider": "bad"}},
    }))
    .await;
    let mut flow = Ask::get("/events?level=error").open(server.address()).await;
    flow.until(": plimsoll").await;
    let failed =
        Ask::call("agent.send", json!({"agent": "bad", "message": "hi"})).send(server.address()).await;
    assert_eq!(failed.json()["error"]["code"], -32007);
    flow.until("agent.send").await;
    let event = frames(&plain(flow.seen())).into_iter().find(|(_, data)| data["source"] == "agent.send");
    let (id, event) = event.expect("the error event");
    assert_eq!((id, event.get("seq")), (None, None));
    assert_eq!(event["level"], "error");
}

#[tokio::test]
async fn a_websocket_follows_the_same_events() {
    let server = with_operator().await;
    let mut ws = Ws::open(&server, Some("operator")).await;
    make_tokens(&server, ["before".to_owned()]).await;
    let params = json!({"types": ["token.created"], "afterSeq": 0});
    let subscription = ws.call("events.subscribe", params).await["result"]["subscription"].clone();
    let mut names = Vec::new();
    let mut next = async |ws: &mut Ws| {
        let message = ws.next().await;
        assert_eq!(
            (&message["method"], &message["params"]["subscription"]),
            (&json!("event"), &subscription)
        );
        assert!(message["params"]["seq"].is_u64());
        names.push(message["params"]["detail"]["name"].as_str().expect("a name").to_owned());
    };
    next(&mut ws).await;
    make_tokens(&server, ["after".to_owned()]).await;
    next(&mut ws).await;
    assert_eq!(names, ["before", "after"]);
    let ended = ws.call("events.unsubscribe", json!({"subscription": subscription})).await;
    assert_eq!(ended["result"], json!({"unsubscribed": true}));
    make_tokens(&server, ["unheard".to_owned()]).await;
    let again = ws.call("events.unsubscribe", json!({"subscription": subscription})).await;
    assert_eq!(again["result"], json!({"unsubscribed": false}));
    for _ in 0..16 {
        assert!(ws.call("events.subscribe", json!({"types": ["none"]})).await["result"].is_object());
    }
    let over = ws.call("events.subscribe", json!({})).await;
    assert_eq!(over["error"]["code"], -32010, "{over}");
}

#[tokio::test]
async fn a_subscription_is_named_before_its_first_event_whatever_else_is_answered() {
    let server = with_operator_and(json!({
        "providers": {"slow": {"kind": "echo", "latency": "30s"}},
        "agents": {"slow": {"provider": "slow"}},
    }))
    .await;
    make_tokens(&server, ["before".to_owned()]).await;
    let mut ws = Ws::open(&server, Some("operator")).await;
    let call = |id: u64, method: &str, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let batch = json!([
        call(1, "events.subscribe", json!({"types": ["token.created"], "afterSeq": 0})),
        call(2, "agent.send", json!({"agent": "slow", "message": "hi", "requestId": "mine"})),
    ]);
    ws.send_text(batch.to_string()).await;
    let early = ws.call("agent.list", json!({})).await;
    assert!(early["result"].is_object(), "answered while the batch is under way: {early}");
    ws.begin("agent.cancel", json!({"requestId": "mine"})).await;
    let answer = loop {
        let message = ws.next().await;
        assert!(message["method"].is_null(), "an event came first: {message}");
        if message.is_array() {
            break message;
        }
    };
    assert_eq!(answer[0]["result"]["subscription"], 1, "{answer}");
    assert_eq!(ws.next().await["params"]["detail"]["name"], "before");
}

#[tokio::test]
async fn shutdown_ends_streams() {
    let mut server = Server::start(json!({})).await;
    let mut flow = Ask::get("/events").open(server.address()).await;
    flow.until(": plimsoll").await;
    server.signal(rustix::process::Signal::TERM);
    flow.end().await;
    assert!(server.ended().await.success());
}
