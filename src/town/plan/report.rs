//! Why each open bead waits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Draft;
use super::action::ActionKind;
use super::dispatch::{Gate, backoff_left};
use super::lost::is_starting;
use super::settle::millis;
use super::stuck::class;
use crate::ids::{AgentId, BeadId};
use crate::town::state::{Bead, Hold, Progress, Town, Tries, Waits};
use crate::town::time::TownTime;
use crate::town::words::{AgentStatus, BeadKind, BeadStatus, Entity, Role, StuckClass};

/// Beads that one line names: more say nothing new.
const NAMED_MAX: usize = 10;
/// How long a dispatch that has not begun is worth a look every few seconds: starts take less, and of one that waits for
/// longer, what it waits for tells when it is over.
const STARTS_WITHIN_MS: u64 = 10 * 60_000;
/// Bytes of a failure in a sentence: the rest of it stands beside.
const FAILURE_SHOWN_MAX: usize = 200;

/// Of every bead that has not ended, what it waits for.
pub type Report = BTreeMap<BeadId, Wait>;

/// What a bead waits for. As text it is a sentence for people. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Wait {
    /// Nothing: this plan does something about it.
    Acted {
        /// What.
        action: ActionKind,
    },
    /// An agent works on it.
    Dispatched {
        /// Which.
        agent: AgentId,
        /// For how long.
        for_ms: u64,
        /// How long nothing was heard.
        quiet_ms: u64,
        /// What that is taken for.
        class: StuckClass,
    },
    /// An agent has it and has not begun: what hosts the agent starts, or somebody has to stop first.
    Starting {
        /// Which.
        agent: AgentId,
        /// For how long.
        for_ms: u64,
    },
    /// A person has to decide something.
    WaitingOnHuman {
        /// For how long.
        for_ms: u64,
    },
    /// It is an escalation: a person has to look.
    Escalated {
        /// What it is about.
        about: Option<BeadId>,
    },
    /// Somebody holds it back.
    Held {
        /// For how long.
        for_ms: u64,
    },
    /// Its review.
    InReview {
        /// Which review bead.
        review: Option<BeadId>,
        /// Which review of it that is.
        round: u32,
    },
    /// Its beads.
    Convoy {
        /// So many.
        total: u32,
        /// So many closed.
        closed: u32,
        /// So many failed.
        failed: u32,
    },
    /// A bead failed that it waited for.
    BlockerFailed {
        /// Which.
        blocker: BeadId,
    },
    /// Other beads.
    BlockedBy {
        /// The first ten.
        beads: Vec<BeadId>,
        /// How many there are.
        count: usize,
    },
    /// An invariant does not hold for it: nothing is done before that is mended.
    Violated,
    /// Its last attempt failed, and the next comes later.
    BackOff {
        /// In so long.
        left_ms: u64,
        /// So many failed.
        attempts: u32,
        /// Why the last one did; for operators.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<Arc<str>>,
    },
    /// Nothing is dispatched during a drain.
    Draining,
    /// Nothing is dispatched because too much fails.
    BreakerOpen {
        /// In so long one bead is tried; none if one is under way.
        probe_in_ms: Option<u64>,
    },
    /// Every agent of its role is at work or gone.
    NoIdleAgent {
        /// Which role.
        role: Role,
        /// So many agents of it are at work.
        working: usize,
    },
    /// Its turn: the next plan gives it away.
    NextPlan,
    /// Nobody knows: it is in no place where a bead can be.
    Astray,
}

impl Wait {
    /// The same with its times as they are now: a plan may be minutes old, and what it says is read for longer. What is over
    /// since then is left to the next plan.
    #[must_use]
    pub fn as_of(&self, town: &Town, id: &BeadId, now: TownTime) -> Self {
        let bead = town.beads().get(id);
        let waits = bead.map(|bead| &bead.waits);
        let held = |hold: Option<&Hold>| hold.map(|hold| millis(now.since(hold.since)));
        let fresh = match self {
            Self::WaitingOnHuman { .. } => held(waits.and_then(|waits| waits.human.as_ref()))
                .map(|for_ms| Self::WaitingOnHuman { for_ms }),
            Self::Held { .. } => {
                held(waits.and_then(|waits| waits.held.as_ref())).map(|for_ms| Self::Held { for_ms })
            }
            Self::Dispatched { .. } | Self::Starting { .. } => dispatched(town, id, now),
            Self::BackOff { attempts, failure, .. } => {
                let left = bead.and_then(|bead| backoff_left(town, now, bead)).unwrap_or_default();
                let (left_ms, attempts, failure) = (millis(left), *attempts, failure.clone());
                Some(Self::BackOff { left_ms, attempts, failure })
            }
            Self::BreakerOpen { probe_in_ms: Some(_) } => town.breaker().open.as_ref().map(|open| {
                let left = town.policy().breaker.probe_after.0.saturating_sub(now.since(open.since));
                Self::BreakerOpen { probe_in_ms: Some(millis(left)) }
            }),
            Self::Acted { .. }
            | Self::Escalated { .. }
            | Self::InReview { .. }
            | Self::Convoy { .. }
            | Self::BlockerFailed { .. }
            | Self::BlockedBy { .. }
            | Self::Violated
            | Self::Draining
            | Self::BreakerOpen { probe_in_ms: None }
            | Self::NoIdleAgent { .. }
            | Self::NextPlan
            | Self::Astray => Some(self.clone()),
        };
        fresh.unwrap_or(Self::NextPlan)
    }

