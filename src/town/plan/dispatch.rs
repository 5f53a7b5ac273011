//! Open beads go to idle agents of their role: the most urgent first, then the oldest.
//!
//! Not during a drain, not while the breaker is open (but for one probe), and not before a bead's back-off is over. The
//! probe is a bead that was tried least: neither does a bead that is bad by itself keep the breaker open, nor does an outage
//! use up the attempts of one bead.

use std::num::NonZeroU64;
use std::time::Duration;

use super::action::{Action, ActionKind, Effect, Reason};
use super::settle::millis;
use super::{Draft, TownEvent};
use crate::ids::{AgentId, BeadId, DispatchId};
use crate::town::state::{Bead, Town};
use crate::town::time::TownTime;
use crate::town::words::{AgentStatus, Entity, Role};

/// Whether anything may be dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Everything.
    Open,
    /// One bead, to try whether things go well again.
    Probe {
        /// How long the breaker is open.
        open: Duration,
    },
    /// Nothing, because of a drain.
    Draining,
    /// Nothing, because too much fails; a probe is due in so long, or is under way.
    Breaker {
        /// How long until a probe.
        probe_in: Option<Duration>,
    },
}

impl Gate {
    pub(super) fn of(draft: &Draft<'_>) -> Self {
        let town = draft.town;
        if town.draining().is_some() {
            return Self::Draining;
        }
        let Some(breaker) = &town.breaker().open else {
            let opens = draft.actions.iter().any(|action| action.kind == ActionKind::OpenBreaker);
            let probe_in = Some(town.policy().breaker.probe_after.0);
            return if opens { Self::Breaker { probe_in } } else { Self::Open };
        };
        let (open, wait) = (draft.now.since(breaker.since), town.policy().breaker.probe_after.0);
        if breaker.probe.is_some() || breaker.probed_well {
            Self::Breaker { probe_in: None }
        } else if open < wait {
            Self::Breaker { probe_in: Some(wait.saturating_sub(open)) }
        } else {
            Self::Probe { open }
        }
    }
}

pub(super) fn rule(draft: &mut Draft<'_>) {
    let (town, now, gate) = (draft.town, draft.now, Gate::of(draft));
    match gate {
        Gate::Open => {}
        Gate::Probe { .. } => return probe(draft, gate),
        Gate::Draining | Gate::Breaker { .. } => return,
    }
    for role in Role::ALL {
        let mut idle = idle(town, *role);
        let mut waiting = town.queue(*role).filter(|(_, bead)| is_due(town, now, bead));
        while !draft.more {
            let Some(agent) = idle.by_ref().find(|id| draft.is_free(id)) else { break };
            let Some((id, bead)) = waiting.by_ref().find(|(id, _)| draft.is_untouched(id)) else { break };
            give(draft, gate, (id, bead), agent);
        }
    }
}

fn probe(draft: &mut Draft<'_>, gate: Gate) {
    let (town, now) = (draft.town, draft.now);
    let of = |role: Role| {
        let agent = idle(town, role).find(|id| draft.is_free(id))?;
        let due = town.queue(role).filter(|(id, bead)| is_due(town, now, bead) && draft.is_untouched(id));
        let least = due.min_by_key(|(_, bead)| (bead.tries.attempts, bead.work.priority, bead.created))?;
        Some((least, agent))
    };
    let chosen = Role::ALL.iter().find_map(|role| of(*role));
    if let Some((bead, agent)) = chosen {
        give(draft, gate, bead, agent);
    }
}

fn idle(town: &Town, role: Role) -> impl Iterator<Item = &AgentId> {
    let idle = town.agents_that_are(AgentStatus::Idle, role);
    idle.filter(|(_, agent)| agent.hook.is_none()).map(|(id, _)| id)
}

fn give(draft: &mut Draft<'_>, gate: Gate, (id, bead): (&BeadId, &Bead), agent: &AgentId) {
    if let Some(action) = dispatch(draft, gate, (id, bead), agent) {
        draft.act(&[Entity::Bead(id.clone()), Entity::Agent(agent.clone())], action);
    }
}

/// How long a bead still waits because its last attempt failed.
pub(super) fn backoff_left(town: &Town, now: TownTime, bead: &Bead) -> Option<Duration> {
    let failed_at = bead.tries.failed_at?;
    let left = town.policy().backoff(bead.tries.attempts).saturating_sub(now.since(failed_at));
    (!left.is_zero()).then_some(left)
}

fn is_due(town: &Town, now: TownTime, bead: &Bead) -> bool {
    bead.tries.attempts < town.policy().dispatch.attempts_max && backoff_left(town, now, bead).is_none()
}

fn dispatch(draft: &Draft<'_>, gate: Gate, (id, bead): (&BeadId, &Bead), agent: &AgentId) -> Option<Action> {
    let number = NonZeroU64::new(bead.tries.dispatches.checked_add(1)?)?;
    let dispatch_id = DispatchId::of(id.clone(), number)?;
    let attempt = bead.tries.attempts.saturating_add(1);
    let reason = match gate {
        Gate::Probe { open } => Reason::Probe { open_ms: millis(open) },
        Gate::Open | Gate::Draining | Gate::Breaker { .. } => Reason::Next {
            role: bead.work.role,
            priority: bead.work.priority,
            attempt,
            waited_ms: millis(draft.now.since(bead.since)),
        },
    };
    Some(Action {
        kind: ActionKind::DispatchBead,
        entity: Some(Entity::Bead(id.clone())),
        reason,
        effect: Some(Effect::Dispatch {
            agent: agent.clone(),
            dispatch_id: dispatch_id.clone(),
            deadline: draft.town.policy().dispatch.deadline,
        }),
        event: Box::new(TownEvent::BeadDispatched {
            bead: id.clone(),
            agent: agent.clone(),
            dispatch_id,
            attempt,
        }),
    })
}
