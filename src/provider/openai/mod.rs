//! `kind: openai`: any server that speaks the OpenAI Chat Completions API, streamed or not
//! (<https://platform.openai.com/docs/api-reference/chat>).
//!
//! How a request is made, tried again and recorded is in [`remote`](super::remote); the wire format in `wire`.

mod wire;

use http::header::{AUTHORIZATION, HeaderName};

use super::remote::{Api, Mode, ReadAnswer, Remote, Settings};
use super::{BuildError, OpenAiConfig, ProviderDeps, Turn};

/// Hosts whose name in the GenAI conventions is not `openai`
/// (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/>).
const KNOWN_HOSTS: &[(&str, &str)] = &[
    ("openai.azure.com", "azure.ai.openai"),
    ("api.anthropic.com", "anthropic"),
    ("api.cohere.com", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
];

/// # Errors
/// [`BuildError`] when the address is none, or a file cannot be read.
pub(super) fn build(name: &str, config: &OpenAiConfig, deps: &ProviderDeps) -> Result<Remote, BuildError> {
    let OpenAiConfig { base_url, remote } = config;
    let base_url = base_url.as_deref().map(|url| url.trim_end_matches('/'));
    let api = ChatCompletions { json_schema: remote.json_schema };
    Remote::new(name, api, &Settings { base_url, remote }, deps)
}

struct ChatCompletions {
    json_schema: bool,
}

impl Api for ChatCompletions {
    fn kind(&self) -> &'static str {
        "openai"
    }

    fn provider(&self, host: &str) -> &'static str {
        let known = KNOWN_HOSTS.iter().find(|(known, _)| {
            host == *known || host.strip_suffix(known).is_some_and(|rest| rest.ends_with('.'))
        });
        known.map_or("openai", |(_, name)| name)
    }

    fn answers_path(&self) -> &'static str {
        "chat/completions"
    }

    fn models_path(&self) -> &'static str {
        "models"
    }

    fn key_header(&self, key: &str) -> (HeaderName, String) {
        (AUTHORIZATION, format!("Bearer {key}"))
    }

    fn request(&self, turn: &Turn, mode: Mode) -> Vec<u8> {
        wire::request(turn, mode, turn.answer_schema.as_deref().filter(|_| self.json_schema))
    }

    fn reader(&self) -> Box<dyn ReadAnswer> {
        Box::new(wire::Answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_named_by_their_host() {
        for (host, name) in [
            ("api.openai.com", "openai"),
            ("mine.openai.azure.com", "azure.ai.openai"),
            ("api.groq.com", "groq"),
            ("evilapi.groq.com", "openai"),
            ("127.0.0.1", "openai"),
        ] {
            assert_eq!(ChatCompletions { json_schema: false }.provider(host), name, "{host}");
        }
    }
}
