//! What plimsoll adds to a call of a model server: the same server, the same clients, called directly and through it.

use std::io;
use std::net::SocketAddr;

use plimsoll::clock::Clock;
use serde_json::json;
use tokio::task::JoinSet;

use super::http::{self, Connection};
use super::peer::Peer;
use super::server::Server;
use super::upstream::ANSWER_AFTER;
use super::{Args, field, quantile};

const IN_FLIGHT: usize = 100;
const ROUNDS: usize = 3;

/// What is called.
#[derive(Clone, Copy)]
pub(super) enum Road {
    Direct(SocketAddr),
    Plimsoll(SocketAddr),
}

/// When the clients make their first call; each makes the next one as soon as it has its answer.
#[derive(Clone, Copy)]
pub(super) enum Arrivals {
    /// Evenly over the time that an answer takes, as calls of clients that know nothing of each other arrive.
    Spread,
    /// All at once, and so each time again, because the upstream answers all after the same time.
    Together,
}

pub(super) async fn run(args: &Args) -> Result<(), String> {
    let upstream = Peer::model()?;
    let server = Server::start(&args.binary, config(&upstream, 1)).await?;
    let relay = Peer::relay(upstream.address)?;
    let calls = args.calls(ANSWER_AFTER) / ROUNDS;
    // Warm-up, then by turns, so that what else the machine does hits both alike.
    load(Road::Plimsoll(server.address), 5, Arrivals::Spread).await?;
    println!(
        "\nLatency of agent.send (POST /rpc) without the {ANSWER_AFTER:?} that the upstream takes, {IN_FLIGHT} in flight"
    );
    for (arrivals, what, goals) in [
        (Arrivals::Spread, "arriving evenly", ["<= 0.3", "<= 2"]),
        (Arrivals::Together, "all at once", ["", ""]),
    ] {
        let (mut direct, mut relayed, mut through) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            direct.extend(load(Road::Direct(upstream.address), calls, arrivals).await?);
            relayed.extend(load(Road::Direct(relay.address), calls, arrivals).await?);
            through.extend(load(Road::Plimsoll(server.address), calls, arrivals).await?);
        }
        println!("{what:<22} {:>8} {:>10} {:>10}", "calls", "p50, ms", "p99, ms");
        let direct = row("direct", &mut direct);
        let relayed = row("through a bare relay", &mut relayed);
        let through = row("through plimsoll", &mut through);
        for (name, (p50, p99)) in [("added by the relay", relayed), ("added by plimsoll", through)] {
            println!("{name:<22} {:>8} {:>10.2} {:>10.2}", "", p50 - direct.0, p99 - direct.1);
        }
        println!("{:<22} {:>8} {:>10} {:>10}", "goal", "", goals[0], goals[1]);
    }
    Ok(())
}

/// Prints one line of the table, and gives its p50 and p99 in milliseconds.
pub(super) fn row(name: &str, samples: &mut [f64]) -> (f64, f64) {
    let (p50, p99) = (quantile(samples, 0.5), quantile(samples, 0.99));
    println!("{name:<22} {:>8} {p50:>10.2} {p99:>10.2}", samples.len());
    (p50, p99)
}

/// A server whose agents `a`, `a1`, `a2`, ... all ask this upstream.
pub(super) fn config(upstream: &Peer, agents: usize) -> serde_json::Value {
    let agent = |n: usize| {
        (if n == 0 { "a".to_owned() } else { format!("a{n}") }, json!({"provider": "up", "model": "m"}))
    };
    json!({
        "providers": {"up": {"kind": "openai", "base_url": format!("http://{}/v1", upstream.address), "stream": false}},
        "agents": (0..agents).map(agent).collect::<serde_json::Map<_, _>>(),
    })
}

/// The latency of every call without the time that the upstream held it back, in milliseconds.
pub(super) async fn load(road: Road, calls: usize, arrivals: Arrivals) -> Result<Vec<f64>, String> {
    let clock = Clock::system();
    let mut clients = JoinSet::new();
    for client in 0..IN_FLIGHT {
        let clock = clock.clone();
        clients.spawn(async move {
            if let Arrivals::Spread = arrivals {
                tokio::time::sleep(ANSWER_AFTER * client as u32 / IN_FLIGHT as u32).await;
            }
            call(road, client, calls, &clock).await.map_err(|error| error.to_string())
        });
    }
    let mut samples = Vec::new();
    while let Some(done) = clients.join_next().await {
        samples.extend(done.map_err(|error| error.to_string())??);
    }
    Ok(samples)
}

async fn call(road: Road, client: usize, calls: usize, clock: &Clock) -> io::Result<Vec<f64>> {
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
        let took = (clock.elapsed() - began).as_secs_f64() * 1e3;
        let held = field(&answer, "content")
            .or_else(|| field(&answer, "text"))
            .and_then(|us| us.parse::<f64>().ok());
        samples.push(took - held.ok_or_else(|| io::Error::other(answer.clone()))? / 1e3);
    }
    Ok(samples)
}
