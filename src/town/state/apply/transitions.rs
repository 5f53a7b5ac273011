//! Beads that go from one status to another, and the reviews that are opened for them.

use std::sync::Arc;

use super::At;
use super::steps::{Went, went};
use crate::ids::BeadId;
use crate::town::event::TownEvent;
use crate::town::state::agent::{Ended, Said};
use crate::town::state::bead::{Bead, Work};
use crate::town::state::{Rejected, Town};
use crate::town::words::{BeadKind, BeadReason, BeadStatus, Role};

/// Every way of a bead that `bead_transitioned` tells of. Others follow from other events: a dispatch, an open review, a
/// verdict on the review of a task, a cancellation.
pub(in crate::town) const WAYS: &[(BeadKind, BeadStatus, BeadStatus, BeadReason)] = {
    use BeadKind::{Convoy, Escalation, Review, Task};
    use BeadReason as R;
    use BeadStatus::{Closed, Failed, InProgress, Open};
    &[
        (Task, InProgress, Closed, R::Done),
        (Task, InProgress, Open, R::AttemptFailed),
        (Task, InProgress, Failed, R::AttemptsExhausted),
        (Task, Open, Failed, R::AttemptsExhausted),
        (Task, InProgress, Open, R::NeedsHuman),
        (Task, InProgress, Open, R::Unreadable),
        (Task, Open, Failed, R::BlockerFailed),
        (Task, InProgress, Closed, R::Cancelled),
        (Task, InProgress, Failed, R::Cancelled),
        (Review, InProgress, Closed, R::Approved),
        (Review, InProgress, Closed, R::Changes),
        (Review, InProgress, Open, R::AttemptFailed),
        (Review, InProgress, Failed, R::AttemptsExhausted),
        (Review, Open, Failed, R::AttemptsExhausted),
        (Review, InProgress, Open, R::NeedsHuman),
        (Review, InProgress, Open, R::Unreadable),
        (Review, InProgress, Closed, R::Cancelled),
        (Review, InProgress, Failed, R::Cancelled),
        (Convoy, Open, Closed, R::ConvoyEnded),
        (Convoy, Open, Failed, R::ConvoyFailed),
        (Escalation, Open, Closed, R::SubjectEnded),
    ]
};

impl Town {
    pub(super) fn look_at_status(&self, event: &TownEvent) -> Result<(), Rejected> {
        match event {
            TownEvent::BeadTransitioned { bead, from, to, reason, escalation } => {
                self.check_way(bead, *from, *to, *reason)?;
                escalation.as_ref().map_or(Ok(()), |escalation| self.check_bead_id(escalation))
            }
            TownEvent::ReviewOpened { bead, review, round } => self.check_review(bead, review, *round),
            other => unreachable!("{} does not move a bead", other.kind()),
        }
    }

    pub(super) fn change_status(&mut self, at: At, event: &TownEvent) {
        match event {
            TownEvent::BeadTransitioned { bead, from, to, reason, escalation } => {
                self.transition(at, bead, (*from, *to), *reason, escalation.as_ref());
            }
            TownEvent::ReviewOpened { bead, review, round } => self.open_review(at, bead, review, *round),
            other => unreachable!("{} does not move a bead", other.kind()),
        }
    }

    fn check_way(
        &self,
        id: &BeadId,
        from: BeadStatus,
        to: BeadStatus,
        reason: BeadReason,
    ) -> Result<(), Rejected> {
        let bead = self.bead(id)?;
        if bead.status != from {
            return Err(Rejected::BeadStands { bead: id.clone(), status: bead.status });
        }
        if !WAYS.contains(&(bead.kind, from, to, reason)) {
            return Err(Rejected::NoSuchWay { bead: id.clone(), from, to, reason });
        }
        let cancelled = bead.waits.cancel.is_some();
        if cancelled && !to.is_terminal() {
            return Err(Rejected::BeadWaits { bead: id.clone(), why: "cancelled" });
        }
        if reason == BeadReason::Cancelled && bead.waits.cancel.map(BeadStatus::from) != Some(to) {
            return Err(Rejected::NoSuchWay { bead: id.clone(), from, to, reason });
        }
        self.check_convoy(id, reason)
    }

    /// A convoy ends by its counts, and not before they say so.
    fn check_convoy(&self, id: &BeadId, reason: BeadReason) -> Result<(), Rejected> {
        let Some(progress) = self.facts.convoys.get(id) else { return Ok(()) };
        let waits = |why| Err(Rejected::BeadWaits { bead: id.clone(), why });
        if reason == BeadReason::ConvoyEnded && !progress.is_over() {
            return waits("a convoy with open beads");
        }
        if reason == BeadReason::ConvoyFailed && progress.failed == 0 {
            return waits("a convoy of which no bead failed");
        }
        Ok(())
    }

