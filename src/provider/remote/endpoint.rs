//! The server's address and the HTTP client for it: TLS roots, deadlines, redirects, headers.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};
use rustls::RootCertStore;

use super::super::quote::Mask;
use super::super::{At, ProviderError, RemoteConfig};
use super::{Api, Mode, Settings};
use crate::outgoing;
use crate::secret::Secret;
use crate::telemetry::TraceContext;

/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// How long [`Endpoint::models`] may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A server and how to reach it.
pub(super) struct Endpoint {
    /// Sends the key and what else every request has.
    client: Client,
    /// Where it is; none where each turn says.
    server: Option<Server>,
    answers_path: &'static str,
    idle_timeout: Duration,
    /// `gen_ai.provider.name`.
    pub(super) provider: &'static str,
    /// Takes secrets out of what the server says.
    pub(super) mask: Mask,
}

/// A server that is always the same.
struct Server {
    answers: Url,
    models: Url,
    host: String,
    port: u16,
}

impl Server {
    fn new(api: &dyn Api, base_url: &str) -> Result<Self, String> {
        let base = Url::parse(base_url).map_err(|error| format!("base_url is no address: {error}"))?;
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
        Ok(Self {
            answers: join(api.answers_path())?,
            models: join(api.models_path())?,
            port: base.port_or_known_default().unwrap_or_default(),
            host,
        })
    }
}

impl Endpoint {
    /// # Errors
    /// Says what is wrong with the address or with a file.
    pub(super) fn new(api: &dyn Api, settings: &Settings<'_>, mask: &Mask) -> Result<Self, String> {
        let server = settings.base_url.map(|base_url| Server::new(api, base_url)).transpose()?;
        let key = api_key(settings.remote)?;
        let headers = headers(api, key.as_ref())?;
        Ok(Self {
            client: client(settings.remote, server.as_ref(), headers)?,
            answers_path: api.answers_path(),
            mask: mask.and(key.as_ref()),
            idle_timeout: settings.remote.idle_timeout.0,
            provider: api.provider(server.as_ref().map_or("", |server| &server.host)),
            server,
        })
    }

    /// `server.address` and `server.port`, where they are always the same.
    pub(super) fn server(&self) -> Option<(&str, u16)> {
        self.server.as_ref().map(|server| (server.host.as_str(), server.port))
    }

    /// A request for an answer.
    ///
    /// # Errors
    /// [`ProviderError::Connection`] where nobody says who is asked.
    pub(super) fn answer(
        &self,
        at: Option<&At>,
        body: Vec<u8>,
        mode: Mode,
        trace: Option<TraceContext>,
    ) -> Result<RequestBuilder, ProviderError> {
        const NOWHERE: ProviderError =
            ProviderError::Connection { reason: "its provider has no `base_url`, and it has no instance" };
        let of_instance = at.map(|at| at.url(self.answers_path).ok_or(NOWHERE)).transpose()?;
        let of_server = || self.server.as_ref().map(|server| server.answers.clone());
        let answers = of_instance.or_else(of_server).ok_or(NOWHERE)?;
        let accept = match mode {
            Mode::Stream => "text/event-stream",
            Mode::Whole => "application/json",
        };
        let request = self.client.post(answers);
        let request = request
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static(accept))
            .body(body);
        let Some(trace) = trace else { return Ok(request) };
        let request = request.header("traceparent", trace.to_string());
        let state = trace.state.header();
        Ok(if state.is_empty() { request } else { request.header("tracestate", state) })
    }

    /// Asks which models there are: whether the server is there and lets us in.
    pub(super) async fn models(&self) -> Result<String, ProviderError> {
        let Some(server) = &self.server else {
            return Ok("is asked at the instances of its agents".to_owned());
        };
        let request = self.client.get(server.models.clone()).timeout(CHECK_TIMEOUT);
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
        let retry_after = outgoing::retry_after(response.headers());
        let quoted = self.mask.body(response).await;
        ProviderError::Status { status, quoted, retry_after }
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

fn api_key(config: &RemoteConfig) -> Result<Option<Secret>, String> {
    match (&config.api_key, &config.api_key_file) {
        (Some(_), Some(_)) => Err("give api_key or api_key_file, not both".to_owned()),
        (Some(key), None) => Ok(Some(key.clone())),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("api_key_file {}: {error}", file.display()))?;
            Ok(Some(Secret::new(text.trim().to_owned(), format!("file:{}", file.display()))))
        }
        (None, None) => Ok(None),
    }
}

/// What every request says. The client holds them, and so does no redirect to elsewhere: none is followed.
fn headers(api: &dyn Api, key: Option<&Secret>) -> Result<HeaderMap, String> {
    let fixed = api.headers().iter();
    let mut headers: HeaderMap =
        fixed.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    if let Some(key) = key {
        let (name, value) = api.key_header(key.expose());
        let wrong = |_| format!("the API key {key} holds characters that no header may hold");
        let mut value = HeaderValue::try_from(value).map_err(wrong)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn client(config: &RemoteConfig, server: Option<&Server>, headers: HeaderMap) -> Result<Client, String> {
    let ca_file = config.ca_file.as_deref();
    let of_server = server.map(|server| outgoing::client_of(&server.answers, ca_file));
    let builder = of_server.unwrap_or_else(|| outgoing::client(RootCertStore::empty()))?;
    // An instance is beside us: what is meant for it passes no proxy.
    let builder = if server.is_some() { builder } else { builder.no_proxy() };
    builder
        .default_headers(headers)
        .connect_timeout(config.connect_timeout.0)
        .pool_idle_timeout(POOL_IDLE)
        .build()
        .map_err(|error| format!("the HTTP client cannot be built: {error}"))
}
