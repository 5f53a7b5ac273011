//! Who was told what: one thing is told once when it begins and once when it ends, and not again within an hour. What
//! begins again after its end was told is told at once: nobody is left to think that it is over.
//!
//! Pure: the time is an argument. What else changes within an hour, there and back, is kept quiet; if it is not as it was
//! told when the hour is over, that is told then. Start at [`Told::hear`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::alarm::{Alarm, Phase};
use crate::ids::Seq;
use crate::limits::{NOTIFY_KEYS_MAX, NOTIFY_REPEAT_AFTER};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Told {
    things: BTreeMap<String, Thing>,
    /// When something is due next: asked far more often than anything is heard.
    next: Option<Duration>,
}

#[derive(Debug)]
struct Thing {
    /// Until when it is not begun anew.
    until: Duration,
    /// What was told last.
    last: Phase,
    /// Whether its end was told, and is not told again before that.
    ended: bool,
    /// What became of it meanwhile.
    held: Option<Alarm>,
}

impl Thing {
    fn new(phase: Phase, now: Duration) -> Self {
        Self { until: now + NOTIFY_REPEAT_AFTER, last: phase, ended: phase == Phase::Resolved, held: None }
    }
}

impl Told {
    /// Takes an alarm in, and gives it back if it is to be told now.
    pub(super) fn hear(&mut self, alarm: Alarm, now: Duration) -> Option<Alarm> {
        let told = self.weigh(alarm, now);
        self.look_ahead();
        told
    }

    /// What was kept quiet and is to be told now.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Alarm> {
        let mut due = Vec::new();
        self.things.retain(|_, thing| {
            if now < thing.until {
                return true;
            }
            let Some(alarm) = thing.held.take() else { return false };
            *thing = Thing::new(alarm.phase, now);
            due.push(alarm);
            true
        });
        self.look_ahead();
        due
    }

    /// The first record of which something is kept quiet for a while.
    pub(super) fn held(&self) -> Option<Seq> {
        self.things.values().filter_map(|thing| Some(thing.held.as_ref()?.seq)).min()
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }

    fn weigh(&mut self, alarm: Alarm, now: Duration) -> Option<Alarm> {
        let (phase, key) = (alarm.phase, alarm.key.clone());
        match self.things.get_mut(&key).filter(|thing| now < thing.until) {
            // An earlier life told of its beginning, or nobody did: it may begin anew at once.
            None if phase == Phase::Resolved => {
                self.things.remove(&key);
                Some(alarm)
            }
            None => {
                self.make_room(now);
                self.things.insert(key, Thing::new(phase, now));
                Some(alarm)
            }
            Some(thing) if thing.last == phase => {
                thing.held = None;
                None
            }
            Some(thing) if phase == Phase::Opened => {
                *thing = Thing { ended: true, ..Thing::new(phase, now) };
                Some(alarm)
            }
            Some(thing) if phase == Phase::Resolved && !thing.ended => {
                (thing.last, thing.ended, thing.held) = (phase, true, None);
                Some(alarm)
            }
            Some(thing) => {
                thing.held = Some(alarm);
                None
            }
        }
    }

    fn look_ahead(&mut self) {
        let held = self.things.values().filter(|thing| thing.held.is_some());
        self.next = held.map(|thing| thing.until).min();
    }

    /// Forgets what is over, and then what was told first: it may be told twice.
    fn make_room(&mut self, now: Duration) {
        if self.things.len() < NOTIFY_KEYS_MAX {
            return;
        }
        self.things.retain(|_, thing| now < thing.until || thing.held.is_some());
        while self.things.len() >= NOTIFY_KEYS_MAX {
            let oldest = self.things.iter().min_by_key(|(_, thing)| thing.until);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            self.things.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::alarm::{About, AlarmKind, Level};

    const MINUTE: Duration = Duration::from_secs(60);

    fn alarm(key: &str, phase: Phase, seq: u64) -> Alarm {
        Alarm {
            kind: AlarmKind::Violation,
            phase,
            key: key.to_owned(),
            level: Level::Critical,
            about: About::default(),
            title: String::new(),
            facts: BTreeMap::new(),
            seq: Seq(seq),
            time: crate::clock::Timestamp::default(),
        }
    }

    /// Which of these, each at its minute, are told at once.
    fn heard(told: &mut Told, story: &[(u32, Phase)]) -> Vec<u32> {
        let at = |(minute, phase): &(u32, Phase)| {
            told.hear(alarm("a", *phase, u64::from(*minute)), *minute * MINUTE).map(|_| *minute)
        };
        story.iter().filter_map(at).collect()
    }

    use Phase::{Opened, Resolved};

    #[test]
    fn an_episode_is_told_once_when_it_opens_and_once_when_it_ends() {
        let mut told = Told::default();
        assert_eq!(heard(&mut told, &[(0, Opened), (1, Opened), (2, Resolved), (3, Resolved)]), [0, 2]);
        assert_eq!(told.next(), None);
    }

    #[test]
    fn what_opens_again_after_its_end_was_told_is_told_at_once() {
        let mut told = Told::default();
        let story = [(0, Opened), (1, Resolved), (5, Opened), (6, Resolved), (7, Opened)];
        assert_eq!(heard(&mut told, &story), [0, 1, 5]);
        assert_eq!(told.next(), None, "it is as it was told last");
        assert_eq!(told.due(65 * MINUTE), []);
        assert_eq!(told.things.len(), 0);
    }

    #[test]
    fn what_flaps_and_ends_is_told_to_have_ended_once_the_hour_is_over() {
        let mut told = Told::default();
        let story = [(0, Opened), (1, Resolved), (5, Opened), (6, Resolved), (7, Opened), (8, Resolved)];
        assert_eq!(heard(&mut told, &story), [0, 1, 5]);
        assert_eq!(told.next(), Some(65 * MINUTE));
        assert_eq!(told.due(64 * MINUTE), []);
        let due: Vec<u64> = told.due(65 * MINUTE).iter().map(|alarm| alarm.seq.0).collect();
        assert_eq!(due, [8]);
        assert_eq!(heard(&mut told, &[(66, Opened), (67, Resolved)]), [66]);
    }

    #[test]
    fn after_an_hour_it_is_news_again() {
        assert_eq!(heard(&mut Told::default(), &[(0, Opened), (59, Opened), (60, Opened)]), [0, 60]);
    }

    #[test]
    fn an_end_whose_beginning_an_earlier_life_told_is_told_and_holds_back_nothing() {
        let story = [(0, Resolved), (1, Opened), (2, Resolved), (3, Opened)];
        assert_eq!(heard(&mut Told::default(), &story), [0, 1, 2, 3]);
    }

    #[test]
    fn a_full_memory_forgets_what_was_told_first() {
        let mut told = Told::default();
        for number in 0..=NOTIFY_KEYS_MAX as u64 {
            let now = Duration::from_millis(number);
            assert!(told.hear(alarm(&number.to_string(), Opened, number), now).is_some());
        }
        assert_eq!(told.things.len(), NOTIFY_KEYS_MAX);
        assert!(!told.things.contains_key("0") && told.things.contains_key("1"));
    }
}
