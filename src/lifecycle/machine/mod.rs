//! The machine of one instance: what comes next, decided from what happened. Pure: no clock, no async, no IO.
//!
//! Whoever drives it carries out its orders one at a time, reports how each ended, keeps those who wait, and wakes it at
//! its alarm. Nobody waits where nothing is under way: a step that ends an order answers all who waited for it. Start at
//! [`Machine::want`] and [`Machine::on`].

mod edges;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;
use std::time::Duration;

pub use edges::{EDGES, State};
#[cfg(test)]
pub(super) use tests::POLICY;
pub use words::{
    Exit, Fact, Failure, FailureKind, Input, LostAction, Order, Policy, Refused, Run, Start, Step,
    StopReason, Verdict, Wanted,
};

/// See the module.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    phase: Phase,
    waiting: usize,
    /// In a row.
    failures: u32,
    runs: u64,
    /// Why it is not started again, where that is so.
    gone: Option<StopReason>,
}

/// A state with what belongs to it. Times are monotonic.
#[derive(Debug, Clone)]
enum Phase {
    Cold,
    Starting {
        run: Run,
        since: Duration,
    },
    Up {
        run: Run,
        since: Duration,
        leases: usize,
        quiet_since: Duration,
    },
    /// `again` is whether it was told to start meanwhile.
    Stopping {
        run: Run,
        reason: StopReason,
        idle: Duration,
        again: bool,
    },
    Failed {
        failure: Failure,
        retry_at: Duration,
        left: Option<Left>,
    },
}

/// A run that did not stop.
#[derive(Debug, Clone, Copy)]
struct Left {
    run: Run,
    reason: StopReason,
    idle: Duration,
}

