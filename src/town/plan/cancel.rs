//! A bead that was cancelled while an agent works on it ends, and the agent is stopped, at once. Somebody said so: a
//! violation that is open does not hold it up, so that people can end what nothing mends, and however many agents hold the
//! bead, each is stopped.

use super::action::{Action, ActionKind, Effect, Reason};
use super::{Draft, TownEvent};
use crate::ids::{AgentId, BeadId};
use crate::town::state::{Bead, Hook};
use crate::town::words::{BeadReason, BeadStatus, CancelStatus, Entity};

pub(super) fn rule(draft: &mut Draft<'_>) {
    let town = draft.town;
    for (id, bead) in town.cancelling() {
        let Some(status) = bead.waits.cancel else { continue };
        let hooked = town.hooked_to(id).filter_map(|(agent, held)| Some((agent, held.hook.as_ref()?)));
        let holders: Vec<(&AgentId, &Hook)> = hooked.collect();
        let Some((last, others)) = holders.split_last() else { continue };
        others.iter().for_each(|other| unhook(draft, id, status, *other));
        if bead.status == BeadStatus::InProgress && bead.is_work() {
            end(draft, (id, bead), status, *last);
        } else {
            // It stands where nobody can hold it: it ends with the last hook.
            unhook(draft, id, status, *last);
        }
    }
}

fn end(draft: &mut Draft<'_>, (id, bead): (&BeadId, &Bead), status: CancelStatus, holder: (&AgentId, &Hook)) {
    let event = TownEvent::BeadTransitioned {
        bead: id.clone(),
        from: bead.status,
        to: status.into(),
        reason: BeadReason::Cancelled,
        escalation: None,
    };
    let entity = Entity::Bead(id.clone());
    let touches = [entity.clone(), Entity::Agent(holder.0.clone())];
    draft.obey(&touches, stop(ActionKind::CancelBead, entity, status, holder, event));
}

fn unhook(draft: &mut Draft<'_>, id: &BeadId, status: CancelStatus, holder: (&AgentId, &Hook)) {
    let event = TownEvent::AgentUnhooked { agent: holder.0.clone(), bead: id.clone() };
    let entity = Entity::Agent(holder.0.clone());
    let touches = [entity.clone()];
    draft.obey(&touches, stop(ActionKind::UnhookAgent, entity, status, holder, event));
}

fn stop(
    kind: ActionKind,
    entity: Entity,
    status: CancelStatus,
    (agent, hook): (&AgentId, &Hook),
    event: TownEvent,
) -> Action {
    Action {
        kind,
        entity: Some(entity),
        reason: Reason::Cancelled { status },
        effect: Some(Effect::Stop { agent: agent.clone(), dispatch_id: hook.dispatch_id.clone() }),
        event: Box::new(event),
    }
}
