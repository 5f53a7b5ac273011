//! What the OpenAI-compatible door costs beside other gateways: the same clients, the same model server, one run.
//!
//! Everything shares the machine's cores, so requests a second are those of gateway, clients and model server together;
//! `direct` is what is left without a gateway.

mod rivals;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll::clock::Clock;
use serde_json::json;
use tokio::task::JoinSet;

use crate::gateway::http::{self, Connection};
use crate::gateway::peer::Peer;
use crate::gateway::server::Server;
use crate::gateway::upstream::ANSWER_AFTER;
use crate::gateway::{field, median, quantile};
use rivals::{Installed, Rival};

/// Measures the OpenAI-compatible door beside `LiteLLM` and Portkey.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/plimsoll")]
    binary: PathBuf,
    /// Seconds of load for each figure.
    #[arg(long, default_value_t = 9)]
    seconds: u64,
    #[command(flatten)]
    installed: Installed,
}

/// Figures are medians of so many, taken by turns, so that what else the machine does hits all alike.
const ROUNDS: u32 = 3;
/// Connections that ask as fast as they are answered.
const BUSY: usize = 64;
/// Connections that ask a model which takes its time: few enough for the slowest of the gateways.
const CALM: usize = 4;

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"how are you?"}]}"#;

/// One way to the model.
struct Road {
    name: &'static str,
    /// To the model that answers at once, and to the one that takes its time.
    addresses: [SocketAddr; 2],
    headers: [Vec<(&'static str, String)>; 2],
    /// The process whose tree is weighed.
    pid: Option<u32>,
    /// Requests a second, and latencies in milliseconds.
    rates: Vec<f64>,
    latencies: Vec<f64>,
}

impl Road {
    fn new(name: &'static str, addresses: [SocketAddr; 2], pid: Option<u32>) -> Self {
        Self {
            name,
            addresses,
            headers: [Vec::new(), Vec::new()],
            pid,
            rates: Vec::new(),
            latencies: Vec::new(),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        beside_others(args).await?;
        beside_rpc(args).await
    })
}

async fn beside_others(args: &Args) -> Result<(), String> {
    let models = [Peer::fast_model()?, Peer::model()?];
    let upstreams = [models[0].address, models[1].address];
    let server = Server::start(&args.binary, config(upstreams)).await?;
    let mut roads = vec![
        Road::new("direct", upstreams, None),
        Road::new("plimsoll", [server.address; 2], Some(server.pid())),
    ];
    let mut rivals = Vec::new();
    for (name, start) in rivals::ALL {
        match start(&args.installed, upstreams).await? {
            None => println!("{name} is not installed: see docs/performance.md"),
            Some(rival) => {
                roads.push(road_of(name, &rival, upstreams));
                rivals.push(rival);
            }
        }
    }
    for road in &roads {
        warm_up(road).await?;
    }
    let lasting = Duration::from_secs(args.seconds) / ROUNDS;
    for _ in 0..ROUNDS {
        for road in &mut roads {
            let rate = busy(road, lasting).await?;
            road.rates.push(rate);
            road.latencies.extend(calm(road, lasting).await?);
        }
    }
    print(&mut roads);
    Ok(())
}

/// Agents `m` (at once) and `slow` (after a while) behind the same provider kind.
fn config(upstreams: [SocketAddr; 2]) -> serde_json::Value {
    let provider =
        |address| json!({"kind": "openai", "base_url": format!("http://{address}/v1"), "stream": false});
    json!({
        "providers": {"fast": provider(upstreams[0]), "slow": provider(upstreams[1])},
        "agents": {"m": {"provider": "fast", "model": "m"}, "slow": {"provider": "slow", "model": "m"}},
    })
}

fn road_of(name: &'static str, rival: &Rival, upstreams: [SocketAddr; 2]) -> Road {
    let mut road = Road::new(name, [rival.address; 2], Some(rival.pid()));
    road.headers = upstreams.map(|upstream| rival.headers(upstream));
    road
}

/// What a gateway does once, it does here.
async fn warm_up(road: &Road) -> Result<(), String> {
    busy(road, Duration::from_secs(1)).await.map(drop)
}

/// Requests a second of clients that ask as fast as they are answered.
async fn busy(road: &Road, lasting: Duration) -> Result<f64, String> {
    let clock = Clock::system();
    let mut clients = JoinSet::new();
    for _ in 0..BUSY {
        let (address, headers, clock) = (road.addresses[0], road.headers[0].clone(), clock.clone());
        clients.spawn(async move {
            let mut connection = Connection::open(address).await?.with_headers(&headers);
            let mut answered = 0_u64;
            while clock.elapsed() < lasting {
                ask(&mut connection, BODY).await?;
                answered += 1;
            }
            io::Result::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(done) = clients.join_next().await {
        answered +=
            done.map_err(|error| error.to_string())?.map_err(|error| format!("{}: {error}", road.name))?;
    }
    Ok(answered as f64 / clock.elapsed().as_secs_f64())
}

/// The latency of each request without the time that the model held it back, in milliseconds.
async fn calm(road: &Road, lasting: Duration) -> Result<Vec<f64>, String> {
    let clock = Clock::system();
    let mut clients = JoinSet::new();
    for client in 0..CALM {
        let (address, headers, clock) = (road.addresses[1], road.headers[1].clone(), clock.clone());
        clients.spawn(async move {
            tokio::time::sleep(ANSWER_AFTER * client as u32 / CALM as u32).await;
            let mut connection = Connection::open(address).await?.with_headers(&headers);
            let body = BODY.replace(r#""m""#, r#""slow""#);
            let mut samples = Vec::new();
            while clock.elapsed() < lasting {
                let began = clock.elapsed();
                let held = ask(&mut connection, &body).await?;
                samples.push((clock.elapsed() - began).as_secs_f64() * 1e3 - held);
            }
            io::Result::Ok(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(done) = clients.join_next().await {
        samples.extend(
            done.map_err(|error| error.to_string())?.map_err(|error| format!("{}: {error}", road.name))?,
        );
    }
    Ok(samples)
}

/// Asks once; gives how many milliseconds the model says that it held the answer back.
async fn ask(connection: &mut Connection, body: &str) -> io::Result<f64> {
    let answer = connection.post("/v1/chat/completions", body).await?;
    let held = field(&answer, "content").and_then(|us| us.parse::<f64>().ok());
    held.map(|us| us / 1e3).ok_or_else(|| io::Error::other(answer))
}

fn print(roads: &mut [Road]) {
    println!(
        "\nChat completions, not streamed: {BUSY} connections as fast as they are answered; latency with {CALM} \
         connections, without the {ANSWER_AFTER:?} that the model takes"
    );
    println!("{:<10} {:>12} {:>10} {:>10} {:>14}", "", "requests/s", "p50, ms", "p99, ms", "peak RSS, MiB");
    let mut rows = Vec::new();
    for road in roads {
        let (p50, p99) = (quantile(&mut road.latencies, 0.5), quantile(&mut road.latencies, 0.99));
        let (rate, peak) = (median(&mut road.rates), road.pid.map_or(f64::NAN, rivals::peak_mib));
        println!("{:<10} {rate:>12.0} {p50:>10.2} {p99:>10.2} {peak:>14.1}", road.name);
        rows.push((road.name, rate, peak));
    }
    let Some((_, ours, weight)) = rows.iter().find(|(name, ..)| *name == "plimsoll").copied() else { return };
    for (name, rate, peak) in rows.into_iter().skip(2) {
        let goal = if name == "litellm" { 100 } else { 10 };
        println!(
            "{:<24} {:>8.1}x (goal >= {goal}x)   memory {:.3} of it (goal <= 0.1)",
            format!("plimsoll to {name}"),
            ours / rate,
            weight / peak
        );
    }
}

/// The door beside `POST /rpc`, both with an agent that answers at once by itself.
async fn beside_rpc(args: &Args) -> Result<(), String> {
    let config = json!({"providers": {"echo": {"kind": "echo"}}, "agents": {"m": {"provider": "echo"}}});
    let rpc = http::send(1, "m", "s", "how are you?");
    println!("\nThe door beside POST /rpc, echo provider, {BUSY} connections");
    println!("{:<22} {:>12} {:>18}", "", "requests/s", "server CPU, us");
    let server = Server::start(&args.binary, config).await?;
    let lasting = Duration::from_secs(args.seconds) / ROUNDS;
    for (name, path, body) in [
        ("POST /rpc", "/rpc", rpc.as_str()),
        ("/v1/chat/completions", "/v1/chat/completions", BODY),
        ("the same, streamed", "/v1/chat/completions", STREAMED),
    ] {
        let (mut rates, mut cpus) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (clock, cpu) = (Clock::system(), server.cpu_seconds());
            let answered = echoes(server.address, path, body, lasting).await?;
            rates.push(answered / clock.elapsed().as_secs_f64());
            cpus.push((server.cpu_seconds() - cpu) * 1e6 / answered);
        }
        println!("{name:<22} {:>12.0} {:>18.1}", median(&mut rates), median(&mut cpus));
    }
    Ok(())
}

const STREAMED: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"how are you?"}]}"#;

async fn echoes(
    address: SocketAddr,
    path: &'static str,
    body: &str,
    lasting: Duration,
) -> Result<f64, String> {
    let clock = Clock::system();
    let mut clients = JoinSet::new();
    for client in 0..BUSY {
        let (clock, body) = (clock.clone(), body.replace(r#""s""#, &format!("\"s{client}\"")));
        clients.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut answered = 0.0;
            while clock.elapsed() < lasting {
                let answer = connection.post(path, &body).await?;
                if !answer.contains("you?") {
                    return Err(io::Error::other(answer));
                }
                answered += 1.0;
            }
            Ok(answered)
        });
    }
    let mut answered = 0.0;
    while let Some(done) = clients.join_next().await {
        answered += done.map_err(|error| error.to_string())?.map_err(|error: io::Error| error.to_string())?;
    }
    Ok(answered)
}
