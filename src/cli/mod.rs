//! The command line: one file per command, and the exit code each way of ending has.
//!
//! Commands parse, ask and print. Whatever needs state asks the running server; a command opens the data directory
//! itself only when no server runs. Start at [`main`].

mod agents;
mod alerts;
mod audit;
mod bead;
mod cancel;
mod completions;
mod config;
mod config_init;
mod demo;
mod doctor;
mod events;
mod exit;
mod get;
mod healthcheck;
mod lifecycle;
mod logs;
mod metrics;
mod notify;
mod pause;
mod ps;
mod replay;
mod send;
mod serve;
mod session;
mod signals;
mod target;
mod terminal;
mod token;
mod town;
mod usage;
mod version;

use std::process::ExitCode;

use clap::Parser as _;

use exit::Failure;

use crate::process::{GUARD_COMMAND, run_guard};

/// Runs a fleet of AI agents, and shows, records and guards everything the fleet does.
#[derive(Debug, clap::Parser)]
#[command(name = "plimsoll", version = version::long(), after_long_help = exit::table())]
#[command(propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Send(send::Args),
    Get(get::Args),
    Agents(agents::Args),
    Ps(ps::Args),
    Cancel(cancel::Args),
    Logs(logs::Args),
    Session(session::Args),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Start(lifecycle::StartArgs),
    Stop(lifecycle::StopArgs),
    Town(town::Args),
    Bead(bead::Args),
    DryRun(replay::DryRunArgs),
    Replay(replay::ReplayArgs),
    Usage(usage::Args),
    Events(events::Args),
    Audit(audit::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Metrics(metrics::Args),
    Alerts(alerts::Args),
    Notify(notify::Args),
    Healthcheck(healthcheck::Args),
    Token(token::Args),
    Completions(completions::Args),
}

/// Parses the command line, runs the command, and says how it ended: what failed goes to standard error, and the
/// number is from the table that `plimsoll --help` prints.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == GUARD_COMMAND) {
        // Not a command for people, and on the way to every answer of a program: nothing else is set up.
        return run_guard(arguments);
    }
    let cli = Cli::parse();
    let outcome = std::panic::catch_unwind(|| run(cli));
    let failure = match outcome {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Bug("the command panicked".to_owned()),
    };
    if let Some(message) = failure.message() {
        eprintln!("error: {}", terminal::printable(&message));
    }
    failure.code().into()
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Agents(args) => agents::run(&args),
        Command::Ps(args) => ps::run(&args),
        Command::Cancel(args) => cancel::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Session(args) => session::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => pause::resume(&args),
        Command::Start(args) => lifecycle::start(&args),
        Command::Stop(args) => lifecycle::stop(&args),
        Command::Town(args) => town::run(&args),
        Command::Bead(args) => bead::run(&args),
        Command::DryRun(args) => replay::run_dry(&args),
        Command::Replay(args) => replay::run_replay(&args),
        Command::Usage(args) => usage::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Metrics(args) => metrics::run(&args),
        Command::Alerts(args) => alerts::run(&args),
        Command::Notify(args) => notify::run(&args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Runs a command that only asks: one thread suffices.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Input("no runtime can be made".to_owned(), error))?;
    Ok(runtime.block_on(work))
}

/// Runs a command that shows what comes, until it is told to stop: that is no failure.
fn until_ctrl_c(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(async {
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })?
}

/// Runs a server: a thread for every core. What still blocks when it ends is left behind, so that a second signal
/// ends the process at once.
fn on_all_cores(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Input("no runtime can be made".to_owned(), error))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// The query of a URL, of the pairs that have a value.
fn query(pairs: &[(&str, Option<String>)]) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let given = pairs.iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    given.map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
}
