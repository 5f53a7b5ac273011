//! The configuration key `telemetry:`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::units::Period;

/// `telemetry:`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Log lines.
    pub log: LogConfig,
    /// Traces over OTLP.
    pub otlp: OtlpConfig,
    /// Episodes of violations and panics.
    pub sentry: SentryConfig,
}

/// `telemetry.log:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A filter in the form of `tracing-subscriber`'s `EnvFilter`, such as `info` or `info,plimsoll::journal=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `telemetry.otlp:`. What is not set here comes from the standard `OTEL_*` variables
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// The collector's base address, such as `http://127.0.0.1:4317`; for HTTP `/v1/traces` is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The protocol; `grpc` where neither this nor the variable is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OtlpProtocol>,
    /// Headers sent with every export, such as an API key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// How long one export may take; 10 ms to 60 s; 3 s where neither this nor the variable is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// A file of PEM certificates to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The share of traces recorded where the caller did not decide, 0.0 to 1.0; 1.0 where neither this nor the
    /// variable is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_ratio: Option<f64>,
}

/// How OTLP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// HTTP with Protocol Buffers.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// `telemetry.sentry:`. Without a DSN here and in the variable `SENTRY_DSN`, nothing is sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SentryConfig {
    /// The DSN of the project: a secret, it holds the project's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dsn: Option<Secret>,
    /// A file that holds the DSN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dsn_file: Option<PathBuf>,
    /// What Sentry calls the place where it runs; else the variable `SENTRY_ENVIRONMENT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// A file of PEM certificates to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}
