//! A client of a running plimsoll: over the control socket of its data directory, or over HTTP(S) with a token.
//!
//! It knows the wire and nothing of what is asked. Start at [`Client`]; streams are in [`Connection`].

mod connection;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls::CertificateError;
use serde_json::{Value, json};

pub use connection::{Connection, Incoming};

use crate::secret::Secret;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take that waits for no agent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an answer that is no JSON which are shown to the caller.
const SHOWN_BYTES_MAX: usize = 512;

/// The name of the control socket in the data directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Where a server is.
#[derive(Debug, Clone)]
pub enum Target {
    /// The data directory of a server on this machine, run by the same user.
    DataDir(PathBuf),
    /// An address.
    Url {
        /// `http://host:port` or `https://host:port`, without path.
        base: String,
        /// The token that is sent.
        token: Option<Secret>,
        /// PEM certificates to trust besides the system's.
        ca_file: Option<PathBuf>,
    },
}

/// Why a server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the control socket.
    #[error(
        "no plimsoll runs on the data directory {}: start one with `plimsoll serve`, or name the one you mean with --data-dir or --server",
        dir.display()
    )]
    NoServer {
        /// The data directory.
        dir: PathBuf,
    },
    /// The address does not answer.
    #[error("{at} does not answer ({cause}): check the address, and that plimsoll runs there")]
    Unreachable {
        /// The address.
        at: String,
        /// What the connection said.
        cause: String,
    },
    /// TLS does not come about.
    #[error("{at} cannot be trusted ({cause}): {advice}")]
    Tls {
        /// The address.
        at: String,
        /// What the connection said.
        cause: String,
        /// What to do.
        advice: &'static str,
    },
    /// It takes nobody without a token, and none was given.
    #[error("the server needs a token: pass --token-file FILE or set PLIMSOLL_TOKEN")]
    TokenNeeded,
    /// The address, the token or the certificates cannot be used.
    #[error("{0}")]
    Setup(String),
    /// The server answered with another status than success.
    #[error("the server refused: {status}{}", said(message))]
    Status {
        /// The status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// The method failed.
    #[error("{message}{} (code {code}{})", provider_said(data), cause_of(data))]
    Rpc {
        /// The JSON-RPC code.
        code: i64,
        /// What the server said.
        message: String,
        /// `error.data`.
        data: Value,
    },
    /// What came back is not plimsoll's.
    #[error("what answers there does not speak as plimsoll does: {0}")]
    Protocol(String),
    /// The connection was lost in the middle.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn provider_said(data: &Value) -> String {
    said(data.get("providerSaid").and_then(Value::as_str).unwrap_or_default())
}

fn cause_of(data: &Value) -> String {
    data.get("cause").and_then(Value::as_str).map(|cause| format!(", cause: {cause}")).unwrap_or_default()
}

/// A server that can be asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    target: Target,
}

