//! Beads that cannot be done any more: every attempt failed, or a bead that they waited for did. And escalations that
//! nobody needs to look at any more.

use super::action::{ActionKind, Reason};
use super::settle::action;
use super::{Draft, TownEvent};
use crate::ids::BeadId;
use crate::town::words::{BeadKind, BeadReason, BeadStatus, Entity, Role};

pub(super) fn rule(draft: &mut Draft<'_>) {
    exhausted(draft);
    doomed(draft);
    settled(draft);
}

fn exhausted(draft: &mut Draft<'_>) {
    let (town, attempts_max) = (draft.town, draft.town.policy().dispatch.attempts_max);
    for (id, bead) in Role::ALL.iter().flat_map(|role| town.queue(*role)) {
        let attempts = bead.tries.attempts;
        if attempts >= attempts_max {
            let reason = Reason::AttemptFailed { attempts, attempts_max };
            let escalation = draft.escalation_of(id);
            fail(draft, id, reason, (BeadReason::AttemptsExhausted, escalation));
        }
    }
}

fn doomed(draft: &mut Draft<'_>) {
    for (id, bead) in draft.town.doomed() {
        let Some(blocker) = &bead.waits.failed_blocker else { continue };
        if bead.status == BeadStatus::Open {
            let reason = Reason::BlockerFailed { blocker: blocker.clone() };
            fail(draft, id, reason, (BeadReason::BlockerFailed, None));
        }
    }
}

fn fail(draft: &mut Draft<'_>, id: &BeadId, why: Reason, (reason, escalation): (BeadReason, Option<BeadId>)) {
    let (from, to) = (BeadStatus::Open, BeadStatus::Failed);
    let event = TownEvent::BeadTransitioned { bead: id.clone(), from, to, reason, escalation };
    draft.act(&[Entity::Bead(id.clone())], action(id, (ActionKind::FailBead, why), event, None));
}

/// An escalation about a bead that was open then and has ended since. One about a bead that it saw fail stays.
fn settled(draft: &mut Draft<'_>) {
    for (id, bead) in draft.town.beads_that_are(BeadStatus::Open) {
        let BeadKind::Escalation = bead.kind else { continue };
        let Some(subject) = &bead.parent else { continue };
        let ended = draft.town.closed().get(subject).is_some_and(|closed| closed.seq > bead.created);
        if !ended {
            continue;
        }
        let event = TownEvent::BeadTransitioned {
            bead: id.clone(),
            from: BeadStatus::Open,
            to: BeadStatus::Closed,
            reason: BeadReason::SubjectEnded,
            escalation: None,
        };
        let why = Reason::SubjectEnded { subject: subject.clone() };
        draft.act(&[Entity::Bead(id.clone())], action(id, (ActionKind::CloseBead, why), event, None));
    }
}
