//! JSON-RPC over both roads: the standard's codes, the documented shapes, and bad input of every kind.

use serde_json::{Value, json};

use crate::support::http::{Ask, Ws};
use crate::support::server::{Server, until};

/// What is no call, or a wrong one, and the code it gets.
const BAD: &[(&str, i64)] = &[
    ("{", -32700),
    ("nonsense", -32700),
    (r#"{"jsonrpc":"2.0","id":1,"method":"system.health"} {}"#, -32700),
    ("[]", -32600),
    ("1", -32600),
    ("null", -32600),
    (r#"{"id":1,"method":"system.health"}"#, -32600),
    (r#"{"jsonrpc":"1.0","id":1,"method":"system.health"}"#, -32600),
    (r#"{"jsonrpc":"2.0","id":[],"method":"system.health"}"#, -32600),
    (r#"{"jsonrpc":"2.0","id":true,"method":"system.health"}"#, -32600),
    (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"system.health"}"#, -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"system.health","params":1}"#, -32600),
    (r#"{"jsonrpc":"2.0","id":1,"method":"no.such"}"#, -32601),
    (r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#, -32601),
    (r#"{"jsonrpc":"2.0","id":1,"method":"system.health","params":[1]}"#, -32602),
    (r#"{"jsonrpc":"2.0","id":1,"method":"system.health","params":{"colour":"red"}}"#, -32602),
];

/// Wrong parameters of `agent.send`, the code, and the field that the answer names.
fn wrong_sends() -> Vec<(Value, i64, &'static str)> {
    let good = || json!({"agent": "echo", "message": "hi"});
    let with = |key: &str, value: Value| {
        let mut params = good();
        params[key] = value;
        params
    };
    let both = |more: Value| {
        let (mut params, Value::Object(more)) = (good(), more) else { unreachable!("an object") };
        params.as_object_mut().expect("an object").extend(more);
        params
    };
    vec![
        (json!({"message": "hi"}), -32602, "agent"),
        (json!({"agent": "echo"}), -32602, "message"),
        (with("agent", json!(7)), -32602, "agent"),
        (with("message", json!("")), -32602, "message"),
        (with("message", json!(["hi"])), -32602, "message"),
        (with("session", json!("x".repeat(129))), -32602, "session"),
        (with("session", json!("a\u{7}b")), -32602, "session"),
        (with("requestId", json!("a b")), -32602, "requestId"),
        (with("deadlineMs", json!(0)), -32602, "deadlineMs"),
        (with("deadlineMs", json!(-1)), -32602, "deadlineMs"),
        (with("deadlineMs", json!(86_400_001)), -32602, "deadlineMs"),
        (with("onDisconnect", json!("explode")), -32602, "onDisconnect"),
        (with("async", json!("yes")), -32602, "async"),
        (with("idempotencyKey", json!("")), -32602, "idempotencyKey"),
        (with("idempotencyKey", json!("x".repeat(129))), -32602, "idempotencyKey"),
        (with("idempotencyKey", json!("a\nb")), -32602, "idempotencyKey"),
        (both(json!({"idempotencyKey": "k", "onDisconnect": "cancel"})), -32602, "onDisconnect"),
        (both(json!({"async": true, "stream": true})), -32602, "stream"),
        (both(json!({"async": true, "onDisconnect": "cancel"})), -32602, "onDisconnect"),
        (with("colour", json!("red")), -32602, "colour"),
    ]
}

#[tokio::test]
async fn bad_messages_get_the_standard_code_over_http() {
    let server = Server::start(json!({})).await;
    for (text, code) in BAD {
        let answer = Ask::rpc(*text).send(server.address()).await;
        assert_eq!(answer.json()["error"]["code"], *code, "{text}: {}", answer.text());
        let parsed = matches!(code, -32601 | -32602);
        assert_eq!(answer.status, if parsed { 200 } else { 400 }, "{text}");
    }
    let form = Ask::method("POST", "/rpc").header("content-type", "text/plain");
    assert_eq!(form.send(server.address()).await.status, 415);
}

#[tokio::test]
async fn bad_messages_leave_a_websocket_usable() {
    let server = Server::start(json!({})).await;
    let mut ws = Ws::open(&server, None).await;
    for (text, code) in BAD {
        ws.send_text(*text).await;
        assert_eq!(ws.next().await["error"]["code"], *code, "{text}");
    }
    assert!(ws.call("system.health", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn wrong_parameters_name_their_field() {
    let server = Server::start(json!({})).await;
    for (params, code, field) in wrong_sends() {
        let answer = Ask::call("agent.send", params.clone()).send(server.address()).await.json();
        assert_eq!(answer["error"]["code"], code, "{params}: {answer}");
        assert_eq!(answer["error"]["data"]["field"], field, "{params}: {answer}");
    }
    let unknown = json!({"agent": "nobody", "message": "hi"});
    let answer = Ask::call("agent.send", unknown).send(server.address()).await.json();
    assert_eq!(answer["error"]["code"], -32003, "{answer}");
    let streamed = json!({"agent": "echo", "message": "hi", "stream": true});
    let answer = Ask::call("agent.send", streamed).send(server.address()).await.json();
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["data"]["field"]),
        (&json!(-32602), &json!("stream"))
    );
}

#[tokio::test]
async fn nesting_ten_thousand_deep_is_refused() {
    let server = Server::start(json!({})).await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    assert_eq!(Ask::rpc(deep.clone()).send(server.address()).await.json()["error"]["code"], -32600);
    let mut ws = Ws::open(&server, None).await;
    ws.send_text(deep).await;
    assert_eq!(ws.next().await["error"]["code"], -32600);
}

#[tokio::test]
async fn batches_are_answered_in_order_and_bounded() {
    let server = Server::start(json!({"server": {"batch_max": 3}})).await;
    let call = |id: Value, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method});
    let note = json!({"jsonrpc": "2.0", "method": "system.health"});
    let ask = async |batch: Value| Ask::rpc(batch.to_string()).send(server.address()).await;

    let mixed = ask(json!([call(json!("a"), "system.health"), note, 1])).await;
    let answers = mixed.json();
    assert_eq!(answers.as_array().map(Vec::len), Some(2), "{answers}");
    assert_eq!((&answers[0]["id"], &answers[1]["error"]["code"]), (&json!("a"), &json!(-32600)));

    let silent = ask(json!([note, note])).await;
    assert_eq!((silent.status, silent.body.len()), (204, 0));
    let single = ask(note.clone()).await;
    assert_eq!((single.status, single.body.len()), (204, 0));

    let full = ask(json!([
        call(json!(1), "agent.list"),
        call(json!(2), "no.such"),
        call(json!(null), "agent.list")
    ]))
    .await;
    let ids: Vec<Value> = full.json().as_array().expect("a batch").iter().map(|a| a["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(2), Value::Null]);
    let over = ask(json!([note, note, note, note])).await;
    assert_eq!((over.status, &over.json()["error"]["code"]), (400, &json!(-32600)));
}

/// A value with everything that differs from run to run blanked out.
fn stable(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let blank = |key: &str| {
                key.ends_with("Ms")
                    || matches!(
                        key,
                        "requestId"
                            | "uptime"
                            | "version"
                            | "timestamp"
                            | "startedAt"
                            | "createdAt"
                            | "acceptedAt"
                            | "endedAt"
                    )
                    || matches!(
                        key,
                        "id" | "traceId" | "latency" | "avgLatency" | "timeToFirstToken" | "token"
                    )
                    || matches!(
                        key,
                        "tokensPerSec" | "connections" | "durationMs" | "params" | "lastActiveAt"
                    )
            };
            let entries = object.into_iter().map(|(key, value)| {
                let value = if blank(&key) { json!("…") } else { stable(value) };
                (key, value)
            });
            Value::Object(entries.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(stable).collect()),
        other => other,
    }
}

#[tokio::test]
async fn results_have_the_documented_shapes() {
    let server = Server::start(json!({
        "providers": {"echo": {"kind": "echo"}},
        "agents": {"echo": {"provider": "echo", "role": "repeats", "tools": ["look"]}},
    }))
    .await;
    let client = server.client();
    let call = async |method: &str, params: Value| {
        stable(client.call(method, params).await.unwrap_or_else(|e| panic!("{method}: {e}")))
    };
    let sent = json!({"agent": "echo", "message": "hello", "session": "s", "requestId": "mine"});
    let sent = call("agent.send", sent).await;
    insta::assert_json_snapshot!("agent.send", sent);
    for (method, params) in [
        ("agent.list", json!({})),
        ("agent.cancel", json!({"requestId": "none"})),
        ("agent.logs", json!({"agent": "echo", "after": 0, "waitMs": 1})),
        ("request.get", json!({"requestId": "mine"})),
        ("session.list", json!({})),
        ("session.history", json!({"agent": "echo", "session": "s"})),
        ("session.reset", json!({"agent": "echo", "session": "s"})),
        ("system.health", json!({})),
        ("system.metrics", json!({})),
        ("system.activeRequests", json!({})),
        ("agent.create", json!({"id": "golden", "provider": "echo", "role": "tester"})),
        ("agent.delete", json!({"agent": "golden"})),
        ("token.create", json!({"name": "golden", "role": "viewer"})),
        ("token.list", json!({})),
        ("token.revoke", json!({"name": "golden"})),
    ] {
        insta::assert_json_snapshot!(method, call(method, params).await);
    }
    let methods = client.call("system.methods", json!({})).await.expect("the methods");
    insta::assert_json_snapshot!("system.methods", methods);
}

#[tokio::test]
async fn errors_have_the_documented_shapes() {
    let server = Server::start(json!({})).await;
    let first = json!({"agent": "echo", "message": "hi", "idempotencyKey": "k", "requestId": "one"});
    let _ = Ask::call("agent.send", first).send(server.address()).await;
    let mut shapes = Vec::new();
    for (method, params) in [
        ("agent.send", json!({"agent": "nobody", "message": "hi"})),
        ("agent.send", json!({"agent": "echo", "message": ""})),
        ("agent.logs", json!({"agent": "nobody"})),
        ("agent.logs", json!({"agent": "echo", "lines": 0})),
        ("agent.logs", json!({"agent": "echo", "lines": 2_001})),
        ("agent.logs", json!({"agent": "echo", "after": 0, "waitMs": 30_001})),
        ("session.history", json!({"agent": "echo", "session": "nowhere"})),
        (
            "agent.send",
            json!({"agent": "echo", "message": "other", "idempotencyKey": "k", "requestId": "two"}),
        ),
        ("request.get", json!({"requestId": "none"})),
        ("request.get", json!({"idempotencyKey": "none"})),
        ("request.get", json!({"idempotencyKey": "k", "requestId": "both"})),
        ("request.get", json!({})),
        ("token.revoke", json!({"name": "nobody"})),
        ("events.subscribe", json!({})),
        ("no.such", json!({})),
    ] {
        let answer = Ask::call(method, params).send(server.address()).await.json();
        shapes.push(json!({"method": method, "error": answer["error"]}));
    }
    insta::assert_json_snapshot!("errors", shapes);
}

#[tokio::test]
async fn a_duplicate_request_id_is_refused_while_the_first_is_alive() {
    let server = Server::start(json!({
        "providers": {"slow": {"kind": "echo", "latency": "30s"}},
        "agents": {"slow": {"provider": "slow"}},
    }))
    .await;
    let mut ws = Ws::open(&server, None).await;
    let params = json!({"agent": "slow", "message": "hi", "requestId": "mine"});
    let first = ws.begin("agent.send", params.clone()).await;
    let second = ws.call("agent.send", params).await;
    assert_eq!(
        (&second["error"]["code"], &second["error"]["data"]["field"]),
        (&json!(-32602), &json!("requestId"))
    );
    let cancelled = ws.begin("agent.cancel", json!({"requestId": "mine"})).await;
    let (one, two) = (ws.next().await, ws.next().await);
    let by_id = |id: u64| [&one, &two].into_iter().find(|m| m["id"] == id).cloned().unwrap_or_default();
    assert_eq!(by_id(cancelled)["result"], json!({"cancelled": true}));
    assert_eq!(by_id(first)["error"]["code"], -32005);
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code_and_made_up_names_make_no_series() {
    let server = Server::start(json!({})).await;
    for i in 0..50 {
        let answer = Ask::call(&format!("made.up.{i}"), json!({})).send(server.address()).await;
        assert_eq!(answer.json()["error"]["code"], -32601);
    }
    let _ = Ask::call("agent.list", json!({})).send(server.address()).await;
    let _ = Ask::call("agent.list", json!({"x": 1})).send(server.address()).await;
    until("the counts", async || {
        let metrics = Ask::get("/metrics").send(server.address()).await.text();
        assert!(!metrics.contains("made.up"));
        let has = |line: &str| metrics.lines().any(|l| l == line);
        (has(r#"plimsoll_rpc_calls_total{method="unknown",code="-32601"} 50"#)
            && has(r#"plimsoll_rpc_calls_total{method="agent.list",code="ok"} 1"#)
            && has(r#"plimsoll_rpc_calls_total{method="agent.list",code="-32602"} 1"#))
        .then_some(())
    })
    .await;
}