impl Client {
    /// A client of this server; nothing is connected yet.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when the address or the certificates cannot be used.
    pub fn new(target: Target) -> Result<Self, ClientError> {
        // A second installation is refused and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        let base = match &target {
            Target::DataDir(dir) => {
                builder = builder.unix_socket(dir.join(CONTROL_SOCKET));
                "http://localhost".to_owned()
            }
            Target::Url { base, ca_file, .. } => {
                if let Some(path) = ca_file {
                    builder = builder.tls_certs_merge(certificates(path)?);
                }
                base_address(base)?
            }
        };
        let http = builder.build().map_err(|e| ClientError::Setup(format!("no client can be made: {e}")))?;
        Ok(Self { http, base, target })
    }

    /// Calls one method over `POST /rpc` and waits for its result.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.request(Method::POST, "/rpc").json(&body).timeout(ANSWER_TIMEOUT);
        let answer = self.send(request).await?;
        let answer: Value = answer.json().await.map_err(|e| ClientError::Protocol(e.to_string()))?;
        match connection::read(answer)? {
            Incoming::Answer { outcome, .. } => outcome,
            Incoming::Notification { .. } => Err(ClientError::Protocol("an answer without id".to_owned())),
        }
    }

    /// Asks a route by `GET`; `path` begins with `/` and may hold a query. The body may be read for as long as it
    /// comes.
    ///
    /// # Errors
    /// See [`ClientError`]; any status but success is [`ClientError::Status`].
    pub async fn get(&self, path: &str) -> Result<Response, ClientError> {
        self.get_with(path, &[]).await
    }

    /// The same with headers of the caller's.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn get_with(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Response, ClientError> {
        let request = self.request(Method::GET, path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        self.send(request).await
    }

    /// Opens a WebSocket to `/ws`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        Connection::open(self).await
    }

    fn shows_token(&self) -> bool {
        matches!(&self.target, Target::Url { token: Some(_), .. })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.target {
            Target::Url { token: Some(token), .. } => request.bearer_auth(token.expose()),
            Target::Url { token: None, .. } | Target::DataDir(_) => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let answer = request.send().await.map_err(|source| self.failed(source))?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        if status == StatusCode::UNAUTHORIZED && !self.shows_token() {
            return Err(ClientError::TokenNeeded);
        }
        let body = answer.text().await.unwrap_or_default();
        Err(ClientError::Status { status, message: refusal(&body) })
    }

    fn failed(&self, error: reqwest::Error) -> ClientError {
        let cause = root_cause(&error);
        match &self.target {
            Target::DataDir(dir) if error.is_connect() => ClientError::NoServer { dir: dir.clone() },
            Target::DataDir(dir) => ClientError::Unreachable { at: dir.display().to_string(), cause },
            Target::Url { base, .. } => match tls_advice(&error) {
                Some(advice) => ClientError::Tls { at: base.clone(), cause, advice },
                None => ClientError::Unreachable { at: base.clone(), cause },
            },
        }
    }
}

/// What to do about an error of TLS; `None` for any other error.
fn tls_advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return Some("it speaks no plain HTTP, so ask by https://");
        }
        // What an IO error wraps is not its source.
        let mut io = error.downcast_ref::<std::io::Error>()?;
        while let Some(inner) = io.get_ref()?.downcast_ref() {
            io = inner;
        }
        match io.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidMessage(_) => Some("it speaks no TLS, so ask by http://"),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Some("ask by a name that stands in its certificate"),
            rustls::Error::InvalidCertificate(_) => {
                Some("name the PEM file of the authority that you trust with --ca-file")
            }
            _ => None,
        }
    })
}

/// The innermost cause: the layers above it only name themselves.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn base_address(text: &str) -> Result<String, ClientError> {
    let wrong = |why: &str| {
        Err(ClientError::Setup(format!("the server's address {why}: expected http://host:port or https://…")))
    };
    let Ok(url) = reqwest::Url::parse(text) else { return wrong("is no URL") };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("has another scheme");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds credentials, which belong into --token-file");
    }
    if url.path() != "/" || url.query().is_some() {
        return wrong("has a path or a query");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let read = |e: &dyn std::fmt::Display| {
        ClientError::Setup(format!("cannot read the certificates in {}: {e}", path.display()))
    };
    let pem = std::fs::read(path).map_err(|e| read(&e))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| read(&e))?;
    if certificates.is_empty() { Err(read(&"it holds none")) } else { Ok(certificates) }
}

/// What a refusal says, from whichever of the server's shapes it has.
fn refusal(body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let found =
        parsed.pointer("/error/message").or_else(|| parsed.get("error")).or_else(|| parsed.get("message"));
    let text = found.and_then(Value::as_str).unwrap_or(body);
    text.chars().take(SHOWN_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        assert_eq!(base_address("http://127.0.0.1:1876/").ok().as_deref(), Some("http://127.0.0.1:1876"));
        for text in ["127.0.0.1:1876", "ftp://x", "http://u:p@x", "http://x/path", "http://x/?q", ""] {
            assert!(base_address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        assert_eq!(refusal(r#"{"error":{"code":-32009,"message":"shutting down"}}"#), "shutting down");
        assert_eq!(refusal(r#"{"error":"forbidden"}"#), "forbidden");
        assert_eq!(refusal("no JSON"), "no JSON");
    }
}
