//! Agents in processes of their own: the first message starts one, idleness stops it, and rows, counters, stream and
//! `GET /agents` say the same, also after plimsoll was killed.
//!
//! What is hosted is a second plimsoll with an echo agent: a real server that speaks the OpenAI API.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use plimsoll::client::ClientError;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::server::{Server, free_port, until};

const TOKEN: &str = "operator";

/// A data directory of its own for what is hosted, and the port where it answers.
struct World {
    dir: TempDir,
    port: u16,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().expect("a temporary directory"), port: free_port() };
        let inner = json!({
            "server": {"listen": format!("127.0.0.1:{}", world.port)},
            "providers": {"p": {"kind": "echo", "latency": "10ms"}},
            "agents": {"m": {"provider": "p"}},
        });
        std::fs::write(world.dir.path().join("inner.yaml"), inner.to_string()).expect("written");
        world
    }

    /// The configuration of an agent `a` that is hosted so.
    fn config(&self) -> Value {
        let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "auth": {"tokens": [{"name": "op", "role": "operator", "sha256": hash}]},
            "providers": {"own": {"kind": "openai", "retries": 0}},
            "agents": {"a": {"provider": "own", "model": "m", "cwd": self.dir.path(), "instance": self.instance()}},
        })
    }

    fn instance(&self) -> Value {
        json!({
            "idle_after": "1h",
            "port": self.port,
            "ready": {"http": "/ready"},
            "process": {
                "program": env!("CARGO_BIN_EXE_plimsoll"),
                "args": ["serve", "--config", "inner.yaml", "--data-dir", "inner"],
            },
        })
    }

    /// The processes that are hosted now.
    fn pids(&self) -> Vec<PathBuf> {
        let processes = std::fs::read_dir("/proc").expect("it is there").filter_map(Result::ok);
        let hosted = |dir: &Path| {
            let command = std::fs::read(dir.join("cmdline")).unwrap_or_default();
            let cwd = std::fs::read_link(dir.join("cwd")).unwrap_or_default();
            cwd == self.dir.path() && String::from_utf8_lossy(&command).contains("inner.yaml")
        };
        processes.map(|entry| entry.path()).filter(|dir| hosted(dir)).collect()
    }
}

/// Over the network: a hundred at once are more than the control socket takes.
async fn send(server: &Server, session: &str, message: &str) -> Value {
    let params = json!({"agent": "a", "session": session, "message": message});
    let answer = server.tcp_client(Some(TOKEN)).call("agent.send", params).await;
    answer.unwrap_or_else(|error| panic!("{error}"))
}

/// The code and the data with which a message is refused.
async fn refused(server: &Server) -> (i64, Value) {
    match server.client().call("agent.send", json!({"agent": "a", "message": "hello"})).await {
        Err(ClientError::Rpc { code, data, .. }) => (code, data),
        other => panic!("not {other:?}"),
    }
}

async fn agent(server: &Server) -> Value {
    let agents: Value = server.client().get("/agents").await.expect("answers").json().await.expect("JSON");
    agents["agents"][0].clone()
}

async fn state(server: &Server, wanted: &str) -> Value {
    until(wanted, async || {
        let agent = agent(server).await;
        (agent["state"]["lifecycle_state"] == wanted).then_some(agent)
    })
    .await
}

/// The records of the instance, the oldest first.
async fn records(server: &Server) -> Vec<Value> {
    let page = server.client().get("/audit?stream=instance/a&limit=1000").await.expect("answers");
    let page: Value = page.json().await.expect("JSON");
    let mut records = page["records"].as_array().expect("a list").clone();
    records.sort_by_key(|record| record["seq"].as_u64());
    records
}

