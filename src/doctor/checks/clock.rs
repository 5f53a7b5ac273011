//! Is the clock sane, as far as this machine can tell by itself?

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::Verdict;
use super::super::scene::{Scene, Store};
use crate::clock::Timestamp;

/// A program is built on one machine and unpacked on another; their clocks may differ by this much.
const BUILD_SKEW_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Time servers step a clock by less than this in normal operation.
const STEP_MAX: Duration = Duration::from_secs(5);

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let reached = match &scene.store {
        Store::Seen(outline) => outline.reached,
        Store::Unknown | Store::Absent | Store::Served(_) | Store::Unusable(_) | Store::Empty => None,
    };
    ready(look(scene.clock.now(), scene.program, reached)).boxed()
}

fn look(now: Timestamp, program: Option<Timestamp>, reached: Option<Timestamp>) -> Verdict {
    let after = |moment: Option<Timestamp>, slack| moment.filter(|moment| moment.since(now) > slack);
    if let Some(written) = after(program, BUILD_SKEW_MAX) {
        return Verdict::fail(
            format!("it shows {now}, and the file of this program was written at {written}"),
            "set the clock, and keep it right with a time server",
        );
    }
    if let Some(reached) = after(reached, STEP_MAX) {
        return Verdict::warn(
            format!("it shows {now}, and the journal was written at {reached}: it was set back"),
            "set the clock; until it has caught up, records are stamped with the later time",
        );
    }
    Verdict::pass(now.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_clock_before_the_program_fails_and_one_behind_the_journal_warns() {
        let day = 86_400_000;
        let at = Timestamp::from_millis;
        assert_eq!(look(at(day), None, None).status, Status::Pass);
        assert_eq!(look(at(day), Some(at(2 * day)), None).status, Status::Pass);
        assert_eq!(look(at(day), Some(at(2 * day + 1)), None).status, Status::Fail);
        assert_eq!(look(at(day), Some(at(0)), Some(at(day + 5_000))).status, Status::Pass);
        assert_eq!(look(at(day), Some(at(0)), Some(at(day + 5_001))).status, Status::Warn);
    }
}
