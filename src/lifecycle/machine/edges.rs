//! The states of an instance, and every way from one to another.

use serde::{Deserialize, Serialize};

/// What an instance does, as people see it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing of it runs.
    Cold,
    /// It was told to start, and is not ready.
    Starting,
    /// It answers requests.
    Ready,
    /// It is up, and nobody asks.
    Idle,
    /// It was told to stop.
    Stopping,
    /// It failed, and is not tried again before its time.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Cold, Self::Starting, Self::Ready, Self::Idle, Self::Stopping, Self::Failed];

    /// The name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Idle => "idle",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

/// Every legal edge.
pub const EDGES: &[(State, State)] = {
    use State::{Cold, Failed, Idle, Ready, Starting, Stopping};
    &[
        (Cold, Starting),
        // An earlier plimsoll left it running.
        (Cold, Idle),
        (Starting, Ready),
        (Starting, Idle),
        (Starting, Failed),
        (Starting, Stopping),
        (Ready, Idle),
        (Ready, Stopping),
        (Ready, Failed),
        // It ended by itself after a good while: nothing is wrong with starting it again.
        (Ready, Cold),
        (Ready, Starting),
        (Idle, Ready),
        (Idle, Stopping),
        (Idle, Failed),
        (Idle, Cold),
        (Idle, Starting),
        (Stopping, Cold),
        // Someone came meanwhile.
        (Stopping, Starting),
        (Stopping, Failed),
        (Failed, Starting),
        // An earlier plimsoll left it running, which the engine could not tell before.
        (Failed, Idle),
        // What did not stop is stopped again.
        (Failed, Stopping),
        (Failed, Cold),
    ]
};

/// A way that is not in the table is a bug.
pub(super) fn assert_legal(from: State, to: State) {
    assert!(EDGES.contains(&(from, to)), "an instance never goes from {from:?} to {to:?}");
}
