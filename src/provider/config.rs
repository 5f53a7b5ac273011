//! The configuration keys `providers:` and `prices:`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::exec::ExecConfig;
use crate::secret::Secret;
use crate::units::Period;

/// One entry of `providers:`, keyed by a name that agents refer to.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Config {
    /// Answers by itself, for trying out and for tests.
    Echo(EchoConfig),
    /// Any server that speaks the OpenAI Chat Completions API.
    OpenAi(OpenAiConfig),
    /// The Anthropic Messages API.
    Anthropic(AnthropicConfig),
    /// A program that is run once per message.
    Exec(ExecConfig),
}

impl Config {
    /// What it says of a server, where it asks one.
    pub(crate) fn remote(&self) -> Option<&RemoteConfig> {
        match self {
            Self::OpenAi(OpenAiConfig { remote, .. }) | Self::Anthropic(AnthropicConfig { remote, .. }) => {
                Some(remote)
            }
            Self::Echo(_) | Self::Exec(_) => None,
        }
    }
}

/// `kind: echo`. Deterministic for the same `seed` and message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EchoConfig {
    /// How long an answer takes; 0 to 1 h.
    pub latency: Period,
    /// The share of answers that fail, 0.0 to 1.0.
    pub failure_rate: f64,
    /// The share of answers that call a tool, 0.0 to 1.0.
    pub tool_rate: f64,
    /// The share of those tools that fail, 0.0 to 1.0.
    pub tool_failure_rate: f64,
    /// Where its choices begin.
    pub seed: u64,
}

impl Default for EchoConfig {
    fn default() -> Self {
        Self {
            latency: Period::from_millis(0),
            failure_rate: 0.0,
            tool_rate: 0.0,
            tool_failure_rate: 0.0,
            seed: 1,
        }
    }
}

/// `kind: openai`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The address up to and including `/v1`, http or https, without credentials. Without one its agents have instances
    /// of their own, and are asked there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Its other keys stand beside it, and are read apart.
    #[serde(flatten, skip_deserializing)]
    pub remote: RemoteConfig,
}

/// `kind: anthropic`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnthropicConfig {
    /// The address up to, and without, `/v1`; http or https, without credentials.
    #[serde(default = "default_anthropic_url")]
    pub base_url: String,
    /// Tokens that one answer may have, which the API wants to be told; 1 to 1,000,000.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: u32,
    /// Its other keys stand beside these, and are read apart.
    #[serde(flatten, skip_deserializing)]
    pub remote: RemoteConfig,
}

fn default_anthropic_url() -> String {
    "https://api.anthropic.com".to_owned()
}

fn default_max_tokens() -> u32 {
    8_192
}

/// The keys of every API over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteConfig {
    /// The API key, sent as `Authorization: Bearer` or, of Anthropic, as `x-api-key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
    /// A file that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// A file of PEM certificates to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether answers are asked for as a stream.
    pub stream: bool,
    /// Whether its models take a JSON Schema for an answer: how the work on a bead ended is then asked for by one.
    pub json_schema: bool,
    /// Tries after a 429, a 5xx or a refused connection, 0 to 10.
    pub retries: u32,
    /// How long a connection may take to be made; 10 ms to 60 s.
    pub connect_timeout: Period,
    /// How long the server may be silent, before or in the middle of an answer; 1 s to 1 h.
    pub idle_timeout: Period,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            api_key_file: None,
            ca_file: None,
            stream: true,
            json_schema: false,
            retries: 2,
            connect_timeout: Period::from_secs(5),
            idle_timeout: Period::from_secs(120),
        }
    }
}

/// One entry of `prices:`, keyed by model: US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Tokens read.
    pub input: f64,
    /// Tokens written.
    pub output: f64,
    /// Tokens read from a cache; the price of `input` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Tokens written to a cache; the price of `input` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
}
