//! Many at once, and for long: idle crowds up to the limit, and memory that stays where it is.

use std::time::Duration;

use plimsoll::clock::Clock;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::support::http::{Ask, Ws};
use crate::support::server::{Server, until};
use crate::support::tools::soak;

/// Lets this process, which is one end of every connection, open as many files as the system allows.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })
        .expect("up to the hard limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_crowd_up_to_the_limit_leaves_an_active_client_unaffected() {
    allow_many_files();
    let crowd = soak(200, 9_999);
    let server = Server::start(json!({"server": {"connections_max": crowd + 1, "idle_timeout": "1h"}})).await;
    let mut active = Ws::open(&server, None).await;
    let mut idle = Vec::new();
    for _ in 0..crowd {
        idle.push(Ws::open(&server, None).await);
    }
    let past = Ask::get("/health").send(server.address()).await;
    assert_eq!((past.status, past.header("retry-after")), (503, Some("1")));
    assert!(Ws::try_open(&server, None).await.is_err(), "there is no place for one more");

    let answer = active.call("agent.send", json!({"agent": "echo", "message": "still here"})).await;
    assert_eq!(answer["result"]["text"], "still here");
    let last = idle.last_mut().expect("a crowd").call("system.health", json!({})).await;
    assert_eq!(last["result"]["status"], "ok");
    let scrape = server.scrape().await;
    assert_eq!(scrape.count("plimsoll_connections", &[("transport", "ws")]), crowd as u64 + 1);
    assert_eq!(scrape.count("plimsoll_limit_hits_total", &[("limit", "connections")]), 2);

    drop(idle);
    until("all places free", async || {
        let scrape = server.scrape().await;
        (scrape.count("plimsoll_connections", &[("transport", "ws")]) == 1).then_some(())
    })
    .await;
    assert_eq!(Ask::get("/health").send(server.address()).await.status, 200);
}

/// Clients that come and go.
const VISITORS: usize = 4;

/// Messages of one visit, each session having five.
const MESSAGES: usize = 50;

/// Comes with sessions that nobody had before, sends everything at once, reads every answer, goes.
async fn visit(server: &Server, name: &str) {
    let mut ws = Ws::open(server, None).await;
    for n in 0..MESSAGES {
        let agent = if n % 10 == 9 { "bad" } else { "good" };
        let session = format!("{name}-{}", n / 5);
        let params = json!({"agent": agent, "message": "some words to be remembered", "session": session});
        ws.begin("agent.send", params).await;
    }
    for _ in 0..MESSAGES {
        let answer = ws.next().await;
        assert!(answer["result"].is_object() || answer["error"]["code"] == -32007, "{answer}");
    }
}

/// How long visitors keep coming.
#[derive(Clone, Copy)]
enum Until {
    Visits(usize),
    Time(Duration),
}

/// Visits one after the other; how many messages that were.
async fn load(server: &Server, phase: &str, end: Until) -> usize {
    let visitor = async |visitor: usize| {
        let (clock, mut visits) = (Clock::system(), 0);
        while match end {
            Until::Visits(enough) => visits < enough,
            Until::Time(enough) => clock.elapsed() < enough,
        } {
            visit(server, &format!("{phase}-{visitor}-{visits}")).await;
            visits += 1;
        }
        visits * MESSAGES
    };
    let visits = futures_util::future::join_all((0..VISITORS).map(visitor));
    visits.await.iter().sum()
}

/// With limits so small that all that is kept in memory is full, and partitions of the journal have come and gone, before
/// the measuring begins.
fn small() -> Value {
    json!({
        "providers": {"bad": {"kind": "echo", "failure_rate": 1.0}, "good": {"kind": "echo"}},
        "agents": {"bad": {"provider": "bad"}, "good": {"provider": "good"}},
        "gateway": {"sessions_max": 100, "history_messages_max": 4},
        "live": {"model_calls": 50, "events": 50},
        "journal": {"partition_records_max": 1_000, "work": {"bytes_max": "16MiB"}},
    })
}

/// With `PLIMSOLL_SOAK=1` for `PLIMSOLL_SOAK_SECONDS`, 600 unless set; the first half fills what is filled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_where_it_is_while_sessions_come_and_go() {
    let seconds = std::env::var("PLIMSOLL_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let half = Until::Time(Duration::from_secs(seconds.unwrap_or(600)) / 2);
    let [first, second] = if soak(0, 1) == 1 { [half; 2] } else { [50, 25].map(Until::Visits) };
    let server = Server::start(small()).await;
    let warm_up = load(&server, "first", first).await;
    let before = server.resident_kib();
    let measured = load(&server, "second", second).await;
    let after = server.resident_kib();
    println!("{warm_up} messages: {before} KiB, {measured} more: {after} KiB");
    let allowed = (before / 10).max(4 * 1024);
    assert!(after <= before + allowed, "{before} KiB became {after} KiB in {measured} messages");
}
