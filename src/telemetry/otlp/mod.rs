//! Traces over OTLP: from the configuration to a running exporter.
//!
//! `opentelemetry-otlp` encodes, sends and sends again. The queue before it is our own instead of the SDK's batch
//! processor, which does not count what it drops. Start at [`Pipeline::start`].

mod processor;
mod settings;
mod transport;
mod verdict;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

pub(super) use self::settings::propagates;
pub use self::settings::{Environment, SettingsError};
pub use self::transport::TransportError;

use self::processor::Processor;
use self::settings::Settings;
use super::config::OtlpConfig;
use super::shared::Shared;

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The settings are wrong.
    #[error("traces cannot be sent as configured")]
    Settings(#[from] SettingsError),
    /// The client could not be made.
    #[error("traces cannot be sent")]
    Transport(#[from] TransportError),
}

/// Who takes traces, for those who only want to look whether somebody does.
#[derive(Debug)]
pub struct Collector {
    /// Its address, with scheme and path.
    pub endpoint: String,
    /// PEM certificates to trust.
    pub authorities: Option<Vec<u8>>,
    /// PEM certificate and key to show.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Where traces go; `None` if nowhere. The same answer as the exporter's own.
///
/// # Errors
/// See [`SettingsError`].
pub fn collector(config: &OtlpConfig, env: Environment<'_>) -> Result<Option<Collector>, SettingsError> {
    let of = |Settings { endpoint, tls, .. }| Collector {
        endpoint: Uri::to_string(&endpoint),
        authorities: tls.ca,
        identity: tls.client,
    };
    Ok(Settings::resolve(config, env)?.map(of))
}

/// A running exporter.
pub(super) struct Pipeline {
    pub(super) provider: SdkTracerProvider,
}

impl Pipeline {
    /// Starts it, if an endpoint is named.
    pub(super) fn start(
        config: &OtlpConfig,
        env: Environment<'_>,
        shared: &Shared,
    ) -> Result<Option<Self>, OtlpError> {
        let Some(settings) = Settings::resolve(config, env)? else { return Ok(None) };
        let resource = resource(env);
        let processor = Processor::start(&settings, &resource, shared.clone())?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(settings.sampler)
            .with_resource(resource)
            .with_span_processor(processor)
            .build();
        Ok(Some(Self { provider }))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("plimsoll")
    }
}

/// Who sends: `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, over what we know ourselves.
fn resource(env: Environment<'_>) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", "plimsoll"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("telemetry.sdk.language", "rust"),
        KeyValue::new("telemetry.sdk.name", "opentelemetry"),
    ];
    let given = env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    for (key, value) in given.split(',').filter_map(|pair| pair.split_once('=')) {
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
        attributes.push(KeyValue::new(key.trim().to_owned(), value));
    }
    if let Some(name) = env("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        attributes.push(KeyValue::new("service.name", name));
    }
    Resource::builder_empty().with_attributes(attributes).build()
}
