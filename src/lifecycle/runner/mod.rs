//! Runners: what starts and stops an instance. One trait, one file per kind. Start at [`Runner`].

mod docker;
mod process;
mod ready;
mod scripted;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::machine::{Exit, Failure, Run};

pub use docker::{ContainerBook, DockerEngine, DockerRunner, EngineStatus, NamedContainer, remove_left};
pub use process::{Printed, ProcessConfig, ProcessRunner};
pub use ready::Readiness;
pub use scripted::{Act, Find, Script, ScriptedRunner};

/// Starts and stops one instance. Every call ends within a deadline of its own.
pub trait Runner: Send + Sync {
    /// Its kind, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Looks for what an earlier plimsoll left running of the instance, before it is told anything else; keeps it, or
    /// stops it.
    ///
    /// # Errors
    /// [`Failure`]: nobody can tell now, and it has to be looked for again.
    fn find(&self) -> BoxFuture<'_, Result<Found, Failure>> {
        Box::pin(async { Ok(Found::Nothing) })
    }

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

    /// Whether it may be stopped at all. What may not goes on without plimsoll.
    ///
    /// # Errors
    /// In words for an operator: why not, and what would help.
    fn may_stop(&self) -> Result<(), Arc<str>> {
        Ok(())
    }

    /// Removes what was made for the instance, once it is stopped and its agent is deleted.
    ///
    /// # Errors
    /// In words for an operator: something may be left of it.
    fn remove(&self) -> BoxFuture<'_, Result<(), Arc<str>>> {
        Box::pin(async { Ok(()) })
    }
}

/// What was left running of an instance.
pub enum Found {
    /// Nothing that is ours.
    Nothing,
    /// A container that runs, is ready, and is kept.
    Adopted {
        /// Its name.
        container: Arc<str>,
        /// As if it had just been started.
        up: Up,
    },
    /// A container that was stopped.
    Stopped {
        /// Its name.
        container: Arc<str>,
    },
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
