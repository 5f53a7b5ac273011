//! Keeps instances: drives the machine of each, gives leases, and has written down what happens.
//!
//! One task per instance carries out the orders of its [`Machine`](super::Machine), one at a time. A request that finds its instance up
//! takes a lease under a lock and wakes nobody. Start at [`Instances::acquire`].

mod boot;
mod instance;
mod leavings;
mod scribe;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde::Serialize;
use tokio_util::task::TaskTracker;
use tracing::Span;

use super::config::HostKind;
use super::hosts::Hosts;
use super::ledger::{InstanceCounts, Ledger};
use super::machine::{Failure, Input, Policy, Start, State, StopReason};
use super::metrics::Metrics;
use super::runner::{ContainerBook, EngineStatus, Runner};
use crate::clock::Clock;
use crate::ids::{AgentId, TraceId};
use crate::journal::{Actor, Journal};
use crate::limits::JOURNAL_APPEND_WAIT;
use crate::telemetry::{Registry, Shared};
use instance::Instance;
use leavings::Leavings;
use scribe::Scribe;

pub use boot::{Configured, Unkept};
pub use instance::Lease;

/// An instance to be kept.
pub struct Kept {
    /// How.
    pub policy: Policy,
    /// By what.
    pub runner: Arc<dyn Runner>,
}

/// Who or what caused a step, for its record and its span.
#[derive(Debug, Clone)]
pub struct Cause {
    /// Who.
    pub actor: Actor,
    /// In which trace.
    pub trace_id: Option<TraceId>,
    /// What its span stands in.
    pub span: Span,
}

impl Cause {
    /// plimsoll itself.
    #[must_use]
    pub fn system() -> Self {
        Self { actor: Actor::System, trace_id: None, span: Span::none() }
    }
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
        retry_in: Duration,
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
    /// plimsoll may not stop it.
    #[error("instance {instance} is not stopped: {why}")]
    Kept {
        /// Which.
        instance: AgentId,
        /// Why not, and what would help.
        why: Arc<str>,
    },
    /// There is none of this name.
    #[error("no instance is called {0}")]
    Unknown(AgentId),
}

/// What [`Instances`] are made of.
pub struct InstancesParts {
    /// Makes their runners.
    pub hosts: Hosts,
    /// Counts what happens: a fold of the journal.
    pub ledger: Arc<Ledger>,
    /// Where what happens is written.
    pub journal: Arc<dyn Journal>,
    /// Makes the metric handles.
    pub registry: Registry,
    /// The counters that belong to no one module.
    pub shared: Shared,
    /// Measures.
    pub clock: Clock,
}

impl InstancesParts {
    /// Parts that host nothing by themselves: for instances whose runners somebody else makes, and for none.
    #[must_use]
    pub fn bare(ledger: Arc<Ledger>, journal: Arc<dyn Journal>, registry: &Registry, clock: &Clock) -> Self {
        let shared = Shared::new(registry);
        let (hosts, registry, clock) = (Hosts::nobody(clock), registry.clone(), clock.clone());
        Self { hosts, ledger, journal, registry, shared, clock }
    }
}

/// Every instance that is kept.
pub struct Instances {
    /// A std lock suffices: it is written when an agent comes or goes.
    all: RwLock<BTreeMap<AgentId, Arc<Instance>>>,
    hosts: Hosts,
    book: ContainerBook,
    journal: Arc<dyn Journal>,
    ledger: Arc<Ledger>,
    metrics: Metrics,
    shared: Shared,
    clock: Clock,
    drivers: TaskTracker,
    /// Begins with the first instance.
    scribe: OnceLock<Scribe>,
    leavings: Leavings,
}

/// What is known of an instance at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct InstanceView {
    /// What hosts it.
    #[serde(skip)]
    pub mode: HostKind,
    /// When it starts.
    #[serde(skip)]
    pub start: Start,
    /// What it does now.
    pub state: State,
    /// What was counted of it.
    pub counts: InstanceCounts,
    /// How it failed, for one that did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
}

/// How an instance failed.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureView {
    /// What sort of thing went wrong, such as `not_ready`.
    pub kind: &'static str,
    /// What happened and what would help.
    pub error: Arc<str>,
    /// Milliseconds until it may be tried again.
    pub retry_in_ms: u64,
}

impl Instances {
    /// None yet.
    #[must_use]
    pub fn new(parts: InstancesParts) -> Self {
        let InstancesParts { hosts, ledger, journal, registry, shared, clock } = parts;
        scribe::expect_losses(&shared);
        let (all, drivers, scribe) = (RwLock::default(), TaskTracker::new(), OnceLock::new());
        let metrics = Metrics::new(&registry);
        let book = ContainerBook::new(Arc::clone(&ledger), Arc::clone(&journal), hosts.engine_config());
        let leavings = Leavings::default();
        Self { all, hosts, book, journal, ledger, metrics, shared, clock, drivers, scribe, leavings }
    }

