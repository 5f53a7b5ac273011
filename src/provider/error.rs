//! How a model call fails: one list, one stable `error.type` each, and a message that may stand in a log.
//!
//! What the provider itself said may quote a prompt or a key: it is content, stands in no message, and is for the caller
//! alone ([`ProviderError::for_caller`]).

use std::borrow::Cow;
use std::time::Duration;

use super::Mask;

/// Why a provider gave no answer. Messages name neither addresses nor keys, and hold nothing that the provider said.
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
    #[error("the provider answered HTTP {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Its words, cut to [`QUOTED_BYTES_MAX`](crate::limits::QUOTED_BYTES_MAX) and masked; empty if it had none.
        quoted: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It reported an error in the middle of an answer.
    #[error("the provider reported an error")]
    Reported {
        /// Its words, cut and masked like those of a status.
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
    #[error("the provider's answer is empty: is its `base_url` right?")]
    Empty,
    /// Its program cannot be run at all.
    #[error("the agent could not start: {problem}")]
    NotStarted {
        /// What is wrong and what to do, without paths of this machine.
        problem: Cow<'static, str>,
        /// When another try may go better, if only time is needed.
        retry_after: Option<Duration>,
    },
    /// Its program ended badly, or well without an answer.
    #[error("the agent ended {how}")]
    Exited {
        /// Such as `with exit code 1` or `by signal 9`.
        how: String,
        /// Its last words, cut and masked; empty if it had none.
        quoted: String,
    },
    /// It stopped by a rule of its own.
    #[error("the agent stopped: {reason}")]
    Stopped {
        /// One of a fixed list, `snake_case`, such as `max_turns`.
        reason: &'static str,
        /// Its words, cut and masked; empty if it had none.
        quoted: String,
    },
    /// It was configured to fail.
    #[error("the echo provider was configured to fail")]
    Simulated,
}

/// What there is to know of one kind of error beside its message.
struct Traits<'a> {
    error_type: Cow<'static, str>,
    quoted: &'a str,
    retry_after: Option<Duration>,
    may_pass: bool,
    billed: Billed,
}

/// Whether a call that ended so may be billed.
#[derive(Debug, Clone, Copy)]
enum Billed {
    Never,
    IfAnswered,
    Maybe,
}

impl Traits<'_> {
    const fn of(error_type: &'static str) -> Self {
        let error_type = Cow::Borrowed(error_type);
        Self { error_type, quoted: "", retry_after: None, may_pass: false, billed: Billed::Maybe }
    }
}

impl ProviderError {
    /// The one list of them all.
    fn traits(&self) -> Traits<'_> {
        match self {
            Self::Connection { reason: _ } => {
                Traits { may_pass: true, billed: Billed::Never, ..Traits::of("connection") }
            }
            Self::Timeout { silence: _ } => Traits::of("timeout"),
            Self::Status { status, quoted, retry_after } => Traits {
                error_type: status.to_string().into(),
                quoted,
                retry_after: *retry_after,
                may_pass: *status == 429 || *status >= 500,
                billed: Billed::IfAnswered,
            },
            Self::Reported { quoted } => Traits { quoted, ..Traits::of("provider_error") },
            Self::Cut => Traits::of("stream_cut"),
            Self::Unreadable { problem: _ } => Traits::of("unreadable_answer"),
            Self::TooLarge { bytes_max: _ } => Traits::of("answer_too_large"),
            Self::Empty => Traits::of("empty_answer"),
            Self::NotStarted { problem: _, retry_after } => {
                Traits { retry_after: *retry_after, billed: Billed::Never, ..Traits::of("not_started") }
            }
            Self::Exited { how: _, quoted } => Traits { quoted, ..Traits::of("agent_exited") },
            Self::Stopped { reason, quoted } => {
                let billed = if self.is_unknown_session() { Billed::IfAnswered } else { Billed::Maybe };
                Traits { quoted, billed, ..Traits::of(reason) }
            }
            Self::Simulated => Traits { billed: Billed::Never, ..Traits::of("simulated") },
        }
    }

    /// The value of `error.type`: the HTTP status where there is one
    /// (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), else a fixed word.
    #[must_use]
    pub fn error_type(&self) -> Cow<'static, str> {
        self.traits().error_type
    }

    /// The HTTP status with which its server refused, if that is what it did.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let Self::Status { status, .. } = self else { return None };
        Some(*status)
    }

    /// Whether the agent said that it does not know the conversation it should go on with.
    #[must_use]
    pub fn is_unknown_session(&self) -> bool {
        matches!(self, Self::Stopped { reason: "session_not_found", .. })
    }

    /// Whether nobody is billed for what ended so. What answered in part may be, whatever its last word.
    pub(super) fn is_free(&self, answered: bool) -> bool {
        match self.traits().billed {
            Billed::Never => true,
            Billed::IfAnswered => !answered,
            Billed::Maybe => false,
        }
    }

    /// What the provider said, for the caller alone: it may quote what it was asked. Empty if it said nothing.
    #[must_use]
    pub fn quoted(&self) -> &str {
        self.traits().quoted
    }

    /// The same error, its words masked and cut.
    pub(super) fn masked(mut self, mask: &Mask) -> Self {
        match &mut self {
            Self::Status { quoted, .. }
            | Self::Reported { quoted }
            | Self::Exited { quoted, .. }
            | Self::Stopped { quoted, .. } => *quoted = mask.quote(quoted),
            Self::Connection { .. }
            | Self::Timeout { .. }
            | Self::Cut
            | Self::Unreadable { .. }
            | Self::TooLarge { .. }
            | Self::Empty
            | Self::NotStarted { .. }
            | Self::Simulated => {}
        }
        self
    }

    /// The message with what the provider said: for who asked, and for no log.
    #[must_use]
    pub fn for_caller(&self) -> String {
        match self.quoted() {
            "" => self.to_string(),
            quoted => format!("{self}: {quoted}"),
        }
    }

    /// When the provider wants to be asked again, if it said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.traits().retry_after
    }

    /// Whether another try may go better, provided that nothing of the answer was passed on.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.traits().may_pass
    }
}
