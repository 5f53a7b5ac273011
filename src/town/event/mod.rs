//! The events of a town: everything that ever changes one, typed.
//!
//! An event is a fact, complete in itself and never changed. New meaning is a new version of its kind. What an event
//! means is in [`state`](super::state); how it looks in the journal is in `coding`.

mod bounds;
mod coding;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::words::{
    AgentReason, AgentStatus, BeadReason, BeadStatus, CancelStatus, CompletionStatus, ContainerStatus,
    Entity, LostCause, Origin, Outcome, Role, StuckClass, Tier, Verdict,
};
use crate::ids::{AgentId, BeadId, DispatchId, IdempotencyKey, Seq, TemplateId};

pub use bounds::OutOfBounds;
pub use coding::{Unreadable, VERSION};

/// Something that happened to a town.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TownEvent {
    /// The town begins. The policy is written whole, so that defaults of a later plimsoll do not change its past.
    TownCreated {
        /// Its policy.
        #[serde(deserialize_with = "Policy::of_event")]
        policy: Box<Policy>,
    },
    /// Another policy holds from now on.
    PolicyChanged {
        /// The whole policy.
        #[serde(deserialize_with = "Policy::of_event")]
        policy: Box<Policy>,
    },
    /// Nothing is dispatched until the drain ends.
    DrainStarted {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
    },
    /// Dispatching goes on.
    DrainEnded {},
    /// An agent joins.
    AgentRegistered {
        /// Which.
        agent: AgentId,
        /// What for.
        role: Role,
        /// Where it comes from.
        origin: Origin,
        /// Whether it says how it is nudged.
        nudges: bool,
        /// The template of the configuration that the town made it of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<TemplateId>,
    },
    /// An agent is gone. The bead that it held goes back, with its attempt.
    AgentRemoved {
        /// Which.
        agent: AgentId,
    },
    /// There is a task.
    BeadCreated {
        /// Its id.
        bead: BeadId,
        /// A line that says what it is.
        title: Arc<str>,
        /// What the agent is told.
        instructions: Arc<str>,
        /// Who may do it.
        role: Role,
        /// 0, the most urgent, to 4.
        priority: u8,
        /// The convoy that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        convoy: Option<BeadId>,
        /// What must end before it begins.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        blocked_by: BTreeSet<BeadId>,
        /// Where whoever asked for it gave it a key of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// Somebody cancelled a bead. One that an agent holds ends once that agent is told to stop.
    BeadCancelled {
        /// Which.
        bead: BeadId,
        /// How it ends.
        cancel_status: CancelStatus,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
    },
    /// A bead is not dispatched until it is released.
    BeadHeld {
        /// Which.
        bead: BeadId,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
    },
    /// A person lets a bead go on: one that was held, or one that waited for a person, whose attempts begin anew.
    BeadReleased {
        /// Which.
        bead: BeadId,
    },
    /// A bead waits for another.
    DependencyAdded {
        /// The one that waits.
        bead: BeadId,
        /// The one it waits for.
        blocked_by: BeadId,
    },
    /// There is a batch of tasks.
    ConvoyStarted {
        /// Its id.
        convoy: BeadId,
        /// A line that says what it is.
        title: Arc<str>,
        /// Its tasks; they exist and belong to no other.
        beads: BTreeSet<BeadId>,
        /// Where whoever asked for it gave it a key of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// An agent says how its work ended.
    AgentDone {
        /// Which agent.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
        /// How.
        outcome: Outcome,
        /// In its words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        summary: Option<Arc<str>>,
        /// Where it was reported by an external runtime.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// A run of an agent ended.
    AgentCompleted {
        /// Which agent.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
        /// How.
        status: CompletionStatus,
        /// Why, if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
        /// Where it was reported by an external runtime.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// Something moves in a dispatch: a token, a tool call. Coalesced by whoever writes it.
    AgentProgress {
        /// Which agent.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
        /// Where it was reported by an external runtime.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// What hosts an agent is not as it was last seen.
    ContainerStatus {
        /// Which agent.
        agent: AgentId,
        /// The dispatch that it was looked at for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dispatch_id: Option<DispatchId>,
        /// What was seen.
        status: ContainerStatus,
        /// How it ended, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_reason: Option<Arc<str>>,
        /// Where it was reported by an external runtime.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// What hosts an agent was thrown out by its host.
    ContainerEviction {
        /// Which agent.
        agent: AgentId,
        /// The dispatch that it was at.
        dispatch_id: DispatchId,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
        /// Where it was reported by an external runtime.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// A reviewer says what it found.
    ReviewDone {
        /// Which reviewer.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
        /// What.
        verdict: Verdict,
        /// In its words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notes: Option<Arc<str>>,
        /// Where it was reported by an external runtime.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<Report>>,
    },
    /// A bead went to an agent: the bead is in progress, the agent is hooked to it and works.
    BeadDispatched {
        /// Which bead.
        bead: BeadId,
        /// To which agent.
        agent: AgentId,
        /// As which dispatch; its number is one above the bead's last.
        dispatch_id: DispatchId,
        /// The bead's attempts with this one.
        attempt: u32,
    },
    /// The agent did not take it: the bead is open, the agent idle, the attempt failed.
    DispatchFailed {
        /// Which dispatch.
        dispatch_id: DispatchId,
        /// Why.
        error: Arc<str>,
    },
    /// The agent took it and nothing will come of it: the bead is open, the agent idle.
    DispatchLost {
        /// Which dispatch.
        dispatch_id: DispatchId,
        /// Why; this says whether the attempt counts.
        cause: LostCause,
    },
    /// The town was not looked after for a while; its clock leaves that out.
    TimeSkipped {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// A bead went from one status to another, and whoever held it holds it no more.
    BeadTransitioned {
        /// Which bead.
        bead: BeadId,
        /// Where it stood.
        from: BeadStatus,
        /// Where it stands.
        to: BeadStatus,
        /// Why.
        reason: BeadReason,
        /// The escalation that this opens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        escalation: Option<BeadId>,
    },
    /// An agent went from one status to another.
    AgentTransitioned {
        /// Which agent.
        agent: AgentId,
        /// What it did.
        from: AgentStatus,
        /// What it does.
        to: AgentStatus,
        /// Why.
        reason: AgentReason,
    },
    /// A hook that should not be there was taken away; the agent is idle, and a bead that nobody else holds is open.
    AgentUnhooked {
        /// Which agent.
        agent: AgentId,
        /// The bead that it was hooked to.
        bead: BeadId,
    },
    /// A done task is to be reviewed: the task is in review, its agent idle, and there is an open review bead.
    ReviewOpened {
        /// The task.
        bead: BeadId,
        /// The review bead.
        review: BeadId,
        /// Which review of the task it is, from 1.
        round: u32,
    },
    /// Something was said to an agent of which nothing was heard, or nothing that could be read.
    NudgeSent {
        /// Which agent.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
        /// What for.
        tier: Tier,
        /// What its silence was taken for.
        class: StuckClass,
        /// How long nothing was heard, in milliseconds.
        quiet_ms: u64,
        /// Why nothing was said after all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        skipped: Option<Arc<str>>,
    },
    /// A person has to look: there is an open escalation bead.
    Escalated {
        /// The escalation bead.
        escalation: BeadId,
        /// What it is about.
        bead: BeadId,
        /// What its silence was taken for.
        class: StuckClass,
        /// How long nothing was heard, in milliseconds.
        quiet_ms: u64,
        /// The evidence, in words.
        reason: Arc<str>,
    },
    /// An agent that joined while plimsoll ran, and that nobody needed, is gone.
    AgentCollected {
        /// Which.
        agent: AgentId,
        /// How long it was idle, in milliseconds.
        idle_ms: u64,
    },
    /// Too many beads fail: nothing is dispatched but a probe.
    BreakerOpened {
        /// So many.
        failed_beads: u32,
    },
    /// The probe went well: dispatching goes on.
    BreakerClosed {},
    /// An invariant does not hold.
    ViolationOpened {
        /// Its number.
        invariant: u8,
        /// Where.
        entities: BTreeSet<Entity>,
        /// What is wrong.
        message: Arc<str>,
    },
    /// It holds again.
    ViolationResolved {
        /// Its number.
        invariant: u8,
        /// Where it did not.
        entities: BTreeSet<Entity>,
    },
    /// An earlier event could not be accepted, and was passed over.
    EventRejected {
        /// Where it stands in the journal.
        seq: Seq,
        /// Why.
        error: Arc<str>,
    },
}

/// Who sent an event in, such as an external runtime, and with which idempotency key: it happens once, however often it is
/// sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reported it: the name of a token, or `local`.
    pub by: Arc<str>,
    /// Its own name for the report.
    pub key: IdempotencyKey,
    /// The SHA-256 of what was sent, in hex: another body under the same key is refused.
    pub body: Arc<str>,
}

/// Generates [`TownEvent::kind`] and [`KINDS`] from one list.
macro_rules! kinds {
    ($($variant:ident $name:literal $origin:ident),+ $(,)?) => {
        /// The names of all kinds.
        pub const KINDS: &[&str] = &[$($name),+];

        impl TownEvent {
            /// What happened: past tense, `snake_case`.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)+
                }
            }

            /// Whether it comes from outside: a route or a report may append it. All others are the reconciler's own.
            #[must_use]
            pub const fn from_outside(&self) -> bool {
                match self {
                    $(Self::$variant { .. } => matches!(Comes::$origin, Comes::Outside),)+
                }
            }
        }
    };
}

/// Who appends a kind.
enum Comes {
    Outside,
    Inside,
}

kinds! {
    TownCreated "town_created" Outside,
    PolicyChanged "policy_changed" Outside,
    DrainStarted "drain_started" Outside,
    DrainEnded "drain_ended" Outside,
    AgentRegistered "agent_registered" Outside,
    AgentRemoved "agent_removed" Outside,
    BeadCreated "bead_created" Outside,
    BeadCancelled "bead_cancelled" Outside,
    BeadHeld "bead_held" Outside,
    BeadReleased "bead_released" Outside,
    DependencyAdded "dependency_added" Outside,
    ConvoyStarted "convoy_started" Outside,
    AgentDone "agent_done" Outside,
    AgentCompleted "agent_completed" Outside,
    AgentProgress "agent_progress" Outside,
    ContainerStatus "container_status" Outside,
    ContainerEviction "container_eviction" Outside,
    ReviewDone "review_done" Outside,
    BeadDispatched "bead_dispatched" Inside,
    DispatchFailed "dispatch_failed" Inside,
    DispatchLost "dispatch_lost" Inside,
    TimeSkipped "time_skipped" Inside,
    BeadTransitioned "bead_transitioned" Inside,
    AgentTransitioned "agent_transitioned" Inside,
    AgentUnhooked "agent_unhooked" Inside,
    ReviewOpened "review_opened" Inside,
    NudgeSent "nudge_sent" Inside,
    Escalated "escalated" Inside,
    AgentCollected "agent_collected" Inside,
    BreakerOpened "breaker_opened" Inside,
    BreakerClosed "breaker_closed" Inside,
    ViolationOpened "violation_opened" Inside,
    ViolationResolved "violation_resolved" Inside,
    EventRejected "event_rejected" Inside,
}

impl TownEvent {
    /// The bead that it makes for somebody outside.
    #[must_use]
    pub fn new_bead(&self) -> Option<&BeadId> {
        let (Self::BeadCreated { bead: new, .. } | Self::ConvoyStarted { convoy: new, .. }) = self else {
            return None;
        };
        Some(new)
    }

    /// The report that it came with.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        let (Self::AgentDone { report, .. }
        | Self::AgentCompleted { report, .. }
        | Self::AgentProgress { report, .. }
        | Self::ContainerStatus { report, .. }
        | Self::ContainerEviction { report, .. }
        | Self::ReviewDone { report, .. }
        | Self::BeadCreated { report, .. }
        | Self::ConvoyStarted { report, .. }) = self
        else {
            return None;
        };
        report.as_deref()
    }
}
