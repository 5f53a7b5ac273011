//! `plimsoll serve`: runs until a signal ends it.

use super::exit::Failure;
use super::signals::Signals;
use super::target::SourceArgs;
use crate::app::App;
use crate::catalogue;
use crate::clock::Clock;

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
        let app = tokio::select! {
            started = start => started?,
            // Nothing was taken in yet, and the journal survives being cut: there is nothing to wait for.
            _ = signals.next() => return Ok(()),
        };
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
