//! What is asked of a town beside its work: its beads and its agents, page by page, and what it would do or did.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::dry_run::{DryRun, Fork, dry_run};
use super::history::{History, Past};
use super::replay::{Replay, ReplayError, ReplayRequest, replay};
use super::service::Reconciler;
use super::view::{AgentView, BeadView, millis};
use crate::clock::Timestamp;
use crate::ids::{AgentId, BeadId, DispatchId, IdempotencyKey, Seq, TownId};
use crate::town::plan::{Report, Wait};
use crate::town::state::{Bead, ClosedBead, Town};
use crate::town::time::TownTime;
use crate::town::words::{BeadKind, BeadReason, BeadStatus};

/// Which beads are asked for.
#[derive(Debug, Clone, Default)]
pub struct BeadQuery {
    /// Only where they stand so; without it those that have not ended.
    pub status: Option<BeadStatus>,
    /// Only these.
    pub kind: Option<BeadKind>,
    /// Only those after this one.
    pub after: Option<BeadId>,
    /// At most so many.
    pub limit: usize,
}

/// Beads by id, and where the next page begins.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BeadPage {
    /// The beads.
    pub beads: Vec<BeadEntry>,
    /// The cursor of the next page; null at the end.
    pub next: Option<BeadId>,
}

/// Agents by id, and where the next page begins.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AgentPage {
    /// The agents.
    pub agents: Vec<AgentView>,
    /// The cursor of the next page; null at the end.
    pub next: Option<AgentId>,
}

/// A bead: all of one that has not ended, and little of one that has.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BeadEntry {
    /// It has not ended.
    Open(Box<OpenBead>),
    /// It has.
    Ended(EndedBead),
}

/// A bead that has not ended, and why it waits.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenBead {
    /// The bead.
    #[serde(flatten)]
    pub bead: BeadView,
    /// The dispatch that its agent works on.
    pub dispatch_id: Option<DispatchId>,
    /// Why it waits, in a sentence; null until the town's next turn looked at it.
    pub message: Option<String>,
    /// The same for programs: `why` and what was seen.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub wait: Option<Wait>,
    /// Why its last attempt failed; for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<str>>,
}

/// A bead that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedBead {
    /// Which.
    pub id: BeadId,
    /// What it was.
    pub kind: BeadKind,
    /// How it ended.
    pub status: BeadStatus,
    /// Why.
    pub reason: BeadReason,
    /// How long ago, in milliseconds of the town's clock.
    pub for_ms: u64,
    /// By which event.
    pub seq: Seq,
    /// What it belonged to.
    pub parent: Option<BeadId>,
    /// Of one that failed, why its last attempt did, in at most 256 bytes; for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<str>>,
}

/// One bead with what is asked of its agent.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadDetail {
    /// The bead.
    #[serde(flatten)]
    pub bead: BeadEntry,
    /// What its agent is told; for operators, and not kept of one that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Arc<str>>,
    /// What the last reviewer wants changed; for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Arc<str>>,
    /// What its agent said of it last, and of an escalation what led to it; for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Arc<str>>,
    /// Why somebody holds it back, if that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_because: Option<Arc<str>>,
}

impl BeadPage {
    /// The same without what agents and providers say.
    #[must_use]
    pub fn without_words(self) -> Self {
        Self { beads: self.beads.into_iter().map(BeadEntry::without_words).collect(), ..self }
    }
}

impl BeadEntry {
    fn without_words(self) -> Self {
        match self {
            Self::Open(open) => {
                let wait = open.wait.map(Wait::without_words);
                let message = wait.as_ref().map(ToString::to_string);
                Self::Open(Box::new(OpenBead { wait, message, failure: None, ..*open }))
            }
            Self::Ended(ended) => Self::Ended(EndedBead { failure: None, ..ended }),
        }
    }
}

impl BeadDetail {
    /// The same without what agents are told, and what they and providers say.
    #[must_use]
    pub fn without_words(self) -> Self {
        let Self { bead, instructions: _, notes: _, summary: _, held_because } = self;
        let bead = bead.without_words();
        Self { bead, instructions: None, notes: None, summary: None, held_because }
    }
}

impl Reconciler {
    /// Some beads of a town; `None` if there is no such town.
    #[must_use]
    pub fn beads(&self, town: &TownId, query: &BeadQuery) -> Option<BeadPage> {
        let now = self.now();
        self.look(town, |town, report| {
            let view = View { town, report, now: town.clock(now) };
            let (mut beads, next) = view.page(query);
            beads.truncate(query.limit);
            BeadPage { beads, next }
        })
    }

    /// One bead; the inner `None` if the town knows of no such one.
    #[must_use]
    pub fn bead(&self, town: &TownId, id: &BeadId) -> Option<Option<BeadDetail>> {
        let now = self.now();
        self.look(town, |town, report| View { town, report, now: town.clock(now) }.detail(id))
    }

