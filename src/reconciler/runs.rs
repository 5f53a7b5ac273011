//! What is under way of a town's dispatches, as far as plimsoll itself carries them out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::ids::{AgentId, DispatchId, RequestId};
use crate::town::words::Entity;

/// A std mutex suffices: a hold is a few map operations.
#[derive(Default)]
pub(super) struct Runs(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// Dispatches that wait for what comes before them: one that is taken out never begins.
    waiting: BTreeSet<DispatchId>,
    /// Dispatches that an agent works on.
    running: BTreeMap<DispatchId, Running>,
    /// Agents whose work was cut and whose host has not stopped yet.
    cut: BTreeSet<AgentId>,
    /// The end of the last effect on each agent and each bead.
    last: BTreeMap<Entity, CancellationToken>,
}

/// A dispatch that an agent works on.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) agent: AgentId,
    pub(super) request: RequestId,
    /// Cancelled once nobody works on it any more.
    pub(super) over: CancellationToken,
}

/// How far a dispatch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not begun.
    Waiting,
    /// An agent works on it.
    Running,
    /// Nothing here works on it.
    Unknown,
}

/// A place in the order of effects.
pub(super) struct Place {
    pub(super) before: Vec<CancellationToken>,
    /// Lets those behind it begin once it is dropped.
    _done: DropGuard,
}

impl Runs {
    /// The place behind all that came before on these.
    pub(super) fn queue_up(&self, entities: &BTreeSet<Entity>) -> Place {
        let mut table = self.table();
        table.last.retain(|_, done| !done.is_cancelled());
        let done = CancellationToken::new();
        let before = entities.iter().filter_map(|entity| table.last.insert(entity.clone(), done.clone()));
        Place { before: before.collect(), _done: done.drop_guard() }
    }

    /// Whether an effect on this is still to come, or under way.
    pub(super) fn is_busy(&self, entity: &Entity) -> bool {
        self.table().last.get(entity).is_some_and(|done| !done.is_cancelled())
    }

    /// A dispatch waits for its turn.
    pub(super) fn wait(&self, dispatch: &DispatchId) {
        self.table().waiting.insert(dispatch.clone());
    }

    /// A dispatch waits no more: it begins, or never will. Whether it waited.
    pub(super) fn leave(&self, dispatch: &DispatchId) -> bool {
        self.table().waiting.remove(dispatch)
    }

    pub(super) fn run(&self, dispatch: DispatchId, running: Running) {
        self.table().running.insert(dispatch, running);
    }

    /// Nobody works on it any more, in this request.
    pub(super) fn over(&self, dispatch: &DispatchId, request: &RequestId) {
        let mut table = self.table();
        if let Some(running) = table.running.get(dispatch).filter(|running| running.request == *request) {
            running.over.cancel();
            table.running.remove(dispatch);
        }
    }

    /// What an agent does is cut: what hosts it has to stop before anything else begins there.
    pub(super) fn cut(&self, agent: &AgentId) {
        self.table().cut.insert(agent.clone());
    }

    /// What hosts an agent has stopped.
    pub(super) fn stopped(&self, agent: &AgentId) {
        self.table().cut.remove(agent);
    }

    /// Whether what hosts an agent has to stop yet.
    pub(super) fn is_cut(&self, agent: &AgentId) -> bool {
        self.table().cut.contains(agent)
    }

    /// What is worked on of the same bead or by the same agent, but for this dispatch.
    pub(super) fn in_the_way(&self, agent: &AgentId, dispatch: &DispatchId) -> Vec<(DispatchId, Running)> {
        let table = self.table();
        let others = table.running.iter().filter(|(id, running)| {
            *id != dispatch && (running.agent == *agent || id.bead() == dispatch.bead())
        });
        others.map(|(id, running)| (id.clone(), running.clone())).collect()
    }

    pub(super) fn stage(&self, dispatch: &DispatchId) -> Stage {
        let table = self.table();
        if table.waiting.contains(dispatch) {
            Stage::Waiting
        } else if table.running.contains_key(dispatch) {
            Stage::Running
        } else {
            Stage::Unknown
        }
    }

    pub(super) fn running(&self, dispatch: &DispatchId) -> Option<Running> {
        self.table().running.get(dispatch).cloned()
    }

    /// What an agent works on.
    pub(super) fn of_agent(&self, agent: &AgentId) -> Vec<(DispatchId, Running)> {
        let table = self.table();
        let of = table.running.iter().filter(|(_, running)| running.agent == *agent);
        of.map(|(dispatch, running)| (dispatch.clone(), running.clone())).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
