//! Days as people live them: from midnight to midnight in a time zone, 23 to 25 hours where clocks are changed.

use jiff::tz::TimeZone;

use crate::clock::Timestamp;

/// A day of UTC, for what no calendar reaches.
const DAY_MS: u64 = 86_400_000;

/// Where days begin.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Zone(TimeZone);

/// One day: `end` is the start of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Day {
    pub(in crate::gateway) start: Timestamp,
    pub(in crate::gateway) end: Timestamp,
}

impl Zone {
    /// The zone of an IANA name; `None` if there is none.
    pub(in crate::gateway) fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Self)
    }

    /// The day that a moment belongs to.
    pub(in crate::gateway) fn day_of(&self, at: Timestamp) -> Day {
        self.calendar_day(at).unwrap_or_else(|| {
            let start = Timestamp::from_millis(at.as_millis() / DAY_MS * DAY_MS);
            Day { start, end: start.after(std::time::Duration::from_millis(DAY_MS)) }
        })
    }

    /// Its date, such as `2026-11-21`.
    pub(in crate::gateway) fn date_of(&self, at: Timestamp) -> String {
        let date = moment(at).map(|at| self.0.to_datetime(at).date().to_string());
        date.unwrap_or_else(|| at.to_string())
    }

    fn calendar_day(&self, at: Timestamp) -> Option<Day> {
        let now = moment(at)?.to_zoned(self.0.clone());
        let start = now.start_of_day().ok()?.timestamp();
        let end = now.date().tomorrow().ok()?.to_zoned(self.0.clone()).ok()?.timestamp();
        let read = |edge: jiff::Timestamp| u64::try_from(edge.as_millisecond()).ok();
        Some(Day { start: Timestamp::from_millis(read(start)?), end: Timestamp::from_millis(read(end)?) })
    }
}

impl Day {
    pub(in crate::gateway) fn holds(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

fn moment(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.as_millis()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).expect("valid")
    }

    fn day(zone: &str, of: &str) -> (String, String, u64) {
        let Day { start, end } = Zone::named(zone).expect("it exists").day_of(at(of));
        (start.to_string(), end.to_string(), end.since(start).as_secs() / 3_600)
    }

    #[test]
    fn a_day_has_23_or_25_hours_where_clocks_are_changed() {
        for (zone, of, start, end, hours) in [
            ("UTC", "2026-11-21T23:59:59.999Z", "2026-11-21T00:00:00.000Z", "2026-11-22T00:00:00.000Z", 24),
            ("UTC", "2026-11-22T00:00:00Z", "2026-11-22T00:00:00.000Z", "2026-11-23T00:00:00.000Z", 24),
            (
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00.000Z",
                "2026-03-29T22:00:00.000Z",
                23,
            ),
            (
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00.000Z",
                "2026-10-25T23:00:00.000Z",
                25,
            ),
            (
                "Asia/Kathmandu",
                "2026-11-21T18:15:00Z",
                "2026-11-21T18:15:00.000Z",
                "2026-11-22T18:15:00.000Z",
                24,
            ),
            // There midnight itself is skipped: the day begins at one o'clock.
            (
                "America/Santiago",
                "2026-09-06T12:00:00Z",
                "2026-09-06T04:00:00.000Z",
                "2026-09-07T03:00:00.000Z",
                23,
            ),
        ] {
            assert_eq!(day(zone, of), (start.to_owned(), end.to_owned(), hours), "{zone} {of}");
        }
    }

    #[test]
    fn every_moment_belongs_to_the_day_that_holds_it() {
        let zone = Zone::named("America/New_York").expect("it exists");
        for hour in 0..9_000 {
            let at = Timestamp::from_millis(1_767_225_600_000 + hour * 3_599_000);
            let day = zone.day_of(at);
            assert!(day.holds(at) && !day.holds(day.end), "{at}");
            assert_eq!(zone.day_of(day.end).start, day.end, "{at}");
        }
    }

    #[test]
    fn times_out_of_every_calendar_have_a_day_still() {
        let zone = Zone::named("UTC").expect("it exists");
        assert!(zone.day_of(Timestamp::from_millis(u64::MAX - DAY_MS)).start.as_millis() > 0);
        assert_eq!(zone.day_of(Timestamp::default()).start, Timestamp::default());
        assert!(Zone::named("Mars/Olympus").is_none());
    }
}
