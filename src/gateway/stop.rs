//! Why a request stopped before its time, and what follows from it: for its caller, its key and the agent's own session.

use std::time::Duration;

use super::Rejection;
use super::agent_sessions::How;
use super::keys::NOT_ACCEPTED;
use crate::provider::ProviderError;

/// Why a request stopped before its time.
pub(super) enum Stop {
    Provider(ProviderError),
    Refused(Rejection),
    Panic,
    /// What must be durable first is not.
    Journal,
    Deadline,
    Cancelled(&'static str),
}

/// Why what is still under way is cancelled when the time to finish is over.
pub(super) const SHUTTING_DOWN: &str = "plimsoll is shutting down";

impl Stop {
    /// Whether the agent may have worked by then: not where its program could not be run, or where its server refused and
    /// said when to come again.
    pub(super) fn after_work(&self) -> bool {
        match self {
            Self::Provider(ProviderError::NotStarted { .. }) => false,
            Self::Provider(error) => error.retry_after().is_none(),
            Self::Refused(_) | Self::Panic | Self::Journal | Self::Deadline | Self::Cancelled(_) => true,
        }
    }

    /// What the caller hears.
    pub(super) fn rejection(self, partial: String, deadline: Duration) -> Rejection {
        match self {
            Self::Provider(error @ ProviderError::NotStarted { .. }) => {
                let (cause, retry_after) = (error.to_string(), error.retry_after());
                Rejection::NotStarted { cause, reason: None, retry_after }
            }
            Self::Provider(error) => Rejection::Provider {
                cause: cause(&error),
                status: error.status(),
                quoted: error.quoted().to_owned(),
                partial,
                retry_after: error.retry_after(),
            },
            Self::Refused(rejection) => rejection,
            Self::Panic => Rejection::Bug { partial },
            Self::Journal => NOT_ACCEPTED,
            Self::Deadline => {
                let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                Rejection::Deadline { deadline_ms, partial }
            }
            Self::Cancelled(reason) => Rejection::Cancelled { reason, partial },
        }
    }
}

/// How the turn ended, for the agent's own session.
pub(super) fn how(stopped: &Result<(), Stop>) -> How {
    match stopped {
        Ok(()) => How::Answered,
        Err(Stop::Provider(error)) if error.is_unknown_session() => How::Unknown,
        Err(Stop::Provider(ProviderError::NotStarted { .. })) => How::Stopped,
        Err(Stop::Provider(_)) => How::Failed,
        Err(Stop::Refused(_) | Stop::Panic | Stop::Journal | Stop::Deadline | Stop::Cancelled(_)) => {
            How::Stopped
        }
    }
}

/// What went wrong, and what to do where that is known.
fn cause(error: &ProviderError) -> String {
    if error.is_unknown_session() {
        return "the agent does not know this conversation any more, so it is forgotten here too: send the message \
                again to begin anew"
            .to_owned();
    }
    error.to_string()
}
