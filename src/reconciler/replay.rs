//! What a town was, and what its planner would have done then: its events folded anew, and planned once.
//!
//! Pure of everything but reading: nothing is written, counted, or called. The same window gives the same answer, to the
//! hash, whether the fold began at the first event or at a snapshot. Start at [`replay`].

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::compare::{Compared, Taken};
use super::history::{Folded, History, MOMENT, Past};
use super::view::{self, BeadWait, FoundViolation, PlannedAction, StateSnapshot};
use crate::clock::Timestamp;
use crate::ids::{Seq, TownId};
use crate::journal::ReadError;
use crate::limits::{REPLAY_CHECK_EVENTS, REPLAY_EVENTS_MAX};
use crate::town::event::TownEvent;
use crate::town::invariant::check_all;
use crate::town::plan::{ActionKind, plan};
use crate::town::policy::Policy;
use crate::town::state::Town;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ReplayRequest {
    /// The window begins: what came before it is folded and not counted.
    pub from: Timestamp,
    /// The window ends, and the plan is made. What came at this moment belongs to it.
    pub to: Timestamp,
    /// Keys of the policy to plan by in place of the town's own.
    pub policy: Option<Value>,
    /// Whether to tell what the town really did.
    pub compare: bool,
    /// Whether to end at the first event after which an invariant does not hold.
    pub until_violation: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// Events of the window, rejected ones included.
    pub events_replayed: u64,
    /// Those that the town did not accept.
    pub rejected: u64,
    /// When the plan was made: the end of the window, or the event that it was ended at.
    pub at: Timestamp,
    /// The event after which an invariant did not hold, if that was asked for and is so; the last before the window if
    /// it was so then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Seq>,
    /// What the planner would do, by the policy that was asked for.
    pub actions: Vec<PlannedAction>,
    /// How many of each type that is.
    pub actions_by_type: BTreeMap<ActionKind, usize>,
    /// Why each open bead waits: the first 1,000.
    pub report: Vec<BeadWait>,
    /// Open beads that `report` leaves out.
    pub report_left_out: usize,
    /// The town at the end of the window.
    pub state_snapshot: StateSnapshot,
    /// Where invariants did not hold, or the town said that they do not: the first 1,000.
    pub violations: Vec<FoundViolation>,
    /// Violations that are left out.
    pub violations_left_out: usize,
    /// The SHA-256 of the whole state at the end of the window.
    pub hash: String,
    /// What the town really did in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compared>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The journal knows of no such town.
    #[error("there is no town {0}: see 'plimsoll town list'")]
    UnknownTown(TownId),
    /// What came before the window was dropped.
    #[error("the window begins before what is kept: {}", told(*first))]
    BeforeHistory {
        /// The first moment that it may begin at; none if nothing is kept.
        first: Option<Timestamp>,
    },
    /// The window holds more events than one replay takes.
    #[error("the window holds more than {max} events: ask for a shorter one")]
    TooLarge {
        /// The most.
        max: u64,
    },
    /// It ends before it begins.
    #[error("the window ends before it begins: swap from and to")]
    Reversed,
    /// The policy that was asked for cannot be.
    #[error("the policy cannot be used: {0}")]
    Policy(String),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Whoever asked does not want it any more.
    #[error("the replay was stopped")]
    Stopped,
}

fn told(first: Option<Timestamp>) -> String {
    first.map_or("nothing of it is left".to_owned(), |first| format!("begin at {first} or later"))
}

/// Folds a town's events of the window and plans once, at its end. Blocks on IO for seconds, and asks `go_on` between
/// pages of records whether that is still wanted.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay(
    history: History<'_>,
    town: &TownId,
    request: &ReplayRequest,
    go_on: &dyn Fn() -> bool,
) -> Result<Replay, ReplayError> {
    if request.from > request.to {
        return Err(ReplayError::Reversed);
    }
    if let Some(changes) = &request.policy {
        supposed(&Policy::default(), changes)?;
    }
    let past = Past { history, town, go_on, last_read: None };
    past.check_known()?;
    past.check_kept(request.from)?;
    let from = history.seq_at(request.from)?;
    let mut window = Window { from, until: history.seq_at(request.to.after(MOMENT))?.max(from) };
    let (mut at, mut stopped_at) = (request.to, None);
    if request.until_violation
        && let Some(found) = past.first_violation(window, REPLAY_EVENTS_MAX)?
    {
        (at, stopped_at) = (found.time.unwrap_or(request.from), Some(found.seq));
        window.until = found.seq.next();
    }
    let (folded, taken) = past.fold(window, request.compare, REPLAY_EVENTS_MAX)?;
    answer(folded, taken, (at, stopped_at), request)
}

