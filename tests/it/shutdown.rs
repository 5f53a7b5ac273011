//! How a server ends: nothing that was taken in is left without a word.

use std::time::Duration;

use plimsoll::client::{ClientError, Incoming};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::server::{Server, until};

fn configuration(latency: &str, grace: &str) -> Value {
    json!({
        "server": {"listen": "127.0.0.1:0", "shutdown_grace": grace},
        "providers": {"p": {"kind": "echo", "latency": latency}},
        "agents": {"a": {"provider": "p"}},
    })
}

async fn running(server: &Server, wanted: u64) {
    let client = server.client();
    until("requests that run", async || {
        let metrics = client.call("system.metrics", json!({})).await.ok()?;
        (metrics["activeRequests"].as_u64()? == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_delivers_every_answer_and_ends_with_0() {
    let mut server = Server::start(configuration("300ms", "10s")).await;
    let mut connection = server.tcp_client(None).connect().await.expect("a WebSocket");
    for n in 0..50 {
        let params = json!({"agent": "a", "message": "m", "session": format!("s{}", n % 25)});
        connection.call("agent.send", params).await.expect("sent");
    }
    running(&server, 50).await;
    server.signal(Signal::TERM);
    let mut answered = 0;
    while answered < 50 {
        match connection.next().await.expect("no answer is lost") {
            Incoming::Answer { outcome, .. } => {
                outcome.expect("everything taken in is answered within the grace period");
                answered += 1;
            }
            Incoming::Notification { .. } => {}
        }
    }
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_grace_period_is_told_so_and_the_end_is_still_0() {
    let mut server = Server::start(configuration("1h", "200ms")).await;
    let mut connection = server.tcp_client(None).connect().await.expect("a WebSocket");
    for n in 0..20 {
        let params = json!({"agent": "a", "message": "m", "session": format!("s{}", n % 10)});
        connection.call("agent.send", params).await.expect("sent");
    }
    running(&server, 20).await;
    server.signal(Signal::TERM);
    let mut told = 0;
    while told < 20 {
        if let Incoming::Answer { outcome, .. } = connection.next().await.expect("no answer is lost") {
            let code = match outcome {
                Err(ClientError::Rpc { code, .. }) => code,
                other => panic!("{other:?}"),
            };
            assert!(matches!(code, -32005 | -32009), "{code}");
            told += 1;
        }
    }
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_requests_are_refused_while_it_drains() {
    let mut server = Server::start(configuration("1500ms", "10s")).await;
    let client = server.tcp_client(None);
    let mut connection = client.connect().await.expect("a WebSocket");
    connection.call("agent.send", json!({"agent": "a", "message": "m"})).await.expect("sent");
    running(&server, 1).await;
    server.signal(Signal::TERM);
    until("unreadiness", async || client.get("/ready").await.err()).await;
    let late = connection.call("agent.send", json!({"agent": "a", "message": "late"})).await.expect("sent");
    let refused = connection.answer(late, |_, _| {}).await.expect_err("it comes too late");
    assert!(matches!(refused, ClientError::Rpc { code: -32009, .. }), "{refused}");
    let posted = client.call("agent.send", json!({"agent": "a", "message": "late"})).await;
    let posted = posted.expect_err("it comes too late");
    assert!(matches!(&posted, ClientError::Status { status, .. } if status.as_u16() == 503), "{posted}");
    let first = connection.next().await.expect("the first is answered");
    assert!(matches!(first, Incoming::Answer { id: 1, outcome: Ok(_) }), "{first:?}");
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_with_130() {
    let mut server = Server::start(configuration("1h", "1h")).await;
    let mut connection = server.tcp_client(None).connect().await.expect("a WebSocket");
    connection.call("agent.send", json!({"agent": "a", "message": "m"})).await.expect("sent");
    running(&server, 1).await;
    server.signal(Signal::TERM);
    let client = server.client();
    until("the begin of the end", async || client.get("/ready").await.err()).await;
    server.signal(Signal::INT);
    assert_eq!(server.ended().await.code(), Some(130), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_with_open_streams_ends_well_within_its_grace() {
    let mut server = Server::start(configuration("1ms", "1h")).await;
    let client = server.tcp_client(None);
    let _events = client.get("/events").await.expect("an event stream");
    let _connection = client.connect().await.expect("a WebSocket");
    server.signal(Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(15), server.ended()).await;
    assert_eq!(ended.expect("open streams hold nothing up").code(), Some(0), "{}", server.log());
}
