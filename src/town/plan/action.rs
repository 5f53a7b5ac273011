//! What a plan asks for: one event each, the effect that goes with it, and the reason.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::TownEvent;
use crate::ids::{AgentId, BeadId, DispatchId};
use crate::town::words::{
    BeadStatus, CancelStatus, ContainerStatus, Entity, LostCause, Role, StuckClass, Verdict,
};
use crate::units::Period;

/// Something that should be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// What.
    #[serde(rename = "type")]
    pub kind: ActionKind,
    /// To whom; none if it is the town itself.
    pub entity: Option<Entity>,
    /// Why.
    pub reason: Reason,
    /// What is done in the world once the event was taken in.
    pub effect: Option<Effect>,
    /// The one event that says all it implies.
    #[serde(skip)]
    pub event: Box<TownEvent>,
}

impl Action {
    /// The one event that says all it implies.
    #[must_use]
    pub fn event(&self) -> &TownEvent {
        &self.event
    }
}

/// What is done, in the imperative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Give a bead to an agent.
    DispatchBead,
    /// End a bead that was cancelled, and stop the agent that works on it.
    CancelBead,
    /// Close a bead that is done.
    CloseBead,
    /// Let a done task be reviewed.
    OpenReview,
    /// Put a bead back whose attempt failed.
    RetryBead,
    /// Fail a bead.
    FailBead,
    /// Leave a bead to a person.
    AskPerson,
    /// Ask an agent to say again how its work ended.
    AskEnding,
    /// Free an agent of which nothing will come, and stop what is left of it.
    DropDispatch,
    /// Note that nothing is heard of an agent.
    MarkStalled,
    /// Note that something is heard of it again.
    MarkWorking,
    /// Nudge an agent.
    NudgeAgent,
    /// Tell a person of work that does not move.
    EscalateBead,
    /// Let an agent go that nobody needs.
    CollectAgent,
    /// Mend an agent that works on nothing.
    FreeAgent,
    /// Mend a hook that leads nowhere, or free one of several agents that hold a cancelled bead.
    UnhookAgent,
    /// End a convoy.
    EndConvoy,
    /// Stop dispatching.
    OpenBreaker,
    /// Go on with dispatching.
    CloseBreaker,
}

impl ActionKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::DispatchBead,
        Self::CancelBead,
        Self::CloseBead,
        Self::OpenReview,
        Self::RetryBead,
        Self::FailBead,
        Self::AskPerson,
        Self::AskEnding,
        Self::DropDispatch,
        Self::MarkStalled,
        Self::MarkWorking,
        Self::NudgeAgent,
        Self::EscalateBead,
        Self::CollectAgent,
        Self::FreeAgent,
        Self::UnhookAgent,
        Self::EndConvoy,
        Self::OpenBreaker,
        Self::CloseBreaker,
    ];

    /// The name in JSON and in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DispatchBead => "dispatch_bead",
            Self::CancelBead => "cancel_bead",
            Self::CloseBead => "close_bead",
            Self::OpenReview => "open_review",
            Self::RetryBead => "retry_bead",
            Self::FailBead => "fail_bead",
            Self::AskPerson => "ask_person",
            Self::AskEnding => "ask_ending",
            Self::DropDispatch => "drop_dispatch",
            Self::MarkStalled => "mark_stalled",
            Self::MarkWorking => "mark_working",
            Self::NudgeAgent => "nudge_agent",
            Self::EscalateBead => "escalate_bead",
            Self::CollectAgent => "collect_agent",
            Self::FreeAgent => "free_agent",
            Self::UnhookAgent => "unhook_agent",
            Self::EndConvoy => "end_convoy",
            Self::OpenBreaker => "open_breaker",
            Self::CloseBreaker => "close_breaker",
        }
    }
}

/// What is done in the world. It may be done twice and is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Hand a bead to an agent.
    Dispatch {
        /// Which agent.
        agent: AgentId,
        /// As which dispatch.
        dispatch_id: DispatchId,
        /// How long it may take.
        deadline: Period,
    },
    /// Stop what an agent does for a dispatch.
    Stop {
        /// Which agent.
        agent: AgentId,
        /// Which dispatch.
        dispatch_id: DispatchId,
    },
    /// Stop whatever an agent does.
    StopAgent {
        /// Which agent.
        agent: AgentId,
    },
    /// Nudge an agent, as it says that it is nudged.
    Nudge {
        /// Which agent.
        agent: AgentId,
        /// Which dispatch.
        dispatch_id: DispatchId,
    },
    /// Ask an agent to say again how its work ended.
    AskEnding {
        /// Which agent.
        agent: AgentId,
        /// Which dispatch.
        dispatch_id: DispatchId,
    },
}

