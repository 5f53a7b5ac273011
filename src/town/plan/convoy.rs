//! A convoy ends with the last of its tasks, or with the first that fails if the policy says so.

use super::action::{ActionKind, Reason};
use super::settle::action;
use super::{Draft, TownEvent};
use crate::town::state::Progress;
use crate::town::words::{BeadReason, BeadStatus, Entity};

pub(super) fn rule(draft: &mut Draft<'_>) {
    let one_failure_fails = draft.town.policy().convoy.one_failure_fails;
    for (id, progress) in draft.town.convoys() {
        let Progress { total, closed, failed } = *progress;
        let (to, reason) = if one_failure_fails && failed > 0 {
            (BeadStatus::Failed, BeadReason::ConvoyFailed)
        } else if progress.is_over() {
            (BeadStatus::Closed, BeadReason::ConvoyEnded)
        } else {
            continue;
        };
        let (from, escalation) = (BeadStatus::Open, None);
        let event = TownEvent::BeadTransitioned { bead: id.clone(), from, to, reason, escalation };
        let why = Reason::ConvoyOver { status: to, closed, failed, total };
        draft.act(&[Entity::Bead(id.clone())], action(id, (ActionKind::EndConvoy, why), event, None));
    }
}
