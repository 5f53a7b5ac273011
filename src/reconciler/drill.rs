//! Damage on purpose, for drills and the demo: no API leads here.

use super::service::Reconciler;
use crate::ids::{AgentId, TownId};
use crate::journal::Actor;
use crate::town::Town;
use crate::town::event::TownEvent;
use crate::town::words::{AgentReason, AgentStatus};

impl Reconciler {
    /// Has an idle agent of a town work without a hook, by an event that nothing else writes: invariant 7 is violated until
    /// recovery mends it. False if there is no such town, nobody idle in it, or a journal that cannot write.
    pub async fn damage(&self, town: &TownId) -> bool {
        let Some(cell) = self.cell(town) else { return false };
        let Some(agent) = idle(&cell.drained().town) else { return false };
        let (from, to) = (AgentStatus::Idle, AgentStatus::Working);
        let damage = TownEvent::AgentTransitioned { agent, from, to, reason: AgentReason::Drill };
        self.pen().submit(&cell, &Actor::System, &damage).await.is_ok()
    }
}

fn idle(town: &Town) -> Option<AgentId> {
    let mut idle = town.agents().iter().filter(|(_, agent)| agent.status == AgentStatus::Idle);
    idle.find(|(_, agent)| agent.hook.is_none()).map(|(id, _)| id.clone())
}