/// Why something is done, with what was seen. As text it is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Reason {
    /// It is its turn.
    Next {
        /// For an agent of this role.
        role: Role,
        /// How urgent it is.
        priority: u8,
        /// Which attempt this is.
        attempt: u32,
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// It tries whether things go well again.
    Probe {
        /// How long the breaker is open, in milliseconds.
        open_ms: u64,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// How it ends.
        status: CancelStatus,
    },
    /// Its agent said that it is done.
    SaidDone,
    /// The reviewer said so.
    Verdict {
        /// What.
        verdict: Verdict,
        /// Which review it was.
        round: u32,
    },
    /// The attempt failed.
    AttemptFailed {
        /// So many did.
        attempts: u32,
        /// So many may.
        attempts_max: u32,
    },
    /// Its agent asked for a person.
    SaidNeedsHuman,
    /// Its agent ended and said nothing that can be read.
    Unreadable {
        /// How often it was asked again.
        asked: u32,
        /// How long ago it ended, in milliseconds.
        ended_ms: u64,
    },
    /// Nothing will come of the dispatch.
    Lost {
        /// Why.
        cause: LostCause,
        /// How long nothing was heard, in milliseconds.
        quiet_ms: u64,
        /// What was last seen of what hosts the agent.
        container: Option<ContainerStatus>,
    },
    /// Nothing was heard, or something was heard again.
    Quiet {
        /// What that is taken for.
        class: StuckClass,
        /// Of which agent.
        agent: AgentId,
        /// For how long, in milliseconds.
        quiet_ms: u64,
        /// How long it works, in milliseconds.
        worked_ms: u64,
        /// What was last seen of what hosts the agent.
        container: Option<ContainerStatus>,
    },
    /// Nobody needed it.
    Unneeded {
        /// For how long, in milliseconds.
        idle_ms: u64,
    },
    /// An invariant does not hold, and this mends it.
    Violation {
        /// Which.
        invariant: u8,
    },
    /// A bead that it waited for failed.
    BlockerFailed {
        /// Which.
        blocker: BeadId,
    },
    /// How the beads of a convoy ended.
    ConvoyOver {
        /// How the convoy ends.
        status: BeadStatus,
        /// So many closed.
        closed: u32,
        /// So many failed.
        failed: u32,
        /// Of so many.
        total: u32,
    },
    /// What an escalation was about ended.
    SubjectEnded {
        /// Which bead that was.
        subject: BeadId,
    },
    /// Too many beads fail.
    ManyFail {
        /// So many.
        beads: u32,
        /// Within so long, in milliseconds.
        window_ms: u64,
    },
    /// The probe went well.
    ProbeWentWell,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next { role, priority, attempt, waited_ms } => {
                let waited = period(*waited_ms);
                write!(
                    f,
                    "it is next for a {role}: priority {priority}, waiting for {waited}, attempt {attempt}"
                )
            }
            Self::Probe { open_ms } => {
                write!(f, "the breaker is open for {}: this tries whether it can close", period(*open_ms))
            }
            Self::Cancelled { status } => write!(f, "it was cancelled, and ends {status}"),
            Self::SaidDone => f.write_str("its agent said that it is done"),
            Self::Verdict { verdict, round } => write!(f, "the verdict of review {round} is: {verdict}"),
            Self::AttemptFailed { attempts, attempts_max } => {
                write!(f, "attempt {attempts} of {attempts_max} failed")
            }
            Self::SaidNeedsHuman => f.write_str("its agent asked for a person"),
            Self::Unreadable { asked, ended_ms } => write!(
                f,
                "its agent ended {} ago and said nothing that can be read, asked again {asked} times",
                period(*ended_ms)
            ),
            Self::Lost { cause, quiet_ms, container } => {
                write!(f, "its agent is lost ({cause}): nothing was heard for {}", period(*quiet_ms))?;
                match container {
                    Some(status) => write!(f, ", and what hosts it is {status}"),
                    None => f.write_str(", and nothing of it was seen"),
                }
            }
            Self::Quiet { class, agent, quiet_ms, worked_ms, container } => {
                let (quiet, worked) = (period(*quiet_ms), period(*worked_ms));
                write!(f, "{agent} is {class}: it works for {worked}, and was last heard {quiet} ago")?;
                container.map_or(Ok(()), |status| write!(f, "; what hosts it is {status}"))
            }
            Self::Unneeded { idle_ms } => write!(f, "nobody needed it for {}", period(*idle_ms)),
            Self::Violation { invariant } => {
                write!(f, "it violates invariant {invariant}, and this mends it")
            }
            Self::BlockerFailed { blocker } => write!(f, "it waited for {blocker}, which failed"),
            Self::ConvoyOver { status, closed, failed, total } => {
                write!(f, "of its {total} beads {closed} closed and {failed} failed: it is {status}")
            }
            Self::SubjectEnded { subject } => write!(f, "{subject} has ended since"),
            Self::ManyFail { beads, window_ms } => {
                write!(f, "{beads} beads had a failed attempt within {}", period(*window_ms))
            }
            Self::ProbeWentWell => f.write_str("the probe went well"),
        }
    }
}

/// For people: whole seconds.
fn period(ms: u64) -> Period {
    Period(Duration::from_secs(ms / 1_000))
}
