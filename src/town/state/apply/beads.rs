//! Beads that come, wait, and are cancelled.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::At;
use crate::ids::BeadId;
use crate::limits::BEAD_BLOCKERS_MAX;
use crate::town::event::TownEvent;
use crate::town::state::bead::{Bead, Hold, Progress, Work};
use crate::town::state::{Rejected, Town};
use crate::town::words::{BeadKind, BeadStatus, OnBlockerFailed, Role};

impl Town {
    pub(super) fn look_at_beads(&self, event: &TownEvent) -> Result<(), Rejected> {
        match event {
            TownEvent::BeadCreated { bead, title, instructions, convoy, blocked_by, .. } => {
                self.check_new_bead(bead, title.len() + instructions.len())?;
                self.check_bonds(bead, convoy.as_ref(), blocked_by)
            }
            TownEvent::BeadCancelled { bead, .. }
            | TownEvent::BeadHeld { bead, .. }
            | TownEvent::BeadReleased { bead } => self.bead(bead).map(drop),
            TownEvent::DependencyAdded { bead, blocked_by } => self.check_dependency(bead, blocked_by),
            TownEvent::ConvoyStarted { convoy, title, beads, report: _ } => {
                self.check_new_bead(convoy, title.len())?;
                beads.iter().try_for_each(|member| self.check_member(member))
            }
            other => unreachable!("{} does not concern beads", other.kind()),
        }
    }

    pub(super) fn change_beads(&mut self, at: At, event: &TownEvent) {
        match event {
            TownEvent::BeadCreated {
                bead,
                title,
                instructions,
                role,
                priority,
                convoy,
                blocked_by,
                report: _,
            } => {
                let work = Work {
                    title: title.clone(),
                    instructions: instructions.clone(),
                    role: *role,
                    priority: *priority,
                };
                let task = Bead::open(BeadKind::Task, work, convoy.clone(), (at.seq, at.now));
                self.create_task(bead, task, blocked_by);
            }
            TownEvent::BeadCancelled { bead, cancel_status, reason: _ } => {
                self.cancel(at, bead, *cancel_status);
            }
            TownEvent::BeadHeld { bead, reason } => {
                let hold = Hold { since: at.now, reason: reason.clone() };
                self.edit_bead(bead, |bead| bead.waits.held = Some(hold));
            }
            TownEvent::BeadReleased { bead } => self.release(bead),
            TownEvent::DependencyAdded { bead, blocked_by } => self.add_dependency(bead, blocked_by),
            TownEvent::ConvoyStarted { convoy, title, beads, report: _ } => {
                self.start_convoy(at, convoy, title, beads)
            }
            other => unreachable!("{} does not concern beads", other.kind()),
        }
    }

    fn check_bonds(
        &self,
        id: &BeadId,
        convoy: Option<&BeadId>,
        blocked_by: &BTreeSet<BeadId>,
    ) -> Result<(), Rejected> {
        if let Some(convoy) = convoy {
            let kind = self.bead(convoy)?.kind;
            if kind != BeadKind::Convoy {
                return Err(Rejected::WrongKind { bead: convoy.clone(), kind });
            }
        }
        for blocker in blocked_by {
            self.check_blocker(blocker)?;
        }
        // It is new: nothing waits for it yet, but something may for its convoy.
        let waits = convoy.and_then(|convoy| self.waits_for(blocked_by, convoy));
        match waits {
            Some(blocker) => Err(Rejected::Cycle { bead: id.clone(), blocked_by: blocker.clone() }),
            None => Ok(()),
        }
    }

    fn create_task(&mut self, id: &BeadId, mut task: Bead, blocked_by: &BTreeSet<BeadId>) {
        for blocker in blocked_by {
            self.add_blocker(&mut task, blocker);
        }
        if let Some(progress) = task.parent.as_ref().and_then(|convoy| self.facts.convoys.get_mut(convoy)) {
            progress.total = progress.total.saturating_add(1);
        }
        self.insert_bead(id, task);
    }

    /// Whether a bead may wait for this one: a task or a convoy, which may have ended.
    fn check_blocker(&self, id: &BeadId) -> Result<(), Rejected> {
        let kind = match self.facts.closed.get(id) {
            Some(closed) => closed.kind,
            None => self.bead(id)?.kind,
        };
        match kind {
            BeadKind::Task | BeadKind::Convoy => Ok(()),
            BeadKind::Review | BeadKind::Escalation => Err(Rejected::WrongKind { bead: id.clone(), kind }),
        }
    }

    /// Lets a bead wait for one that is open; one that ended says at once what it says.
    fn add_blocker(&self, bead: &mut Bead, blocker: &BeadId) {
        let fails = self.facts.policy.dispatch.on_blocker_failed == OnBlockerFailed::Fail;
        match self.facts.closed.get(blocker) {
            None => {
                bead.waits.blocked_by.insert(blocker.clone());
            }
            Some(closed) if closed.status == BeadStatus::Failed && fails => {
                bead.waits.failed_blocker = Some(blocker.clone());
            }
            Some(_) => {}
        }
    }

