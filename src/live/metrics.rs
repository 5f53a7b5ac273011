//! Metrics of the live view: each is stepped by the one function that records its fact.

use crate::telemetry::metric::Definition;

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[];