    fn transition(
        &mut self,
        at: At,
        id: &BeadId,
        (from, to): (BeadStatus, BeadStatus),
        reason: BeadReason,
        escalation: Option<&BeadId>,
    ) {
        let task = self.facts.beads.get(id).and_then(|bead| bead.parent.clone());
        let said = self.words_about(id);
        if reason == BeadReason::Changes {
            self.note_changes(at, id, escalation.is_some());
        }
        let attempted = from == BeadStatus::InProgress && reason != BeadReason::Unreadable;
        if attempted && went(reason) == Went::Badly {
            self.note_failure(at, id, &self.why_failed(id));
        }
        let evidence = said.clone().or_else(|| self.evidence(id, reason));
        if to.is_terminal() {
            self.end_bead(at, id, to, reason);
        } else {
            self.unhook_all(at, id, went(reason));
            self.reopen(at, id);
            if from == BeadStatus::InProgress {
                self.edit_bead(id, |bead| bead.looks.summary.clone_from(&said));
            }
        }
        let for_person = match reason {
            BeadReason::NeedsHuman => Some("its agent asked for a person"),
            BeadReason::Unreadable => Some("nobody can read how its agent ended"),
            BeadReason::Done
            | BeadReason::Approved
            | BeadReason::Changes
            | BeadReason::AttemptFailed
            | BeadReason::AttemptsExhausted
            | BeadReason::Cancelled
            | BeadReason::BlockerFailed
            | BeadReason::ConvoyEnded
            | BeadReason::ConvoyFailed
            | BeadReason::SubjectEnded => None,
        };
        if let Some(why) = for_person {
            self.wait_for_person(at, id, why);
        }
        if let Some(escalation) = escalation {
            // What a review escalates is its task: the review is over.
            let subject = task.filter(|_| reason == BeadReason::Changes);
            self.open_escalation(at, escalation, subject.as_ref().unwrap_or(id), reason.as_str());
            self.edit_bead(escalation, |escalation| escalation.looks.summary = evidence);
        }
    }

    /// What who holds a bead said of it, in its words.
    fn words_about(&self, id: &BeadId) -> Option<Arc<str>> {
        let hook = self.hooked_to(id).find_map(|(_, agent)| agent.hook.as_ref())?;
        match &hook.said {
            Some(Said::Verdict { notes, .. }) => notes.clone(),
            Some(Said::Outcome(_)) | None => hook.summary.clone(),
        }
    }

    /// Why the attempt of who holds a bead failed: what the agent says, or how its run ended.
    fn why_failed(&self, id: &BeadId) -> Arc<str> {
        let hook = self.hooked_to(id).find_map(|(_, agent)| agent.hook.as_ref());
        let told = hook.map(|hook| (hook.said.is_some(), &hook.summary, &hook.ended));
        match told {
            Some((true, Some(summary), _)) => summary.clone(),
            Some((true, None, _)) => "its agent said that it failed".into(),
            Some((false, _, Some(Ended { reason: Some(reason), .. }))) => reason.clone(),
            Some((false, _, Some(_) | None)) | None => "its run failed".into(),
        }
    }

    /// What led to an escalation of which the agent itself said nothing: why the last attempt failed, or why the question
    /// how its work ended did.
    fn evidence(&self, id: &BeadId, reason: BeadReason) -> Option<Arc<str>> {
        if reason == BeadReason::Unreadable {
            let hook = self.hooked_to(id).find_map(|(_, agent)| agent.hook.as_ref())?;
            return hook.ended.as_ref()?.reason.clone();
        }
        self.facts.beads.get(id)?.tries.failure.clone().filter(|_| reason == BeadReason::AttemptsExhausted)
    }

    /// Before a review ends that wants changes: its task learns which, and that a person has to decide if it was
    /// reviewed often enough.
    fn note_changes(&mut self, at: At, review: &BeadId, enough: bool) {
        let said = self.hooked_to(review).find_map(|(_, agent)| agent.hook.as_ref()?.said.clone());
        let notes = match said {
            Some(Said::Verdict { notes, .. }) => notes,
            Some(Said::Outcome(_)) | None => None,
        };
        let Some(task) = self.facts.beads.get(review).and_then(|bead| bead.parent.clone()) else { return };
        self.edit_bead(&task, |task| task.looks.notes = notes);
        if enough {
            self.wait_for_person(at, &task, "it was reviewed often enough");
        }
    }

    fn check_review(&self, id: &BeadId, review: &BeadId, round: u32) -> Result<(), Rejected> {
        let task = self.bead(id)?;
        let (kind, status) = (task.kind, task.status);
        if kind != BeadKind::Task {
            return Err(Rejected::WrongKind { bead: id.clone(), kind });
        }
        if status != BeadStatus::InProgress {
            return Err(Rejected::BeadStands { bead: id.clone(), status });
        }
        if task.waits.cancel.is_some() {
            return Err(Rejected::BeadWaits { bead: id.clone(), why: "cancelled" });
        }
        let next = task.looks.reviews.saturating_add(1);
        if round != next {
            let (given, next) = (u64::from(round), u64::from(next));
            return Err(Rejected::WrongNumber { what: "review", bead: id.clone(), given, next });
        }
        self.check_bead_id(review)
    }

    fn open_review(&mut self, at: At, id: &BeadId, review: &BeadId, round: u32) {
        let Some(task) = self.facts.beads.get(id) else { return };
        let work = Work { role: Role::Reviewer, instructions: "".into(), ..task.work.clone() };
        let open = Bead::open(BeadKind::Review, work, Some(id.clone()), (at.seq, at.now));
        let said = self.hooked_to(id).find_map(|(_, agent)| agent.hook.as_ref()?.summary.clone());
        self.unhook_all(at, id, Went::Well);
        self.edit_bead(id, |task| {
            task.status = BeadStatus::InReview;
            task.since = at.now;
            task.looks.reviews = round;
            task.looks.summary = said;
            task.tries.attempts = 0;
            task.tries.failed_at = None;
            task.tries.failure = None;
        });
        self.insert_bead(review, open);
    }
}
