//! The live view: the last model calls, the last events, the counts of the snapshot, and the fan-out to streams.
//!
//! Nothing here survives a restart. Each fact has one function that records it for ring, snapshot and Prometheus at
//! once, so that they cannot disagree. Start at [`Live`].

mod config;
mod event;
pub mod metrics;

pub use config::Config;
pub use event::{Envelope, Event, Level, ModelCall, ToolCall};
