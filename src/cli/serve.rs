//! `plimsoll serve`: runs until a signal ends it.

use std::io::{IsTerminal as _, Write as _};

use super::exit::Failure;
use super::signals::Signals;
use super::target::SourceArgs;
use crate::app::App;
use crate::catalogue;
use crate::clock::Clock;
use crate::secret::Secret;

/// Serves agents until SIGTERM or Ctrl-C. Works without any argument and any file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll serve
  plimsoll serve --config plimsoll.yaml --data-dir /var/lib/plimsoll
  PLIMSOLL_ENV=docker plimsoll serve

The first SIGTERM or Ctrl-C refuses new requests, lets the others finish within `server.shutdown_grace`, cancels the
rest and ends with 0. A second one ends at once with 130.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let loaded = args.source.load()?;
    super::on_all_cores(async {
        let mut signals = Signals::install()?;
        let start =
            App::start(loaded.config, loaded.data_dir.clone(), Clock::system(), catalogue::registry());
        let mut app = tokio::select! {
            started = start => started?,
            // Nothing was taken in yet, and the journal survives being cut: there is nothing to wait for.
            _ = signals.next() => return Ok(()),
        };
        if let Some(token) = app.first_token.take()
            && let Err(error) = show(&token)
        {
            tracing::warn!(%error, "the first token could not be shown: `plimsoll token new` makes another");
        }
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "the configuration works and should be otherwise");
        }
        let files: Vec<_> = loaded.files.iter().map(|path| path.display().to_string()).collect();
        tracing::info!(
            address = %app.address(),
            data_dir = %loaded.data_dir.display(),
            files = files.join(", "),
            version = env!("CARGO_PKG_VERSION"),
            "plimsoll serves"
        );
        let signal = signals.next().await;
        tracing::info!(signal, "plimsoll ends: what runs may finish, a second signal ends it at once");
        signals.stop(app).await
    })
}

/// Shows the first token to whoever started plimsoll: on the terminal, else on standard output, where no log goes.
fn show(token: &Secret) -> std::io::Result<()> {
    let text = format!(
        "An agent runs beside plimsoll on this machine, so callers from the network need a token. This is an operator's:\n\n  \
         {}\n\nKeep it: it is not shown again. `plimsoll token revoke first-operator` ends it. The command line of this\n\
         user needs none.\n",
        token.expose()
    );
    if std::io::stderr().is_terminal() {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    }
}
