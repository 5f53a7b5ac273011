//! How a model call fails: one list, one stable `error.type` each, and a message that a stranger may read.

use std::borrow::Cow;
use std::time::Duration;

/// Why a provider gave no answer. Messages name neither addresses nor keys; text of the provider in them is cut to
/// [`QUOTED_BYTES_MAX`](crate::limits::QUOTED_BYTES_MAX) and its secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No connection came about.
    #[error("no connection to the provider: {reason}")]
    Connection {
        /// Refused, unknown host, TLS, or timed out.
        reason: &'static str,
    },
    /// It was silent for too long.
    #[error("the provider was silent for {} ms", silence.as_millis())]
    Timeout {
        /// For how long.
        silence: Duration,
    },
    /// It answered with a status that is no answer.
    #[error("the provider answered HTTP {status}{quoted}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Its words, cut and masked, with a colon before them; empty if it had none.
        quoted: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It reported an error in the middle of an answer.
    #[error("the provider reported an error{quoted}")]
    Reported {
        /// Its words, cut and masked, with a colon before them.
        quoted: String,
    },
    /// Its answer ended before it was complete.
    #[error("the provider cut its answer short")]
    Cut,
    /// Its answer cannot be read.
    #[error("the provider's answer cannot be read: {problem}")]
    Unreadable {
        /// What is wrong with it.
        problem: Cow<'static, str>,
    },
    /// Its answer is larger than allowed.
    #[error("the provider's answer is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Its answer holds nothing.
    #[error("the provider's answer is empty")]
    Empty,
    /// It was configured to fail.
    #[error("the echo provider was configured to fail")]
    Simulated,
}

impl ProviderError {
    /// The value of `error.type`: the HTTP status where there is one
    /// (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), else a fixed word.
    #[must_use]
    pub fn error_type(&self) -> Cow<'static, str> {
        match self {
            Self::Connection { .. } => "connection".into(),
            Self::Timeout { .. } => "timeout".into(),
            Self::Status { status, .. } => status.to_string().into(),
            Self::Reported { .. } => "provider_error".into(),
            Self::Cut => "stream_cut".into(),
            Self::Unreadable { .. } => "unreadable_answer".into(),
            Self::TooLarge { .. } => "answer_too_large".into(),
            Self::Empty => "empty_answer".into(),
            Self::Simulated => "simulated".into(),
        }
    }

    /// When the provider wants to be asked again, if it said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Connection { .. }
            | Self::Timeout { .. }
            | Self::Reported { .. }
            | Self::Cut
            | Self::Unreadable { .. }
            | Self::TooLarge { .. }
            | Self::Empty
            | Self::Simulated => None,
        }
    }

    /// Whether another try may go better, provided that nothing of the answer was passed on.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connection { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::Timeout { .. }
            | Self::Reported { .. }
            | Self::Cut
            | Self::Unreadable { .. }
            | Self::TooLarge { .. }
            | Self::Empty
            | Self::Simulated => false,
        }
    }
}
