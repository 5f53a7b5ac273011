//! Limits, each hit over a real socket: answered with a code, counted, and others unaffected.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::http::{Ask, Ws, raw, soon};
use crate::support::server::{Server, until};

/// A server with short times, so that nobody waits long.
async fn strict() -> Server {
    Server::start(json!({
        "server": {
            "header_timeout": "300ms",
            "body_timeout": "300ms",
            "idle_timeout": "1s",
            "body_bytes_max": "4KiB",
            "batch_max": 3,
        },
    }))
    .await
}

/// Waits until this limit was counted.
async fn counted(server: &Server, limit: &str) {
    let start = format!("plimsoll_limit_hits_total{{limit=\"{limit}\"}} ");
    until(&start, async || {
        let metrics = server.client().get("/metrics").await.ok()?.text().await.ok()?;
        let line = metrics.lines().find(|line| line.starts_with(&start))?.to_owned();
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
}

async fn closes(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // Reset or closed, it is over.
    let _ = soon("the end of the connection", stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn slow_headers_and_silent_connections_are_closed_and_others_are_served() {
    let server = strict().await;
    let mut slow = Vec::new();
    for i in 0..100 {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
        if i % 2 == 0 {
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: loc").await.expect("sent");
        }
        slow.push(stream);
    }
    assert_eq!(Ask::get("/health").send(server.address()).await.status, 200);
    for stream in slow {
        closes(stream).await;
    }
    counted(&server, "header_timeout").await;
}

#[tokio::test]
async fn an_idle_kept_alive_connection_is_let_go() {
    let server = strict().await;
    let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.expect("closed in order");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_answered() {
    let server = strict().await;
    let head = "POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let answer = raw(server.address(), head.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    counted(&server, "body_timeout").await;
}

#[tokio::test]
async fn a_body_is_taken_at_its_limit_and_refused_one_byte_later() {
    let server = strict().await;
    let of_size = |size: usize| {
        let start = r#"{"jsonrpc":"2.0","id":1,"method":"system.health"}"#;
        format!("{start}{}", " ".repeat(size - start.len()))
    };
    assert_eq!(Ask::rpc(of_size(4_096)).send(server.address()).await.status, 200);
    let large = Ask::rpc(of_size(4_097)).send(server.address()).await;
    assert_eq!((large.status, &large.json()["error"]["code"]), (413, &json!("body_too_large")));
    let huge = Ask::rpc(of_size(3_000_000)).send(server.address()).await;
    assert_eq!(huge.status, 413, "also when much more is sent than is read");
    let chunked = format!(
        "POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n1388\r\n{}\r\n0\r\n\r\n",
        of_size(5_000)
    );
    let answer = raw(server.address(), chunked.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    counted(&server, "body_bytes").await;
}

#[tokio::test]
async fn a_gzip_bomb_is_refused_early() {
    let server = strict().await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let block = vec![b' '; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&block).expect("memory");
    }
    let bomb = encoder.finish().expect("memory");
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let answer = Ask::rpc(bomb).header("content-encoding", "gzip").send(server.address()).await;
    assert_eq!(answer.status, 413);
    let mut small = GzEncoder::new(Vec::new(), Compression::best());
    small.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"system.health"}"#).expect("memory");
    let packed = Ask::rpc(small.finish().expect("memory")).header("content-encoding", "gzip");
    assert_eq!(packed.send(server.address()).await.status, 200);
}

#[tokio::test]
async fn large_headers_and_many_headers_are_refused() {
    let server = strict().await;
    let long = Ask::get("/health").header("x-long", &"x".repeat(100 * 1024)).send(server.address()).await;
    assert_eq!(long.status, 431);
    let mut many = Ask::get("/health");
    for i in 0..200 {
        many = many.header(&format!("x-{i}"), "1");
    }
    assert_eq!(many.send(server.address()).await.status, 431);
}

#[tokio::test]
async fn connections_past_the_limit_are_told_and_the_control_socket_is_not_among_them() {
    let server = Server::start(json!({"server": {"connections_max": 2, "header_timeout": "30s"}})).await;
    let first = Ws::open(&server, None).await;
    let _second = Ws::open(&server, None).await;
    let refused = Ask::get("/health").send(server.address()).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "too_many_connections");
    assert!(server.client().call("system.health", json!({})).await.is_ok());
    counted(&server, "connections").await;
    drop(first.into_stream());
    until("a free place", async || {
        (Ask::get("/health").send(server.address()).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn calls_past_the_rate_are_refused_with_a_hint() {
    let server = Server::start(json!({"server": {"requests_per_second": 2}})).await;
    let mut refused = None;
    for _ in 0..20 {
        let answer = Ask::call("system.health", json!({})).send(server.address()).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("20 at once are more than 2 a second");
    let error = refused.json()["error"].clone();
    assert_eq!((&error["code"], &error["data"]["limit"]), (&json!(-32010), &json!("requests_per_second")));
    assert!(error["data"]["retryAfterMs"].as_u64().is_some_and(|ms| ms <= 1_000), "{error}");
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn an_idle_websocket_that_answers_no_ping_is_closed_and_one_that_does_stays() {
    let server = strict().await;
    let mut alive = Ws::open(&server, None).await;
    let dead = Ws::open(&server, None).await;
    // Nobody reads here, so nobody answers pings.
    let mut stream = dead.into_stream();
    let end = async {
        let mut seen = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            seen.extend_from_slice(&buffer[..read]);
        }
        seen
    };
    let (seen, health) = tokio::join!(soon("the end", end), async {
        // Reading for longer than the limit answers the pings on the way.
        let quiet = tokio::time::timeout(Duration::from_millis(2_500), alive.next()).await;
        assert!(quiet.is_err(), "nothing is sent to an idle client: {quiet:?}");
        alive.call("system.health", json!({})).await
    });
    assert!(String::from_utf8_lossy(&seen).contains("silent for too long"), "{seen:?}");
    assert!(health["result"].is_object());
    counted(&server, "idle_timeout").await;
}

#[tokio::test]
async fn a_websocket_message_past_the_limit_ends_its_connection_only() {
    let server = strict().await;
    let mut other = Ws::open(&server, None).await;
    let mut ws = Ws::open(&server, None).await;
    ws.send_text("x".repeat(4_097)).await;
    assert_eq!(ws.closed().await, (1009, "the message is too large".to_owned()));
    assert!(other.call("system.health", json!({})).await["result"].is_object());
    counted(&server, "ws_message_bytes").await;
}

#[tokio::test]
async fn while_draining_calls_are_refused_and_what_runs_is_answered() {
    let mut server = Server::start(json!({
        "server": {"shutdown_grace": "20s"},
        "providers": {"slow": {"kind": "echo", "latency": "1s"}},
        "agents": {"slow": {"provider": "slow"}},
    }))
    .await;
    let mut ws = Ws::open(&server, None).await;
    let params = json!({"agent": "slow", "message": "last words", "stream": true});
    ws.begin("agent.send", params).await;
    // It runs before the end begins.
    while ws.next().await["params"]["type"] != "start" {}
    let address = server.address();
    server.signal(rustix::process::Signal::TERM);
    until("draining", async || (Ask::get("/ready").send(address).await.status == 503).then_some(())).await;
    let refused = Ask::call("system.health", json!({})).send(address).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!(-32009)));
    assert_eq!((refused.header("retry-after"), &refused.json()["id"]), (Some("1"), &json!(1)));
    let calls = [7, 8].map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "system.health"}));
    let batch = Ask::rpc(json!(calls).to_string()).send(address).await;
    assert_eq!((batch.status, batch.header("retry-after")), (503, Some("1")));
    assert_eq!((&batch.json()[1]["id"], &batch.json()[1]["error"]["code"]), (&json!(8), &json!(-32009)));
    let note = Ask::rpc(r#"{"jsonrpc":"2.0","method":"system.health"}"#).send(address).await;
    assert_eq!(note.status, 503, "what is not done is not answered as done");
    assert_eq!(Ask::get("/health").send(address).await.status, 200);
    let late = ws.begin("agent.send", json!({"agent": "slow", "message": "too late"})).await;
    let (mut answered, mut refused) = (false, false);
    while !(answered && refused) {
        let message = ws.next().await;
        answered |= message["result"]["text"].is_string();
        refused |= message["id"] == late && message["error"]["code"] == -32009;
    }
    assert_eq!(ws.closed().await, (1001, "plimsoll is shutting down".to_owned()));
    assert!(server.ended().await.success());
}
