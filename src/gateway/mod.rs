//! The gateway: messages in, answers out, every step counted.
//!
//! Sessions, lanes, the run loop, cancellation and deadlines. It does not know who the callers are (`api`
//! authenticates) nor how a model is called (`provider`). Start at [`Gateway`].

mod accept;
mod active;
mod agent_sessions;
mod answers;
mod cancel;
mod config;
mod error;
mod floor;
mod keys;
mod lane;
pub mod metrics;
mod record;
mod request;
mod run;
mod service;
mod session;
mod status;
mod transcript;

pub use active::{ActiveRequest, ActiveTools, RequestState, RunningTool};
pub use agent_sessions::{AGENT_SESSION_FORGOTTEN, AGENT_SESSION_STARTED};
pub use answers::Ended;
pub use config::{AgentConfig, Config};
pub use error::Rejection;
pub use keys::{Fingerprint, REQUEST_ACCEPTED};
pub use record::{Outcome, REQUEST_FINISHED, REQUEST_FINISHED_VERSION, RequestFinished, ToolCounts};
pub use request::{
    Accepted, AgentEvent, Answer, Caller, Channel, OnDisconnect, SendRequest, Timings, ToolSummary, Usage,
};
pub use service::{AgentSummary, Gateway, GatewayParts, HealthCounts, Snapshot, UnknownProvider};
pub use session::SessionSummary;
pub use status::{RequestProgress, RequestStatus};