    /// Some agents of a town, by id; `None` if there is no such town.
    #[must_use]
    pub fn agents(&self, town: &TownId, after: Option<&AgentId>, limit: usize) -> Option<AgentPage> {
        let now = self.now();
        self.look(town, |town, _| {
            let now = town.clock(now);
            let mut rest = from(town.agents(), after);
            let agents = rest.by_ref().take(limit).map(|(id, agent)| AgentView::of(id, agent, now));
            let agents: Vec<_> = agents.collect();
            let next = rest.next().and(agents.last()).map(|last| last.id.clone());
            AgentPage { agents, next }
        })
    }

    /// What the next tick of a town would do now; `None` if there is no such town. Copies the town: call it off the
    /// runtime.
    #[must_use]
    pub fn dry_run(&self, town: &TownId) -> Option<DryRun> {
        Some(dry_run(self.fork(town)?, self.now()))
    }

    /// What a town was in a window, and what it would have done at its end. Blocks on IO, see [`replay`].
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn replay(
        &self,
        town: &TownId,
        request: &ReplayRequest,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Replay, ReplayError> {
        replay(History::Live(&*self.pen().journal), town, request, go_on)
    }

    /// The bead that an earlier call with this key made, for as long as the key is kept.
    #[must_use]
    pub fn bead_made_with(&self, town: &TownId, by: &str, key: &IdempotencyKey) -> Option<BeadId> {
        let now = self.now();
        self.look(town, |town, _| town.reported(by, key, now)?.made.clone()).flatten()
    }

    fn now(&self) -> Timestamp {
        self.pen().journal.now()
    }
}

/// A copy of a town as all its events made it, where no server keeps it. Blocks on IO.
///
/// # Errors
/// See [`ReplayError`].
pub fn fork(history: History<'_>, town: &TownId) -> Result<Fork, ReplayError> {
    let past = Past { history, town, go_on: &|| true, last_read: None };
    past.check_known()?;
    Ok(Fork { town: past.state_before(Seq(u64::MAX))?, ..Fork::default() })
}

/// What follows an entry.
fn from<'a, K: Ord, V>(all: &'a BTreeMap<K, V>, after: Option<&K>) -> impl Iterator<Item = (&'a K, &'a V)> {
    all.range((after.map_or(Unbounded, Excluded), Unbounded))
}

/// A town as it is looked at.
struct View<'a> {
    town: &'a Town,
    report: &'a Report,
    now: TownTime,
}

impl View<'_> {
    fn page(&self, query: &BeadQuery) -> (Vec<BeadEntry>, Option<BeadId>) {
        let BeadQuery { status, kind, after, limit } = query;
        let (after, one_more) = (after.as_ref(), limit.saturating_add(1));
        let is = |a: BeadKind, b: BeadStatus| {
            kind.is_none_or(|kind| kind == a) && status.is_none_or(|status| status == b)
        };
        let found: Vec<_> = if status.is_some_and(BeadStatus::is_terminal) {
            let ended = from(self.town.closed(), after).filter(|(_, bead)| is(bead.kind, bead.status));
            ended.take(one_more).map(|(id, bead)| (id, self.ended(id, bead))).collect()
        } else {
            let open = from(self.town.beads(), after).filter(|(_, bead)| is(bead.kind, bead.status));
            open.take(one_more).map(|(id, bead)| (id, self.open(id, bead))).collect()
        };
        let last = limit.checked_sub(1).and_then(|last| found.get(last));
        let next = last.filter(|_| found.len() > *limit).map(|(id, _)| (*id).clone());
        (found.into_iter().map(|(_, entry)| entry).collect(), next)
    }

    fn detail(&self, id: &BeadId) -> Option<BeadDetail> {
        if let Some(bead) = self.town.beads().get(id) {
            return Some(BeadDetail {
                bead: self.open(id, bead),
                instructions: Some(bead.work.instructions.clone()),
                notes: bead.looks.notes.clone(),
                summary: bead.looks.summary.clone(),
                held_because: bead.waits.held.as_ref().and_then(|hold| hold.reason.clone()),
            });
        }
        let bead = self.ended(id, self.town.closed().get(id)?);
        Some(BeadDetail { bead, instructions: None, notes: None, summary: None, held_because: None })
    }

    fn open(&self, id: &BeadId, bead: &Bead) -> BeadEntry {
        let wait = self.report.get(id).map(|wait| wait.as_of(self.town, id, self.now));
        let hook = self.town.hooked_to(id).next().and_then(|(_, agent)| agent.hook.as_ref());
        BeadEntry::Open(Box::new(OpenBead {
            bead: BeadView::of(id, bead, self.now),
            dispatch_id: hook.map(|hook| hook.dispatch_id.clone()),
            message: wait.as_ref().map(ToString::to_string),
            wait,
            failure: bead.tries.failure.clone(),
        }))
    }

    fn ended(&self, id: &BeadId, bead: &ClosedBead) -> BeadEntry {
        let ClosedBead { kind, status, reason, at, seq, parent, failure } = bead;
        BeadEntry::Ended(EndedBead {
            id: id.clone(),
            kind: *kind,
            status: *status,
            reason: *reason,
            for_ms: millis(self.now.since(*at)),
            seq: *seq,
            parent: parent.clone(),
            failure: failure.clone(),
        })
    }
}
