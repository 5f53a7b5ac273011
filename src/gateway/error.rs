//! How a request ends badly: one exhaustive list, one code each.

use std::time::Duration;

use crate::ids::{AgentId, RequestId};

/// When to try again where an instance has as many waiting for its start as may: starts take seconds.
const INSTANCE_FULL_RETRY: Duration = Duration::from_secs(5);

/// Why a request was not answered. The message is for the caller and for logs: it never holds an internal path, a URL
/// with credentials, a stack, or content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A parameter is not acceptable.
    #[error("{field}: {problem}")]
    Invalid {
        /// The parameter's name on the wire.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The session's lane is full.
    #[error("the session's queue is full ({depth} waiting): wait for answers before you send more")]
    LaneFull {
        /// How many wait.
        depth: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// The gateway holds as many requests, or as many bytes of them, as it may.
    #[error("the gateway is full ({queued} waiting, `gateway.{limit}` is reached): try again later")]
    GatewayFull {
        /// The configuration key of the limit.
        limit: &'static str,
        /// How many wait.
        queued: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// No such agent.
    #[error("no agent is called `{agent}`: `plimsoll agents` (or `agent.list`) names those there are")]
    UnknownAgent {
        /// What was asked for.
        agent: AgentId,
    },
    /// The deadline passed.
    #[error("the deadline of {deadline_ms} ms passed")]
    Deadline {
        /// The deadline that applied.
        deadline_ms: u64,
        /// What had been answered by then.
        partial: String,
    },
    /// Somebody cancelled it.
    #[error("cancelled: {reason}")]
    Cancelled {
        /// By whom or why.
        reason: &'static str,
        /// What had been answered by then.
        partial: String,
    },
    /// The provider failed.
    #[error("the provider failed: {cause}")]
    Provider {
        /// What the provider did, without its words.
        cause: String,
        /// The HTTP status with which its server refused, if that is what it did.
        status: Option<u16>,
        /// Its words, for the caller alone: they may quote what it was asked. Empty if it had none.
        quoted: String,
        /// What had been answered by then.
        partial: String,
        /// When to try again, if the provider said.
        retry_after: Option<Duration>,
    },
    /// The agent's program could not be run, or its instance is not up.
    #[error("{cause}")]
    NotStarted {
        /// What is wrong and what to do, without paths of this machine.
        cause: String,
        /// What sort of thing went wrong with an instance, such as `not_ready`.
        reason: Option<&'static str>,
        /// When to try again, if only time is needed.
        retry_after: Option<Duration>,
    },
    /// A budget or a rate of the agent is used up.
    #[error("the agent's limit `{limit}` is reached: {advice}")]
    Limited {
        /// The configuration key of the limit.
        limit: &'static str,
        /// When it goes on, or who can change it.
        advice: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// An operator paused the agent, or all of them.
    #[error("the agent is paused: an operator resumes it with `plimsoll resume {agent}`")]
    Paused {
        /// The agent.
        agent: AgentId,
    },
    /// What must be durable first could not be written.
    #[error(
        "the journal cannot write now, and {subject} must be in it first: nothing was done, try again later"
    )]
    JournalUnavailable {
        /// What it is.
        subject: &'static str,
    },
    /// As many requests wait for the agent's instance as may.
    #[error(
        "as many messages wait for the instance of this agent to start as may (`instance.waiting_max`): send it later"
    )]
    InstanceFull,
    /// There are as many idempotency keys as are remembered.
    #[error("there are too many idempotency keys of the last 24 hours: send without one, or later")]
    KeysFull {
        /// When the oldest ends.
        retry_after: Duration,
    },
    /// The key stands for something else.
    #[error("idempotencyKey: {problem}")]
    Conflict {
        /// `interrupted`, `finished` or `other_message`.
        cause: &'static str,
        /// What happened, and what can be done.
        problem: String,
        /// The request that has the key.
        request_id: RequestId,
    },
    /// What served it panicked.
    #[error("this is a bug in plimsoll; its log says more")]
    Bug {
        /// What had been answered by then.
        partial: String,
    },
    /// plimsoll is shutting down.
    #[error("plimsoll is shutting down: send it again to the next one")]
    ShuttingDown,
    /// No such request or session.
    #[error("there is no such {what}")]
    NotFound {
        /// `request` or `session`.
        what: &'static str,
    },
    /// The caller's own request id is in use.
    #[error("requestId: a request with the id `{request_id}` is still running")]
    DuplicateRequest {
        /// The id.
        request_id: RequestId,
    },
}

impl Rejection {
    /// Its JSON-RPC error code (the table in the API documentation; standard codes from
    /// <https://www.jsonrpc.org/specification#error_object>).
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Invalid { .. } | Self::DuplicateRequest { .. } => -32602,
            Self::Bug { .. } => -32603,
            Self::LaneFull { .. } => -32001,
            Self::GatewayFull { .. } | Self::KeysFull { .. } | Self::InstanceFull => -32002,
            Self::UnknownAgent { .. } => -32003,
            Self::Deadline { .. } => -32004,
            Self::Cancelled { .. } => -32005,
            Self::NotStarted { .. } => -32006,
            Self::Provider { .. } => -32007,
            Self::ShuttingDown => -32009,
            Self::Limited { .. } => -32010,
            Self::Paused { .. } => -32011,
            Self::JournalUnavailable { .. } => -32012,
            Self::NotFound { .. } => -32013,
            Self::Conflict { .. } => -32014,
        }
    }

    /// What had been answered before it failed.
    #[must_use]
    pub fn partial(&self) -> Option<&str> {
        match self {
            Self::Deadline { partial, .. }
            | Self::Cancelled { partial, .. }
            | Self::Provider { partial, .. }
            | Self::Bug { partial } => Some(partial),
            Self::Invalid { .. }
            | Self::LaneFull { .. }
            | Self::GatewayFull { .. }
            | Self::KeysFull { .. }
            | Self::InstanceFull
            | Self::UnknownAgent { .. }
            | Self::NotStarted { .. }
            | Self::Limited { .. }
            | Self::Paused { .. }
            | Self::JournalUnavailable { .. }
            | Self::Conflict { .. }
            | Self::ShuttingDown
            | Self::NotFound { .. }
            | Self::DuplicateRequest { .. } => None,
        }
    }

    /// What the provider said, for the caller alone.
    #[must_use]
    pub fn quoted(&self) -> Option<&str> {
        let Self::Provider { quoted, .. } = self else { return None };
        Some(quoted.as_str()).filter(|text| !text.is_empty())
    }

    /// When to try again, if that is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LaneFull { retry_after, .. }
            | Self::GatewayFull { retry_after, .. }
            | Self::KeysFull { retry_after }
            | Self::Limited { retry_after, .. } => Some(*retry_after),
            Self::Provider { retry_after, .. } | Self::NotStarted { retry_after, .. } => *retry_after,
            Self::InstanceFull => Some(INSTANCE_FULL_RETRY),
            Self::Invalid { .. }
            | Self::UnknownAgent { .. }
            | Self::Paused { .. }
            | Self::JournalUnavailable { .. }
            | Self::Conflict { .. }
            | Self::Deadline { .. }
            | Self::Cancelled { .. }
            | Self::Bug { .. }
            | Self::ShuttingDown
            | Self::NotFound { .. }
            | Self::DuplicateRequest { .. } => None,
        }
    }
}
