//! Agents that joined while plimsoll ran, and that nobody needed for long, go. Not during a drain: then nobody is
//! needed.

use super::action::{Action, ActionKind, Reason};
use super::settle::millis;
use super::{Draft, TownEvent};
use crate::town::words::Entity;

pub(super) fn rule(draft: &mut Draft<'_>) {
    let (town, after) = (draft.town, draft.town.policy().collect.idle_after.0);
    if town.draining().is_some() {
        return;
    }
    for (id, agent) in town.collectable() {
        let idle = draft.now.since(agent.since);
        // The longest idle come first.
        if idle < after {
            return;
        }
        let idle_ms = millis(idle);
        let entity = Entity::Agent(id.clone());
        let collect = Action {
            kind: ActionKind::CollectAgent,
            entity: Some(entity.clone()),
            reason: Reason::Unneeded { idle_ms },
            effect: None,
            event: Box::new(TownEvent::AgentCollected { agent: id.clone(), idle_ms }),
        };
        draft.act(&[entity], collect);
    }
}
