//! What can go wrong in the demo's town on purpose, so that the alert on it is seen to fire.

use std::time::Duration;

use super::people::PACE;
use crate::reconciler::Strain;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// Every tick is slow.
    Tick,
    /// Ticks come so rarely that events wait.
    Queue,
    /// The state of the town is damaged now and then, and mended.
    Invariant,
}

/// How long a slow tick waits: over the half second at which its alert begins.
const SLOW: Duration = Duration::from_millis(800);

/// Between two ticks where events wait.
const RARELY: Duration = Duration::from_secs(30 * 60);

/// Between two deeds of people there: in 30 minutes they are a third of what may wait for a town.
const HASTE: Duration = Duration::from_millis(500);

impl Breach {
    /// What it does to ticks.
    #[must_use]
    pub fn strain(self) -> Strain {
        match self {
            Self::Tick => Strain { tick: SLOW, pause: Duration::ZERO },
            Self::Queue => Strain { tick: Duration::ZERO, pause: RARELY },
            Self::Invariant => Strain::default(),
        }
    }

    /// How often people do something with it.
    #[must_use]
    pub fn pace(self) -> Duration {
        match self {
            Self::Queue => HASTE,
            // A town with slow ticks gets less done.
            Self::Tick => 2 * PACE,
            Self::Invariant => PACE,
        }
    }

    /// The alert that it makes fire.
    #[must_use]
    pub fn alert(self) -> &'static str {
        match self {
            Self::Tick => "PlimsollTickSlow",
            Self::Queue => "PlimsollPendingEventsHigh",
            Self::Invariant => "PlimsollInvariantViolated",
        }
    }

    /// How long the alert takes, with a scrape every 15 seconds.
    #[must_use]
    pub fn fires_after(self) -> &'static str {
        match self {
            Self::Tick => "about two minutes",
            Self::Queue => "about four minutes",
            Self::Invariant => "about a minute",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TOWN_PENDING_MAX;

    #[test]
    fn what_waits_for_a_town_that_ticks_rarely_is_never_refused() {
        let deeds = RARELY.as_secs_f64() / HASTE.as_secs_f64();
        assert!(
            2.0 * deeds < TOWN_PENDING_MAX as f64,
            "{deeds} deeds, at most five events each, most of them one"
        );
    }
}
