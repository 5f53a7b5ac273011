//! What a scrape of `/metrics` does to the messages beside it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Args;
use super::http::{self, Connection};
use super::latency::{Arrivals, Road, config, load, row};
use super::peer::Peer;
use super::server::Server;
use super::upstream::ANSWER_AFTER;

/// Enough agents for the series that the goal names.
const AGENTS: usize = 90;
const SERIES_MIN: usize = 5_000;
/// Prometheus asks every 15 s by default.
const EVERY: Duration = Duration::from_secs(1);
const ROUNDS: usize = 3;

pub(super) async fn run(args: &Args) -> Result<(), String> {
    let upstream = Peer::model()?;
    let server = Server::start(&args.binary, config(&upstream, AGENTS)).await?;
    let broken = |error: std::io::Error| format!("HTTP broke: {error}");
    let mut connection = Connection::open(server.address).await.map_err(broken)?;
    for agent in 1..AGENTS {
        let message = http::send(agent, &format!("a{agent}"), "s", "how are you?");
        connection.post("/rpc", &message).await.map_err(broken)?;
    }
    let series = series(server.address).await.map_err(broken)?;
    if series < SERIES_MIN {
        return Err(format!("/metrics holds {series} series; {SERIES_MIN} are wanted: raise AGENTS"));
    }
    let calls = args.calls(ANSWER_AFTER) / ROUNDS;
    let road = Road::Plimsoll(server.address);
    load(road, 5, Arrivals::Spread).await?;
    let (mut alone, mut scraped) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.extend(load(road, calls, Arrivals::Spread).await?);
        let mut scrapes = JoinSet::new();
        scrapes.spawn(scrape(server.address));
        scraped.extend(load(road, calls, Arrivals::Spread).await?);
        scrapes.abort_all();
    }
    println!(
        "\nLatency of agent.send, as above, while /metrics with {series} series is scraped every {EVERY:?}"
    );
    println!("{:<22} {:>8} {:>10} {:>10}", "", "calls", "p50, ms", "p99, ms");
    let (_, alone) = row("not scraped", &mut alone);
    let (_, scraped) = row("scraped", &mut scraped);
    println!("{:<22} {:>8} {:>10} {:>9.3}x", "p99, scraped to not", "", "", scraped / alone);
    Ok(())
}

async fn scrape(address: SocketAddr) -> std::io::Result<()> {
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        http::get(address, "/metrics").await?;
    }
}

async fn series(address: SocketAddr) -> std::io::Result<usize> {
    let (_, text) = http::get(address, "/metrics").await?;
    Ok(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count())
}
