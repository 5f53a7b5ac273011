//! `kind: anthropic`: the Messages API, streamed or not (<https://docs.anthropic.com/en/api/messages>).
//!
//! How a request is made, tried again and recorded is in [`remote`](super::remote); the wire format in `wire`.

mod wire;

use http::header::HeaderName;

use super::remote::{Api, Mode, ReadAnswer, Remote, Settings};
use super::{AnthropicConfig, BuildError, ProviderDeps, Turn};

/// The version of the API that is spoken (<https://docs.anthropic.com/en/api/versioning>).
const VERSION: &[(&str, &str)] = &[("anthropic-version", "2023-06-01")];

/// # Errors
/// [`BuildError`] when the address is none, or a file cannot be read.
pub(super) fn build(name: &str, config: &AnthropicConfig, deps: &ProviderDeps) -> Result<Remote, BuildError> {
    let AnthropicConfig { base_url, max_tokens, remote } = config;
    let base_url = base_url.trim_end_matches('/');
    // Given as for `kind: openai`, it is meant so.
    let base_url = Some(base_url.strip_suffix("/v1").unwrap_or(base_url));
    let api = Messages { max_tokens: *max_tokens, json_schema: remote.json_schema };
    Remote::new(name, api, &Settings { base_url, remote }, deps)
}

struct Messages {
    max_tokens: u32,
    json_schema: bool,
}

impl Api for Messages {
    fn kind(&self) -> &'static str {
        "anthropic"
    }

    fn provider(&self, _host: &str) -> &'static str {
        "anthropic"
    }

    fn answers_path(&self) -> &'static str {
        "v1/messages"
    }

    fn models_path(&self) -> &'static str {
        "v1/models"
    }

    fn key_header(&self, key: &str) -> (HeaderName, String) {
        (HeaderName::from_static("x-api-key"), key.to_owned())
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        VERSION
    }

    fn request(&self, turn: &Turn, mode: Mode) -> Vec<u8> {
        wire::request(turn, mode, self.max_tokens, turn.answer_schema.as_deref().filter(|_| self.json_schema))
    }

    fn reader(&self) -> Box<dyn ReadAnswer> {
        Box::new(wire::Answer::default())
    }
}
