//! The gateway: messages in, answers out, every step counted.
//!
//! Sessions, lanes, the run loop, cancellation and deadlines. It does not know who the callers are (`api`
//! authenticates) nor how a model is called (`provider`). Start at [`Gateway`].

mod config;
mod error;
pub mod metrics;
mod request;

pub use config::{AgentConfig, Config};
pub use error::Rejection;
pub use request::{
    Accepted, AgentEvent, Answer, Caller, Channel, OnDisconnect, SendRequest, Timings, ToolSummary, Usage,
};
