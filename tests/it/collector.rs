//! A collector that fails costs the running binary spans, never time: every message is answered while it does, and each
//! span arrives or is counted.

use std::time::Duration;

use plimsoll::telemetry::OtlpProtocol;
use serde_json::json;
use tokio::net::TcpSocket;

use crate::support::gate::Gate;
use crate::support::http::Ws;
use crate::support::receiver::{Answer, Receiver, Security};
use crate::support::server::{Server, until};

const MESSAGES: usize = 250;
const SPANS: u64 = 4 * MESSAGES as u64;

/// A server with a small queue of spans, so that a collector that does not keep up is noticed.
async fn serve(endpoint: &str, protocol: OtlpProtocol) -> Server {
    let otlp = json!({"endpoint": endpoint, "protocol": protocol, "timeout": "250ms"});
    let env = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5"),
    ];
    Server::start_with(json!({"telemetry": {"otlp": otlp}}), &env).await
}

/// Sends all messages at once and sees each answered.
async fn converse(server: &Server) {
    let mut ws = Ws::open(server, None).await;
    for n in 0..MESSAGES {
        let params = json!({"agent": "echo", "message": "hello", "session": format!("s{}", n % 50)});
        ws.begin("agent.send", params).await;
    }
    for _ in 0..MESSAGES {
        let answer = ws.next().await;
        assert_eq!(answer["result"]["text"], "hello", "{answer}");
    }
}

async fn dropped(server: &Server) -> u64 {
    server.scrape().await.count("plimsoll_dropped_total", &[("what", "spans")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_answered_while_no_export_ever_ends() {
    let reserved = TcpSocket::new_v4().expect("a socket");
    reserved.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let down = format!("http://{}", reserved.local_addr().expect("bound"));
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let hangs = Receiver::start(protocol, Security::Plain, &[Answer::Hang; 1_000]).await;
        for endpoint in [&hangs.endpoint(), &down] {
            let server = serve(endpoint, protocol).await;
            converse(&server).await;
            // All but what fills the queue and the one batch on its way.
            let lost = dropped(&server).await;
            assert!((SPANS - 150..=SPANS).contains(&lost), "{protocol:?} {endpoint}: {lost} of {SPANS}");
        }
        assert!(hangs.inbox().spans.is_empty(), "nothing was taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_at_the_end_is_a_warning_with_the_number_of_lost_spans() {
    let reserved = TcpSocket::new_v4().expect("a socket");
    reserved.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let endpoint = format!("http://{}", reserved.local_addr().expect("bound"));
    let hangs = Receiver::start(OtlpProtocol::Grpc, Security::Plain, &[Answer::Hang; 10]).await;
    for endpoint in [&endpoint, &hangs.endpoint()] {
        // Nothing leaves before the end.
        let env = [("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
        let otlp = json!({"endpoint": endpoint, "timeout": "60s"});
        let mut server = Server::start_with(json!({"telemetry": {"otlp": otlp}}), &env).await;
        server.call("agent.send", json!({"agent": "echo", "message": "hello"})).await;
        server.signal(rustix::process::Signal::TERM);
        assert!(server.ended().await.success());
        let log = server.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("the last spans are lost")).collect();
        assert!(lines.len() == 1 && lines[0].contains(r#""level":"warn""#), "{log}");
        assert!(lines[0].contains(r#""spans":"#) && !log.contains(r#""level":"error""#), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_span_arrives_once_or_is_counted_when_the_collector_is_slow_or_flaps() {
    let slow = [Answer::Late(Duration::from_millis(100)); 1_000];
    let flaps = [Answer::Unavailable, Answer::Take, Answer::Hang, Answer::Take].repeat(250);
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        for script in [&slow[..], &flaps] {
            let receiver = Receiver::start(protocol, Security::Plain, script).await;
            let server = serve(&receiver.endpoint(), protocol).await;
            converse(&server).await;
            let what = format!("{protocol:?} {:?}: every span accounted for", script[0]);
            let arrived = until(&what, async || {
                // A slow disk leaves a span of its own.
                let of_requests = |name: &str| name != "journal.commit";
                let arrived = receiver.inbox().spans.iter().filter(|span| of_requests(&span.name)).count();
                (arrived as u64 + dropped(&server).await >= SPANS).then_some(arrived)
            })
            .await;
            assert!(arrived > 0, "{what}");
            let inbox = receiver.inbox();
            let ids: std::collections::BTreeSet<_> = inbox.spans.iter().map(|span| &span.span_id).collect();
            assert_eq!(ids.len(), inbox.spans.len(), "{what}, and none twice");
        }
    }
}

/// Sends ten messages and waits until all their spans are at the receiver.
async fn nothing_is_lost(server: &Server, receiver: &Receiver, meanwhile: impl Future<Output = ()>) {
    let mut ws = Ws::open(server, None).await;
    for _ in 0..10 {
        ws.call("agent.send", json!({"agent": "echo", "message": "hello"})).await;
    }
    meanwhile.await;
    until("every span of ten messages", async || {
        assert_eq!(dropped(server).await, 0, "{}", server.log());
        (receiver.inbox().spans.len() >= 40).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_when_the_connection_broke_is_sent_again() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let receiver = Receiver::start(protocol, Security::Plain, &[]).await;
        let gate = Gate::cutting(receiver.address, 2, 2_000).await;
        let server = serve(&format!("http://{}", gate.address), protocol).await;
        nothing_is_lost(&server, &receiver, std::future::ready(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_had_not_answered_when_it_died_is_sent_again() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let receiver = Receiver::start(protocol, Security::Plain, &[Answer::Hang]).await;
        let gate = Gate::before(receiver.address).await;
        let otlp =
            json!({"endpoint": format!("http://{}", gate.address), "protocol": protocol, "timeout": "60s"});
        let server = Server::start(json!({"telemetry": {"otlp": otlp}})).await;
        let dies_at_work = async {
            until("the first batch", async || (!receiver.inbox().requests.is_empty()).then_some(())).await;
            gate.cut();
        };
        nothing_is_lost(&server, &receiver, dies_at_work).await;
    }
}
