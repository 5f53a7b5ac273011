//! Metrics, traces and logs: definitions, the registry, the subscriber stack and the OTLP exporter.
//!
//! It knows nothing of what it measures: modules declare their own metrics, and what flows up to the live view goes
//! through a sink that `app` hands in. Start at [`metric`].

mod config;
pub mod metric;
pub mod metrics;
mod registry;
mod trace_context;

pub use config::{Config, LogConfig, LogFormat, OtlpConfig, OtlpProtocol};
pub use registry::Registry;
pub use trace_context::TraceContext;
