//! What an idle WebSocket connection holds.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;

use super::server::Server;
use super::{Args, ws};

const CONNECTIONS: usize = 1_000;
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &Args) -> Result<(), String> {
    let server = Server::start(&args.binary, json!({"server": {"connections_max": 10_000}})).await?;
    // The first ones pay for what all share.
    let mut open = Vec::with_capacity(CONNECTIONS);
    for _ in 0..10 {
        open.push(ws::connect(server.address).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let before = server.resident_kib()?;
    for _ in 0..CONNECTIONS {
        open.push(ws::connect(server.address).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let after = server.resident_kib()?;
    let lost = futures_util::future::join_all(open.iter_mut().map(|socket| async {
        tokio::time::timeout(Duration::from_millis(1), socket.next()).await.is_ok_and(|next| next.is_none())
    }));
    let lost = lost.await.into_iter().filter(|lost| *lost).count();
    println!("\nMemory of idle WebSocket connections");
    println!("{:<36} {:>10}", "connections (lost)", format!("{CONNECTIONS} ({lost})"));
    println!("{:<36} {:>10.1}", "resident before, MiB", before / 1_024.0);
    println!("{:<36} {:>10.1}", "resident with them, MiB", after / 1_024.0);
    println!("{:<36} {:>10.1}   goal < 30", "each, KiB", (after - before) / CONNECTIONS as f64);
    Ok(())
}
