//! Is the clock sane?

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::Verdict;
use super::super::scene::{Scene, Store};
use crate::clock::Timestamp;

/// 2026-11-01: no clock that is right shows an earlier day to this program.
const WRITTEN: Timestamp = Timestamp::from_millis(1_793_491_200_000);

/// Time servers step a clock by less than this in normal operation.
const STEP_MAX: Duration = Duration::from_secs(5);

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let newest = match &scene.store {
        Store::Readable { newest, .. } => *newest,
        Store::Unknown
        | Store::Absent
        | Store::Served
        | Store::Unusable(_)
        | Store::Empty
        | Store::Damaged(_) => None,
    };
    ready(look(scene.clock.now(), newest)).boxed()
}

fn look(now: Timestamp, newest: Option<Timestamp>) -> Verdict {
    let advice = "set the clock, and keep it right with a time server";
    if now < WRITTEN {
        return Verdict::fail(format!("it shows {now}, before this program was written"), advice);
    }
    match newest {
        Some(newest) if newest.since(now) > STEP_MAX => Verdict::warn(
            format!("it shows {now}, the journal's newest record is of {newest}: it was set back"),
            "set the clock; until it has caught up, records are stamped with the later time",
        ),
        Some(_) | None => Verdict::pass(now.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_clock_before_the_program_fails_and_one_behind_the_journal_warns() {
        let at = |millis| Timestamp::from_millis(WRITTEN.as_millis() + millis);
        assert_eq!(look(Timestamp::from_millis(0), None).status, Status::Fail);
        assert_eq!(look(at(0), None).status, Status::Pass);
        assert_eq!(look(at(0), Some(at(5_000))).status, Status::Pass);
        assert_eq!(look(at(0), Some(at(5_001))).status, Status::Warn);
    }
}