    /// One of these beads that is `other`, or ends only after it: by dependencies, and of a convoy by its tasks. It is
    /// looked for from both ends in turn, and so costs twice what the shorter way does.
    fn waits_for<'a>(&'a self, beads: &'a BTreeSet<BeadId>, other: &'a BeadId) -> Option<&'a BeadId> {
        let mut first: Vec<_> = beads.iter().map(|bead| (bead, bead)).collect();
        let (mut later, mut seen, mut seen_later) = (vec![other], BTreeSet::new(), BTreeSet::new());
        loop {
            let (next, bead) = first.pop()?;
            if next == other {
                return Some(bead);
            }
            if seen.insert(next) {
                first.extend(self.needed_for(next).map(|needed| (needed, bead)));
            }
            let next = later.pop()?;
            if let Some(bead) = beads.get(next) {
                return Some(bead);
            }
            if seen_later.insert(next) {
                later.extend(self.in_need_of(next));
            }
        }
    }

    fn needed_for(&self, id: &BeadId) -> impl Iterator<Item = &BeadId> {
        let blockers = self.facts.beads.get(id).into_iter().flat_map(|bead| &bead.waits.blocked_by);
        let is_convoy = self.facts.convoys.contains_key(id);
        let tasks = self.indices.children.get(id).filter(|_| is_convoy).into_iter().flatten();
        blockers.chain(tasks)
    }

    fn in_need_of(&self, id: &BeadId) -> impl Iterator<Item = &BeadId> {
        let parent = self.facts.beads.get(id).and_then(|bead| bead.parent.as_ref());
        let convoy = parent.filter(|parent| self.facts.convoys.contains_key(*parent));
        self.indices.blocks.get(id).into_iter().flatten().chain(convoy)
    }

    fn release(&mut self, id: &BeadId) {
        self.edit_bead(id, |bead| {
            bead.waits.held = None;
            bead.waits.failed_blocker = None;
            let asked = bead.waits.human.take().is_some();
            if asked && bead.status == BeadStatus::Open {
                bead.tries.attempts = 0;
                bead.tries.failed_at = None;
                bead.tries.failure = None;
            }
        });
    }

    fn check_dependency(&self, id: &BeadId, blocked_by: &BeadId) -> Result<(), Rejected> {
        let bead = self.bead(id)?;
        match (bead.kind, bead.status) {
            (BeadKind::Task, BeadStatus::Open) => {}
            (BeadKind::Task, status) => return Err(Rejected::BeadStands { bead: id.clone(), status }),
            (kind, _) => return Err(Rejected::WrongKind { bead: id.clone(), kind }),
        }
        if bead.waits.blocked_by.len() >= BEAD_BLOCKERS_MAX {
            return Err(Rejected::Full { what: "dependencies of one bead", max: BEAD_BLOCKERS_MAX });
        }
        self.check_blocker(blocked_by)?;
        match self.waits_for(&BTreeSet::from([blocked_by.clone()]), id) {
            Some(_) => Err(Rejected::Cycle { bead: id.clone(), blocked_by: blocked_by.clone() }),
            None => Ok(()),
        }
    }

    fn add_dependency(&mut self, id: &BeadId, blocked_by: &BeadId) {
        let Some(mut bead) = self.facts.beads.get(id).cloned() else { return };
        self.add_blocker(&mut bead, blocked_by);
        self.edit_bead(id, |kept| *kept = bead);
    }

    /// A convoy may have any task, ended or not, that belongs to no other.
    fn check_member(&self, id: &BeadId) -> Result<(), Rejected> {
        let (kind, parent) = match self.facts.closed.get(id) {
            Some(closed) => (closed.kind, &closed.parent),
            None => self.bead(id).map(|bead| (bead.kind, &bead.parent))?,
        };
        match (kind, parent) {
            (BeadKind::Task, None) => Ok(()),
            (BeadKind::Task, Some(convoy)) => {
                Err(Rejected::InConvoy { bead: id.clone(), convoy: convoy.clone() })
            }
            (BeadKind::Review | BeadKind::Convoy | BeadKind::Escalation, _) => {
                Err(Rejected::WrongKind { bead: id.clone(), kind })
            }
        }
    }

    fn start_convoy(&mut self, at: At, id: &BeadId, title: &Arc<str>, beads: &BTreeSet<BeadId>) {
        let mut progress = Progress::default();
        for member in beads {
            progress.total = progress.total.saturating_add(1);
            let ended = self.facts.closed.get(member).map(|closed| closed.status);
            ended.into_iter().for_each(|status| progress.step(status));
        }
        let work =
            Work { title: title.clone(), instructions: "".into(), role: Role::Coordinator, priority: 0 };
        self.insert_bead(id, Bead::open(BeadKind::Convoy, work, None, (at.seq, at.now)));
        self.facts.convoys.insert(id.clone(), progress);
        for member in beads {
            self.edit_bead(member, |bead| bead.parent = Some(id.clone()));
            if let Some(closed) = self.facts.closed.get_mut(member) {
                closed.parent = Some(id.clone());
            }
        }
    }
}
