//! The configuration keys `server:`, `auth:` and `metrics:`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Role;
use crate::ids::{AgentId, TokenName, TownId};
use crate::units::{Bytes, Period};

/// `server:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address and port to listen on.
    pub listen: SocketAddr,
    /// Names by which clients may call it, besides loopback and the bound address: `name` or `name:port`.
    pub allowed_hosts: Vec<String>,
    /// The certificate, without which only loopback is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Serves beyond loopback without TLS: only behind a proxy or in a private network.
    pub insecure_plaintext: bool,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at once; 1 to 100,000.
    pub connections_max: usize,
    /// Bytes of a request's body after decompression; 1 KiB to 64 MiB.
    pub body_bytes_max: Bytes,
    /// Calls in one JSON-RPC batch; 1 to 1,000.
    pub batch_max: usize,
    /// How long a client may take to send its header; 100 ms to 60 s.
    pub header_timeout: Period,
    /// How long a client may take to send its body; 100 ms to 10 min.
    pub body_timeout: Period,
    /// How long a WebSocket may be silent, pings included; 1 s to 1 h.
    pub idle_timeout: Period,
    /// Requests per second and token, with bursts of twice as many; 0 is no limit.
    pub requests_per_second: u32,
    /// How long requests may go on after SIGTERM; 0 s to 1 h.
    pub shutdown_grace: Period,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1876)),
            allowed_hosts: Vec::new(),
            tls: None,
            insecure_plaintext: false,
            trusted_proxies: Vec::new(),
            connections_max: 10_000,
            body_bytes_max: Bytes(2 << 20),
            batch_max: 100,
            header_timeout: Period::from_secs(10),
            body_timeout: Period::from_secs(30),
            idle_timeout: Period::from_secs(90),
            requests_per_second: 0,
            shutdown_grace: Period::from_secs(10),
        }
    }
}

/// `server.tls:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM certificates, the server's own first.
    pub cert_file: PathBuf,
    /// The PEM private key.
    pub key_file: PathBuf,
}

/// `auth:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Tokens that stand in the configuration, by their hash; more are made with `plimsoll token new`.
    pub tokens: Vec<TokenConfig>,
    /// Failed attempts per minute and address before it has to wait (a right token passes); 1 to 10,000.
    pub failures_per_minute: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { tokens: Vec::new(), failures_per_minute: 20 }
    }
}

/// One entry of `auth.tokens:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// What the audit shows.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
    /// The token's SHA-256 in hexadecimal, from `plimsoll token hash`.
    pub sha256: String,
    /// For role `agent`: the town it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub town: Option<TownId>,
    /// For role `agent`: the agent it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
}

/// `metrics:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Whether `/metrics` needs no token although tokens exist.
    pub public: bool,
}
