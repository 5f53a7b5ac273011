//! The gateway: messages in, answers out, every step counted.
//!
//! Sessions, lanes, the run loop, cancellation and deadlines. It does not know who the callers are (`api`
//! authenticates) nor how a model is called (`provider`). Start at [`Gateway`].

mod accept;
mod active;
mod agent_sessions;
mod answers;
mod cancel;
mod changes;
mod config;
mod control;
mod error;
mod floor;
mod hosting;
mod keys;
mod lane;
mod leaving;
mod made;
mod meter;
pub mod metrics;
mod pauses;
mod record;
mod recorded;
mod request;
mod roster;
mod run;
mod service;
mod session;
mod status;
mod stop;
mod summary;
mod templates;
mod timeline;
mod transcript;
mod usage;

pub use active::{ActiveRequest, ActiveTools, RequestState, RunningTool};
pub use agent_sessions::{AGENT_SESSION_FORGOTTEN, AGENT_SESSION_STARTED};
pub use answers::Ended;
pub use changes::{BadKey, Beside, ChangeError, Deletion, ReadEntry};
pub use config::{AgentConfig, Config};
pub use control::{AGENT_WITHDRAWN, Controlled, UnderWay};
pub use error::Rejection;
pub use keys::{Fingerprint, REQUEST_ACCEPTED};
pub use made::{AGENT_CREATED, AGENT_CREATED_CONFIG, AGENT_DELETED};
pub use meter::{BUDGET_REACHED, SPEND_LOST};
pub use pauses::{AGENT_PAUSED, AGENT_RESUMED};
pub use record::{Outcome, REQUEST_FINISHED, REQUEST_FINISHED_VERSION, RequestFinished, ToolCounts};
pub use request::{
    Accepted, AgentEvent, Answer, Caller, Channel, OnDisconnect, SendRequest, Timings, ToolSummary, Usage,
};
pub use service::{Gateway, GatewayParts, HealthCounts, Snapshot, UnknownProvider};
pub use session::SessionSummary;
pub use status::{RequestProgress, RequestStatus};
pub use summary::AgentSummary;
pub use templates::NewMember;
pub use usage::{UnpricedModel, UsageAmounts, UsageBy, UsageQuery, UsageReport, UsageRow, parse_since};
