//! What is seen of the agents of a town: by looking at what runs, and by what was written of their instances meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::executor::Executor;
use super::observe::Sight;
use super::runs::Stage;
use crate::gateway::{Gateway, Rejection};
use crate::ids::AgentId;
use crate::lifecycle::State;
use crate::limits::TOWN_SIGHTS_MAX;
use crate::telemetry::Shared;
use crate::town::Town;
use crate::town::words::{ContainerStatus, Entity};

/// Looks at what hosts agents.
#[derive(Clone)]
pub(super) struct Hosts {
    gateway: Gateway,
    /// What happened to instances since it was last looked. A std mutex suffices: a hold is a push or a swap.
    happened: Arc<Mutex<VecDeque<Happened>>>,
    /// Counts what there was no room for.
    shared: Shared,
}

/// What is dropped, and why, as labels.
const SIGHT: (&str, &str) = ("instance_change", "queue_full");

/// Something that happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) agent: AgentId,
    pub(super) status: ContainerStatus,
    pub(super) reason: Option<Arc<str>>,
}

impl Hosts {
    pub(super) fn new(gateway: Gateway, shared: Shared) -> Self {
        shared.expect_dropped(SIGHT.0, SIGHT.1);
        Self { gateway, happened: Arc::default(), shared }
    }

    /// Something happened to an instance, which a look now and then may miss.
    pub(super) fn note(&self, happened: Happened) {
        let mut line = self.happened();
        if line.len() < TOWN_SIGHTS_MAX {
            line.push_back(happened);
        } else {
            self.shared.dropped(SIGHT.0, SIGHT.1, 1);
        }
    }

    /// What happened since this was asked last.
    pub(super) fn take(&self) -> VecDeque<Happened> {
        std::mem::take(&mut *self.happened())
    }

    /// What could not be told of is there still, before what came since.
    pub(super) fn put_back(&self, mut happened: VecDeque<Happened>) {
        let mut line = self.happened();
        happened.append(&mut line);
        let over = happened.len().saturating_sub(TOWN_SIGHTS_MAX);
        self.shared.dropped(SIGHT.0, SIGHT.1, u64::try_from(over).unwrap_or(u64::MAX));
        happened.truncate(TOWN_SIGHTS_MAX);
        *line = happened;
    }

    fn happened(&self) -> MutexGuard<'_, VecDeque<Happened>> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to be seen of agents at work, oldest first. What is dispatched and waits for what comes before it, such
    /// as somebody who stops, is about to start; of agents of other runtimes nothing is seen here.
    pub(super) fn sights(
        &self,
        town: &Town,
        happened: &VecDeque<Happened>,
        executor: &Executor,
    ) -> Vec<Sight> {
        let at_work = |agent: &AgentId| {
            let hook = town.agents().get(agent)?.hook.as_ref()?;
            let open = hook.said.is_none() && hook.ended.is_none();
            open.then(|| hook.dispatch_id.clone())
        };
        let told = happened.iter().cloned().filter_map(|Happened { agent, status, reason }| {
            let dispatch_id = at_work(&agent)?;
            // It happened to what this dispatch still waits for.
            let begun = executor.runs.stage(&dispatch_id) != Stage::Waiting;
            begun.then_some(Sight { agent, dispatch_id, status, exit_reason: reason })
        });
        let hooked = town.agents().iter().filter(|(_, agent)| agent.hook.is_some());
        let seen = hooked.filter(|(id, _)| self.gateway.has_agent(id)).filter_map(|(id, _)| {
            let dispatch_id = at_work(id)?;
            let status = match executor.runs.stage(&dispatch_id) {
                Stage::Running => self.running(id),
                Stage::Waiting => ContainerStatus::Starting,
                // What an earlier plimsoll left of it is being stopped: that settles what becomes of it.
                Stage::Unknown if executor.runs.is_busy(&Entity::Agent(id.clone())) => {
                    ContainerStatus::Starting
                }
                Stage::Unknown => ContainerStatus::NotFound,
            };
            Some(Sight { agent: id.clone(), dispatch_id, status, exit_reason: None })
        });
        told.chain(seen).collect()
    }

    /// An active request counts as running; where an instance has to come up for it, that is said.
    fn running(&self, agent: &AgentId) -> ContainerStatus {
        match self.gateway.instances().state(agent) {
            Ok(State::Cold | State::Starting | State::Stopping | State::Failed) => ContainerStatus::Starting,
            Ok(State::Ready | State::Idle) | Err(_) => ContainerStatus::Running,
        }
    }

    /// When an agent that takes no work may take some again by itself. Nobody here can tell of a pause, nor of an agent that
    /// does not fit.
    pub(super) fn back_in(&self, agent: &AgentId) -> Option<Duration> {
        match self.gateway.unusable(agent) {
            Ok(Some(Rejection::Limited { retry_after, .. })) => Some(retry_after),
            Ok(None) => Some(Duration::ZERO),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    /// Whether an agent would take work now; `None` where nobody here can tell. Who is still being stopped would not.
    pub(super) fn usable(&self, agent: &AgentId, executor: &Executor) -> Option<bool> {
        let fit = self.gateway.unusable(agent).ok().map(|why| why.is_none())?;
        Some(fit && !executor.runs.is_busy(&Entity::Agent(agent.clone())))
    }
}
