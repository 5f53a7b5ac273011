//! What plimsoll adds to a call of a model server: the same server, the same clients, called directly and through it.

use std::net::SocketAddr;

use plimsoll::clock::Clock;
use serde_json::json;
use tokio::task::JoinSet;

use super::http::{self, Connection};
use super::server::Server;
use super::upstream::{ANSWER_AFTER, Upstream};
use super::{Args, quantile};

const IN_FLIGHT: usize = 100;
const ROUNDS: usize = 3;

/// What is called.
#[derive(Clone, Copy)]
enum Road {
    Direct(SocketAddr),
    Plimsoll(SocketAddr),
}

pub(super) async fn run(args: &Args) -> Result<(), String> {
    let upstream = Upstream::start().await.map_err(|error| format!("no upstream: {error}"))?;
    let config = json!({
        "providers": {"up": {"kind": "openai", "base_url": format!("http://{}/v1", upstream.address), "stream": false}},
        "agents": {"a": {"provider": "up", "model": "m"}},
    });
    let server = Server::start(&args.binary, config).await?;
    let calls = usize::try_from(args.duration().as_millis() / ANSWER_AFTER.as_millis()).unwrap_or(1) / ROUNDS;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    // Warm-up, then by turns, so that what else the machine does hits both alike.
    load(Road::Plimsoll(server.address), 5).await?;
    for _ in 0..ROUNDS {
        direct.extend(load(Road::Direct(upstream.address), calls).await?);
        through.extend(load(Road::Plimsoll(server.address), calls).await?);
    }
    println!(
        "\nAdded latency of agent.send (POST /rpc), upstream answers after {ANSWER_AFTER:?}, {IN_FLIGHT} in flight"
    );
    println!("{:<22} {:>8} {:>10} {:>10}", "", "calls", "p50, ms", "p99, ms");
    let mut figures = Vec::new();
    for (name, samples) in [("direct", &mut direct), ("through plimsoll", &mut through)] {
        let (p50, p99) = (quantile(samples, 0.5), quantile(samples, 0.99));
        println!("{name:<22} {:>8} {p50:>10.2} {p99:>10.2}", samples.len());
        figures.push((p50, p99));
    }
    println!(
        "{:<22} {:>8} {:>10.2} {:>10.2}",
        "added",
        "",
        figures[1].0 - figures[0].0,
        figures[1].1 - figures[0].1
    );
    println!("{:<22} {:>8} {:>10} {:>10}", "goal", "", "<= 0.3", "<= 2");
    Ok(())
}

async fn load(road: Road, calls: usize) -> Result<Vec<f64>, String> {
    let clock = Clock::system();
    let mut clients = JoinSet::new();
    for client in 0..IN_FLIGHT {
        let clock = clock.clone();
        clients
            .spawn(async move { call(road, client, calls, &clock).await.map_err(|error| error.to_string()) });
    }
    let mut samples = Vec::new();
    while let Some(done) = clients.join_next().await {
        samples.extend(done.map_err(|error| error.to_string())??);
    }
    Ok(samples)
}

async fn call(road: Road, client: usize, calls: usize, clock: &Clock) -> std::io::Result<Vec<f64>> {
    let (address, path, body) = match road {
        Road::Direct(address) => {
            let body =
                r#"{"model":"m","messages":[{"role":"user","content":"how are you?"}],"stream":false}"#;
            (address, "/v1/chat/completions", body.to_owned())
        }
        Road::Plimsoll(address) => {
            (address, "/rpc", http::send(client, "a", &format!("s{client}"), "how are you?"))
        }
    };
    let mut connection = Connection::open(address).await?;
    let mut samples = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = clock.elapsed();
        let answer = connection.post(path, &body).await?;
        samples.push((clock.elapsed() - began).as_secs_f64() * 1e3);
        assert!(answer.contains("fine, thank you"), "{answer}");
    }
    Ok(samples)
}
