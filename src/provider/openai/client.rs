//! The server's address and the HTTP client for it: TLS roots, deadlines, redirects, headers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, RequestBuilder, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::super::quote::{self, Mask};
use super::super::{OpenAiConfig, ProviderError};
use crate::secret::Secret;
use crate::telemetry::TraceContext;

/// What plimsoll calls itself.
const USER_AGENT: &str = concat!("plimsoll/", env!("CARGO_PKG_VERSION"));

/// Redirects followed within one host.
const REDIRECTS_MAX: usize = 3;

/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// How long [`Endpoint::models`] may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

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

/// A server and how to reach it.
pub(super) struct Endpoint {
    client: Client,
    completions: Url,
    models: Url,
    key: Option<Secret>,
    idle_timeout: Duration,
    /// `gen_ai.provider.name`.
    pub(super) provider: &'static str,
    /// `server.address`.
    pub(super) host: String,
    /// `server.port`.
    pub(super) port: u16,
    /// Takes secrets out of what the server says.
    pub(super) mask: Mask,
}

impl Endpoint {
    /// # Errors
    /// Says what is wrong with the address or with a file.
    pub(super) fn new(config: &OpenAiConfig, mask: &Mask) -> Result<Self, String> {
        let base = Url::parse(config.base_url.trim_end_matches('/'))
            .map_err(|error| format!("base_url is no address: {error}"))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err("base_url must begin with http:// or https://".to_owned());
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err("base_url holds credentials: give them as api_key".to_owned());
        }
        let host = base.host_str().ok_or("base_url names no host")?.to_owned();
        let join = |path: &str| {
            Url::parse(&format!("{}/{path}", base.as_str().trim_end_matches('/')))
                .map_err(|error| format!("base_url is no address: {error}"))
        };
        let key = api_key(config)?;
        Ok(Self {
            client: client(config, base.scheme() == "https")?,
            completions: join("chat/completions")?,
            models: join("models")?,
            mask: mask.and(key.as_ref()),
            key,
            idle_timeout: config.idle_timeout.0,
            provider: provider_name(&host),
            port: base.port_or_known_default().unwrap_or_default(),
            host,
        })
    }

    /// A request for an answer.
    pub(super) fn complete(
        &self,
        body: Vec<u8>,
        accept: &'static str,
        trace: Option<TraceContext>,
    ) -> RequestBuilder {
        let request = self.authorised(self.client.post(self.completions.clone()));
        let request = request
            .header(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static(accept))
            .body(body);
        let Some(trace) = trace else { return request };
        let request = request.header("traceparent", trace.to_string());
        let state = trace.state.header();
        if state.is_empty() { request } else { request.header("tracestate", state) }
    }

    /// Asks which models there are: whether the server is there and lets us in.
    pub(super) async fn models(&self) -> Result<String, ProviderError> {
        let request = self.authorised(self.client.get(self.models.clone())).timeout(CHECK_TIMEOUT);
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        Ok(format!("answers as {}", self.provider))
    }

    /// What a failed request means.
    pub(super) fn failed(&self, error: &reqwest::Error) -> ProviderError {
        if error.is_connect() {
            let reason = if error.is_timeout() { "it took too long" } else { connect_problem(error) };
            ProviderError::Connection { reason }
        } else if error.is_timeout() {
            ProviderError::Timeout { silence: self.idle_timeout }
        } else if speaks_no_http(error) {
            ProviderError::Unreadable { problem: "it is no HTTP".into() }
        } else {
            ProviderError::Cut
        }
    }

    /// What an answer with an error status means.
    pub(super) async fn refused(&self, response: reqwest::Response) -> ProviderError {
        let status = response.status().as_u16();
        let retry_after = quote::retry_after(response.headers());
        let quoted = self.mask.body(response).await;
        ProviderError::Status { status, quoted, retry_after }
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        let Some(key) = &self.key else { return request };
        let value = HeaderValue::try_from(format!("Bearer {}", key.expose()));
        let mut value = value.expect("the key was checked when the endpoint was made");
        value.set_sensitive(true);
        request.header(AUTHORIZATION, value)
    }
}

/// An error and what it came from.
fn chain<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &'a (dyn std::error::Error + 'static)), |error| error.source())
}

fn speaks_no_http(error: &reqwest::Error) -> bool {
    chain(error).filter_map(|error| error.downcast_ref::<hyper::Error>()).any(hyper::Error::is_parse)
}

fn connect_problem(error: &reqwest::Error) -> &'static str {
    const TLS: &str = "TLS: its certificate or its protocol is not accepted";
    for error in chain(error) {
        if error.is::<rustls::Error>() {
            return TLS;
        }
        let Some(mut io) = error.downcast_ref::<std::io::Error>() else { continue };
        // What an IO error wraps is not its source: only the source of that is.
        while let Some(inner) = io.get_ref() {
            if inner.is::<rustls::Error>() {
                return TLS;
            }
            let Some(deeper) = inner.downcast_ref::<std::io::Error>() else { break };
            io = deeper;
        }
        if io.kind() == std::io::ErrorKind::ConnectionRefused {
            return "it is refused";
        }
    }
    "its host is unknown or cannot be reached"
}

fn provider_name(host: &str) -> &'static str {
    let known = KNOWN_HOSTS.iter().find(|(known, _)| {
        host == *known || host.strip_suffix(known).is_some_and(|rest| rest.ends_with('.'))
    });
    known.map_or("openai", |(_, name)| name)
}

fn api_key(config: &OpenAiConfig) -> Result<Option<Secret>, String> {
    let key = match (&config.api_key, &config.api_key_file) {
        (Some(_), Some(_)) => return Err("give api_key or api_key_file, not both".to_owned()),
        (Some(key), None) => key.clone(),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("api_key_file {}: {error}", file.display()))?;
            Secret::new(text.trim().to_owned(), format!("file:{}", file.display()))
        }
        (None, None) => return Ok(None),
    };
    if HeaderValue::try_from(key.expose()).is_err() {
        return Err(format!("the API key {key} holds characters that no header may hold"));
    }
    Ok(Some(key))
}

fn client(config: &OpenAiConfig, tls: bool) -> Result<Client, String> {
    let roots = if tls { roots(config.ca_file.as_deref())? } else { RootCertStore::empty() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .connect_timeout(config.connect_timeout.0)
        .pool_idle_timeout(POOL_IDLE)
        .redirect(Policy::custom(same_host_only))
        .tcp_nodelay(true)
        .build()
        .map_err(|error| format!("the HTTP client cannot be built: {error}"))
}

/// Follows a redirect only to where the request, its content and its key were meant to go anyway.
fn same_host_only(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let origin = |url: &Url| url.origin();
    let same = attempt.previous().last().is_some_and(|last| origin(last) == origin(attempt.url()));
    if same && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
}

/// The system's roots, Mozilla's, and the operator's own.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let wrong = |error: &dyn std::fmt::Display| format!("ca_file {}: {error}", file.display());
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong(&"it holds no certificate"));
        }
    }
    Ok(roots)
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
            assert_eq!(provider_name(host), name, "{host}");
        }
    }
}
