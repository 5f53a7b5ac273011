//! What a message costs: the real server as a child process, real sockets, this process as its clients and its model
//! server. Both share the machine's cores, so throughput is that of server and clients together.

mod fairness;
pub(crate) mod http;
mod latency;
mod memory;
pub(crate) mod peer;
mod recording;
mod scrape;
pub(crate) mod server;
mod throughput;
mod tracing;
pub(crate) mod upstream;
mod ws;

use std::path::PathBuf;
use std::time::Duration;

/// Measures `agent.send` through the release binary.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/plimsoll")]
    binary: PathBuf,
    /// Seconds of load for each figure.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only these tables: latency, scrape, throughput, recording, tracing, fairness, memory.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Args {
    fn wants(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == table)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How many calls one client makes within [`Args::duration`] if each takes so long.
    fn calls(&self, each: Duration) -> usize {
        usize::try_from(self.duration().as_millis() / each.as_millis()).unwrap_or(1)
    }
}

pub(crate) use peer::{Part, serve};

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        if args.wants("latency") {
            latency::run(args).await?;
        }
        if args.wants("scrape") {
            scrape::run(args).await?;
        }
        if args.wants("throughput") {
            throughput::run(args).await?;
        }
        if args.wants("recording") {
            recording::run(args).await?;
        }
        if args.wants("tracing") {
            tracing::run(args).await?;
        }
        if args.wants("fairness") {
            fairness::run(args).await?;
        }
        if args.wants("memory") {
            memory::run(args).await?;
        }
        Ok(())
    })
}

/// Milliseconds at this share of the sorted samples.
pub(crate) fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let index = (samples.len() as f64 * share).ceil() as usize;
    samples.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The value of `"name":` in a JSON text, up to the next delimiter: enough for figures that this bench knows.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("\"{name}\":"))? + name.len() + 3;
    let rest = text[start..].trim_start_matches('"');
    rest.split(['"', ',', '}']).next()
}
