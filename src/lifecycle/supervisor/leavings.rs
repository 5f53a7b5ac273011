//! Removes the containers that are left of agents that are gone, for as long as that takes: the engine may be away, and
//! may make what it was told to make when nobody waits for it any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::ids::AgentId;
use crate::lifecycle::Backoff;
use crate::lifecycle::runner::{ContainerBook, DockerEngine, remove_left};

/// How long a container of an agent that is gone, and whose `stop_grace` nobody knows any more, may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait before what could not be removed is tried again.
const AGAIN: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(300) };

/// See the module.
#[derive(Default)]
pub(super) struct Leavings {
    gone: Arc<Gone>,
    task: Mutex<Task>,
}

#[derive(Default)]
enum Task {
    /// It begins with the first that is gone.
    #[default]
    Idle,
    Removes(#[expect(dead_code, reason = "its drop ends it")] AbortOnDropHandle<()>),
    Ended,
}

/// The instances whose containers nobody needs. A std mutex suffices: a hold is one look.
#[derive(Default)]
struct Gone {
    instances: Mutex<BTreeSet<AgentId>>,
    more: Notify,
}

impl Leavings {
    /// Removes what is left of these. To be called within a runtime.
    pub(super) fn remove(
        &self,
        instances: impl Iterator<Item = AgentId>,
        with: impl FnOnce() -> (Arc<DockerEngine>, ContainerBook),
    ) {
        self.gone.instances().extend(instances);
        self.gone.more.notify_one();
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*task, Task::Idle) {
            let (engine, book) = with();
            let removes = tokio::spawn(remove_all(Arc::clone(&self.gone), engine, book));
            *task = Task::Removes(AbortOnDropHandle::new(removes));
        }
    }

    /// There is one of this name again, which cares for its containers.
    pub(super) fn spare(&self, instance: &AgentId) {
        self.gone.instances().remove(instance);
    }

    /// Removes no more: the next start goes on.
    pub(super) fn end(&self) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Task::Ended;
    }
}

impl Gone {
    fn instances(&self) -> MutexGuard<'_, BTreeSet<AgentId>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn remove_all(gone: Arc<Gone>, engine: Arc<DockerEngine>, book: ContainerBook) {
    let (mut told, mut tries) = (Vec::new(), 0_u32);
    loop {
        let problems =
            remove_left(&engine, &book, |instance| gone.instances().contains(instance), GRACE).await;
        for problem in problems.iter().filter(|problem| !told.contains(*problem)) {
            tracing::warn!(source = "lifecycle", problem, "a container of an agent that is gone is left");
        }
        told = problems;
        let is_done = {
            let mut instances = gone.instances();
            instances.retain(|instance| !book.names(instance).is_empty());
            instances.is_empty()
        };
        tries = if is_done { 0 } else { tries.saturating_add(1) };
        let again = async {
            match tries {
                0 => std::future::pending().await,
                tries => tokio::time::sleep(AGAIN.after(tries, rand::random())).await,
            }
        };
        tokio::select! {
            () = gone.more.notified() => tries = 0,
            () = again => {}
        }
    }
}
