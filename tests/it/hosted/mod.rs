//! Agents in processes and containers of their own: the first message starts one, idleness stops it, and rows, counters,
//! stream and `GET /agents` say the same, also after plimsoll was killed.

#![cfg(target_os = "linux")]

mod container;
mod kills;
mod trouble;
mod world;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::server::{Server, until};
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_messages_to_a_cold_agent_start_it_once_and_are_answered_in_order() {
    let world = World::in_a_process();
    let server = Server::start(world.config()).await;
    let before = world.agent(&server).await;
    assert_eq!((&before["mode"], &before["start"]), (&json!("process"), &json!("lazy")));
    assert_eq!(before["state"]["lifecycle_state"], "cold");
    assert_eq!(before["state"]["lifecycle_metrics"]["last_event"], Value::Null);
    assert!(world.running().is_empty(), "nothing runs before it is needed");

    let sessions: Vec<String> = (0..10).map(|session| format!("s{session}")).collect();
    // In each session one after the other, and the sessions beside each other.
    join_all(sessions.iter().map(async |session| {
        for n in 0..10 {
            world.enqueue(&server, session, &format!("message {n}")).await;
        }
    }))
    .await;
    let histories = sessions.iter().map(async |session| {
        let params = json!({"agent": "a", "session": session});
        until("ten answers", async || {
            let history = server.client().call("session.history", params.clone()).await.ok()?;
            let messages = history["messages"].as_array()?.clone();
            (messages.len() == 20).then_some(messages)
        })
        .await
    });
    for messages in join_all(histories).await {
        let said = messages.iter().filter(|message| message["role"] == "user");
        let said: Vec<&str> = said.filter_map(|message| message["text"].as_str()).collect();
        assert_eq!(
            said,
            (0..10).map(|n| format!("message {n}")).collect::<Vec<_>>(),
            "in the order of its lane"
        );
    }
    world.state(&server, "idle").await;
    assert_eq!(world.kinds(&server).await, ["lazy_start"], "one start for all");
    world.agree(&server).await;

    server.call("lifecycle.stop", json!({"instance": "a"})).await;
    world.state(&server, "cold").await;
    until("the row of the stop", async || (world.kinds(&server).await.len() == 2).then_some(())).await;
    assert!(world.running().is_empty(), "nothing of it is left");
    let stopped = world.records(&server).await.pop().expect("a record");
    assert_eq!((&stopped["detail"]["reason"], &stopped["actor"]), (&json!("operator"), &json!("local")));
    world.agree(&server).await;
    assert!(
        world.send(&server, "s0", "again").await["text"].is_string(),
        "and the next message starts it again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_one_stops_and_the_stream_tells_each_step() {
    let world = World::in_a_process();
    let mut config = world.config();
    config["agents"]["a"]["instance"]["idle_after"] = json!("1s");
    let server = Server::start(config).await;
    let answer = world.send(&server, "s", "hello").await;
    assert!(answer["text"].is_string());
    until("the stop", async || (world.kinds(&server).await == ["lazy_start", "lazy_stop"]).then_some(()))
        .await;
    let rows = world.records(&server).await;
    assert_eq!(rows[1]["detail"]["reason"], "idle");
    assert!(rows[1]["detail"]["idle_seconds"].as_u64() >= Some(1), "{rows:?}");
    assert!(rows[0]["detail"]["latency_ms"].as_u64() >= rows[0]["detail"]["start_ms"].as_u64());
    assert!(world.running().is_empty(), "nothing of it is left");
    world.agree(&server).await;

    let from_the_beginning = [("last-event-id", "0".to_owned())];
    let events = server.client().get_with("/events?instance=a", &from_the_beginning).await;
    let mut events = events.expect("answers");
    let mut told = String::new();
    until("both steps on the stream", async || {
        told.push_str(&String::from_utf8_lossy(&events.chunk().await.expect("a chunk")?));
        told.contains("container.lazy_stopped").then_some(())
    })
    .await;
    let envelopes: Vec<Value> = told
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    let types: Vec<&str> = envelopes.iter().filter_map(|envelope| envelope["type"].as_str()).collect();
    assert_eq!(types, ["container.lazy_started", "container.lazy_stopped"]);
    assert!(envelopes.iter().all(|envelope| envelope["instance"] == "a" && envelope["seq"].is_number()));
    assert_eq!(envelopes[1]["summary"], "a was stopped after 1 s without a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_start_fails_all_who_wait_with_its_kind() {
    let world = World::in_a_process();
    let mut config = world.config();
    config["agents"]["a"]["instance"]["process"]["program"] = json!("no-such-program");
    let server = Server::start(config).await;
    let refused = world.refused(&server).await;
    assert_eq!((refused.0, &refused.1["cause"]), (-32006, &json!("not_started")));
    assert!(refused.1["retryAfterMs"].is_number(), "{refused:?}");
    let entry = world.agent(&server).await;
    assert_eq!((&entry["status"], &entry["failure"]["kind"]), (&json!("failed"), &json!("not_started")));
    assert!(entry["failure"]["error"].as_str().expect("words").contains("no-such-program"));
    until("its row", async || (world.kinds(&server).await == ["lazy_start_failed"]).then_some(())).await;
    let labels = [("agent_instance", "a"), ("reason", "not_started")];
    assert_eq!(server.scrape().await.count("plimsoll_instance_failures_total", &labels), 1);
    world.agree(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_stands_in_the_trace_of_the_message_that_caused_it() {
    let world = World::in_a_process();
    let server = Server::start(world.config()).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let params = json!({
        "agent": "a", "message": "hello",
        "_meta": {"traceparent": format!("00-{trace}-b7ad6b7169203331-01")},
    });
    server.call("agent.send", params).await;
    until("its row", async || (world.kinds(&server).await == ["lazy_start"]).then_some(())).await;
    let rows = world.records(&server).await;
    assert_eq!((&rows[0]["trace_id"], &rows[0]["actor"]), (&json!(trace), &json!("local")));
}

/// A stranger on the port would get what is meant for the agent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_its_port_is_not_taken_for_it() {
    let world = World::in_a_process();
    let _stranger = std::net::TcpListener::bind(("127.0.0.1", world.port())).expect("it is free");
    let server = Server::start(world.config()).await;
    assert_eq!(world.refused(&server).await.1["cause"], "port_in_use");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_counters_go_on_and_what_was_lost_is_told() {
    let world = World::in_a_process();
    let server = Server::start(world.config()).await;
    world.send(&server, "s", "hello").await;
    until("its row", async || (world.kinds(&server).await == ["lazy_start"]).then_some(())).await;
    let mut server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    assert!(world.running().is_empty(), "nothing outlives the one that started it");
    assert_eq!(world.kinds(&server).await, ["lazy_start", "lost"]);
    world.agree(&server).await;
    world.send(&server, "s", "again").await;
    until("its row", async || (world.kinds(&server).await.len() == 3).then_some(())).await;
    world.agree(&server).await;
    server.stop().await;
    assert!(world.running().is_empty(), "stopped with plimsoll");
    let mut server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    assert_eq!(world.kinds(&server).await, ["lazy_start", "lost", "lazy_start", "lazy_stop"]);
    assert_eq!(world.records(&server).await[3]["detail"]["reason"], "shutdown");
    world.agree(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_left_the_file_is_removed_and_begins_again_when_it_is_back() {
    let world = World::in_a_process();
    let server = Server::start(world.config()).await;
    world.send(&server, "s", "hello").await;
    until("its row", async || (world.kinds(&server).await == ["lazy_start"]).then_some(())).await;
    let without = json!({"providers": {"p": {"kind": "echo"}}, "agents": {"b": {"provider": "p"}}});
    let mut server = Server::spawn(server.kill(), without.clone());
    server.ready().await;
    assert_eq!(world.kinds(&server).await, ["lazy_start", "removed"]);
    let text = server.client().get("/metrics").await.expect("answers").text().await.expect("text");
    assert!(!text.contains("agent_instance=\"a\""), "its series are gone");
    let mut server = Server::spawn(server.kill(), without);
    server.ready().await;
    assert_eq!(world.kinds(&server).await, ["lazy_start", "removed"], "told once");
    let mut server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    let counts = world.agent(&server).await["state"]["lifecycle_metrics"].clone();
    assert_eq!((&counts["lazy_start"], &counts["last_event"]), (&json!(0), &Value::Null));
}

/// A process that is killed from outside is seen, and the next message starts another.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_dies_is_told_and_started_again() {
    let world = World::in_a_process();
    let server = Server::start(world.config()).await;
    world.send(&server, "s", "hello").await;
    for pid in world.pids() {
        let pid: i32 = pid.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number");
        let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    until("its row", async || world.kinds(&server).await.contains(&"exited".to_owned()).then_some(())).await;
    until("another try", async || {
        let params = json!({"agent": "a", "session": "s", "message": "again"});
        server.client().call("agent.send", params).await.ok()
    })
    .await;
    world.agree(&server).await;
}
