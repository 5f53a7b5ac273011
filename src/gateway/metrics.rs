//! Metrics of the gateway.

use crate::telemetry::metric::Definition;

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[];
