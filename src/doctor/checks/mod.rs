//! The checks: each looks at the scene and says what it saw and what to do.

pub(super) mod clock;
pub(super) mod data_dir;
pub(super) mod exposure;
pub(super) mod files;
pub(super) mod journal;
pub(super) mod otlp;
pub(super) mod port;
pub(super) mod providers;

/// What checks say that need a configuration where there is none.
const NO_CONFIGURATION: &str = "the configuration cannot be used, see above";
