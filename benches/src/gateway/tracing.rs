//! What traces cost: the same load without an endpoint, and with one that takes none, 1 % and all of the traces.

use serde_json::json;

use super::server::Server;
use super::throughput::{config, measure};
use super::upstream::Upstream;
use super::{Args, http, median};

const ROUNDS: u32 = 3;

/// One way to run the server, and what was seen of it.
struct Row {
    name: &'static str,
    sample_ratio: Option<f64>,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
    batches: u64,
    dropped: f64,
}

pub(super) async fn run(args: &Args) -> Result<(), String> {
    let row = |name, sample_ratio| Row {
        name,
        sample_ratio,
        rates: vec![],
        cpu_us: vec![],
        batches: 0,
        dropped: 0.0,
    };
    let mut rows = [
        row("no endpoint", None),
        row("0 % sampled", Some(0.0)),
        row("1 % sampled", Some(0.01)),
        row("100 % sampled", Some(1.0)),
    ];
    for _ in 0..ROUNDS {
        for row in &mut rows {
            round(args, row).await?;
        }
    }
    println!("\nTraces over OTLP/HTTP, echo provider over WebSocket, median of {ROUNDS} rounds");
    println!("{:<16} {:>10} {:>16} {:>10} {:>14}", "", "per s", "server CPU, us", "batches", "spans dropped");
    for Row { name, rates, cpu_us, batches, dropped, .. } in &mut rows {
        println!("{name:<16} {:>10.0} {:>16.1} {batches:>10} {dropped:>14}", median(rates), median(cpu_us));
    }
    Ok(())
}

async fn round(args: &Args, row: &mut Row) -> Result<(), String> {
    let collector = Upstream::collector().await.map_err(|error| format!("no collector: {error}"))?;
    let mut config = config();
    if let Some(ratio) = row.sample_ratio {
        let endpoint = format!("http://{}", collector.address);
        config["telemetry"]["otlp"] =
            json!({"endpoint": endpoint, "protocol": "http/protobuf", "sample_ratio": ratio});
    }
    let server = Server::start(&args.binary, config).await?;
    let (rate, cpu_us) = measure(&server, args.duration() / ROUNDS).await?;
    row.rates.push(rate);
    row.cpu_us.push(cpu_us);
    row.batches += collector.answered();
    let (_, metrics) = http::get(server.address, "/metrics").await.map_err(|error| error.to_string())?;
    let dropped = metrics
        .lines()
        .filter(|line| line.starts_with("plimsoll_dropped_total{") && line.contains(r#"what="spans""#));
    row.dropped += dropped.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    Ok(())
}
