//! What a tick of a town costs, without its journal and with it, how fast events fold, how long a replay takes, and what
//! idle towns cost.

mod fold;
mod idle;
mod paper;
mod replay;
mod story;
mod tick;

use std::path::PathBuf;

/// Measures towns: ticks, the fold of their events, replays, idleness.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ticks of each town.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    ticks: u32,
    /// Events that are folded and replayed.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=5_000_000))]
    events: u64,
    /// A folder on a device with room for these events.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The binary whose idleness is measured.
    #[arg(long, default_value = "target/release/plimsoll")]
    binary: PathBuf,
    /// Seconds of idleness: a town without work ticks every five minutes.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle: u64,
    /// Only these tables: ticks, fold, replay, idle.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Args {
    fn wants(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == table)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    if args.wants("ticks") {
        tick::run(args.ticks, &args.dir)?;
    }
    if args.wants("fold") {
        fold::run(args.events);
    }
    if args.wants("replay") {
        replay::run(args.events, &args.dir)?;
    }
    if args.wants("idle") {
        idle::run(&args.binary, args.idle, &args.dir)?;
    }
    Ok(())
}
