//! `kind: exec`: a program that is run once per message, its message on standard input, JSON lines out.

mod config;
#[expect(dead_code, reason = "the provider that runs them is being written")]
mod dialect;

pub use config::{Dialect, ExecConfig, MessageRoad};
