//! What mends a violated invariant, where the policy says that it is mended: an agent that works without a hook is idle
//! and stopped (7); a hook to a bead that ended or never was is taken away (2, 8).
//!
//! It speaks of entities of open violations only, of which no other rule but a cancel speaks, and only while they still are wrong.

use super::action::{Action, ActionKind, Effect, Reason};
use super::{Draft, TownEvent};
use crate::ids::AgentId;
use crate::town::state::Agent;
use crate::town::words::{AgentReason, AgentStatus, Entity, Recovery};

pub(super) fn rule(draft: &mut Draft<'_>) {
    let town = draft.town;
    for episode in town.episodes() {
        if town.policy().recovery(episode.invariant) != Recovery::Auto {
            continue;
        }
        for entity in &episode.entities {
            let Entity::Agent(id) = entity else { continue };
            let Some(agent) = town.agents().get(id) else { continue };
            if let Some(action) = mend(draft, episode.invariant, id, agent) {
                draft.obey(std::slice::from_ref(entity), action);
            }
        }
    }
}

fn mend(draft: &Draft<'_>, invariant: u8, id: &AgentId, agent: &Agent) -> Option<Action> {
    let astray = |bead| !draft.town.beads().contains_key(bead);
    let works = matches!(agent.status, AgentStatus::Working | AgentStatus::Stalled);
    let (kind, event, effect) = match (invariant, &agent.hook) {
        (7, None) if works => {
            let (from, to) = (agent.status, AgentStatus::Idle);
            let (agent, reason) = (id.clone(), AgentReason::Recovered);
            let event = TownEvent::AgentTransitioned { agent, from, to, reason };
            (ActionKind::FreeAgent, event, Effect::StopAgent { agent: id.clone() })
        }
        (2 | 8, Some(hook)) if astray(&hook.bead) => {
            let event = TownEvent::AgentUnhooked { agent: id.clone(), bead: hook.bead.clone() };
            let (agent, dispatch_id) = (id.clone(), hook.dispatch_id.clone());
            (ActionKind::UnhookAgent, event, Effect::Stop { agent, dispatch_id })
        }
        _ => return None,
    };
    Some(Action {
        kind,
        entity: Some(Entity::Agent(id.clone())),
        reason: Reason::Violation { invariant },
        effect: Some(effect),
        event: Box::new(event),
    })
}
