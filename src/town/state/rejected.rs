//! Why a town does not take an event in. Nothing was changed by it then.

use crate::ids::{AgentId, BeadId, Seq};
use crate::town::event::OutOfBounds;
use crate::town::policy::PolicyProblem;
use crate::town::words::{AgentStatus, BeadKind, BeadReason, BeadStatus, Role};

/// See the module. Its message is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The town's first event is `town_created`.
    #[error("the town was not created yet")]
    NotCreated,
    /// That comes once.
    #[error("the town was created before")]
    AlreadyCreated,
    /// Events are taken in by their place in the journal, each once.
    #[error("the town has taken in events up to {last}")]
    OutOfOrder {
        /// The last one taken in.
        last: Seq,
    },
    /// Something in it is longer, or more, than it may be.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
    /// A number of its policy is out of its range.
    #[error("{0}")]
    Policy(PolicyProblem),
    /// No such agent.
    #[error("there is no agent {0}")]
    UnknownAgent(AgentId),
    /// No such bead, or one that ended so long ago that it is forgotten.
    #[error("there is no bead {0}")]
    UnknownBead(BeadId),
    /// The id is taken.
    #[error("there is an agent {0}")]
    AgentExists(AgentId),
    /// The id is taken.
    #[error("there is a bead {0}, or was one")]
    BeadExists(BeadId),
    /// It never changes again.
    #[error("bead {bead} has ended: {status}")]
    Ended {
        /// Which.
        bead: BeadId,
        /// How.
        status: BeadStatus,
    },
    /// That does not happen to a bead of its kind.
    #[error("bead {bead} is a {kind}")]
    WrongKind {
        /// Which.
        bead: BeadId,
        /// What it is.
        kind: BeadKind,
    },
    /// The transition begins where the bead does not stand.
    #[error("bead {bead} is {status}")]
    BeadStands {
        /// Which.
        bead: BeadId,
        /// Where it stands.
        status: BeadStatus,
    },
    /// There is no such way.
    #[error("bead {bead} cannot go from {from} to {to} because of {reason}")]
    NoSuchWay {
        /// Which.
        bead: BeadId,
        /// From where.
        from: BeadStatus,
        /// Where to.
        to: BeadStatus,
        /// Why it should.
        reason: BeadReason,
    },
    /// It waits for something.
    #[error("bead {bead} waits: it is {why}")]
    BeadWaits {
        /// Which.
        bead: BeadId,
        /// What for.
        why: &'static str,
    },
    /// The transition begins where the agent does not stand, or does not end where it can.
    #[error("agent {agent} is {status}, and cannot become {to}")]
    AgentStands {
        /// Which.
        agent: AgentId,
        /// What it does.
        status: AgentStatus,
        /// What it should do.
        to: AgentStatus,
    },
    /// It holds a bead.
    #[error("agent {agent} holds bead {bead}")]
    AgentHolds {
        /// Which.
        agent: AgentId,
        /// What.
        bead: BeadId,
    },
    /// It does not hold that bead.
    #[error("agent {agent} does not hold bead {bead}")]
    AgentHoldsNot {
        /// Which.
        agent: AgentId,
        /// What.
        bead: BeadId,
    },
    /// It is no agent for that bead.
    #[error("bead {bead} is for a {wanted}, and agent {agent} is a {role}")]
    WrongRole {
        /// Which agent.
        agent: AgentId,
        /// What it is for.
        role: Role,
        /// Which bead.
        bead: BeadId,
        /// Who it is for.
        wanted: Role,
    },
    /// A number that counts up is not the next one.
    #[error("the {what} of bead {bead} is {given}, and the next is {next}")]
    WrongNumber {
        /// What is counted.
        what: &'static str,
        /// Of which bead.
        bead: BeadId,
        /// The number of the event.
        given: u64,
        /// What it must be.
        next: u64,
    },
    /// The bead would wait for itself.
    #[error("bead {bead} cannot wait for {blocked_by}, which waits for it")]
    Cycle {
        /// Which.
        bead: BeadId,
        /// For what.
        blocked_by: BeadId,
    },
    /// It belongs to a convoy.
    #[error("bead {bead} belongs to convoy {convoy}")]
    InConvoy {
        /// Which.
        bead: BeadId,
        /// Where.
        convoy: BeadId,
    },
    /// There are as many as may be.
    #[error("the town has {max} {what}, the most that it may have")]
    Full {
        /// Of what.
        what: &'static str,
        /// The most.
        max: usize,
    },
    /// Nothing is dispatched during a drain.
    #[error("the town is draining")]
    Draining,
    /// The breaker does not stand so.
    #[error("the breaker is {0}")]
    Breaker(&'static str),
    /// The violation is open, or is not.
    #[error("the violation of invariant {invariant} is {stands}")]
    Episode {
        /// Which.
        invariant: u8,
        /// How it stands.
        stands: &'static str,
    },
    /// The report came before.
    #[error("the report was taken in before, as event {first}")]
    Repeated {
        /// Where.
        first: Seq,
    },
    /// Another report came with this key before.
    #[error("the idempotency key was used by event {first} for something else")]
    KeyReused {
        /// Where.
        first: Seq,
    },
}

impl Rejected {
    /// A stable name, fit for a label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotCreated => "not_created",
            Self::AlreadyCreated => "already_created",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::OutOfBounds(_) => "out_of_bounds",
            Self::Policy(_) => "policy",
            Self::UnknownAgent(_) => "unknown_agent",
            Self::UnknownBead(_) => "unknown_bead",
            Self::AgentExists(_) => "agent_exists",
            Self::BeadExists(_) => "bead_exists",
            Self::Ended { .. } => "ended",
            Self::WrongKind { .. } => "wrong_kind",
            Self::BeadStands { .. } => "bead_stands",
            Self::NoSuchWay { .. } => "no_such_way",
            Self::BeadWaits { .. } => "bead_waits",
            Self::AgentStands { .. } => "agent_stands",
            Self::AgentHolds { .. } => "agent_holds",
            Self::AgentHoldsNot { .. } => "agent_holds_not",
            Self::WrongRole { .. } => "wrong_role",
            Self::WrongNumber { .. } => "wrong_number",
            Self::Cycle { .. } => "cycle",
            Self::InConvoy { .. } => "in_convoy",
            Self::Full { .. } => "full",
            Self::Draining => "draining",
            Self::Breaker(_) => "breaker",
            Self::Episode { .. } => "episode",
            Self::Repeated { .. } => "repeated",
            Self::KeyReused { .. } => "key_reused",
        }
    }
}
