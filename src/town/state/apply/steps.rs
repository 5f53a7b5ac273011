//! The steps that events are made of. None of them fails: who calls them looked before.

use std::sync::Arc;

use super::At;
use crate::ids::{AgentId, BeadId, DispatchId};
use crate::limits::{
    TOWN_CLOSED_BEADS_MAX, TOWN_FAILURE_BYTES_MAX, TOWN_LAST_FAILURE_BYTES_MAX, TOWN_OPEN_BEADS_MAX,
    TOWN_TEXT_BYTES_MAX,
};
use crate::town::state::agent::Hook;
use crate::town::state::bead::{Bead, ClosedBead, Hold, Work, start};
use crate::town::state::{Agent, Rejected, Town};
use crate::town::time::TownTime;
use crate::town::words::{
    AgentStatus, BeadKind, BeadReason, BeadStatus, CancelStatus, ContainerStatus, OnBlockerFailed, Role,
};

/// How a dispatch came to its end, for the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// The agent did its part.
    Well,
    /// The attempt failed.
    Badly,
    /// It says nothing of how things go.
    Neither,
}

impl Town {
    pub(super) fn agent(&self, id: &AgentId) -> Result<&Agent, Rejected> {
        self.facts.agents.get(id).ok_or_else(|| Rejected::UnknownAgent(id.clone()))
    }

    /// What an agent holds, if there is such an agent.
    pub(super) fn hook_of(&self, id: &AgentId) -> Option<&Hook> {
        self.facts.agents.get(id)?.hook.as_ref()
    }

    /// A bead that has not ended.
    pub(super) fn bead(&self, id: &BeadId) -> Result<&Bead, Rejected> {
        self.facts.beads.get(id).ok_or_else(|| match self.facts.closed.get(id) {
            Some(closed) => Rejected::Ended { bead: id.clone(), status: closed.status },
            None => Rejected::UnknownBead(id.clone()),
        })
    }

    /// Whether somebody may ask for one more bead, of this id and with so many bytes of text. What the town makes of its
    /// own, reviews and escalations, is asked for its id only: it is little for each bead that was let in, and a town that
    /// refused what its planner says would come to no end.
    pub(super) fn check_new_bead(&self, id: &BeadId, text_bytes: usize) -> Result<(), Rejected> {
        self.check_bead_id(id)?;
        if self.facts.beads.len() >= TOWN_OPEN_BEADS_MAX {
            return Err(Rejected::Full { what: "open beads", max: TOWN_OPEN_BEADS_MAX });
        }
        if self.indices.text_bytes.saturating_add(text_bytes) > TOWN_TEXT_BYTES_MAX {
            return Err(Rejected::Full { what: "bytes of text", max: TOWN_TEXT_BYTES_MAX });
        }
        Ok(())
    }

    /// Whether the id is free.
    pub(super) fn check_bead_id(&self, id: &BeadId) -> Result<(), Rejected> {
        if self.facts.beads.contains_key(id) || self.facts.closed.contains_key(id) {
            return Err(Rejected::BeadExists(id.clone()));
        }
        Ok(())
    }

    pub(super) fn insert_bead(&mut self, id: &BeadId, bead: Bead) {
        self.indices.add_bead(id, &bead);
        self.facts.beads.insert(id.clone(), bead);
    }

    pub(super) fn edit_bead(&mut self, id: &BeadId, edit: impl FnOnce(&mut Bead)) {
        let Some(bead) = self.facts.beads.get_mut(id) else { return };
        self.indices.remove_bead(id, bead);
        edit(bead);
        self.indices.add_bead(id, bead);
    }

    pub(super) fn edit_agent(&mut self, id: &AgentId, edit: impl FnOnce(&mut Agent)) {
        let Some(agent) = self.facts.agents.get_mut(id) else { return };
        self.indices.remove_agent(id, agent);
        edit(agent);
        self.indices.add_agent(id, agent);
    }

    /// Takes the hooks off a bead: whoever held it is idle.
    pub(super) fn unhook_all(&mut self, at: At, bead: &BeadId, went: Went) {
        let holders: Vec<AgentId> = self.hooked_to(bead).map(|(id, _)| id.clone()).collect();
        holders.iter().for_each(|agent| self.unhook(at, agent, went));
    }

    /// Takes the hook off an agent: it is idle.
    pub(super) fn unhook(&mut self, at: At, agent: &AgentId, went: Went) {
        let mut taken = None;
        self.edit_agent(agent, |agent| {
            taken = agent.hook.take();
            if let Some(hook) = &taken {
                agent.unended = hook.ended.is_none().then(|| hook.dispatch_id.clone());
            }
            if agent.status != AgentStatus::Dead {
                agent.status = AgentStatus::Idle;
                agent.since = at.now;
            }
        });
        if let Some(hook) = taken {
            self.end_probe(at, &hook.dispatch_id, went);
        }
    }

