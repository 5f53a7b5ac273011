//! The API shell: who may call what, over which road, within which limits.
//!
//! Authenticates, parses, bounds, answers. It decides nothing about agents. Start at the route table (`routes.rs`) for
//! HTTP and at the list of methods (`rpc/mod.rs`) for JSON-RPC; `server.rs` lets connections in, `filters.rs` brings a
//! request to its route, `guard.rs` asks who it is.

mod access;
mod auth;
mod body;
mod config;
mod connection;
mod descriptors;
mod filters;
#[cfg(test)]
mod fixture;
mod guard;
mod hosts;
pub mod jsonrpc;
pub mod metrics;
mod openai;
mod request;
mod response;
mod rest;
mod role;
mod routes;
mod rpc;
mod server;
mod stall;
mod state;
mod stream;
mod tls;
mod towns;
mod withheld;
mod ws;

pub(crate) use auth::NewToken;
pub use auth::{InvalidTokens, TokenBook};
pub use config::{AuthConfig, Config, MetricsConfig, TlsConfig, TokenConfig};
pub use role::Role;
pub(crate) use rpc::TokenList;
pub use server::{BindError, Server, ServerParts};
pub use tls::{TlsError, check_tls};

/// Whether plimsoll can take requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// Folds are being rebuilt.
    Recovering,
    /// Requests are taken.
    Serving,
    /// Nothing new is taken; what runs may finish.
    Draining,
}
