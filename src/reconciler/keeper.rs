//! Keeps one town turning: on a signal and on a timer, never two ticks at once.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cadence::{BUSY, Cadence};
use super::config::TownConfig;
use super::opening;
use super::refold;
use super::status::{CadenceView, Counted, FailingTicks, LastTick};
use super::turn::{Turn, Turned};
use crate::clock::{Clock, Timestamp};
use crate::limits::{JOURNAL_APPEND_WAIT, TOWN_STOP_WAIT, TOWN_TICK_PAUSE};
use crate::town::plan::Report;

/// The invariant whose episode stands for a town that was put aside.
pub(super) const STRANDED: u8 = 9;
/// How often a town looks whether agents that it waits for have left another.
const MOVE_LOOK: Duration = Duration::from_millis(50);
/// How long it does: the other one stops what they do first.
const MOVE_WAIT: Duration = TOWN_STOP_WAIT.saturating_add(JOURNAL_APPEND_WAIT);

/// What is known of a town's ticks. A std mutex suffices: a hold is a copy.
#[derive(Default)]
pub(super) struct Pulse(Mutex<Beat>);

#[derive(Default)]
struct Beat {
    last: Option<LastTick>,
    report: Arc<Report>,
    /// Since when one runs, on the monotonic clock.
    running: Option<Duration>,
    /// When the next one is due, on the monotonic clock.
    due: Option<Duration>,
    every: Duration,
    set_aside: Option<String>,
    /// Ticks that could not write, up to now.
    failing: Option<FailingTicks>,
    counted: Arc<Counted>,
}

impl Pulse {
    /// What was counted at the last tick.
    pub(super) fn counted(&self) -> Arc<Counted> {
        Arc::clone(&self.beat().counted)
    }

    /// The last tick, if there was one.
    pub(super) fn last(&self) -> Option<LastTick> {
        self.beat().last.clone()
    }

    /// Why each open bead waits, as the last tick saw it.
    pub(super) fn report(&self) -> Arc<Report> {
        Arc::clone(&self.beat().report)
    }

    /// Why the town does not turn, if it was put aside.
    pub(super) fn set_aside(&self) -> Option<String> {
        self.beat().set_aside.clone()
    }

    /// Why no tick can write, if none can.
    pub(super) fn failing(&self) -> Option<FailingTicks> {
        self.beat().failing.clone()
    }

    /// How long a tick runs by now, and how much the next one is late.
    pub(super) fn delays(&self, clock: &Clock) -> (Duration, Duration) {
        let (beat, now) = (self.beat(), clock.elapsed());
        let running = beat.running.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let overdue = beat.due.map_or(Duration::ZERO, |due| now.saturating_sub(due));
        (running, overdue)
    }

    pub(super) fn view(&self, clock: &Clock) -> CadenceView {
        let (running, overdue) = self.delays(clock);
        let every = self.beat().every;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        CadenceView { every_ms: ms(every), running_ms: ms(running), overdue_ms: ms(overdue) }
    }

    fn begin(&self, now: Duration) {
        let mut beat = self.beat();
        beat.running = Some(now);
        if beat.failing.is_none() {
            beat.due = None;
        }
    }

    fn end(&self, now: Duration, every: Duration, turned: Turned) {
        let mut beat = self.beat();
        (beat.running, beat.due, beat.every) = (None, Some(now + every), every);
        beat.failing = None;
        beat.last = Some(turned.tick);
        beat.report = Arc::new(turned.plan.report);
        beat.counted = Arc::new(turned.counted);
    }

    /// A tick could not write: one is due since the first such one began.
    fn fail(&self, now: Timestamp, why: String) {
        let mut beat = self.beat();
        let begun = beat.running.take();
        beat.due = beat.due.or(begun);
        let since = beat.failing.as_ref().map_or(now, |failing| failing.since);
        beat.failing = Some(FailingTicks { since, why });
    }

