//! Runners: what starts and stops an instance. One trait, one file per kind. Start at [`Runner`].

mod docker;
mod process;
mod ready;
mod scripted;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::config::HostKind;
use super::machine::{Exit, Failure, LostAction, Run};

pub use docker::{ContainerBook, DockerEngine, DockerRunner, EngineStatus, NamedContainer, remove_left};
pub use process::{Printed, ProcessConfig, ProcessRunner};
pub use ready::Readiness;
pub use scripted::{Act, Find, Script, ScriptedRunner};

/// Starts and stops one instance. Every call ends within a deadline of its own.
pub trait Runner: Send + Sync {
    /// What hosts the instance.
    fn kind(&self) -> HostKind;

    /// Looks for what an earlier plimsoll left running of the instance, before it is told anything else; stops it, or, if
    /// it may be kept and `keep` is true, keeps it. Dropped before its end, it can be asked again.
    fn find(&self, keep: bool) -> BoxFuture<'_, Found> {
        let _nothing_to_keep = keep;
        Box::pin(async { Found::default() })
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
#[derive(Default)]
pub struct Found {
    /// The name of a container that runs, is ready, and is kept, as if it had just been started.
    pub adopted: Option<(Arc<str>, Up)>,
    /// What is not kept: what became of it, and the name of its container, where that is known.
    pub lost: Vec<(LostAction, Option<Arc<str>>)>,
    /// Why nobody can tell now what else there is: it has to be looked for again.
    pub untold: Option<Failure>,
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
