//! Requests that outlive the connection they came by, over the real binary.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::http::{Ask, Ws, soon};
use crate::support::server::{Server, clean_command, rpc, until};
use crate::support::upstream::{Reply, Request, STOP, Upstream, delta, refusal, stream};

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

/// A model server that counts what it is asked, and never answers `hang`.
async fn upstream() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    Upstream::choosing(listener, |request| match said(request).as_str() {
        "hang" => Reply::Hang(Vec::new()),
        other => stream(&[&delta(&format!("re: {other}")), STOP, "[DONE]"]),
    })
}

fn said(request: &Request) -> String {
    let last = request.body["messages"].as_array().and_then(|all| all.last());
    last.and_then(|last| last["content"].as_str()).unwrap_or_default().to_owned()
}

fn behind(upstream: &Upstream) -> Value {
    json!({
        "providers": {"p": {"kind": "openai", "base_url": upstream.base_url()}},
        "agents": {"a": {"provider": "p", "model": "m"}, "b": {"provider": "p", "model": "m"}},
    })
}

async fn send(server: &Server, message: &str, key: &str) -> Value {
    rpc(server, "agent.send", json!({"agent": "a", "message": message, "idempotencyKey": key})).await
}

/// The cause of a conflict.
fn cause(answer: &Value) -> &str {
    assert_eq!(answer["error"]["code"], -32014, "{answer}");
    assert_eq!(answer["error"]["data"]["field"], "idempotencyKey");
    answer["error"]["data"]["cause"].as_str().unwrap_or_default()
}

/// Waits until the journal holds so many records of this kind.
async fn journaled(server: &Server, kind: &str, records: usize) {
    let path = format!("/audit?kind={kind}&limit=1000");
    until(kind, async || {
        let page = server.client().get(&path).await.ok()?.text().await.ok()?;
        (page.matches(&format!("\"kind\":\"{kind}\"")).count() >= records).then_some(())
    })
    .await;
}

async fn restarted(dir: TempDir, config: Value) -> Server {
    let mut server = Server::spawn(dir, config);
    server.ready().await;
    server
}

#[tokio::test]
async fn one_key_sent_fifty_times_at_once_runs_once_and_answers_all() {
    let upstream = upstream().await;
    let server = Server::start(behind(&upstream)).await;
    let mut ws = Ws::open(&server, None).await;
    let params = json!({"agent": "a", "message": "once", "idempotencyKey": "k"});
    for _ in 0..25 {
        ws.begin("agent.send", params.clone()).await;
    }
    let over_http = (0..25).map(|_| send(&server, "once", "k"));
    let mut answers = futures_util::future::join_all(over_http).await;
    for _ in 0..25 {
        answers.push(ws.next().await);
    }
    let ids: std::collections::BTreeSet<_> =
        answers.iter().filter_map(|answer| answer["result"]["requestId"].as_str()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer["result"]["text"] == "re: once"), "{answers:?}");
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(send(&server, "once", "k").await["result"]["text"], "re: once", "the same later");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_key_belongs_to_its_message_its_caller_and_its_agent() {
    let upstream = upstream().await;
    let server = Server::start(behind(&upstream)).await;
    let mut tokens = Vec::new();
    for name in ["ann", "bob"] {
        let made = server.call("token.create", json!({"name": name, "role": "operator"})).await;
        tokens.push(made["token"].as_str().expect("its text").to_owned());
    }
    let ask = async |token: &str, method: &str, params: Value| {
        Ask::call(method, params).token(Some(token)).send(server.address()).await.json()
    };
    let params =
        |agent: &str, message: &str| json!({"agent": agent, "message": message, "idempotencyKey": "k"});
    for (token, agent) in [(&tokens[0], "a"), (&tokens[1], "a"), (&tokens[0], "b")] {
        assert_eq!(ask(token, "agent.send", params(agent, "hi")).await["result"]["text"], "re: hi");
    }
    assert_eq!(upstream.requests().len(), 3, "another caller and another agent: other keys");
    assert_eq!(cause(&ask(&tokens[0], "agent.send", params("a", "bye")).await), "other_message");
    assert_eq!(upstream.requests().len(), 3);
    // By the key alone it is not clear which of her two is meant; of his there is one.
    let by_key = json!({"idempotencyKey": "k"});
    assert_eq!(ask(&tokens[0], "request.get", by_key.clone()).await["error"]["data"]["field"], "agent");
    let his = ask(&tokens[1], "request.get", by_key).await["result"].clone();
    assert_eq!((&his["state"], &his["answer"]["text"]), (&json!("done"), &json!("re: hi")));
    let hers = ask(&tokens[0], "request.get", json!({"idempotencyKey": "k", "agent": "b"})).await;
    assert_eq!(hers["result"]["agent"], "b", "{hers}");
}

