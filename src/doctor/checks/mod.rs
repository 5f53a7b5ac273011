//! The checks: each looks at the scene and says what it saw and what to do.

pub(crate) mod clock;
pub(crate) mod data_dir;
pub(crate) mod engine;
pub(crate) mod exposure;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod journal;
pub(crate) mod otlp;
pub(crate) mod port;
pub(crate) mod processes;
pub(crate) mod programs;
pub(crate) mod providers;
pub(crate) mod webhooks;

/// What checks say that need a configuration where there is none.
const NO_CONFIGURATION: &str = "the configuration cannot be used, see above";
