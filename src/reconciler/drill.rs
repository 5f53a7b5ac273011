//! Damage on purpose, for drills and the demo: no API leads here.

use serde_json::json;

use super::service::Reconciler;
use crate::ids::TownId;
use crate::town::Town;
use crate::town::words::AgentStatus;

impl Reconciler {
    /// Has an idle agent of a town work without a hook, in memory and by no event: invariant 7 is violated until recovery
    /// mends it. The town is not the fold of its events from here on, which its next check against them (invariant 1) finds
    /// and nothing mends: this is for towns that nobody keeps. False if there is no such town, or nobody idle in it.
    pub fn damage(&self, town: &TownId) -> bool {
        let Some(cell) = self.cell(town) else { return false };
        let damaged = cell.replace(damaged);
        cell.wake();
        damaged
    }
}

fn damaged(town: &Town) -> Option<Town> {
    let mut idle = town.agents().iter().filter(|(_, agent)| agent.status == AgentStatus::Idle);
    let (agent, _) = idle.find(|(_, agent)| agent.hook.is_none())?;
    let mut snapshot = town.snapshot();
    snapshot["town"]["agents"][agent.as_str()]["status"] = json!("working");
    Some(Town::restore(&snapshot).expect("a snapshot in which an agent works"))
}
