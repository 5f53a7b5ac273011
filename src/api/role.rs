//! What a token may do.

use serde::{Deserialize, Serialize};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also sends and controls, and sees what agents said and printed.
    Operator,
    /// Reports on its own dispatches only.
    Agent,
    /// Only posts alerts and telemetry.
    Ingest,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Agent, Self::Ingest];
}
