//! Metrics, traces and logs: definitions, the registry, the subscriber stack and the OTLP exporter.
//!
//! It knows nothing of what it measures: modules declare their own metrics, and what flows up to the live view goes
//! through a sink that `app` hands in. Start at [`metric`] for metrics and at [`install()`] for the rest.

mod config;
mod event;
mod exposition;
mod family;
mod field;
mod hidden;
mod histogram;
mod install;
mod log;
pub mod metric;
pub mod metrics;
mod otlp;
mod panics;
pub mod process;
mod registry;
mod scrape;
mod shared;
pub mod span;
mod trace_context;

pub use config::{Config, LogConfig, LogFormat, OtlpConfig, OtlpProtocol, SentryConfig};
pub use event::{EventLevel, EventSink, TracedEvent};
pub use install::{InstallError, Telemetry, TelemetryParts, build, install};
pub use log::LineFormat;
pub use otlp::{Collector, Environment, OtlpError, SettingsError, TransportError, collector};
pub use panics::log_panics;
pub use registry::{CONTENT_TYPE, Registry};
pub use shared::{Health, Shared};
pub use trace_context::TraceContext;
