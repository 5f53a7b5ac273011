//! Providers: what an agent's answer is made by. One trait, one file per kind.
//!
//! A provider knows one wire protocol and nothing of lanes, sessions or who asked. Start at [`Provider`].

mod config;

pub use config::{Config, EchoConfig, OpenAiConfig, Price};