#[tokio::test]
async fn what_ended_is_not_run_again_when_its_answer_is_gone() {
    let upstream = upstream().await;
    let mut config = behind(&upstream);
    config["gateway"] = json!({"answers_max": 1});
    let server = Server::start(config.clone()).await;
    assert_eq!(send(&server, "one", "first").await["result"]["text"], "re: one");
    assert_eq!(send(&server, "two", "second").await["result"]["text"], "re: two");
    assert_eq!(cause(&send(&server, "one", "first").await), "finished");
    // Killed where it stands: what was answered is known to have ended.
    let server = restarted(server.kill(), config).await;
    for (message, key) in [("one", "first"), ("two", "second")] {
        assert_eq!(cause(&send(&server, message, key).await), "finished");
    }
    let known = get(&server, json!({"idempotencyKey": "second"})).await["result"].clone();
    assert_eq!(known["state"], "done", "{known}");
    assert!(known.get("answer").is_none() && known.get("error").is_none(), "{known}");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn what_was_under_way_at_a_kill_is_interrupted_and_the_caller_decides() {
    let upstream = upstream().await;
    let server = Server::start(behind(&upstream)).await;
    let params = |message: &str, key: &str| json!({"agent": "a", "message": message, "session": "s", "idempotencyKey": key, "async": true});
    // One that the model is at, and one behind it in its lane.
    let running = rpc(&server, "agent.send", params("hang", "running")).await;
    rpc(&server, "agent.send", params("wait", "queued")).await;
    until("the model call", async || (!upstream.requests().is_empty()).then_some(())).await;
    journaled(&server, "request_accepted", 2).await;
    let again = rpc(&server, "agent.send", params("hang", "running")).await;
    assert_eq!(again["result"], running["result"], "while it runs, it is the same request");
    let server = restarted(server.kill(), behind(&upstream)).await;
    for (message, key) in [("hang", "running"), ("wait", "queued")] {
        assert_eq!(cause(&rpc(&server, "agent.send", params(message, key)).await), "interrupted");
        let known = get(&server, json!({"idempotencyKey": key})).await;
        assert_eq!(known["result"]["state"], "interrupted", "{known}");
    }
    assert_eq!(upstream.requests().len(), 1);
    let anew = json!({"agent": "a", "message": "wait", "session": "s", "idempotencyKey": "new"});
    assert_eq!(rpc(&server, "agent.send", anew).await["result"]["text"], "re: wait");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_key_is_free_again_where_the_provider_said_when_to_come_again() {
    let busy = |head| refusal("429 Too Many Requests", head, "{}");
    let answers = vec![busy("retry-after: 1\r\n"), stream(&[&delta("ok"), STOP, "[DONE]"]), busy("")];
    let upstream = Upstream::start(answers).await;
    let mut config = behind(&upstream);
    config["providers"]["p"]["retries"] = json!(0);
    let server = Server::start(config).await;
    let told = send(&server, "hi", "k").await["error"].clone();
    assert_eq!((&told["code"], &told["data"]["retryAfterMs"]), (&json!(-32007), &json!(1_000)), "{told}");
    assert_eq!(send(&server, "hi", "k").await["result"]["text"], "ok");
    // One that does not say so may have worked: the same key gives the same end.
    let first = send(&server, "hi", "other").await["error"].clone();
    assert_eq!(send(&server, "hi", "other").await["error"], first);
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_key_keeps_its_place_in_the_lane_and_its_record_holds_no_content() {
    let server = Server::start(two_agents()).await;
    let mut ws = Ws::open(&server, None).await;
    for (id, key) in [("r0", None), ("r1", Some("secret key")), ("r2", None), ("r3", Some("other key"))] {
        let mut params = json!({"agent": "slow", "message": "secret words", "requestId": id, "session": "s"});
        if let Some(key) = key {
            params["idempotencyKey"] = json!(key);
        }
        ws.begin("agent.send", params).await;
    }
    for id in ["r0", "r1", "r2", "r3"] {
        assert_eq!(ws.next().await["result"]["requestId"], id);
    }
    journaled(&server, "request_finished", 4).await;
    let page = server.client().get("/audit?limit=1000").await.expect("reads").text().await.expect("text");
    assert_eq!(page.matches("\"kind\":\"request_accepted\"").count(), 2, "{page}");
    assert!(page.contains("keyHash") && !page.contains("secret"), "{page}");
    assert!(!server.log().contains("secret key"));
}

#[tokio::test]
async fn the_command_line_detaches_and_finds_the_answer() {
    let server = Server::start(two_agents()).await;
    let data_dir = server.data_dir();
    let run = async |args: &[&str]| {
        let mut command = tokio::process::Command::from(clean_command());
        let output = command.args(args).arg("--data-dir").arg(&data_dir).output();
        let output = soon("the end of the command", output).await.expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (_, id, _) = run(&["send", "slow", "good morning", "--detach", "--idempotency-key", "k"]).await;
    assert_eq!(run(&["get", &id, "--wait"]).await, (Some(0), "good morning".to_owned(), String::new()));
    assert_eq!(run(&["send", "slow", "good morning", "--idempotency-key", "k"]).await.1, "good morning");
    let (_, status, _) = run(&["get", "--idempotency-key", "k", "--json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((&status["requestId"], &status["state"]), (&json!(id), &json!("done")));
    let (code, _, why) = run(&["get", "nobody"]).await;
    assert!(code != Some(0) && why.contains("no such request is known"), "{code:?}: {why}");
    let (_, stuck, _) = run(&["send", "stuck", "x", "--detach"]).await;
    let (code, answer, state) = run(&["get", &stuck]).await;
    assert!(
        code == Some(1) && answer.is_empty() && ["queued", "running"].contains(&state.as_str()),
        "{state}"
    );
    assert_eq!(run(&["get", &stuck, "--json"]).await.0, Some(1));
    run(&["cancel", &stuck]).await;
    let (code, answer, why) = run(&["get", &stuck, "--wait"]).await;
    assert!(code == Some(6) && answer.is_empty() && why.contains("(cancelled)"), "{code:?}: {answer} {why}");
    let (code, status, _) = run(&["get", &stuck, "--wait", "--json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((code, &status["state"]), (Some(6), &json!("cancelled")));
}