impl Machine {
    /// An instance that is cold.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, phase: Phase::Cold, waiting: 0, failures: 0, runs: 0, gone: None }
    }

    /// What it does.
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Cold => State::Cold,
            Phase::Starting { .. } => State::Starting,
            Phase::Up { leases: 0, .. } => State::Idle,
            Phase::Up { .. } => State::Ready,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Failed { .. } => State::Failed,
        }
    }

    /// Whether anything of it may run: also what did not stop.
    #[must_use]
    pub fn may_run(&self) -> bool {
        match self.phase {
            Phase::Cold | Phase::Failed { left: None, .. } => false,
            Phase::Starting { .. }
            | Phase::Up { .. }
            | Phase::Stopping { .. }
            | Phase::Failed { left: Some(_), .. } => true,
        }
    }

    /// The run that is up.
    #[must_use]
    pub fn up(&self) -> Option<Run> {
        match self.phase {
            Phase::Up { run, .. } => Some(run),
            Phase::Cold | Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Failed { .. } => None,
        }
    }

    /// Requests that wait for it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether it starts by itself.
    #[must_use]
    pub fn is_hot(&self) -> bool {
        self.policy.start == Start::Hot
    }

    /// Whether its agent was deleted.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.gone == Some(StopReason::Removed)
    }

    /// Whether nothing of it runs, and never will again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.gone.is_some() && matches!(self.phase, Phase::Cold)
    }

    /// When it wants [`Input::Alarm`], if at all.
    #[must_use]
    pub fn alarm(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Up { leases: 0, quiet_since, .. } if self.policy.start == Start::Lazy => {
                Some(quiet_since.saturating_add(self.policy.idle_after))
            }
            // What may still run is stopped even if nobody asks for it.
            Phase::Failed { retry_at, left, .. } if left.is_some() || self.restarts() => Some(*retry_at),
            Phase::Cold | Phase::Starting { .. } | Phase::Up { .. } | Phase::Stopping { .. } => None,
            Phase::Failed { .. } => None,
        }
    }

    /// The run that is up, if one is; it is held until [`Input::Released`].
    pub fn join(&mut self) -> Option<Run> {
        let Phase::Up { run, leases, .. } = &mut self.phase else { return None };
        let (run, idle) = (*run, *leases == 0);
        *leases += 1;
        if idle {
            edges::assert_legal(State::Idle, State::Ready);
        }
        Some(run)
    }

    /// Whether this run is up.
    #[must_use]
    pub fn is_up(&self, run: Run) -> bool {
        matches!(self.phase, Phase::Up { run: current, .. } if current == run)
    }

    /// How it failed, and when it may be tried again, for one that did.
    #[must_use]
    pub fn failed(&self) -> Option<(&Failure, Duration)> {
        let Phase::Failed { failure, retry_at, .. } = &self.phase else { return None };
        Some((failure, *retry_at))
    }

    /// When it starts.
    #[must_use]
    pub fn start(&self) -> Start {
        self.policy.start
    }

    /// A request needs the instance.
    pub fn want(&mut self, now: Duration) -> (Wanted, Step) {
        let mut step = Step::default();
        if let Some(reason) = self.gone {
            return (Wanted::Refused(Refused::Gone(reason)), step);
        }
        if let Some(run) = self.join() {
            return (Wanted::Up(run), step);
        }
        if let Phase::Failed { failure, retry_at, .. } = &self.phase
            && now < *retry_at
        {
            return (Wanted::Refused(Refused::Failed(failure.clone(), *retry_at - now)), step);
        }
        if self.waiting >= self.policy.waiting_max {
            return (Wanted::Refused(Refused::Full), step);
        }
        self.waiting += 1;
        self.rise(now, &mut step);
        (Wanted::Waits, step)
    }

    /// Something happened. `roll`, in 0.0..1.0, is chance for the wait after a failure. What says nothing about the run
    /// or the order under way changes nothing.
    pub fn on(&mut self, now: Duration, roll: f64, input: Input) -> Step {
        let mut step = Step::default();
        match input {
            Input::Start => {
                // Whoever says so has looked after it: no wait is in the way.
                if let Phase::Failed { retry_at, .. } = &mut self.phase {
                    *retry_at = now.min(*retry_at);
                }
                self.rise(now, &mut step);
            }
            Input::Stop(reason) => self.fall(now, reason, &mut step),
            Input::Released(run) => self.released(run, now),
            Input::GaveUp => self.waiting = self.waiting.saturating_sub(1),
            Input::Started(start) => self.started(now, start, &mut step),
            Input::Adopted(container) => self.adopted(now, container, &mut step),
            Input::Lost { action, container } => step.facts.push(Fact::Lost { action, container }),
            Input::StartFailed(failure) => self.start_failed(now, roll, failure, &mut step),
            Input::Stopped => self.stopped(now, &mut step),
            Input::LetGo => {
                self.stopped(now, &mut step);
                // Nothing was stopped.
                step.facts.clear();
            }
            Input::StopFailed(error) => self.stop_failed(now, roll, error, &mut step),
            Input::Exited(run, exit) => self.exited(now, roll, run, exit, &mut step),
            Input::Alarm => self.rang(now, &mut step),
        }
        step
    }

    /// Starts what can be started now.
    fn rise(&mut self, now: Duration, step: &mut Step) {
        let left = match &mut self.phase {
            _ if self.gone.is_some() => return,
            Phase::Cold => None,
            Phase::Failed { retry_at, left, .. } if now >= *retry_at => *left,
            Phase::Stopping { again, .. } => {
                *again = true;
                return;
            }
            Phase::Failed { .. } | Phase::Starting { .. } | Phase::Up { .. } => return,
        };
        match left {
            Some(left) => {
                self.stop_again(left, step);
                // And starts after that.
                self.rise(now, step);
            }
            None => self.launch(now, step),
        }
    }

    fn launch(&mut self, now: Duration, step: &mut Step) {
        self.runs += 1;
        let run = Run(self.runs);
        self.enter(Phase::Starting { run, since: now });
        step.order = Some(Order::Start(run));
    }

    fn stop_again(&mut self, Left { run, reason, idle }: Left, step: &mut Step) {
        self.enter(Phase::Stopping { run, reason, idle, again: false });
        step.order = Some(Order::Stop(run));
    }

    /// Stops what runs, and sends away who waits: whoever said stop means them, too.
    fn fall(&mut self, now: Duration, reason: StopReason, step: &mut Step) {
        if matches!(reason, StopReason::Shutdown | StopReason::Removed) {
            self.gone = Some(reason);
        }
        if self.waiting > 0 {
            step.verdict = Some(Verdict::Stopped(reason));
            self.waiting = 0;
        }
        if let Phase::Stopping { again, .. } = &mut self.phase {
            *again = false;
        }
        match self.phase.clone() {
            Phase::Cold | Phase::Stopping { .. } => {}
            Phase::Starting { run, .. } => self.stop_again(Left { run, reason, idle: Duration::ZERO }, step),
            Phase::Up { run, leases, quiet_since, .. } => {
                let idle = if leases == 0 { now.saturating_sub(quiet_since) } else { Duration::ZERO };
                self.stop_again(Left { run, reason, idle }, step);
            }
            Phase::Failed { left: Some(left), .. } => self.stop_again(left, step),
            Phase::Failed { left: None, .. } => {
                // An operator who looked after it wants no more waiting.
                self.failures = 0;
                self.enter(Phase::Cold);
            }
        }
    }

    fn released(&mut self, run: Run, now: Duration) {
        if let Phase::Up { run: current, leases, quiet_since, .. } = &mut self.phase
            && *current == run
        {
            assert!(*leases > 0, "who releases held a lease");
            *leases -= 1;
            if *leases == 0 {
                *quiet_since = now;
                edges::assert_legal(State::Ready, State::Idle);
            }
        }
    }

    fn started(&mut self, now: Duration, start: Duration, step: &mut Step) {
        let Phase::Starting { run, since } = self.phase else { return };
        let leases = std::mem::take(&mut self.waiting);
        self.enter(Phase::Up { run, since: now, leases, quiet_since: now });
        if leases > 0 {
            step.verdict = Some(Verdict::Serve(run));
        }
        step.facts.push(Fact::Started { latency: now.saturating_sub(since), start });
    }

    /// It is up without having been started. Where it was about to be, that has come true.
    fn adopted(&mut self, now: Duration, container: Arc<str>, step: &mut Step) {
        let (run, leases) = match self.phase {
            Phase::Starting { run, .. } => (run, std::mem::take(&mut self.waiting)),
            Phase::Cold | Phase::Failed { left: None, .. } => {
                self.runs += 1;
                (Run(self.runs), 0)
            }
            Phase::Up { .. } | Phase::Stopping { .. } | Phase::Failed { left: Some(_), .. } => return,
        };
        self.enter(Phase::Up { run, since: now, leases, quiet_since: now });
        if leases > 0 {
            step.verdict = Some(Verdict::Serve(run));
        }
        step.facts.push(Fact::Adopted { container });
        if let Some(reason) = self.gone {
            self.fall(now, reason, step);
        }
    }

    fn start_failed(&mut self, now: Duration, roll: f64, failure: Failure, step: &mut Step) {
        let Phase::Starting { .. } = self.phase else { return };
        let (attempt, retry_in) = self.count_failure(roll);
        step.facts.push(Fact::StartFailed { failure: failure.clone(), attempt, retry_in });
        self.fail(now, failure, retry_in, None, step);
    }

    fn stopped(&mut self, now: Duration, step: &mut Step) {
        let Phase::Stopping { reason, idle, again, .. } = self.phase else { return };
        step.facts.push(Fact::Stopped { idle, reason });
        self.failures = 0;
        if again || self.waiting > 0 {
            self.launch(now, step);
        } else {
            self.enter(Phase::Cold);
        }
    }

    fn stop_failed(&mut self, now: Duration, roll: f64, error: Arc<str>, step: &mut Step) {
        let Phase::Stopping { run, reason, idle, .. } = self.phase else { return };
        let (_, retry_in) = self.count_failure(roll);
        step.facts.push(Fact::StopFailed { error: Arc::clone(&error) });
        if self.gone == Some(StopReason::Shutdown) {
            // plimsoll does not wait for ever: what is left is found at the next start.
            self.enter(Phase::Cold);
            return;
        }
        let failure = Failure { kind: FailureKind::NotStopped, error };
        self.fail(now, failure, retry_in, Some(Left { run, reason, idle }), step);
    }

    fn exited(&mut self, now: Duration, roll: f64, run: Run, exit: Exit, step: &mut Step) {
        let Phase::Up { run: current, since, .. } = self.phase else { return };
        if current != run {
            return;
        }
        step.facts.push(Fact::Exited(exit));
        if now.saturating_sub(since) >= self.policy.well_after {
            self.failures = 0;
            if self.restarts() {
                self.launch(now, step);
            } else {
                self.enter(Phase::Cold);
            }
        } else {
            let (_, retry_in) = self.count_failure(roll);
            let error = "it ended by itself soon after it was ready: see what it printed".into();
            self.fail(now, Failure { kind: FailureKind::Crashed, error }, retry_in, None, step);
        }
    }

    fn rang(&mut self, now: Duration, step: &mut Step) {
        if self.alarm().is_none_or(|alarm| now < alarm) {
            return;
        }
        match self.phase.clone() {
            Phase::Up { .. } => self.fall(now, StopReason::Idle, step),
            Phase::Failed { left: Some(left), .. } => self.stop_again(left, step),
            Phase::Failed { .. } => self.launch(now, step),
            Phase::Cold | Phase::Starting { .. } | Phase::Stopping { .. } => {}
        }
    }

    fn fail(
        &mut self,
        now: Duration,
        failure: Failure,
        retry_in: Duration,
        left: Option<Left>,
        step: &mut Step,
    ) {
        if self.waiting > 0 {
            step.verdict = Some(Verdict::Failed(failure.clone(), retry_in));
            self.waiting = 0;
        }
        if self.failures == self.policy.crash_loop_failures {
            step.facts.push(Fact::CrashLoop { failures: self.failures });
        }
        self.enter(Phase::Failed { failure, retry_at: now.saturating_add(retry_in), left });
    }

    /// Failures in a row with this one, and how long to wait now.
    fn count_failure(&mut self, roll: f64) -> (u32, Duration) {
        self.failures = self.failures.saturating_add(1);
        (self.failures, self.policy.backoff.after(self.failures, roll))
    }

    /// Whether it comes back without being asked.
    fn restarts(&self) -> bool {
        self.is_hot() && self.gone.is_none()
    }

    fn enter(&mut self, phase: Phase) {
        let from = self.state();
        self.phase = phase;
        edges::assert_legal(from, self.state());
    }
}
