//! Agents that were deleted and whose instances still end: that may take as long as a container engine is away.
//!
//! Only who makes one of the same id hears of it. Start at [`Inner::see_off`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::service::Inner;
use crate::ids::AgentId;
use crate::journal::Actor;
use crate::lifecycle::Cause;
use crate::limits::JOURNAL_APPEND_WAIT;

/// See the module.
#[derive(Default)]
pub(super) struct Leaving {
    /// A std mutex suffices: a hold is one look-up.
    ids: Mutex<BTreeSet<AgentId>>,
    tasks: TaskTracker,
}

impl Leaving {
    pub(super) fn contains(&self, agent: &AgentId) -> bool {
        self.ids().contains(agent)
    }

    pub(super) fn count(&self) -> usize {
        self.ids().len()
    }

    /// Waits for their ends, once all instances are told to stop. What is then not written, the next start writes.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        let _ = tokio::time::timeout(JOURNAL_APPEND_WAIT, self.tasks.wait()).await;
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<AgentId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Ends what hosts an agent, and has it counted from zero when one of this id is made again.
    pub(super) fn see_off(self: &Arc<Self>, actor: Actor, id: AgentId) -> JoinHandle<()> {
        self.leaving.ids().insert(id.clone());
        let inner = Arc::clone(self);
        self.leaving.tasks.spawn(async move {
            let cause = Cause { actor: actor.clone(), ..Cause::system() };
            // One that could not be kept has only its records.
            let _unknown = inner.instances.remove(&id, cause).await;
            // Where it is not written, who makes one of this id, or the next start, tries again.
            let _ = inner.instances.erase(&id, actor).await;
            inner.instances.remove_left_of(&id);
            // It may have printed to its end.
            inner.recorder.live().forget_agent(&id);
            inner.leaving.ids().remove(&id);
        })
    }
}