    fn end_probe(&mut self, at: At, dispatch: &DispatchId, went: Went) {
        let Some(open) = &mut self.facts.breaker.open else { return };
        if open.probe.as_ref() != Some(dispatch) {
            return;
        }
        open.probe = None;
        match went {
            Went::Well => open.probed_well = true,
            Went::Badly => open.since = at.now,
            Went::Neither => {}
        }
    }

    /// A probe that nobody carries out ends with its bead: no hook tells of it.
    fn forget_probe(&mut self, bead: &BeadId) {
        if let Some(open) = &mut self.facts.breaker.open {
            open.probe.take_if(|probe| probe.bead() == bead);
        }
    }

    /// Counts a failed attempt for the bead's back-off and for the breaker, and keeps why it failed.
    pub(super) fn note_failure(&mut self, at: At, bead: &BeadId, why: &Arc<str>) {
        self.edit_bead(bead, |bead| {
            bead.tries.failed_at = Some(at.now);
            bead.tries.failure = Some(start(why, TOWN_FAILURE_BYTES_MAX));
        });
        let policy = &self.facts.policy.breaker;
        let (window, most) = (policy.window.0, usize::try_from(policy.beads).unwrap_or(usize::MAX));
        let failures = &mut self.facts.breaker.failures;
        failures.retain(|_, failed| at.now.since(*failed) <= window);
        failures.insert(bead.clone(), at.now);
        while failures.len() > most {
            let oldest = failures.iter().min_by_key(|(id, failed)| (**failed, *id)).map(|(id, _)| id.clone());
            oldest.map(|id| failures.remove(&id));
        }
    }

    /// Puts a bead back among those that wait.
    pub(super) fn reopen(&mut self, at: At, bead: &BeadId) {
        self.edit_bead(bead, |bead| {
            bead.status = BeadStatus::Open;
            bead.since = at.now;
        });
    }

    pub(super) fn wait_for_person(&mut self, at: At, bead: &BeadId, why: &str) {
        let hold = Hold { since: at.now, reason: Some(why.into()) };
        self.edit_bead(bead, |bead| bead.waits.human = Some(hold));
    }

    /// Ends a bead, with all that follows: nobody holds it, who waited for it waits no more, its convoy is one further,
    /// its reviews end, and a task that it reviewed moves on.
    pub(super) fn end_bead(&mut self, at: At, id: &BeadId, status: BeadStatus, reason: BeadReason) {
        assert!(status.is_terminal(), "a bead ends closed or failed");
        let Some(bead) = self.facts.beads.remove(id) else { return };
        self.indices.remove_bead(id, &bead);
        let went = went(reason);
        self.unhook_all(at, id, went);
        self.forget_probe(id);
        let Bead { kind, parent, tries, .. } = bead;
        let failure = tries.failure.filter(|_| status == BeadStatus::Failed);
        let failure = failure.map(|failure| start(&failure, TOWN_LAST_FAILURE_BYTES_MAX));
        let closed =
            ClosedBead { kind, status, reason, at: at.now, seq: at.seq, parent: parent.clone(), failure };
        self.indices.add_closed(id, &closed);
        self.facts.closed.insert(id.clone(), closed);
        self.forget_oldest();
        self.facts.convoys.remove(id);
        self.free_blocked(id, status);
        self.end_children(at, id, status, reason);
        let Some(parent) = parent else { return };
        match kind {
            BeadKind::Task => {
                if let Some(progress) = self.facts.convoys.get_mut(&parent) {
                    progress.step(status);
                }
            }
            BeadKind::Review => self.after_review(at, &parent, reason),
            BeadKind::Convoy | BeadKind::Escalation => {}
        }
    }

    fn forget_oldest(&mut self) {
        while self.facts.closed.len() > TOWN_CLOSED_BEADS_MAX {
            let Some((_, oldest)) = self.indices.closed.first().cloned() else { return };
            let Some(closed) = self.facts.closed.remove(&oldest) else { return };
            self.indices.remove_closed(&oldest, &closed);
        }
    }

    fn free_blocked(&mut self, id: &BeadId, status: BeadStatus) {
        let fails = status == BeadStatus::Failed
            && self.facts.policy.dispatch.on_blocker_failed == OnBlockerFailed::Fail;
        let blocked: Vec<BeadId> = self.blocked_by(id).map(|(id, _)| id.clone()).collect();
        for waiting in blocked {
            self.edit_bead(&waiting, |bead| {
                bead.waits.blocked_by.remove(id);
                if fails {
                    bead.waits.failed_blocker = Some(id.clone());
                }
            });
        }
    }

