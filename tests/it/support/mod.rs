//! What several areas' tests need: a real server, real tools.

pub(crate) mod server;
