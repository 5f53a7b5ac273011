//! Runners: what starts and stops an instance. One trait, one file per kind. Start at [`Runner`].

mod process;
mod ready;
mod scripted;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::machine::{Exit, Failure, Run};

pub use process::{Printed, ProcessConfig, ProcessRunner};
pub use ready::Readiness;
pub use scripted::{Act, Script, ScriptedRunner};

/// Starts and stops one instance. Every call ends within a deadline of its own.
pub trait Runner: Send + Sync {
    /// Its kind, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Starts a run and waits until it is ready. Dropped before that, it leaves what there is of the run to
    /// [`Runner::stop`].
    ///
    /// # Errors
    /// [`Failure`]; nothing is left of the run then.
    fn start(&self, run: Run) -> BoxFuture<'_, Result<Up, Failure>>;

    /// Stops what there is of a run, which may be nothing.
    ///
    /// # Errors
    /// In words for an operator: something may be left of it.
    fn stop(&self, run: Run) -> BoxFuture<'_, Result<(), Arc<str>>>;
}

/// A run that is ready.
pub struct Up {
    /// Where it answers, for one that is asked over the network.
    pub address: Option<SocketAddr>,
    /// How long the command to start it took.
    pub start: Duration,
    /// Ends when the run has ended by itself.
    pub ended: BoxFuture<'static, Exit>,
}