async fn kinds(server: &Server) -> Vec<String> {
    let records = records(server).await;
    records.iter().map(|record| record["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// What is counted stands alike in `/agents`, in the rows and in `/metrics`.
async fn agree(server: &Server) {
    let counts = agent(server).await["state"]["lifecycle_metrics"].clone();
    let (rows, scrape) = (kinds(server).await, server.scrape().await);
    for kind in ["lazy_start", "lazy_start_failed", "lazy_stop", "lazy_stop_failed", "exited"] {
        let in_rows = rows.iter().filter(|row| *row == kind).count() as u64;
        assert_eq!(counts[kind], in_rows, "{kind} in {counts}");
        let labels = [("agent_instance", "a"), ("event", kind)];
        assert_eq!(scrape.count("plimsoll_lifecycle_events_total", &labels), in_rows, "{kind}");
    }
    assert_eq!(counts["last_event"]["type"].as_str(), rows.last().map(String::as_str));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_messages_to_a_cold_agent_start_it_once_and_are_answered_in_order() {
    let world = World::new();
    let server = Server::start(world.config()).await;
    let before = agent(&server).await;
    assert_eq!((&before["mode"], &before["start"]), (&json!("process"), &json!("lazy")));
    assert_eq!(before["state"]["lifecycle_state"], "cold");
    assert_eq!(before["state"]["lifecycle_metrics"]["last_event"], Value::Null);
    assert!(world.pids().is_empty(), "nothing runs before it is needed");

    let sessions: Vec<String> = (0..10).map(|session| format!("s{session}")).collect();
    let sends = (0..100).map(|n| {
        let (server, session) = (&server, &sessions[n % 10]);
        async move { send(server, session, &format!("message {n}")).await }
    });
    let answers = join_all(sends).await;
    for (n, answer) in answers.iter().enumerate() {
        assert!(answer["text"].as_str().expect("a text").contains(&format!("message {n}")), "{answer}");
        assert!(answer["timings"]["startMs"].is_number(), "{answer}");
    }
    for session in &sessions {
        let history = server.call("session.history", json!({"agent": "a", "session": session})).await;
        let said: Vec<u64> = history["messages"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|message| message["role"] == "user")
            .map(|message| message["text"].as_str().expect("a text")[8..].parse().expect("its number"))
            .collect();
        assert_eq!(said.len(), 10);
    }
    state(&server, "idle").await;
    assert_eq!(kinds(&server).await, ["lazy_start"], "one start for all");
    agree(&server).await;

    server.call("lifecycle.stop", json!({"instance": "a"})).await;
    state(&server, "cold").await;
    until("the row of the stop", async || (kinds(&server).await.len() == 2).then_some(())).await;
    assert!(world.pids().is_empty(), "nothing of it is left");
    let stopped = records(&server).await.pop().expect("a record");
    assert_eq!((&stopped["detail"]["reason"], &stopped["actor"]), (&json!("operator"), &json!("local")));
    agree(&server).await;
    assert!(send(&server, "s0", "again").await["text"].is_string(), "and the next message starts it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_one_stops_and_the_stream_tells_each_step() {
    let world = World::new();
    let mut config = world.config();
    config["agents"]["a"]["instance"]["idle_after"] = json!("1s");
    let server = Server::start(config).await;
    let answer = send(&server, "s", "hello").await;
    assert!(answer["text"].is_string());
    until("the stop", async || (kinds(&server).await == ["lazy_start", "lazy_stop"]).then_some(())).await;
    let rows = records(&server).await;
    assert_eq!(rows[1]["detail"]["reason"], "idle");
    assert!(rows[1]["detail"]["idle_seconds"].as_u64() >= Some(1), "{rows:?}");
    assert!(rows[0]["detail"]["latency_ms"].as_u64() >= rows[0]["detail"]["start_ms"].as_u64());
    assert!(world.pids().is_empty(), "nothing of it is left");
    agree(&server).await;

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
    let world = World::new();
    let mut config = world.config();
    config["agents"]["a"]["instance"]["process"]["program"] = json!("no-such-program");
    let server = Server::start(config).await;
    let refused = refused(&server).await;
    assert_eq!((refused.0, &refused.1["cause"]), (-32006, &json!("not_started")));
    assert!(refused.1["retryAfterMs"].is_number(), "{refused:?}");
    let entry = agent(&server).await;
    assert_eq!((&entry["status"], &entry["failure"]["kind"]), (&json!("failed"), &json!("not_started")));
    assert!(entry["failure"]["error"].as_str().expect("words").contains("no-such-program"));
    until("its row", async || (kinds(&server).await == ["lazy_start_failed"]).then_some(())).await;
    let labels = [("agent_instance", "a"), ("reason", "not_started")];
    assert_eq!(server.scrape().await.count("plimsoll_instance_failures_total", &labels), 1);
    agree(&server).await;
}

/// A stranger on the port would get what is meant for the agent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_its_port_is_not_taken_for_it() {
    let world = World::new();
    let _stranger = std::net::TcpListener::bind(("127.0.0.1", world.port)).expect("it is free");
    let server = Server::start(world.config()).await;
    assert_eq!(refused(&server).await.1["cause"], "port_in_use");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_counters_go_on_and_what_was_lost_is_told() {
    let world = World::new();
    let server = Server::start(world.config()).await;
    send(&server, "s", "hello").await;
    until("its row", async || (kinds(&server).await == ["lazy_start"]).then_some(())).await;
    let mut server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    assert!(world.pids().is_empty(), "nothing outlives the one that started it");
    assert_eq!(kinds(&server).await, ["lazy_start", "lost"]);
    agree(&server).await;
    send(&server, "s", "again").await;
    until("its row", async || (kinds(&server).await.len() == 3).then_some(())).await;
    agree(&server).await;
    server.stop().await;
    assert!(world.pids().is_empty(), "stopped with plimsoll");
    let mut server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    assert_eq!(kinds(&server).await, ["lazy_start", "lost", "lazy_start", "lazy_stop"]);
    assert_eq!(records(&server).await[3]["detail"]["reason"], "shutdown");
    agree(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_left_the_file_is_removed_and_begins_again_when_it_is_back() {
    let world = World::new();
    let server = Server::start(world.config()).await;
    send(&server, "s", "hello").await;
    until("its row", async || (kinds(&server).await == ["lazy_start"]).then_some(())).await;
    let without = json!({"providers": {"p": {"kind": "echo"}}, "agents": {"b": {"provider": "p"}}});
    let mut server = Server::spawn(server.kill(), without.clone());
    server.ready().await;
    assert_eq!(kinds(&server).await, ["lazy_start", "removed"]);
    let text = server.client().get("/metrics").await.expect("answers").text().await.expect("text");
    assert!(!text.contains("agent_instance=\"a\""), "its series are gone");
    let mut server = Server::spawn(server.kill(), without);
    server.ready().await;
    assert_eq!(kinds(&server).await, ["lazy_start", "removed"], "told once");
    let mut server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    let counts = agent(&server).await["state"]["lifecycle_metrics"].clone();
    assert_eq!((&counts["lazy_start"], &counts["last_event"]), (&json!(0), &Value::Null));
}

/// A process that is killed from outside is seen, and the next message starts another.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_dies_is_told_and_started_again() {
    let world = World::new();
    let server = Server::start(world.config()).await;
    send(&server, "s", "hello").await;
    for pid in world.pids() {
        let pid: i32 = pid.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number");
        let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    until("its row", async || kinds(&server).await.contains(&"exited".to_owned()).then_some(())).await;
    until("another try", async || {
        let params = json!({"agent": "a", "session": "s", "message": "again"});
        server.client().call("agent.send", params).await.ok()
    })
    .await;
    agree(&server).await;
}
