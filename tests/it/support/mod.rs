//! What several areas' tests need: a real server, real tools.

#![allow(dead_code, reason = "each area uses its own part")]

pub(crate) mod exposition;
pub(crate) mod prometheus;
pub(crate) mod server;
pub(crate) mod tools;
