//! Keeps instances: drives the machine of each, gives leases, and has written down what happens.
//!
//! One task per instance carries out the orders of its [`Machine`](super::Machine), one at a time. A request that finds its instance up
//! takes a lease under a lock and wakes nobody. Start at [`Instances::acquire`].

mod instance;
mod scribe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::machine::{Failure, Input, Policy, State, StopReason};
use super::runner::Runner;
use crate::clock::Clock;
use crate::ids::{AgentId, TraceId};
use crate::journal::{Actor, Journal};
use instance::Instance;

pub use instance::Lease;

/// An instance to be kept.
pub struct Kept {
    /// How.
    pub policy: Policy,
    /// By what.
    pub runner: Arc<dyn Runner>,
}

/// Who or what caused a step, for its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Who.
    pub actor: Actor,
    /// In which trace.
    pub trace_id: Option<TraceId>,
}

impl Cause {
    /// plimsoll itself.
    pub const SYSTEM: Self = Self { actor: Actor::System, trace_id: None };
}

/// Why a request does not get its instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// It failed, and is not tried again before that.
    #[error("instance {instance} failed: {}", failure.error)]
    Failed {
        /// Which.
        instance: AgentId,
        /// How.
        failure: Failure,
        /// When it may be tried again.
        retry_in: std::time::Duration,
    },
    /// As many requests wait for it as may.
    #[error("as many requests wait for instance {instance} as may")]
    Full {
        /// Which.
        instance: AgentId,
    },
    /// It was stopped while the request waited, or is not started again.
    #[error("instance {instance} was stopped ({})", reason.as_str())]
    Stopped {
        /// Which.
        instance: AgentId,
        /// Why.
        reason: StopReason,
    },
    /// There is none of this name.
    #[error("no instance is called {0}")]
    Unknown(AgentId),
}

/// Every instance that is kept.
pub struct Instances {
    all: BTreeMap<AgentId, Arc<Instance>>,
    drivers: TaskTracker,
    scribe: scribe::Scribe,
}

impl Instances {
    /// Begins to keep these; hot ones start. To be called within a runtime.
    #[must_use]
    pub fn new(kept: BTreeMap<AgentId, Kept>, journal: Arc<dyn Journal>, clock: &Clock) -> Self {
        let scribe = scribe::Scribe::new(journal);
        let drivers = TaskTracker::new();
        let all: BTreeMap<_, _> = kept
            .into_iter()
            .map(|(id, kept)| (id.clone(), Arc::new(Instance::new(id, kept, scribe.pen(), clock.clone()))))
            .collect();
        for instance in all.values() {
            drivers.spawn(Arc::clone(instance).drive());
        }
        drivers.close();
        Self { all, drivers, scribe }
    }

    /// Waits until the instance is up, and keeps it so until the lease is dropped. Dropped before that, the request
    /// waits no more; a start that it caused goes on.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn acquire(&self, id: &AgentId, cause: Cause) -> Result<Lease, Unavailable> {
        Instance::acquire(self.get(id)?, cause).await
    }

    /// Starts it, without waiting for it.
    ///
    /// # Errors
    /// [`Unavailable::Unknown`].
    pub fn start(&self, id: &AgentId, cause: Cause) -> Result<(), Unavailable> {
        self.get(id)?.tell(Input::Start, Some(cause));
        Ok(())
    }

    /// Stops it, without waiting for its end. Requests that wait for it fail; the next one starts it again.
    ///
    /// # Errors
    /// [`Unavailable::Unknown`].
    pub fn stop(&self, id: &AgentId, cause: Cause) -> Result<(), Unavailable> {
        self.get(id)?.tell(Input::Stop(StopReason::Operator), Some(cause));
        Ok(())
    }

    /// What it does now.
    ///
    /// # Errors
    /// [`Unavailable::Unknown`].
    pub fn state(&self, id: &AgentId) -> Result<State, Unavailable> {
        Ok(self.get(id)?.state())
    }

    /// Stops all of them for good, and waits until what happened is written. As long as that takes: callers bound it.
    pub async fn shut_down(&self) {
        for instance in self.all.values() {
            instance.tell(Input::Stop(StopReason::Shutdown), Some(Cause::SYSTEM));
        }
        self.drivers.wait().await;
        self.scribe.flush().await;
    }

    fn get(&self, id: &AgentId) -> Result<&Arc<Instance>, Unavailable> {
        self.all.get(id).ok_or_else(|| Unavailable::Unknown(id.clone()))
    }
}
