//! What metrics, rings and live events cost: the same build with them and without.

use std::process::Command;

use super::server::Server;
use super::throughput::{config, measure};
use super::{Args, median};

/// By turns, so that what else the machine does hits both alike.
const ROUNDS: u32 = 5;

pub(super) async fn run(args: &Args) -> Result<(), String> {
    let mut rates = [Vec::new(), Vec::new()];
    let mut cpu_us = [Vec::new(), Vec::new()];
    let bench = std::env::current_exe().map_err(|error| error.to_string())?;
    for _ in 0..ROUNDS {
        for (of, silent) in [None, Some("--silent")].into_iter().enumerate() {
            let mut command = Command::new(&bench);
            command.args(["peer", "serve"]).args(silent);
            let server = Server::start_with(command, config()).await?;
            let (rate, cpu) = measure(&server, args.duration() / ROUNDS).await?;
            rates[of].push(rate);
            cpu_us[of].push(cpu);
        }
    }
    println!("\nMetrics, rings and live events, echo provider over WebSocket, median of {ROUNDS} rounds");
    println!("{:<16} {:>10} {:>16}", "", "per s", "server CPU, us");
    let [on, off] = rates.map(|mut rates| median(&mut rates));
    let [cpu_on, cpu_off] = cpu_us.map(|mut cpu| median(&mut cpu));
    println!("{:<16} {on:>10.0} {cpu_on:>16.1}", "recording");
    println!("{:<16} {off:>10.0} {cpu_off:>16.1}", "not recording");
    let (cost, cpu) = ((off / on - 1.0) * 100.0, (cpu_on / cpu_off - 1.0) * 100.0);
    println!("{:<16} {cost:>9.1}% {cpu:>15.1}%   goal: throughput <= 5 %", "cost");
    Ok(())
}
