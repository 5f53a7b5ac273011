//! What several areas' tests need: a real server, real tools.

pub(crate) mod exposition;
pub(crate) mod server;
pub(crate) mod tools;
