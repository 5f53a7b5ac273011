//! `plimsoll notify`: whether those who are to be told can be.

use std::io::Write as _;

use futures_util::future::join_all;

use super::exit::Failure;
use super::target::SourceArgs;
use super::terminal::{Paint, one_line};
use crate::clock::Clock;
use crate::config::Config;
use crate::notify::{Tested, test};

/// Tries the webhooks of the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Test(TestArgs),
}

/// Sends a test alarm to each webhook and prints what it answered: exit code 1 if any does not take it. No server has
/// to run: the configuration is read here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll notify test
  plimsoll notify test ops --config plimsoll.yaml")]
struct TestArgs {
    /// Only this webhook, by its name under `notify:`.
    name: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Test(args) => try_out(args),
    }
}

fn try_out(args: &TestArgs) -> Result<(), Failure> {
    let Config { notify, .. } = args.source.load()?.config;
    let asked = |name: &String| args.name.as_ref().is_none_or(|only| only == name);
    let chosen: Vec<_> = notify.iter().filter(|(name, _)| asked(name)).collect();
    if chosen.is_empty() {
        let names = notify.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Failure::Usage(match (&args.name, names.as_str()) {
            (_, "") => "the configuration has no webhook: name one under `notify:`".to_owned(),
            (Some(name), _) => format!("no webhook is called `{name}`: there are {names}"),
            (None, _) => format!("no webhook was chosen: there are {names}"),
        }));
    }
    let clock = Clock::system();
    let tests = join_all(chosen.into_iter().map(|(name, config)| test(name, config, &clock)));
    let tested = super::block_on(tests)?;
    let (mut out, paint) = (std::io::stdout(), Paint::of_stdout());
    let width = tested.iter().map(|tested| tested.name.len()).max().unwrap_or_default();
    for Tested { name, taken, said } in &tested {
        let word = if *taken { "sent  ".to_owned() } else { paint.red("failed") };
        writeln!(out, "{word}  {name:<width$}  {}", one_line(said))?;
    }
    if tested.iter().all(|tested| tested.taken) { Ok(()) } else { Err(Failure::CheckFailed) }
}
