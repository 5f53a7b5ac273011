//! What goes wrong in the demo on purpose, and when: it begins, ends, and comes again, so that alerts are seen to fire and
//! to resolve. Pure; [`Drama`](super::Drama) carries it out.

use std::time::Duration;

use super::people::PACE;
use crate::reconciler::Strain;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// Every tick is slow.
    Tick,
    /// No tick begins, so that events wait; and an agent is asked for more than it can do, so that requests wait.
    Queue,
    /// The state of the town is damaged now and then, and mended.
    Invariant,
}

/// All that can go wrong.
pub const BREACHES: [Breach; 3] = [Breach::Tick, Breach::Queue, Breach::Invariant];

/// How long a slow tick waits: over the half second at which its alert begins.
const SLOW: Duration = Duration::from_millis(800);

/// Between two deeds of people where events wait: past the 50 of their alert within half a minute.
const HASTE: Duration = Duration::from_millis(500);

/// Between two damages of the town.
const DAMAGE_EVERY: Duration = Duration::from_secs(60);

/// When the first breach begins where nothing is said: a Prometheus that scrapes every 15 s saw everything whole by then.
const BEGINS_AFTER: Duration = Duration::from_secs(30);

/// The longest that a breach may last: what waits for the town by then is far from what it refuses.
pub const LASTS_MAX: Duration = Duration::from_secs(30 * 60);

impl Breach {
    /// What it does to ticks.
    #[must_use]
    pub fn strain(self) -> Strain {
        match self {
            Self::Tick => Strain { tick: SLOW, held: false },
            Self::Queue => Strain { tick: Duration::ZERO, held: true },
            Self::Invariant => Strain::default(),
        }
    }

    /// The alerts that are about it.
    #[must_use]
    pub fn alerts(self) -> &'static [&'static str] {
        match self {
            Self::Tick => &["PlimsollTickSlow"],
            Self::Queue => &["PlimsollPendingEventsHigh", "PlimsollQueueDepthHigh"],
            Self::Invariant => &["PlimsollInvariantViolated"],
        }
    }

    /// How long its alerts take to fire, with a scrape every 15 seconds.
    #[must_use]
    pub fn fires_after(self) -> &'static str {
        match self {
            Self::Tick => "two to six minutes",
            Self::Queue => "about four minutes",
            Self::Invariant => "about a minute",
        }
    }

    /// How long it lasts where nothing is said: until its alerts fire, and two minutes more. Slow ticks have to be a tenth of
    /// those of eleven minutes, of which a town that was well made 300 a minute. Three damages are enough.
    fn lasts(self) -> Duration {
        match self {
            Self::Tick => Duration::from_secs(9 * 60),
            Self::Queue => Duration::from_secs(6 * 60),
            Self::Invariant => Duration::from_secs(3 * 60),
        }
    }

    /// How long all is well afterwards where nothing is said: until its alerts resolved, and two minutes more. That on slow
    /// ticks looks back six minutes and keeps firing for two; that on invariants ten and five.
    fn heals_within(self) -> Duration {
        match self {
            Self::Tick => Duration::from_secs(10 * 60),
            Self::Queue => Duration::from_secs(4 * 60),
            Self::Invariant => Duration::from_secs(17 * 60),
        }
    }
}

/// What goes wrong, one after the other, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// In this order; none where all goes well for ever.
    pub breaches: Vec<Breach>,
    /// When the first begins; 30 s where nothing is said.
    pub first: Option<Duration>,
    /// How long each lasts, up to [`LASTS_MAX`]; as long as its alerts need where nothing is said.
    pub lasts: Option<Duration>,
    /// How long all is well after each; as long as its alerts need where nothing is said.
    pub pause: Option<Duration>,
    /// What all of these times, and those within a breach, are divided by; at least 1.
    pub divisor: u32,
}

