//! `plimsoll config`: what is configured, and what is wrong with it.

use std::io::Write as _;

use super::config_init;
use super::exit::Failure;
use super::target::SourceArgs;
use super::terminal::printable;
use crate::config::show;

/// Writes, shows and checks the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(config_init::Args),
    Show(ShowArgs),
    Check(CheckArgs),
}

/// Prints the configuration as it takes effect: merged, expanded, with defaults. Secrets show the name they came by.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll config show
  PLIMSOLL_ENV=docker plimsoll config show --origin
  plimsoll config show --json | jq .server")]
struct ShowArgs {
    /// Prints JSON instead of YAML.
    #[arg(long)]
    json: bool,
    /// Prints each value on a line with the file and line it comes from.
    #[arg(long, conflicts_with = "json")]
    origin: bool,
    #[command(flatten)]
    source: SourceArgs,
}

/// Checks the configuration and prints everything that is wrong with it: exit code 3 if anything is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll config check
  plimsoll config check --config plimsoll.yaml")]
struct CheckArgs {
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Init(args) => config_init::run(args),
        Command::Show(args) => show(args),
        Command::Check(args) => check(args),
    }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let loaded = args.source.load()?;
    let text = match (args.json, args.origin) {
        (true, _) => show::json(&loaded.config),
        (_, true) => show::origins(&loaded),
        (false, false) => show::yaml(&loaded.config),
    };
    let text = text.map_err(Failure::Bug)?;
    Ok(std::io::stdout().write_all(printable(&text).as_bytes())?)
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let loaded = args.source.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {}", printable(&warning.to_string()));
    }
    let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let files = if files.is_empty() { "no file, built-in defaults".to_owned() } else { files.join(" + ") };
    Ok(writeln!(std::io::stdout(), "good: {}", printable(&files))?)
}
