//! What a town knows of a bead: all of one that is not closed, and little of one that is.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, BeadId, Seq};
use crate::town::time::TownTime;
use crate::town::words::{BeadKind, BeadReason, BeadStatus, CancelStatus, Role};

/// A bead that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bead {
    /// What it is.
    pub kind: BeadKind,
    /// Where it stands.
    pub status: BeadStatus,
    /// Since when.
    pub since: TownTime,
    /// The event that made it: older beads go first.
    pub created: Seq,
    /// What is asked for.
    pub work: Work,
    /// The convoy of a task, the task of a review, the subject of an escalation.
    pub parent: Option<BeadId>,
    /// What it waits for.
    pub waits: Waits,
    /// How often it was tried.
    pub tries: Tries,
    /// What came of looking at it.
    pub looks: Looks,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// A line that says what it is.
    pub title: Arc<str>,
    /// What the agent is told; empty for beads that are no tasks.
    pub instructions: Arc<str>,
    /// Who may do it.
    pub role: Role,
    /// 0, the most urgent, to 4.
    pub priority: u8,
}

/// What a bead waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Beads that have not ended.
    pub blocked_by: BTreeSet<BeadId>,
    /// One that it waited for, and that failed.
    pub failed_blocker: Option<BeadId>,
    /// Somebody holds it back.
    pub held: Option<Hold>,
    /// A person has to decide something.
    pub human: Option<Hold>,
    /// It ends so once the agent that holds it is told to stop.
    pub cancel: Option<CancelStatus>,
}

/// Why a bead is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: TownTime,
    /// Why.
    pub reason: Option<Arc<str>>,
}

/// How often a bead was tried. The counts belong to the bead: who is hooked to it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tries {
    /// Attempts since it last went well or a person let it go on, the one under way included.
    pub attempts: u32,
    /// The most attempts that the policy allowed when it was last dispatched.
    pub attempts_max: u32,
    /// The number of its last dispatch.
    pub dispatches: u64,
    /// When an attempt last failed.
    pub failed_at: Option<TownTime>,
    /// Why it did: what its agent or its run said, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<str>>,
    /// Who holds it, or held it last.
    pub assignee: Option<AgentId>,
}

/// What came of looking at a bead.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Looks {
    /// How many reviews of it were opened.
    pub reviews: u32,
    /// What the last reviewer wants changed.
    pub notes: Option<Arc<str>>,
    /// What its agent said of the work that is looked at; of an escalation, what led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Arc<str>>,
    /// How many escalations were opened about it.
    pub escalations: u32,
}

/// A bead that has ended: what others may still ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedBead {
    /// What it was.
    pub kind: BeadKind,
    /// How it ended.
    pub status: BeadStatus,
    /// Why.
    pub reason: BeadReason,
    /// When.
    pub at: TownTime,
    /// By which event.
    pub seq: Seq,
    /// What it belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BeadId>,
    /// Of one that failed, why its last attempt did: the first 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<str>>,
}

/// How far a convoy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Its beads.
    pub total: u32,
    /// Those that closed.
    pub closed: u32,
    /// Those that failed.
    pub failed: u32,
}

impl Progress {
    /// Whether every bead of it ended.
    #[must_use]
    pub const fn is_over(self) -> bool {
        self.closed.saturating_add(self.failed) >= self.total
    }

    pub(super) fn step(&mut self, status: BeadStatus) {
        match status {
            BeadStatus::Closed => self.closed = self.closed.saturating_add(1),
            BeadStatus::Failed => self.failed = self.failed.saturating_add(1),
            BeadStatus::Open | BeadStatus::InProgress | BeadStatus::InReview => {}
        }
    }
}

impl Bead {
    /// A bead that waits.
    #[must_use]
    pub(super) fn open(kind: BeadKind, work: Work, parent: Option<BeadId>, at: (Seq, TownTime)) -> Self {
        let (created, since) = at;
        Self {
            kind,
            status: BeadStatus::Open,
            since,
            created,
            work,
            parent,
            waits: Waits::default(),
            tries: Tries::default(),
            looks: Looks::default(),
        }
    }

    /// Whether agents work on beads of its kind.
    #[must_use]
    pub const fn is_work(&self) -> bool {
        matches!(self.kind, BeadKind::Task | BeadKind::Review)
    }

    /// What keeps it from being dispatched, apart from its back-off; `None` if nothing does.
    #[must_use]
    pub fn obstacle(&self) -> Option<&'static str> {
        let Waits { blocked_by, failed_blocker, held, human, cancel } = &self.waits;
        let obstacles = [
            (self.status != BeadStatus::Open, "not open"),
            (!self.is_work(), "no work for an agent"),
            (cancel.is_some(), "cancelled"),
            (human.is_some(), "waiting for a person"),
            (held.is_some(), "held"),
            (failed_blocker.is_some(), "waiting for a bead that failed"),
            (!blocked_by.is_empty(), "blocked by another"),
        ];
        obstacles.into_iter().find(|(there, _)| *there).map(|(_, why)| why)
    }

    /// Bytes of its texts.
    #[must_use]
    pub(super) fn text_bytes(&self) -> usize {
        let holds = [&self.waits.held, &self.waits.human].into_iter().flatten();
        let reasons = holds.filter_map(|hold| hold.reason.as_ref());
        let words = [&self.looks.notes, &self.looks.summary, &self.tries.failure].into_iter().flatten();
        let optional = reasons.chain(words).map(|text| text.len()).sum::<usize>();
        self.work.title.len() + self.work.instructions.len() + optional
    }
}

/// As much of the start of a text as fits.
#[must_use]
pub(super) fn start(text: &Arc<str>, bytes_max: usize) -> Arc<str> {
    if text.len() <= bytes_max {
        Arc::clone(text)
    } else {
        text[..text.floor_char_boundary(bytes_max)].into()
    }
}
