//! The API shell: who may call what, over which road, within which limits.
//!
//! Authenticates, parses, bounds, answers. It decides nothing about agents. Start at the route table.

mod config;
mod role;

pub use config::{AuthConfig, Config, MetricsConfig, TlsConfig, TokenConfig};
pub use role::Role;
