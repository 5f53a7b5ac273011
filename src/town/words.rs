//! The words that events, state and plans share: closed sets, each with the name it has in JSON and in labels.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{AgentId, BeadId};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
        )]
        pub enum $name {
            $($(#[$word_doc])* #[serde(rename = $text)] $word,)+
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// The name in JSON and in labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What an agent is there for.
    Role {
        /// It does tasks.
        Worker = "worker",
        /// It reviews what was done.
        Reviewer = "reviewer",
        /// It does tasks that are for a coordinator.
        Coordinator = "coordinator",
    }
}

words! {
    /// What an agent does.
    AgentStatus {
        /// It holds no bead.
        Idle = "idle",
        /// It holds a bead.
        Working = "working",
        /// It holds a bead, and nothing moves.
        Stalled = "stalled",
        /// It is given nothing.
        Dead = "dead",
    }
}

words! {
    /// Where an agent comes from.
    Origin {
        /// It stands in the configuration.
        Configured = "configured",
        /// It is one of plimsoll's own that joined while plimsoll ran, and is collected when nobody needs it.
        Dynamic = "dynamic",
        /// It is of a runtime elsewhere, and is collected when nobody needs it.
        External = "external",
    }
}

words! {
    /// What a bead is.
    BeadKind {
        /// Work for an agent.
        Task = "task",
        /// A look at what was done for a task, by a reviewer.
        Review = "review",
        /// A batch of tasks.
        Convoy = "convoy",
        /// Something that a person has to look at.
        Escalation = "escalation",
    }
}

words! {
    /// Where a bead stands.
    BeadStatus {
        /// It waits.
        Open = "open",
        /// An agent holds it.
        InProgress = "in_progress",
        /// A review of it is open.
        InReview = "in_review",
        /// It ended well.
        Closed = "closed",
        /// It ended badly.
        Failed = "failed",
    }
}

#[expect(clippy::derivable_impls, reason = "the macro that makes the words gives none of them a default")]
impl Default for Role {
    fn default() -> Self {
        Self::Worker
    }
}

impl BeadStatus {
    /// Whether a bead in it never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Closed | Self::Failed)
    }
}

words! {
    /// How a cancelled bead ends.
    CancelStatus {
        /// As if done.
        Closed = "closed",
        /// As failed.
        Failed = "failed",
    }
}

impl From<CancelStatus> for BeadStatus {
    fn from(status: CancelStatus) -> Self {
        match status {
            CancelStatus::Closed => Self::Closed,
            CancelStatus::Failed => Self::Failed,
        }
    }
}

words! {
    /// What an agent says of its work.
    Outcome {
        /// It is done.
        Done = "done",
        /// It could not be done.
        Failed = "failed",
        /// A person has to decide something.
        NeedsHuman = "needs_human",
    }
}

words! {
    /// How the run of a dispatch ended.
    CompletionStatus {
        /// By itself.
        Completed = "completed",
        /// In an error.
        Failed = "failed",
    }
}

words! {
    /// What a reviewer says.
    Verdict {
        /// The task is done.
        Approved = "approved",
        /// The task goes back to work.
        Changes = "changes",
    }
}

words! {
    /// What was seen of what hosts an agent. An active request counts as running where nothing else does.
    ContainerStatus {
        /// It comes up.
        Starting = "starting",
        /// It runs.
        Running = "running",
        /// It ended.
        Exited = "exited",
        /// Nobody knows it.
        NotFound = "not_found",
        /// Its host threw it out.
        Evicted = "evicted",
    }
}

words! {
    /// Why a dispatch came to nothing though the agent took it.
    LostCause {
        /// plimsoll was restarted; the attempt is given back.
        Restart = "restart",
        /// plimsoll was stopped; the attempt is given back.
        Shutdown = "shutdown",
        /// What hosts the agent ended.
        Exited = "exited",
        /// What hosts the agent is not there.
        NotFound = "not_found",
        /// What hosts the agent was thrown out.
        Evicted = "evicted",
        /// Nothing was heard of it, and nothing of it runs.
        Silent = "silent",
        /// It was stopped by the last tier of the ladder.
        Stuck = "stuck",
        /// The agent takes no work for a while; the attempt is given back.
        Refused = "refused",
    }
}

impl LostCause {
    /// Whether the bead keeps its attempt, because neither it nor its agent had a part in it.
    #[must_use]
    pub const fn gives_back(self) -> bool {
        matches!(self, Self::Restart | Self::Shutdown | Self::Refused)
    }
}

words! {
    /// Why a bead went from one status to another.
    BeadReason {
        /// The agent said that it is done, and no review is asked for.
        Done = "done",
        /// Of a review: the task is good, and closes with it.
        Approved = "approved",
        /// Of a review: the task goes back to work.
        Changes = "changes",
        /// The attempt failed; there may be another.
        AttemptFailed = "attempt_failed",
        /// Every attempt failed.
        AttemptsExhausted = "attempts_exhausted",
        /// The agent asked for a person.
        NeedsHuman = "needs_human",
        /// The agent ended, and nobody can read how.
        Unreadable = "unreadable",
        /// Somebody cancelled it.
        Cancelled = "cancelled",
        /// A bead that it waited for failed.
        BlockerFailed = "blocker_failed",
        /// Every bead of the convoy ended.
        ConvoyEnded = "convoy_ended",
        /// A bead of the convoy failed, and the policy says that this fails it.
        ConvoyFailed = "convoy_failed",
        /// Of an escalation: what it was about ended.
        SubjectEnded = "subject_ended",
    }
}

words! {
    /// Why an agent went from one status to another.
    AgentReason {
        /// A drill lets it work without a bead, so that an invariant does not hold.
        Drill = "drill",
        /// Nothing was heard of it.
        Silent = "silent",
        /// Something was heard of it again.
        Progress = "progress",
        /// It cannot be used.
        Unusable = "unusable",
        /// It can be used again.
        Usable = "usable",
        /// An invariant did not hold, and this repairs it.
        Recovered = "recovered",
    }
}

words! {
    /// How far work that does not move has been taken.
    Tier {
        /// The agent was asked how to read its ending.
        Ending = "ending",
        /// The agent was nudged.
        Nudge = "nudge",
        /// A person was told.
        Escalate = "escalate",
        /// The agent was stopped.
        Stop = "stop",
    }
}

words! {
    /// What one takes an agent's silence for.
    StuckClass {
        /// It moves.
        Working = "working",
        /// It moves, and has done so for long.
        LongRunning = "long_running",
        /// It has been silent for a while.
        Stalled = "stalled",
        /// It has been silent for so long that nobody expects more.
        Stuck = "stuck",
        /// A person has to decide something.
        WaitingOnHuman = "waiting_on_human",
    }
}

words! {
    /// What is done about a violated invariant.
    Recovery {
        /// Nothing.
        Off = "off",
        /// It is said what would repair it.
        Suggest = "suggest",
        /// It is repaired.
        Auto = "auto",
    }
}

words! {
    /// What becomes of a bead when one that it waits for fails.
    OnBlockerFailed {
        /// It fails too.
        Fail = "fail",
        /// It goes on as if that one had closed.
        Proceed = "proceed",
    }
}

/// Something in a town that can be named: `agent/<id>` or `bead/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, schemars::JsonSchema)]
#[schemars(with = "String")]
pub enum Entity {
    /// An agent.
    Agent(AgentId),
    /// A bead.
    Bead(BeadId),
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent/{id}"),
            Self::Bead(id) => write!(f, "bead/{id}"),
        }
    }
}

impl Serialize for Entity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Entity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once('/') {
            Some(("agent", id)) => AgentId::parse(id).map(Self::Agent).map_err(de::Error::custom),
            Some(("bead", id)) => BeadId::parse(id).map(Self::Bead).map_err(de::Error::custom),
            _ => Err(de::Error::custom("expected agent/ID or bead/ID")),
        }
    }
}
