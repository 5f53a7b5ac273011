//! What goes wrong on purpose, for drills and the demo: no API leads here.

use std::time::Duration;

use tokio::sync::watch;

use super::service::Reconciler;
use crate::ids::{AgentId, TownId};
use crate::journal::Actor;
use crate::town::Town;
use crate::town::event::TownEvent;
use crate::town::words::{AgentReason, AgentStatus};

/// What makes the ticks of all towns slow. Without any strain, which is the default, they are as quick as they can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strain {
    /// Every tick waits so long before it plans.
    pub tick: Duration,
    /// No tick begins.
    pub held: bool,
}

/// The strain that a town is under, as it changes.
pub(super) struct Strained(pub(super) watch::Receiver<Strain>);

impl Strained {
    /// Waits as long as a tick has to.
    pub(super) async fn slow_down(&self) {
        let slow = self.0.borrow().tick;
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
    }

    /// Waits until ticks may begin.
    pub(super) async fn let_go(&self) {
        // Its error is that nobody is left who could hold them.
        let _ = self.0.clone().wait_for(|strain| !strain.held).await;
    }
}

/// Lets something go wrong, and well again. Cheap to clone.
#[derive(Clone)]
pub struct Drill(Reconciler);

impl Reconciler {
    /// The way to let something go wrong in its towns.
    #[must_use]
    pub fn drill(&self) -> Drill {
        Drill(self.clone())
    }
}

impl Drill {
    /// Puts the ticks of all towns under this strain from now on; a tick that runs ends as it began.
    pub fn strain(&self, strain: Strain) {
        self.0.inner.strain.send_replace(strain);
    }

    /// Has an idle agent of a town work without a hook, by an event that nothing else writes: invariant 7 is violated until
    /// recovery mends it. False if there is no such town, nobody idle in it, or a journal that cannot write.
    pub async fn damage(&self, town: &TownId) -> bool {
        let Some(cell) = self.0.cell(town) else { return false };
        let Some(agent) = idle(&cell.drained().town) else { return false };
        let (from, to) = (AgentStatus::Idle, AgentStatus::Working);
        let damage = TownEvent::AgentTransitioned { agent, from, to, reason: AgentReason::Drill };
        self.0.pen().submit(&cell, &Actor::System, &damage).await.is_ok()
    }
}

fn idle(town: &Town) -> Option<AgentId> {
    let mut idle = town.agents().iter().filter(|(_, agent)| agent.status == AgentStatus::Idle);
    idle.find(|(_, agent)| agent.hook.is_none()).map(|(id, _)| id.clone())
}