    /// The same without what agents and providers say.
    #[must_use]
    pub fn without_words(self) -> Self {
        match self {
            Self::BackOff { left_ms, attempts, failure: _ } => {
                Self::BackOff { left_ms, attempts, failure: None }
            }
            other @ (Self::Acted { .. }
            | Self::Dispatched { .. }
            | Self::Starting { .. }
            | Self::WaitingOnHuman { .. }
            | Self::Escalated { .. }
            | Self::Held { .. }
            | Self::InReview { .. }
            | Self::Convoy { .. }
            | Self::BlockerFailed { .. }
            | Self::BlockedBy { .. }
            | Self::Violated
            | Self::Draining
            | Self::BreakerOpen { .. }
            | Self::NoIdleAgent { .. }
            | Self::NextPlan
            | Self::Astray) => other,
        }
    }

    /// Whether it may end by itself within a while.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        match self {
            Self::Dispatched { class, .. } => {
                matches!(class, StuckClass::Working | StuckClass::LongRunning)
            }
            Self::Starting { for_ms, .. } => *for_ms < STARTS_WITHIN_MS,
            Self::Acted { .. }
            | Self::BackOff { .. }
            | Self::BreakerOpen { probe_in_ms: Some(_) }
            | Self::NextPlan => true,
            Self::WaitingOnHuman { .. }
            | Self::Escalated { .. }
            | Self::Held { .. }
            | Self::InReview { .. }
            | Self::Convoy { .. }
            | Self::BlockerFailed { .. }
            | Self::BlockedBy { .. }
            | Self::Violated
            | Self::Draining
            | Self::BreakerOpen { probe_in_ms: None }
            | Self::NoIdleAgent { .. }
            | Self::Astray => false,
        }
    }
}

pub(super) fn of(draft: &Draft<'_>) -> Report {
    let acted = draft.actions.iter().filter_map(|action| match &action.entity {
        Some(Entity::Bead(id)) => Some((id.clone(), action.kind)),
        Some(Entity::Agent(_)) | None => None,
    });
    let acted: BTreeMap<_, _> = acted.collect();
    let dispatches = acted.values().any(|action| *action == ActionKind::DispatchBead);
    let scene = Scene { draft, gate: Gate::of(draft), acted, dispatches, idle: idle(draft) };
    draft.town.beads().iter().map(|(id, bead)| (id.clone(), scene.wait(id, bead))).collect()
}

/// What is the same for all beads.
struct Scene<'a> {
    draft: &'a Draft<'a>,
    gate: Gate,
    acted: BTreeMap<BeadId, ActionKind>,
    /// Whether the plan gives any bead away.
    dispatches: bool,
    /// Whether the plan leaves an agent of the role idle, and how many are at work.
    idle: BTreeMap<Role, (bool, usize)>,
}

fn idle(draft: &Draft<'_>) -> BTreeMap<Role, (bool, usize)> {
    let of = |role: Role| {
        let mut idle = draft.town.agents_that_are(AgentStatus::Idle, role);
        let left = idle.any(|(id, agent)| agent.hook.is_none() && draft.is_free(id));
        let busy = [AgentStatus::Working, AgentStatus::Stalled];
        (left, busy.into_iter().map(|status| draft.town.agents_that_are(status, role).count()).sum())
    };
    Role::ALL.iter().map(|role| (*role, of(*role))).collect()
}

