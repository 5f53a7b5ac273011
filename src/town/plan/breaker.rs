//! When too many different beads fail within a while, something is wrong that no further try mends: dispatching stops,
//! until a probe goes well.

use super::action::{Action, ActionKind, Reason};
use super::settle::millis;
use super::{Draft, TownEvent};

pub(super) fn rule(draft: &mut Draft<'_>) {
    let (breaker, policy) = (draft.town.breaker(), &draft.town.policy().breaker);
    let within = |failed: &&_| draft.now.since(**failed) <= policy.window.0;
    let beads = u32::try_from(breaker.failures.values().filter(within).count()).unwrap_or(u32::MAX);
    let (kind, reason, event) = match &breaker.open {
        None if beads >= policy.beads => (
            ActionKind::OpenBreaker,
            Reason::ManyFail { beads, window_ms: millis(policy.window.0) },
            TownEvent::BreakerOpened { failed_beads: beads },
        ),
        Some(open) if open.probed_well => {
            (ActionKind::CloseBreaker, Reason::ProbeWentWell, TownEvent::BreakerClosed {})
        }
        None | Some(_) => return,
    };
    draft.act(&[], Action { kind, entity: None, reason, effect: None, event: Box::new(event) });
}