/// A stretch of time in which one thing goes wrong, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// What goes wrong.
    pub breach: Option<Breach>,
    /// How long this is so.
    pub lasts: Duration,
    /// How often people do something, on average.
    pub pace: Duration,
    /// How often the town is damaged, where it is.
    pub damage_every: Duration,
}

impl Cycle {
    /// Where all goes well for ever.
    #[must_use]
    pub fn calm() -> Self {
        Self { breaches: Vec::new(), first: None, lasts: None, pause: None, divisor: 1 }
    }

    /// What happens, without an end.
    pub fn scenes(&self) -> impl Iterator<Item = Scene> {
        let first = if self.breaches.is_empty() {
            Scene { lasts: Duration::MAX, ..self.scene(None, Duration::ZERO) }
        } else {
            self.scene(None, self.first.unwrap_or(BEGINS_AFTER))
        };
        let again = self.breaches.iter().flat_map(|breach| {
            let lasts = self.lasts.unwrap_or(breach.lasts());
            let pause = self.pause.unwrap_or(breach.heals_within());
            [self.scene(Some(*breach), lasts), self.scene(None, pause)]
        });
        std::iter::once(first).chain(again.cycle())
    }

    fn scene(&self, breach: Option<Breach>, lasts: Duration) -> Scene {
        let pace = match breach {
            Some(Breach::Queue) => HASTE / self.divisor,
            // A town with slow ticks gets less done.
            Some(Breach::Tick) => 2 * PACE,
            Some(Breach::Invariant) | None => PACE,
        };
        let damage_every = DAMAGE_EVERY / self.divisor;
        Scene { breach, lasts: lasts / self.divisor, pace, damage_every }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TOWN_PENDING_MAX;

    fn seconds(scenes: &[Scene]) -> Vec<(Option<Breach>, u64)> {
        scenes.iter().map(|scene| (scene.breach, scene.lasts.as_secs())).collect()
    }

    #[test]
    fn what_waits_for_a_town_that_does_not_tick_is_never_refused() {
        let deeds = LASTS_MAX.as_secs_f64() / HASTE.as_secs_f64();
        assert!(
            2.0 * deeds < TOWN_PENDING_MAX as f64,
            "{deeds} deeds, at most five events each, most of them one"
        );
        for breach in BREACHES {
            assert!(breach.lasts() <= LASTS_MAX, "{breach:?}");
        }
    }

    #[test]
    fn each_breach_comes_in_turn_ends_and_comes_again() {
        let cycle = Cycle { breaches: BREACHES.to_vec(), ..Cycle::calm() };
        let scenes: Vec<_> = cycle.scenes().take(8).collect();
        let [tick, queue, invariant] = BREACHES.map(Some);
        assert_eq!(
            seconds(&scenes),
            [
                (None, 30),
                (tick, 540),
                (None, 600),
                (queue, 360),
                (None, 240),
                (invariant, 180),
                (None, 1020),
                (tick, 540)
            ]
        );
    }

    #[test]
    fn all_times_can_be_said_and_divided() {
        let said = |seconds| Some(Duration::from_secs(seconds));
        let cycle = Cycle {
            breaches: vec![Breach::Queue],
            first: said(60),
            lasts: said(600),
            pause: said(300),
            divisor: 30,
        };
        let scenes: Vec<_> = cycle.scenes().take(3).collect();
        assert_eq!(seconds(&scenes), [(None, 2), (Some(Breach::Queue), 20), (None, 10)]);
        assert_eq!(scenes[1].pace, HASTE / 30);
        assert_eq!(scenes[1].damage_every, Duration::from_secs(2));
        assert_eq!(scenes[2].pace, PACE, "ordinary people are not in more of a hurry");
    }

    #[test]
    fn where_nothing_goes_wrong_it_never_does() {
        let calm: Vec<_> = Cycle::calm().scenes().collect();
        assert_eq!(seconds(&calm), [(None, u64::MAX)]);
    }
}
