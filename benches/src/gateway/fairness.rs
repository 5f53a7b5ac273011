//! What a flood of one agent does to another: how long the other one's messages wait, without it and with it.

use serde_json::json;
use tokio::task::JoinSet;

use super::server::Server;
use super::throughput::collect;
use super::ws::{self, Plan};
use super::{Args, quantile};

const FLOODED_LANES: usize = 500;
const FLOOD_CONNECTIONS: usize = 25;
const QUIET_LANES: usize = 20;
const RUNNING_MAX: usize = 64;

pub(super) async fn run(args: &Args) -> Result<(), String> {
    println!(
        "\nWait in the lane of a quiet agent ({QUIET_LANES} lanes, 2 messages each under way, answers after 100 ms), \
         {RUNNING_MAX} run at once"
    );
    println!("{:<32} {:>8} {:>10} {:>10}", "", "messages", "p50, ms", "p99, ms");
    let mut p99s = Vec::new();
    for flood in [false, true] {
        let config = json!({
            "gateway": {"running_max": RUNNING_MAX},
            "providers": {"echo": {"kind": "echo", "latency": "100ms"}},
            "agents": {"loud": {"provider": "echo"}, "quiet": {"provider": "echo"}},
        });
        let server = Server::start(&args.binary, config).await?;
        let plan = Plan {
            address: server.address,
            agent: "loud",
            client: 0,
            sessions: FLOODED_LANES / FLOOD_CONNECTIONS,
            depth: 8,
            lasting: args.duration(),
        };
        let mut loud = JoinSet::new();
        if flood {
            (0..FLOOD_CONNECTIONS).for_each(|client| {
                loud.spawn(ws::client(Plan { client, ..plan.clone() }));
            });
        }
        let mut quiet = JoinSet::new();
        quiet.spawn(ws::client(Plan { agent: "quiet", sessions: QUIET_LANES, depth: 2, ..plan }));
        let mut tally = collect(quiet).await?;
        let (p50, p99) = (quantile(&mut tally.waits, 0.5), quantile(&mut tally.waits, 0.99));
        let name = if flood { format!("beside {FLOODED_LANES} flooded lanes") } else { "alone".to_owned() };
        println!("{name:<32} {:>8} {p50:>10.1} {p99:>10.1}", tally.answered);
        p99s.push(p99);
    }
    println!(
        "{:<32} {:>8} {:>10} {:>9.2}x   goal < 2x",
        "p99, flooded against alone",
        "",
        "",
        p99s[1] / p99s[0]
    );
    Ok(())
}
