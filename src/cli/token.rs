//! `plimsoll token`: tokens by which people and programs prove who they are.

use std::io::{BufRead as _, Write as _};

use sha2::{Digest as _, Sha256};

use super::exit::Failure;

/// Makes, lists and revokes access tokens.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Prints the hash of a token, for `auth.tokens` in the configuration; the token comes in on standard input.
    #[command(after_help = "Examples:
  openssl rand -hex 32 | tee token.txt | plimsoll token hash
  plimsoll token hash < token.txt")]
    Hash,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        TokenCommand::Hash => hash(),
    }
}

fn hash() -> Result<(), Failure> {
    let mut token = String::new();
    let read = std::io::stdin().lock().read_line(&mut token);
    read.map_err(|error| Failure::Input("cannot read the token from standard input".to_owned(), error))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(Failure::Usage("no token came in on standard input: pipe it in, one line".to_owned()));
    }
    let digest = Sha256::digest(token.as_bytes());
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
