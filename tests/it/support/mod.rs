//! What several areas' tests need: a real server, real tools.

#![expect(dead_code, reason = "each area uses its own part")]

pub(crate) mod certificates;
pub(crate) mod child;
pub(crate) mod exposition;
pub(crate) mod gate;
pub(crate) mod http;
pub(crate) mod instances;
pub(crate) mod litellm;
pub(crate) mod prometheus;
pub(crate) mod receiver;
pub(crate) mod rotel;
pub(crate) mod server;
pub(crate) mod subscriber;
pub(crate) mod tools;
pub(crate) mod upstream;
