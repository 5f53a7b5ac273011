//! `kind: exec`: a program that is run once per message, its message on standard input, JSON lines out.

mod config;

pub use config::{Dialect, ExecConfig, MessageRoad};