impl Scene<'_> {
    fn wait(&self, id: &BeadId, bead: &Bead) -> Wait {
        let now = self.draft.now;
        if let Some(action) = self.acted.get(id) {
            return Wait::Acted { action: *action };
        }
        let Waits { blocked_by, failed_blocker, held, human, cancel: _ } = &bead.waits;
        match (bead.status, bead.kind) {
            (BeadStatus::InProgress, _) => {
                return dispatched(self.draft.town, id, now).unwrap_or(Wait::Astray);
            }
            (BeadStatus::InReview, _) => {
                let mut children = self.draft.town.children(id);
                let review = children.find(|(_, child)| child.kind == BeadKind::Review);
                let review = review.map(|(id, _)| id.clone());
                return Wait::InReview { review, round: bead.looks.reviews };
            }
            (_, BeadKind::Escalation) => return Wait::Escalated { about: bead.parent.clone() },
            (_, BeadKind::Convoy) => {
                let progress = self.draft.town.convoys().get(id).copied().unwrap_or_default();
                let Progress { total, closed, failed } = progress;
                return Wait::Convoy { total, closed, failed };
            }
            (BeadStatus::Open | BeadStatus::Closed | BeadStatus::Failed, _) => {}
        }
        if let Some(hold) = human {
            Wait::WaitingOnHuman { for_ms: millis(now.since(hold.since)) }
        } else if let Some(hold) = held {
            Wait::Held { for_ms: millis(now.since(hold.since)) }
        } else if let Some(blocker) = failed_blocker {
            Wait::BlockerFailed { blocker: blocker.clone() }
        } else if !blocked_by.is_empty() {
            let beads = blocked_by.iter().take(NAMED_MAX).cloned().collect();
            Wait::BlockedBy { beads, count: blocked_by.len() }
        } else if self.draft.violated.contains(&Entity::Bead(id.clone())) {
            Wait::Violated
        } else {
            self.queued(bead)
        }
    }

    fn queued(&self, bead: &Bead) -> Wait {
        if let Some(left) = backoff_left(self.draft.town, self.draft.now, bead) {
            let Tries { attempts, failure, .. } = &bead.tries;
            return Wait::BackOff { left_ms: millis(left), attempts: *attempts, failure: failure.clone() };
        }
        let role = bead.work.role;
        let (idle, working) = self.idle.get(&role).copied().unwrap_or_default();
        match self.gate {
            Gate::Draining => Wait::Draining,
            Gate::Breaker { probe_in } => Wait::BreakerOpen { probe_in_ms: probe_in.map(millis) },
            // One for a single bead is closed once that went through.
            Gate::Probe { .. } if self.dispatches => Wait::BreakerOpen { probe_in_ms: None },
            Gate::Open | Gate::Probe { .. } if !idle => Wait::NoIdleAgent { role, working },
            Gate::Open | Gate::Probe { .. } => Wait::NextPlan,
        }
    }
}

/// Who works on a bead, and for how long; `None` if nobody holds it.
fn dispatched(town: &Town, id: &BeadId, now: TownTime) -> Option<Wait> {
    let (agent, holder) = town.hooked_to(id).next()?;
    let hook = holder.hook.as_ref()?;
    let (worked, quiet) = (now.since(hook.since), now.since(hook.progress));
    if is_starting(holder, hook) && hook.said.is_none() && hook.ended.is_none() {
        return Some(Wait::Starting { agent: agent.clone(), for_ms: millis(worked) });
    }
    Some(Wait::Dispatched {
        agent: agent.clone(),
        for_ms: millis(worked),
        quiet_ms: millis(quiet),
        class: class(&town.policy().stuck, worked, quiet),
    })
}

/// The first line of a text, and no more of it than a sentence holds.
fn in_short(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(FAILURE_SHOWN_MAX)]
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = |ms: &u64| format!("{} s", ms / 1_000);
        match self {
            Self::Acted { action } => write!(f, "it is acted on now: {}", action.as_str()),
            Self::Dispatched { agent, for_ms, quiet_ms, class } => {
                let (worked, quiet) = (secs(for_ms), secs(quiet_ms));
                write!(f, "{agent} works on it for {worked}, and was last heard {quiet} ago ({class})")
            }
            Self::Starting { agent, for_ms } => {
                let waits = secs(for_ms);
                write!(
                    f,
                    "{agent} has it for {waits} and has not begun: it starts, or somebody has to stop first"
                )
            }
            Self::WaitingOnHuman { for_ms } => {
                write!(f, "it waits for a person for {}: release or cancel it", secs(for_ms))
            }
            Self::Escalated { about: Some(bead) } => write!(f, "a person has to look at {bead}"),
            Self::Escalated { about: None } => f.write_str("a person has to look at it"),
            Self::Held { for_ms } => write!(f, "it is held for {}: release it", secs(for_ms)),
            Self::InReview { review: Some(review), round } => {
                write!(f, "it is in review {round}: see {review}")
            }
            Self::InReview { review: None, round } => write!(f, "it is in review {round}, which is missing"),
            Self::Convoy { total, closed, failed } => {
                write!(f, "of its {total} beads {closed} closed and {failed} failed")
            }
            Self::BlockerFailed { blocker } => write!(f, "it waited for {blocker}, which failed"),
            Self::BlockedBy { beads, count } => {
                let names: Vec<&str> = beads.iter().map(BeadId::as_str).collect();
                write!(f, "it waits for {}", names.join(", "))?;
                match count.saturating_sub(names.len()) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Violated => f.write_str("an invariant does not hold for it: see the open violations"),
            Self::BackOff { left_ms, attempts, failure } => {
                let s = if *attempts == 1 { "" } else { "s" };
                write!(f, "{attempts} attempt{s} failed, and the next comes in {}", secs(left_ms))?;
                failure.as_deref().map_or(Ok(()), |why| write!(f, "; the last failure: {}", in_short(why)))
            }
            Self::Draining => f.write_str("the town is draining"),
            Self::BreakerOpen { probe_in_ms: Some(ms) } => {
                write!(f, "too much fails; one bead is tried in {}", secs(ms))
            }
            Self::BreakerOpen { probe_in_ms: None } => {
                f.write_str("too much failed; one bead is being tried")
            }
            Self::NoIdleAgent { role, working } => {
                write!(f, "no {role} is idle; {working} are at work")
            }
            Self::NextPlan => f.write_str("it is next"),
            Self::Astray => f.write_str("it is in progress, and no agent holds it"),
        }
    }
}
