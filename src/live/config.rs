//! The configuration key `live:`.

use serde::{Deserialize, Serialize};

/// `live:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Model calls kept; 1 to 100,000.
    pub model_calls: usize,
    /// Events kept; 1 to 100,000.
    pub events: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { model_calls: 200, events: 500 }
    }
}
