//! How many messages a second, over WebSocket and over HTTP, and whether each lane keeps its order.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll::clock::Clock;
use serde_json::json;
use tokio::task::JoinSet;

use super::http::{self, Connection};
use super::server::Server;
use super::ws::{self, Plan, Tally};
use super::{Args, field};

const SESSIONS: usize = 1_000;
const WS_CONNECTIONS: usize = 50;
const HTTP_CONNECTIONS: usize = 100;
const WS_DEPTH: usize = 2;

pub(super) async fn run(args: &Args) -> Result<(), String> {
    println!(
        "\nThroughput of agent.send, echo provider, {SESSIONS} sessions, server and clients on the same cores"
    );
    println!(
        "{:<12} {:>10} {:>10} {:>10} {:>11} {:>8} {:>16}",
        "", "answered", "per s", "lost", "disordered", "refused", "server CPU, us"
    );
    for (road, goal) in [("websocket", 10_000), ("http", 5_000)] {
        let server = Server::start(&args.binary, config()).await?;
        let clock = Clock::system();
        let cpu = server.cpu_seconds();
        let tally = match road {
            "websocket" => websocket(server.address, args.duration()).await?,
            _ => over_http(server.address, args.duration()).await?,
        };
        let rate = tally.answered as f64 / clock.elapsed().as_secs_f64();
        let cpu_us = (server.cpu_seconds() - cpu) * 1e6 / tally.answered as f64;
        let Tally { sent, answered, disordered, refused, .. } = tally;
        println!(
            "{road:<12} {answered:>10} {rate:>10.0} {:>10} {disordered:>11} {refused:>8} {cpu_us:>16.1}",
            sent - answered
        );
        println!("{:<12} {:>10} {:>10}", "goal", "", format!(">= {goal}"));
    }
    Ok(())
}

/// An agent `a` that answers at once.
pub(super) fn config() -> serde_json::Value {
    json!({
        "providers": {"echo": {"kind": "echo"}},
        "agents": {"a": {"provider": "echo"}},
        "server": {"connections_max": 10_000},
    })
}

/// Messages a second over WebSocket, and microseconds of the server's CPU for each.
pub(super) async fn measure(server: &Server, lasting: Duration) -> Result<(f64, f64), String> {
    let (clock, cpu) = (Clock::system(), server.cpu_seconds());
    let answered = websocket(server.address, lasting).await?.answered as f64;
    Ok((answered / clock.elapsed().as_secs_f64(), (server.cpu_seconds() - cpu) * 1e6 / answered))
}

/// Keeps [`SESSIONS`] sessions of the agent `a` busy for so long.
async fn websocket(address: SocketAddr, lasting: Duration) -> Result<Tally, String> {
    let mut clients = JoinSet::new();
    for client in 0..WS_CONNECTIONS {
        let sessions = SESSIONS / WS_CONNECTIONS;
        clients.spawn(ws::client(Plan { address, agent: "a", client, sessions, depth: WS_DEPTH, lasting }));
    }
    collect(clients).await
}

async fn over_http(address: SocketAddr, lasting: Duration) -> Result<Tally, String> {
    let mut clients = JoinSet::new();
    for client in 0..HTTP_CONNECTIONS {
        clients.spawn(async move {
            http_client(address, client, lasting).await.map_err(|error| format!("HTTP broke: {error}"))
        });
    }
    collect(clients).await
}

async fn http_client(address: SocketAddr, client: usize, lasting: Duration) -> std::io::Result<Tally> {
    let clock = Clock::system();
    let mut connection = Connection::open(address).await?;
    let sessions: Vec<_> =
        (0..SESSIONS / HTTP_CONNECTIONS).map(|session| format!("c{client}s{session}")).collect();
    let mut tally = Tally::default();
    let mut number = 0;
    while clock.elapsed() < lasting {
        for session in &sessions {
            let wanted = number.to_string();
            tally.sent += 1;
            let answer = connection.post("/rpc", &http::send(number, "a", session, &wanted)).await?;
            tally.answered += 1;
            match field(&answer, "text") {
                None => tally.refused += 1,
                Some(said) => tally.disordered += usize::from(said != wanted),
            }
        }
        number += 1;
    }
    Ok(tally)
}

pub(super) async fn collect(mut clients: JoinSet<Result<Tally, String>>) -> Result<Tally, String> {
    let mut all = Tally::default();
    while let Some(done) = clients.join_next().await {
        all.add(done.map_err(|error| error.to_string())??);
    }
    Ok(all)
}
