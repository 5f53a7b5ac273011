//! How a command ends: every failure there is, and the one table of exit codes.
//!
//! A failure's message says what to do; its sources say why. Start at [`Failure`].

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use crate::api::BindError;
use crate::app::StartError;
use crate::client::ClientError;
use crate::config::ConfigProblem;
use crate::journal::{OpenError, ReadError};

/// What the shell sees. Stable: scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Ok,
    CheckFailed,
    Usage,
    Configuration,
    DataDirectory,
    Unreachable,
    Refused,
    Listen,
    Bug,
    Io,
    Interrupted,
}

impl Code {
    pub(crate) const ALL: [Self; 11] = [
        Self::Ok,
        Self::CheckFailed,
        Self::Usage,
        Self::Configuration,
        Self::DataDirectory,
        Self::Unreachable,
        Self::Refused,
        Self::Listen,
        Self::Bug,
        Self::Io,
        Self::Interrupted,
    ];

    /// The number. 70, 74 and 130 are those of `sysexits.h` and of a shell whose command ended by SIGINT.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::CheckFailed => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
            Self::DataDirectory => 4,
            Self::Unreachable => 5,
            Self::Refused => 6,
            Self::Listen => 7,
            Self::Bug => 70,
            Self::Io => 74,
            Self::Interrupted => 130,
        }
    }

    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done; for serve and demo: ended as asked, every answer delivered or refused",
            Self::CheckFailed => "the command worked, and what it checked is not as it should be",
            Self::Usage => "the command line is wrong",
            Self::Configuration => "the configuration is wrong or cannot be read",
            Self::DataDirectory => "the data directory is in use, of a newer format, damaged or not writable",
            Self::Unreachable => "no server answers there, or the connection was lost",
            Self::Refused => "the server refused the request, or the request failed",
            Self::Listen => "the address cannot be listened on",
            Self::Bug => "a bug in plimsoll: please report it",
            Self::Io => "a file, the input or the output cannot be read or written",
            Self::Interrupted => "ended at once by Ctrl-C or by a second signal",
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// The table of exit codes, as `--help` prints it.
pub(crate) fn table() -> String {
    let mut text = "Exit codes:\n".to_owned();
    for code in Code::ALL {
        let _ = writeln!(text, "  {:>3}  {}", code.number(), code.meaning());
    }
    text
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Everything there is to say has been printed.
    #[error("")]
    CheckFailed,
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Input(String, #[source] std::io::Error),
    /// Includes that nobody reads the output any more, which is no failure.
    #[error("the output cannot be written")]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the configuration cannot be used:{}", listed(.0))]
    Config(Vec<ConfigProblem>),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    DataDir(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The same as a server's refusal, where none was asked.
    #[error("{0}")]
    Refused(String),
    /// And what became of what was stopped.
    #[error("stopped{0}")]
    Interrupted(String),
    #[error("a bug in plimsoll, please report it with the lines above: {0}")]
    Bug(String),
}

impl Failure {
    /// The one place that maps failures to exit codes.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::CheckFailed => Code::CheckFailed,
            Self::Usage(_) => Code::Usage,
            Self::Input(..) => Code::Io,
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Code::Ok,
            Self::Output(_) => Code::Io,
            Self::Client(error) => match error {
                ClientError::NoServer { .. }
                | ClientError::Unreachable { .. }
                | ClientError::Tls { .. }
                | ClientError::Protocol(_)
                | ClientError::Lost(_) => Code::Unreachable,
                ClientError::Setup(_) => Code::Usage,
                ClientError::TokenNeeded | ClientError::Status { .. } | ClientError::Rpc { .. } => {
                    Code::Refused
                }
            },
            Self::Config(_) => Code::Configuration,
            Self::Start(error) => start_code(error),
            Self::DataDir(_) | Self::Read(_) => Code::DataDirectory,
            Self::Refused(_) => Code::Refused,
            Self::Interrupted(_) => Code::Interrupted,
            Self::Bug(_) => Code::Bug,
        }
    }

    /// The message for people, with its causes; `None` if there is nothing to say.
    pub(crate) fn message(&self) -> Option<String> {
        match self.code() {
            Code::Ok | Code::CheckFailed => None,
            Code::Usage
            | Code::Configuration
            | Code::DataDirectory
            | Code::Unreachable
            | Code::Refused
            | Code::Listen
            | Code::Bug
            | Code::Io
            | Code::Interrupted => Some(chain(self)),
        }
    }
}

fn listed(problems: &[ConfigProblem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

fn start_code(error: &StartError) -> Code {
    match error {
        StartError::Telemetry(_)
        | StartError::Tokens(_)
        | StartError::Provider(_)
        | StartError::Agent(_)
        | StartError::Instance(_) => Code::Configuration,
        StartError::Journal(_) => Code::DataDirectory,
        StartError::Bind(error) => match error {
            BindError::Listen { .. } => Code::Listen,
            BindError::NoTokens(_) | BindError::Plaintext(_) | BindError::Tls(_) => Code::Configuration,
        },
        StartError::Panicked(_) => Code::Bug,
    }
}

/// An error with its sources, each after a colon; what a source only repeats is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_in_order() {
        let numbers: Vec<u8> = Code::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code(), failure.message()), (Code::Ok, None));
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(failure.code(), Code::Io);
    }

    #[test]
    fn causes_are_told_once() {
        let failure = Failure::Input("cannot read the message".to_owned(), std::io::Error::other("gone"));
        assert_eq!(failure.message().as_deref(), Some("cannot read the message: gone"));
    }
}