    /// What of this survives a restart: a fold, to be registered when the journal is opened.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Keeps one more; a hot one starts. To be called within a runtime.
    pub fn keep(&self, id: AgentId, kept: Kept) {
        let scribe = self.scribe.get_or_init(|| Scribe::new(Arc::clone(&self.journal), self.shared.clone()));
        self.metrics.expect(&id);
        let instance = Arc::new(Instance::new(id.clone(), kept, scribe.pen(), self.clock.clone()));
        let before =
            self.all.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&instance));
        assert!(before.is_none(), "an instance is kept once");
        self.drivers.spawn(instance.drive());
    }

    /// Waits until the instance is up, and keeps it so until the lease is dropped. Dropped before that, the request
    /// waits no more; a start that it caused goes on.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn acquire(&self, id: &AgentId, cause: Cause) -> Result<Lease, Unavailable> {
        Instance::acquire(&self.get(id)?, cause).await
    }

    /// The same for one that is up already; `None` for another.
    #[must_use]
    pub fn join(&self, id: &AgentId) -> Option<Lease> {
        self.get(id).ok()?.join()
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
    /// [`Unavailable::Unknown`], [`Unavailable::Kept`].
    pub fn stop(&self, id: &AgentId, cause: Cause) -> Result<(), Unavailable> {
        let instance = self.get(id)?;
        instance.may_stop()?;
        instance.tell(Input::Stop(StopReason::Operator), Some(cause));
        Ok(())
    }

    /// What it does now.
    ///
    /// # Errors
    /// [`Unavailable::Unknown`].
    pub fn state(&self, id: &AgentId) -> Result<State, Unavailable> {
        Ok(self.get(id)?.state())
    }

    /// Whether anything of an instance may run: also what failed to stop.
    ///
    /// # Errors
    /// [`Unavailable::Unknown`].
    pub fn may_run(&self, id: &AgentId) -> Result<bool, Unavailable> {
        Ok(self.get(id)?.may_run())
    }

    /// Waits until it is known what an earlier plimsoll left running of it; at once if there is none of this name. Lasts as
    /// long as the engine cannot tell.
    pub async fn known(&self, id: &AgentId) {
        if let Ok(instance) = self.get(id) {
            instance.known().await;
        }
    }

    /// How the container engine does; `None` while nobody needs one.
    #[must_use]
    pub fn engine_status(&self) -> Option<EngineStatus> {
        let needed = self.all().values().any(|instance| instance.mode() == HostKind::Container);
        self.hosts.engine_status().filter(|_| needed)
    }

    /// What is known of it; `None` if there is none of this name.
    #[must_use]
    pub fn view(&self, id: &AgentId) -> Option<InstanceView> {
        let instance = self.get(id).ok()?;
        Some(instance.view(self.ledger.of(id)))
    }

    /// Brings the gauges up to date; to be called before metrics are rendered.
    pub fn refresh_gauges(&self) {
        let all: Vec<_> = self.all().values().cloned().collect();
        let (mut states, mut waiting) = (BTreeMap::<State, usize>::new(), 0);
        for instance in all {
            let load = instance.load();
            *states.entry(load.0).or_default() += 1;
            waiting += load.1;
        }
        self.metrics.show(&states, waiting);
    }

    /// Stops one for good, waits until it has, and forgets it. Requests that wait for it fail. What was counted of it
    /// stays until the journal says that its agent was deleted.
    ///
    /// # Errors
    /// [`Unavailable::Unknown`].
    pub async fn remove(&self, id: &AgentId, cause: Cause) -> Result<(), Unavailable> {
        let instance = self.get(id)?;
        instance.tell(Input::Stop(StopReason::Removed), Some(cause));
        instance.over().await;
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.flush().await;
        Ok(())
    }

    /// Stops all of them for good, and waits for that and, a little, for what happened to be written. Each runner bounds
    /// its own stop.
    pub async fn shut_down(&self) {
        self.leavings.end();
        let all: Vec<_> = self.all().values().cloned().collect();
        for instance in &all {
            instance.tell(Input::Stop(StopReason::Shutdown), Some(Cause::system()));
        }
        for instance in &all {
            instance.over().await;
        }
        self.drivers.close();
        self.drivers.wait().await;
        if tokio::time::timeout(JOURNAL_APPEND_WAIT, self.flush()).await.is_err() {
            tracing::error!(
                source = "lifecycle",
                "the journal is late: what happened last to instances is not written"
            );
        }
    }

    async fn flush(&self) {
        if let Some(scribe) = self.scribe.get() {
            scribe.flush().await;
        }
    }

    fn get(&self, id: &AgentId) -> Result<Arc<Instance>, Unavailable> {
        self.all().get(id).cloned().ok_or_else(|| Unavailable::Unknown(id.clone()))
    }

    fn all(&self) -> RwLockReadGuard<'_, BTreeMap<AgentId, Arc<Instance>>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }
}