    /// No tick comes any more, though one is due: that, and the episode that is opened for it, is what gauges show.
    fn put_aside(&self, now: Duration, why: String) {
        let mut beat = self.beat();
        (beat.running, beat.due, beat.set_aside) = (None, Some(now), Some(why));
        *Arc::make_mut(&mut beat.counted).open.entry(STRANDED).or_default() += 1;
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the town turning until it is told to stop, or until it panics.
pub(super) async fn keep(turn: Turn, pulse: Arc<Pulse>, last_seen: Timestamp, stop: CancellationToken) {
    let town = turn.cell.id.clone();
    if let Some(cause) = turn.cell.unread() {
        let why = format!(
            "its snapshot cannot be read ({cause}), and it cannot be made anew from its events (the log says why): start the \
             plimsoll that wrote it, nothing of it is lost"
        );
        pulse.put_aside(turn.executor.pen.clock.elapsed(), why);
        return turn.tell_set_aside().await;
    }
    let kept = AssertUnwindSafe(turning(&turn, &pulse, last_seen, &stop)).catch_unwind();
    if kept.await.is_err() {
        tracing::error!(source = "reconciler", %town, "a town panicked and is put aside; the others go on");
        pulse.put_aside(
            turn.executor.pen.clock.elapsed(),
            "it panicked: this is a bug in plimsoll, its log says more; restart plimsoll to try again"
                .to_owned(),
        );
        turn.tell_set_aside().await;
    }
}

async fn turning(turn: &Turn, pulse: &Pulse, last_seen: Timestamp, stop: &CancellationToken) {
    let clock = &turn.executor.pen.clock;
    pulse.begin(clock.elapsed());
    tokio::select! {
        () = stop.cancelled() => return,
        () = begin(turn) => {}
    }
    let mut cadence = Cadence::since(last_seen);
    let mut checked = None;
    loop {
        pulse.begin(clock.elapsed());
        let begun = turn.executor.pen.journal.now();
        let (again, failed, held_up, wall) = match turn.tick(&mut cadence).await {
            Ok(turned) => {
                cadence.settle(turned.begun);
                cadence.end(turned.work);
                // What was just done may let more be done.
                let again = !turned.plan.actions.is_empty() || turned.plan.more;
                let (refused, wall) = (turned.refused, turned.tick.wall_clock_ms);
                pulse.end(clock.elapsed(), cadence.wait(), turned);
                (again, false, refused, wall)
            }
            Err(error) => {
                tracing::warn!(source = "reconciler", town = %turn.cell.id, %error, "a tick could not write: the next one tries again");
                pulse.fail(begun, error.to_string());
                (false, true, true, 0.0)
            }
        };
        let snapshots = turn.cell.snapshots();
        if !failed && checked != Some(snapshots) {
            let occasion = checked.map_or(refold::Occasion::Start, |_| refold::Occasion::Snapshot);
            checked = Some(snapshots);
            turn.executor.tasks.spawn(refold::check(Arc::clone(&turn.executor), occasion));
        }
        let pause = pause_after(Duration::from_secs_f64(wall / 1e3));
        let wait = if again { Duration::ZERO } else { cadence.wait() };
        // A journal that does not take anything is not asked at every event, nor a town that refuses its own plan.
        let pause = if held_up { BUSY } else { pause };
        let due = async {
            sleep(pause).await;
            if !held_up {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = turn.cell.told() => {}
                }
            }
            turn.strain.let_go().await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = due => {}
        }
    }
}

/// How long no tick begins after one that took so long. A town that is told much turns at most this often, and half of the
/// time; one whose journal hung for long turns again soon.
fn pause_after(wall: Duration) -> Duration {
    wall.clamp(TOWN_TICK_PAUSE, BUSY)
}

/// What has to be done before the first tick: what a restart cut is given back, and the town is what its configuration says.
async fn begin(turn: &Turn) {
    opening::give_back(&turn.executor).await;
    let (cell, pen) = (&turn.cell, &turn.executor.pen);
    // Who stood in the configuration and does no more has left.
    let kept = || TownConfig { policy: cell.drained().town.policy().clone(), agents: None };
    let config = turn.around.config.get(&cell.id).cloned().unwrap_or_else(kept);
    let began = pen.clock.elapsed();
    // The first tick of one that panicked over an event puts it aside.
    while !cell.is_broken() {
        match opening::apply(pen, cell, &config, &turn.around).await {
            Ok(awaited) if awaited.is_empty() => return,
            // Another town stops first what they do there.
            Ok(_) if pen.clock.elapsed().saturating_sub(began) < MOVE_WAIT => sleep(MOVE_LOOK).await,
            Ok(awaited) => {
                tracing::error!(source = "reconciler", town = %cell.id, ?awaited, "agents of this town are still in another: remove them there and restart plimsoll");
                return;
            }
            Err(error) => {
                tracing::error!(source = "reconciler", town = %cell.id, %error, "a town is not what the configuration says yet");
                sleep(BUSY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_followed_by_a_pause_as_long_up_to_the_cadence() {
        let pauses = |ms| pause_after(Duration::from_millis(ms)).as_millis();
        assert_eq!([0, 50, 51, 5_000, 5_001, 600_000].map(pauses), [50, 50, 51, 5_000, 5_000, 5_000]);
    }

    #[test]
    fn a_town_that_was_put_aside_is_overdue_from_then_on_and_has_an_open_episode() {
        let (clock, time) = Clock::manual(Timestamp::from_millis(0));
        let pulse = Pulse::default();
        pulse.begin(clock.elapsed());
        pulse.put_aside(clock.elapsed(), "it panicked".to_owned());
        time.advance(Duration::from_secs(7));
        assert_eq!(pulse.delays(&clock), (Duration::ZERO, Duration::from_secs(7)));
        assert_eq!(pulse.counted().open, [(STRANDED, 1)].into());
    }
}
