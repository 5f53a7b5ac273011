//! The subscriber stack: span ids, OTLP if an endpoint is named, live events, and log lines.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, FilterExt, FilterFn, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::config::{Config, LogFormat};
use super::event::{EventLayer, EventSink, live_level};
use super::log::{LineFormat, LineQueue, LogLayer};
use super::metrics::BUILD_INFO;
use super::otlp::{Environment, OtlpError, Pipeline, propagates};
use super::registry::Registry;
use super::shared::Shared;
use super::span::{ContextLookup, IdSource, Propagation, SpanIds};
use crate::clock::Clock;

/// Why telemetry could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// `telemetry.log.level` is not a filter.
    #[error("telemetry.log.level is not a filter such as `info` or `info,plimsoll::journal=debug`")]
    LogLevel(#[source] ParseError),
    /// The thread that writes log lines did not start.
    #[error("the thread that writes log lines did not start")]
    Thread(#[source] std::io::Error),
    /// Traces cannot be exported.
    #[error("telemetry.otlp")]
    Otlp(#[source] OtlpError),
    /// The process has a subscriber already.
    #[error("telemetry is installed already")]
    InstalledTwice(#[source] TryInitError),
}

/// What was installed; it has to be shut down so that nothing recorded is lost.
pub struct Telemetry {
    lines: LineQueue,
    provider: Option<SdkTracerProvider>,
}

/// What the stack is made from.
pub struct TelemetryParts<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Where its own metrics go.
    pub registry: &'a Registry,
    /// Where live events go.
    pub event_sink: EventSink,
    /// The clock of lines and events.
    pub clock: Clock,
    /// The environment.
    pub env: Environment<'a>,
    /// Where log lines go, and how they look.
    pub log: (Box<dyn Write + Send>, LineFormat),
}

/// Builds the subscriber stack and makes it the process's own. Log lines go to standard error.
///
/// # Errors
/// [`InstallError`], by what stood in the way.
pub fn install(
    config: &Config,
    registry: &Registry,
    event_sink: EventSink,
    clock: Clock,
) -> Result<Telemetry, InstallError> {
    let out = std::io::stderr();
    let format = match (config.log.format, out.is_terminal()) {
        (LogFormat::Text, _) | (LogFormat::Auto, true) => LineFormat::Text,
        (LogFormat::Json, _) | (LogFormat::Auto, false) => LineFormat::Json,
    };
    let env = |name: &str| std::env::var(name).ok();
    let log: (Box<dyn Write + Send>, LineFormat) = (Box::new(out), format);
    let parts = TelemetryParts { config, registry, event_sink, clock, env: &env, log };
    let (dispatch, telemetry) = build(parts)?;
    dispatch.try_init().map_err(InstallError::InstalledTwice)?;
    Ok(telemetry)
}

/// Builds the subscriber stack without making it the process's own.
///
/// # Errors
/// [`InstallError`], by what stood in the way.
pub fn build(parts: TelemetryParts<'_>) -> Result<(Dispatch, Telemetry), InstallError> {
    let TelemetryParts { config, registry, event_sink, clock, env, log: (out, format) } = parts;
    registry.gauges(&BUILD_INFO).with([env!("CARGO_PKG_VERSION")]).set(1.0);
    let filter = EnvFilter::builder().parse(&config.log.level).map_err(InstallError::LogLevel)?;
    let filter = filter.add_directive(FRAMES_UNWRITTEN.parse().expect("a directive"));
    let shared = Shared::new(registry);
    let lines = LineQueue::start(out, shared.clone()).map_err(InstallError::Thread)?;
    let pipeline = Pipeline::start(&config.otlp, env, &shared).map_err(InstallError::Otlp)?;
    let ids = if pipeline.is_some() { IdSource::OpenTelemetry } else { IdSource::Own };
    let propagation = if propagates(env) { Propagation::On } else { Propagation::Off };
    let spans = pipeline.as_ref().map(|pipeline| {
        tracing_opentelemetry::layer()
            .with_tracer(pipeline.tracer())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(own_spans_and_events())
    });
    let lookup = ContextLookup::default();
    let live = filter_fn(|metadata| is_own_span(metadata) || live_level(metadata).is_some());
    let events = EventLayer::new(event_sink, clock.clone(), lookup.clone())
        .with_filter(live.with_max_level_hint(LevelFilter::INFO));
    // The filter is about lines; spans pass it so that each line finds its trace.
    let log =
        LogLayer::new(format, lines.clone(), registry, (clock, lookup)).with_filter(filter.or(own_spans()));
    let stack = tracing_subscriber::registry()
        .with(spans)
        .with(SpanIds::new(ids, propagation).with_filter(own_spans()))
        .with(events)
        .with(log);
    let provider = pipeline.map(|pipeline| pipeline.provider);
    Ok((Dispatch::new(stack), Telemetry { lines, provider }))
}

/// The WebSocket library writes whole frames at `trace`, and what people say stands in no log, whatever its level.
const FRAMES_UNWRITTEN: &str = "tungstenite=info";

/// Only plimsoll's own spans are kept: those of the libraries, the exporter's own among them, would make a trace of
/// sending traces. The hint keeps every finer callsite switched off.
fn own_spans() -> FilterFn {
    FilterFn::new(is_own_span as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::INFO)
}

/// The same, with plimsoll's events, which become events on the spans.
fn own_spans_and_events() -> FilterFn {
    FilterFn::new(is_own_and_coarse as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::INFO)
}

fn is_own_and_coarse(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && is_own(metadata)
}

fn is_own_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && is_own_and_coarse(metadata)
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().strip_prefix("plimsoll").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl Telemetry {
    /// Sends and writes what is left. Blocks for at most `deadline`, so call it off the runtime; what could not be
    /// sent by then is counted as dropped.
    pub fn shutdown(self, deadline: Duration) {
        let Self { lines, provider } = self;
        // The pipeline counts and reports what was lost; the error would say no more than that.
        let _late = provider.map(|provider| provider.shutdown_with_timeout(deadline));
        lines.flush(deadline);
    }
}