/// Everything that is said of the state, and then the plan, which may be by another policy.
fn answer(
    folded: Folded,
    taken: Option<Taken>,
    (at, stopped_at): (Timestamp, Option<Seq>),
    request: &ReplayRequest,
) -> Result<Replay, ReplayError> {
    let Folded { mut town, events, rejected } = folded;
    let hash = town.hash().to_string();
    let violations = view::known_violations(&town);
    let state_snapshot = StateSnapshot::of(&town, town.clock(at));
    if let Some(changes) = &request.policy {
        let policy = supposed(town.policy(), changes)?;
        town.suppose(policy);
    }
    let planned = plan(&town, at);
    let report = view::waits(&planned.report);
    Ok(Replay {
        events_replayed: events,
        rejected,
        at,
        stopped_at,
        actions: planned.actions.iter().map(PlannedAction::from).collect(),
        actions_by_type: view::by_type(&planned.actions),
        report: report.first,
        report_left_out: report.left_out,
        state_snapshot,
        violations: violations.first,
        violations_left_out: violations.left_out,
        hash,
        compare: taken.map(|taken| taken.against(&planned.actions)),
    })
}

fn supposed(policy: &Policy, changes: &Value) -> Result<Policy, ReplayError> {
    let supposed = policy.changed(changes).map_err(ReplayError::Policy)?;
    match supposed.problems().into_iter().next() {
        Some(problem) => Err(ReplayError::Policy(problem.to_string())),
        None => Ok(supposed),
    }
}

/// The records of a window: from the first up to, and without, the last.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Seq,
    until: Seq,
}

/// An event after which an invariant does not hold; without a time if it lies before the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    seq: Seq,
    time: Option<Timestamp>,
}

impl Past<'_> {
    fn fold(
        &self,
        window: Window,
        compare: bool,
        events_max: u64,
    ) -> Result<(Folded, Option<Taken>), ReplayError> {
        let town = self.state_before(window.from)?;
        let mut folded = Folded { town, ..Folded::default() };
        let mut taken = compare.then(Taken::default);
        self.each((window.from, window.until), |record| {
            let event = folded.take(record);
            if let (Some(taken), Some(event)) = (&mut taken, &event) {
                taken.note(record, event);
            }
            folded.events <= events_max
        })?;
        if folded.events > events_max {
            return Err(ReplayError::TooLarge { max: events_max });
        }
        Ok((folded, taken))
    }

    /// The first event found after which an invariant does not hold, or that says that one did not. Looked for in strides,
    /// and within one by halves: what breaks and holds again within one is found if the town noticed it, and of several
    /// events that break one within one, some one is.
    fn first_violation(&self, window: Window, events_max: u64) -> Result<Option<Found>, ReplayError> {
        let mut folded = Folded { town: self.state_before(window.from)?, ..Folded::default() };
        if !check_all(&folded.town).is_empty() {
            return Ok(Some(Found { seq: Seq(window.from.0.saturating_sub(1)), time: None }));
        }
        let (least, most) = REPLAY_CHECK_EVENTS;
        let (mut good_from, mut since, mut found) = (window.from, 0, None);
        let mut until = window.from;
        self.each((window.from, window.until), |record| {
            let event = folded.take(record);
            until = record.seq.next();
            since += 1;
            if matches!(event, Some(TownEvent::ViolationOpened { .. })) {
                found = Some(Found { seq: record.seq, time: Some(record.time) });
            } else if since >= (folded.town.beads().len() / 2).clamp(least, most) {
                if !check_all(&folded.town).is_empty() {
                    found = Some(Found { seq: record.seq, time: Some(record.time) });
                } else {
                    (good_from, since) = (record.seq.next(), 0);
                }
            }
            found.is_none() && folded.events <= events_max
        })?;
        Ok(self.first_within(Window { from: good_from, until })?.or(found))
    }

    /// An event of a stretch with which an invariant ceases to hold, if one does not at its end; all held before it. The
    /// first, unless it held again in between.
    fn first_within(&self, stretch: Window) -> Result<Option<Found>, ReplayError> {
        let after = |base: &Town, from: Seq, last: Seq| -> Result<(Town, bool), ReplayError> {
            let mut folded = Folded { town: base.clone(), ..Folded::default() };
            self.each((from, last.next()), |record| {
                folded.take(record);
                true
            })?;
            let broken = !check_all(&folded.town).is_empty();
            Ok((folded.town, broken))
        };
        let (mut good, mut from) = (self.state_before(stretch.from)?, stretch.from);
        let mut bad = Seq(stretch.until.0.saturating_sub(1));
        let (town, broken) = after(&good, from, bad)?;
        if !broken {
            return Ok(None);
        }
        let mut time = town.time();
        while from < bad {
            let middle = Seq(from.0 + (bad.0 - from.0) / 2);
            let (town, broken) = after(&good, from, middle)?;
            if broken {
                (bad, time) = (middle, town.time());
            } else {
                (good, from) = (town, middle.next());
            }
        }
        Ok(Some(Found { seq: bad, time: Some(time) }))
    }
}
