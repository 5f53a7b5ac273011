//! A worker of which nothing runs any more: its bead goes back, the worker is idle, and what may be left of it is stopped
//! so that nobody works on the bead twice.
//!
//! An agent that said how its work ended is not lost, whatever became of it. One that ended, said nothing that can be read
//! and was asked again is not lost because what hosts it ended: once nothing comes of it, a person decides. During a drain
//! nobody is given up.

use super::action::{ActionKind, Effect, Reason};
use super::settle::{action, give_up_asking, millis};
use super::{Draft, TownEvent};
use crate::ids::AgentId;
use crate::town::state::{Agent, ContainerSeen, Hook, Town};
use crate::town::time::TownTime;
use crate::town::words::{AgentStatus, BeadStatus, ContainerStatus, Entity, LostCause, Origin, Role, Tier};
use crate::units::Period;

pub(super) fn rule(draft: &mut Draft<'_>) {
    let town = draft.town;
    if town.draining().is_some() {
        return;
    }
    for (id, agent, hook) in at_work(town) {
        let seen = seen(agent, hook);
        let Some(cause) = cause(draft, hook, seen) else { continue };
        if let Some(asked_at) = asked(hook) {
            give_up_asking(draft, id, hook, asked_at);
            continue;
        }
        let dispatch_id = hook.dispatch_id.clone();
        let reason = Reason::Lost {
            cause,
            quiet_ms: millis(draft.now.since(hook.progress)),
            container: seen.map(|seen| seen.status),
        };
        let effect = Effect::Stop { agent: id.clone(), dispatch_id: dispatch_id.clone() };
        let event = TownEvent::DispatchLost { dispatch_id, cause };
        let drop = action(&hook.bead, (ActionKind::DropDispatch, reason), event, Some(effect));
        draft.act(&[Entity::Bead(hook.bead.clone()), Entity::Agent(id.clone())], drop);
    }
}

/// Agents whose bead is in progress and that have not said how it ended, nor were seen to end.
pub(super) fn at_work(town: &Town) -> impl Iterator<Item = (&AgentId, &Agent, &Hook)> {
    let of = move |status| Role::ALL.iter().flat_map(move |role| town.agents_that_are(status, *role));
    let agents = [AgentStatus::Working, AgentStatus::Stalled].into_iter().flat_map(of);
    let hooked = agents.filter_map(|(id, agent)| Some((id, agent, agent.hook.as_ref()?)));
    hooked.filter(|(_, _, hook)| {
        let bead = town.beads().get(&hook.bead);
        let in_progress = bead.is_some_and(|bead| bead.status == BeadStatus::InProgress);
        in_progress && hook.said.is_none() && hook.ended.is_none()
    })
}

/// Whether plimsoll, which is to start the agent for its dispatch, has not yet: the start takes a while, or somebody has to
/// stop before. Neither is its silence. How long a runtime elsewhere says that it starts is its silence.
pub(super) fn is_starting(agent: &Agent, hook: &Hook) -> bool {
    let starts = seen(agent, hook).is_some_and(|seen| seen.status == ContainerStatus::Starting);
    starts && agent.origin != Origin::External
}

/// What was seen of what hosts the agent, if that says something of this dispatch: what was seen before it does not.
fn seen<'a>(agent: &'a Agent, hook: &Hook) -> Option<&'a ContainerSeen> {
    let seen = agent.container.as_ref()?;
    let fits = match &seen.dispatch_id {
        Some(id) => *id == hook.dispatch_id,
        None => seen.since >= hook.since,
    };
    fits.then_some(seen)
}

fn cause(draft: &Draft<'_>, hook: &Hook, seen: Option<&ContainerSeen>) -> Option<LostCause> {
    let policy = draft.town.policy();
    // Whoever speaks is there, and a last word may still come after the end of a run.
    let heard = asked(hook).map_or(hook.progress, |asked_at| asked_at.max(hook.progress));
    let for_so_long = |since: TownTime, period: Period| draft.now.since(since.max(heard)) >= period.0;
    let silent = || for_so_long(heard, policy.lost.quiet_after).then_some(LostCause::Silent);
    let grace = policy.stuck.ending_grace;
    match seen.map(|seen| (seen.status, seen.since)) {
        Some((ContainerStatus::Starting | ContainerStatus::Running, _)) => None,
        Some((ContainerStatus::Exited | ContainerStatus::Evicted, _)) if asked(hook).is_some() => silent(),
        Some((ContainerStatus::Exited, since)) => for_so_long(since, grace).then_some(LostCause::Exited),
        Some((ContainerStatus::Evicted, since)) => for_so_long(since, grace).then_some(LostCause::Evicted),
        Some((ContainerStatus::NotFound, since)) => {
            for_so_long(since, policy.lost.not_found_grace).then_some(LostCause::NotFound)
        }
        None => silent(),
    }
}

/// When an agent was asked to say again how its work ended, if that is what it is to do.
pub(super) fn asked(hook: &Hook) -> Option<TownTime> {
    hook.tiers.get(&Tier::Ending).copied()
}
