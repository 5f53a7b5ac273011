//! What it costs that agents live in processes and containers: their cold start, a request to one that is up, and a boot
//! over a long history of them.

mod boot;
mod cold;
mod container;
mod warm;

use std::path::PathBuf;

pub(crate) use boot::fill;

/// Measures instances.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/plimsoll")]
    binary: PathBuf,
    /// Cold starts of a process, as often by hand.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    processes: u32,
    /// Cold starts of a container, as often by hand. The engine is that of DOCKER_HOST, or of this machine.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    containers: u32,
    /// How often a hundred wait for one start.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    crowds: u32,
    /// Rows of instances to boot over; several numbers make several tables.
    #[arg(long, default_value = "1000000", value_delimiter = ',')]
    rows: Vec<u64>,
    /// A folder on a device with room for these rows.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Only these tables: processes, containers, warm, crowds, boot.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Args {
    fn wants(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == table)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        if args.wants("processes") {
            cold::processes(args).await?;
        }
        if args.wants("containers") {
            cold::containers(args).await?;
        }
        if args.wants("warm") {
            warm::one_request().await?;
        }
        if args.wants("crowds") {
            warm::crowds(args.crowds).await?;
        }
        if args.wants("boot") {
            boot::run(args).await?;
        }
        Ok(())
    })
}
