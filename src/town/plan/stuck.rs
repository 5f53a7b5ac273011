//! Work that does not move: the agent is nudged, then a person is told, then the agent is stopped. Progress is what the
//! agent itself reports, a tool at work included, never a guess from its output.
//!
//! Only the highest tier that its silence reached is asked for, and none of them twice within a while. During a drain
//! nobody is pressed, nor who has not begun because plimsoll itself has not started it yet: that it takes so long, a person is
//! told.

use std::time::Duration;

use super::action::{Action, ActionKind, Effect, Reason};
use super::lost::{asked, at_work, is_starting};
use super::settle::{action, give_up_asking, millis};
use super::{Draft, TownEvent};
use crate::ids::AgentId;
use crate::town::policy::StuckPolicy;
use crate::town::state::{Agent, Hook};
use crate::town::words::{AgentReason, AgentStatus, BeadKind, Entity, LostCause, StuckClass, Tier};

pub(super) fn rule(draft: &mut Draft<'_>) {
    let town = draft.town;
    if town.draining().is_some() {
        return;
    }
    for (id, agent, hook) in at_work(town) {
        if is_starting(agent, hook) {
            tell_of_start(draft, &Silent { id, agent, hook, quiet: draft.now.since(hook.since) });
        } else {
            look(draft, &Silent { id, agent, hook, quiet: draft.now.since(hook.progress) });
        }
    }
}

/// What one takes it for that an agent has worked for so long, the last of it in silence.
pub(super) fn class(policy: &StuckPolicy, worked: Duration, quiet: Duration) -> StuckClass {
    if quiet >= policy.escalate_after.0 {
        StuckClass::Stuck
    } else if quiet >= policy.nudge_after.0 {
        StuckClass::Stalled
    } else if worked >= policy.escalate_after.0 {
        StuckClass::LongRunning
    } else {
        StuckClass::Working
    }
}

struct Silent<'a> {
    id: &'a AgentId,
    agent: &'a Agent,
    hook: &'a Hook,
    quiet: Duration,
}

fn look(draft: &mut Draft<'_>, silent: &Silent<'_>) {
    let policy = &draft.town.policy().stuck;
    let is_quiet = silent.quiet >= policy.nudge_after.0;
    match (silent.agent.status, is_quiet) {
        (AgentStatus::Working, true) => mark(draft, silent, AgentStatus::Stalled),
        (AgentStatus::Stalled, false) => mark(draft, silent, AgentStatus::Working),
        (AgentStatus::Stalled, true) => press(draft, silent),
        (AgentStatus::Working, false) | (AgentStatus::Idle | AgentStatus::Dead, _) => {}
    }
}

fn tell_of_start(draft: &mut Draft<'_>, silent: &Silent<'_>) {
    if silent.quiet >= draft.town.policy().stuck.escalate_after.0
        && !was_asked_for(draft, silent, Tier::Escalate)
    {
        escalate(draft, silent);
    }
}

fn mark(draft: &mut Draft<'_>, silent: &Silent<'_>, to: AgentStatus) {
    let (kind, why) = match to {
        AgentStatus::Stalled => (ActionKind::MarkStalled, AgentReason::Silent),
        AgentStatus::Idle | AgentStatus::Working | AgentStatus::Dead => {
            (ActionKind::MarkWorking, AgentReason::Progress)
        }
    };
    let (agent, from) = (silent.id.clone(), silent.agent.status);
    let event = TownEvent::AgentTransitioned { agent: agent.clone(), from, to, reason: why };
    let (entity, reason) = (Some(Entity::Agent(agent)), reason(draft, silent));
    let mark = Action { kind, entity, reason, effect: None, event: Box::new(event) };
    draft.act(&touches(silent), mark);
}

/// Asks for the highest tier that the silence reached, unless that was asked for a while ago.
fn press(draft: &mut Draft<'_>, silent: &Silent<'_>) {
    let policy = &draft.town.policy().stuck;
    let tiers = [
        (Tier::Stop, policy.stop_after),
        (Tier::Escalate, policy.escalate_after),
        (Tier::Nudge, policy.nudge_after),
    ];
    let Some((tier, _)) = tiers.into_iter().find(|(_, after)| silent.quiet >= after.0) else { return };
    if was_asked_for(draft, silent, tier) {
        return;
    }
    match tier {
        Tier::Stop => stop(draft, silent),
        Tier::Escalate => escalate(draft, silent),
        Tier::Nudge | Tier::Ending => nudge(draft, silent),
    }
}

/// Whether it was, and not long ago.
fn was_asked_for(draft: &Draft<'_>, silent: &Silent<'_>, tier: Tier) -> bool {
    let last = silent.hook.tiers.get(&tier);
    last.is_some_and(|last| draft.now.since(*last) < draft.town.policy().stuck.repeat_after.0)
}

fn nudge(draft: &mut Draft<'_>, silent: &Silent<'_>) {
    let (agent, dispatch_id) = (silent.id.clone(), silent.hook.dispatch_id.clone());
    let (effect, skipped) = if silent.agent.nudges {
        (Some(Effect::Nudge { agent: agent.clone(), dispatch_id: dispatch_id.clone() }), None)
    } else {
        (None, Some("the agent does not say how it is nudged".into()))
    };
    let event = TownEvent::NudgeSent {
        agent,
        dispatch_id,
        tier: Tier::Nudge,
        class: StuckClass::Stalled,
        quiet_ms: millis(silent.quiet),
        skipped,
    };
    act(draft, silent, ActionKind::NudgeAgent, event, effect);
}

fn escalate(draft: &mut Draft<'_>, silent: &Silent<'_>) {
    let id = &silent.hook.bead;
    let told = draft.town.children(id).any(|(_, child)| child.kind == BeadKind::Escalation);
    let Some(escalation) = draft.escalation_of(id).filter(|_| !told) else { return };
    let event = TownEvent::Escalated {
        escalation,
        bead: id.clone(),
        class: StuckClass::Stuck,
        quiet_ms: millis(silent.quiet),
        reason: reason(draft, silent).to_string().into(),
    };
    act(draft, silent, ActionKind::EscalateBead, event, None);
}

fn stop(draft: &mut Draft<'_>, silent: &Silent<'_>) {
    if let Some(asked_at) = asked(silent.hook) {
        return give_up_asking(draft, silent.id, silent.hook, asked_at);
    }
    let dispatch_id = silent.hook.dispatch_id.clone();
    let effect = Effect::Stop { agent: silent.id.clone(), dispatch_id: dispatch_id.clone() };
    let event = TownEvent::DispatchLost { dispatch_id, cause: LostCause::Stuck };
    act(draft, silent, ActionKind::DropDispatch, event, Some(effect));
}

fn act(
    draft: &mut Draft<'_>,
    silent: &Silent<'_>,
    kind: ActionKind,
    event: TownEvent,
    effect: Option<Effect>,
) {
    let reason = reason(draft, silent);
    draft.act(&touches(silent), action(&silent.hook.bead, (kind, reason), event, effect));
}

fn reason(draft: &Draft<'_>, silent: &Silent<'_>) -> Reason {
    let worked = draft.now.since(silent.hook.since);
    Reason::Quiet {
        class: class(&draft.town.policy().stuck, worked, silent.quiet),
        agent: silent.id.clone(),
        quiet_ms: millis(silent.quiet),
        worked_ms: millis(worked),
        container: silent.agent.container.as_ref().map(|seen| seen.status),
    }
}

fn touches(silent: &Silent<'_>) -> [Entity; 2] {
    [Entity::Bead(silent.hook.bead.clone()), Entity::Agent(silent.id.clone())]
}
