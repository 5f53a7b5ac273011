//! Measures what the performance table claims: one subcommand per table.

mod child;
mod door;
mod exec;
mod footprint;
mod gateway;
mod journal;
mod lifecycle;
mod recording;
mod town;

use std::process::ExitCode;

use clap::Parser as _;

/// Measures plimsoll and prints a table.
#[derive(Debug, clap::Parser)]
#[command(name = "plimsoll-bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Door(door::Args),
    Exec(exec::Args),
    Footprint(footprint::Args),
    Gateway(gateway::Args),
    Journal(journal::Args),
    Lifecycle(lifecycle::Args),
    #[command(hide = true, subcommand)]
    Peer(gateway::Part),
    Recording(recording::Args),
    Town(town::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().bench {
        Bench::Door(args) => door::run(&args),
        Bench::Exec(args) => exec::run(&args),
        Bench::Footprint(args) => footprint::run(&args),
        Bench::Gateway(args) => gateway::run(&args),
        Bench::Journal(args) => journal::run(&args),
        Bench::Lifecycle(args) => lifecycle::run(&args),
        Bench::Peer(part) => gateway::serve(&part),
        Bench::Recording(args) => recording::run(&args),
        Bench::Town(args) => town::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
