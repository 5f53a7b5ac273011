//! A bead that was cancelled while an agent works on it ends, and the agent is stopped, at once.

use super::action::{Action, ActionKind, Effect, Reason};
use super::{Draft, TownEvent};
use crate::town::words::{BeadReason, Entity};

pub(super) fn rule(draft: &mut Draft<'_>) {
    for (id, bead) in draft.town.cancelling() {
        let Some(status) = bead.waits.cancel else { continue };
        let holder = draft.town.hooked_to(id).next();
        let Some((agent, hook)) = holder.and_then(|(agent, held)| Some((agent, held.hook.as_ref()?))) else {
            continue;
        };
        let event = TownEvent::BeadTransitioned {
            bead: id.clone(),
            from: bead.status,
            to: status.into(),
            reason: BeadReason::Cancelled,
            escalation: None,
        };
        let action = Action {
            kind: ActionKind::CancelBead,
            entity: Some(Entity::Bead(id.clone())),
            reason: Reason::Cancelled { status },
            effect: Some(Effect::Stop { agent: agent.clone(), dispatch_id: hook.dispatch_id.clone() }),
            event: Box::new(event),
        };
        draft.act(&[Entity::Bead(id.clone()), Entity::Agent(agent.clone())], action);
    }
}
