//! The signals that end a server: SIGTERM and SIGINT (Ctrl-C), the first politely, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Failure;
use crate::app::App;

/// Both signals, from the moment this exists.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen; from now on neither ends the process by itself.
    pub(crate) fn install() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Bug(format!("signals cannot be heard: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one and tells its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Stops the application, unless a further signal comes first.
    pub(crate) async fn stop(&mut self, app: App) -> Result<(), Failure> {
        tokio::select! {
            () = app.stop() => Ok(()),
            _ = self.next() => Err(Failure::Interrupted(String::new())),
        }
    }
}