    /// The reviews of a task end with it; the tasks of a convoy are cancelled with it. Escalations stay: they are for
    /// people.
    fn end_children(&mut self, at: At, id: &BeadId, status: BeadStatus, reason: BeadReason) {
        let children: Vec<(BeadId, BeadKind)> =
            self.children(id).map(|(id, bead)| (id.clone(), bead.kind)).collect();
        for (child, kind) in children {
            let cancel = match (kind, status) {
                (BeadKind::Review, _) => CancelStatus::Closed,
                (BeadKind::Task, BeadStatus::Failed) if reason == BeadReason::Cancelled => {
                    CancelStatus::Failed
                }
                (BeadKind::Task, _) if reason == BeadReason::Cancelled => CancelStatus::Closed,
                (BeadKind::Task | BeadKind::Convoy | BeadKind::Escalation, _) => continue,
            };
            self.cancel(at, &child, cancel);
        }
    }

    /// Ends a bead that nobody holds; one that somebody holds ends once that agent is told to stop.
    pub(super) fn cancel(&mut self, at: At, id: &BeadId, status: CancelStatus) {
        if self.hooked_to(id).next().is_some() {
            self.edit_bead(id, |bead| bead.waits.cancel = Some(status));
        } else {
            self.end_bead(at, id, status.into(), BeadReason::Cancelled);
        }
    }

    fn after_review(&mut self, at: At, task: &BeadId, reason: BeadReason) {
        let in_review = self.facts.beads.get(task).is_some_and(|task| task.status == BeadStatus::InReview);
        if !in_review || self.is_reviewed(task) {
            return;
        }
        if reason == BeadReason::Approved {
            return self.end_bead(at, task, BeadStatus::Closed, BeadReason::Approved);
        }
        self.reopen(at, task);
        if reason != BeadReason::Changes {
            self.wait_for_person(at, task, "its review ended without a verdict");
        }
    }

    /// Whether a review of it is open or in progress.
    pub(super) fn is_reviewed(&self, task: &BeadId) -> bool {
        self.children(task).any(|(_, child)| child.kind == BeadKind::Review)
    }

    /// An open escalation about a bead, which may have ended.
    pub(super) fn open_escalation(&mut self, at: At, escalation: &BeadId, subject: &BeadId, why: &str) {
        let work = Work {
            title: format!("{subject}: {why}").into(),
            instructions: "".into(),
            role: Role::Coordinator,
            priority: 0,
        };
        let parent = Some(subject.clone());
        self.insert_bead(escalation, Bead::open(BeadKind::Escalation, work, parent, (at.seq, at.now)));
        self.edit_bead(subject, |bead| {
            bead.looks.escalations = bead.looks.escalations.saturating_add(1);
        });
    }

    /// What was not heard or seen during a drain is held against nobody once it ends: who was upgraded meanwhile has as
    /// long as any other to be heard again. Neither moment is in an index.
    pub(super) fn begin_silences_anew(&mut self, now: TownTime) {
        for agent in self.facts.agents.values_mut() {
            let Some(hook) = &mut agent.hook else { continue };
            hook.progress = now;
            let seen = agent.container.as_mut();
            if let Some(seen) = seen.filter(|seen| seen.status == ContainerStatus::NotFound) {
                seen.since = now;
            }
        }
    }

    /// No moment lies ahead of the town's clock, also after it was set back.
    pub(super) fn clamp_moments(&mut self, now: TownTime) {
        let back = |moment: &mut TownTime| *moment = (*moment).min(now);
        for bead in self.facts.beads.values_mut() {
            back(&mut bead.since);
            bead.tries.failed_at.iter_mut().for_each(back);
            let holds = [&mut bead.waits.held, &mut bead.waits.human];
            holds.into_iter().flatten().for_each(|hold| back(&mut hold.since));
        }
        for agent in self.facts.agents.values_mut() {
            back(&mut agent.since);
            agent.container.iter_mut().for_each(|seen| back(&mut seen.since));
            if let Some(hook) = &mut agent.hook {
                back(&mut hook.since);
                back(&mut hook.progress);
                hook.ended.iter_mut().for_each(|ended| back(&mut ended.at));
                hook.tiers.values_mut().for_each(back);
            }
        }
        self.facts.breaker.open.iter_mut().for_each(|open| back(&mut open.since));
        self.facts.breaker.failures.values_mut().for_each(back);
        self.facts.draining.iter_mut().for_each(|hold| back(&mut hold.since));
        self.facts.episodes.values_mut().for_each(|episode| back(&mut episode.since));
        self.indices.renew_moments(&self.facts.agents);
    }
}

/// How the dispatch went that a bead's transition ends.
pub(super) fn went(reason: BeadReason) -> Went {
    match reason {
        BeadReason::Done | BeadReason::Approved | BeadReason::Changes | BeadReason::NeedsHuman => Went::Well,
        BeadReason::AttemptFailed | BeadReason::AttemptsExhausted | BeadReason::Unreadable => Went::Badly,
        BeadReason::Cancelled
        | BeadReason::BlockerFailed
        | BeadReason::ConvoyEnded
        | BeadReason::ConvoyFailed
        | BeadReason::SubjectEnded => Went::Neither,
    }
}
