//! The configuration keys `providers:` and `prices:`.

use serde::{Deserialize, Serialize};

use super::exec::ExecConfig;
use crate::secret::Secret;
use crate::units::Period;

/// One entry of `providers:`, keyed by a name that agents refer to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
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
    /// The address up to and including `/v1`, http or https, without credentials.
    pub base_url: String,
    /// The API key, sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
    /// A file that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<std::path::PathBuf>,
    /// A file of PEM certificates to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<std::path::PathBuf>,
    /// Whether answers are asked for as a stream.
    #[serde(default = "yes")]
    pub stream: bool,
    /// Tries after a 429, a 5xx or a refused connection, 0 to 10.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// How long a connection may take to be made; 10 ms to 60 s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Period,
    /// How long the server may be silent, before or in the middle of an answer; 1 s to 1 h.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Period,
}

/// `kind: anthropic`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnthropicConfig {
    /// The address up to, and without, `/v1`; http or https, without credentials.
    #[serde(default = "default_anthropic_url")]
    pub base_url: String,
    /// The API key, sent as `x-api-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
    /// A file that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<std::path::PathBuf>,
    /// A file of PEM certificates to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<std::path::PathBuf>,
    /// Tokens that one answer may have, which the API wants to be told; 1 to 1,000,000.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: u32,
    /// Whether answers are asked for as a stream.
    #[serde(default = "yes")]
    pub stream: bool,
    /// Tries after a 429, a 5xx or a refused connection, 0 to 10.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// How long a connection may take to be made; 10 ms to 60 s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Period,
    /// How long the server may be silent, before or in the middle of an answer; 1 s to 1 h.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Period,
}

fn default_anthropic_url() -> String {
    "https://api.anthropic.com".to_owned()
}

fn default_max_tokens() -> u32 {
    8_192
}

fn yes() -> bool {
    true
}

fn default_retries() -> u32 {
    2
}

fn default_connect_timeout() -> Period {
    Period::from_secs(5)
}

fn default_idle_timeout() -> Period {
    Period::from_secs(120)
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
