//! Why plimsoll does not start: the errors of all its parts.

use tokio::task::JoinError;

use crate::api::{BindError, InvalidTokens};
use crate::gateway::UnknownProvider;
use crate::journal::OpenError;
use crate::lifecycle::Unkept;
use crate::provider::BuildError;
use crate::telemetry;

/// Why plimsoll does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Logs, traces or metrics cannot be set up.
    #[error("the telemetry cannot be set up")]
    Telemetry(#[from] telemetry::InstallError),
    /// The tokens of the configuration cannot be used.
    #[error(transparent)]
    Tokens(#[from] InvalidTokens),
    /// The data directory cannot be used.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// A provider cannot be made.
    #[error(transparent)]
    Provider(#[from] BuildError),
    /// An agent has no provider.
    #[error(transparent)]
    Agent(#[from] UnknownProvider),
    /// An instance cannot be hosted.
    #[error(transparent)]
    Instance(#[from] Unkept),
    /// The address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A bug.
    #[error("a part panicked while it started")]
    Panicked(#[from] JoinError),
}
