//! What holds for the machine: each of its rules by an example, and whatever happens to it.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::lifecycle::Backoff;

pub(in crate::lifecycle) const POLICY: Policy = Policy {
    start: Start::Lazy,
    idle_after: at(60),
    backoff: Backoff { min: at(1), max: at(300) },
    well_after: at(30),
    crash_loop_failures: 3,
    waiting_max: 4,
};

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failure() -> Failure {
    Failure { kind: FailureKind::NotReady, error: "no answer on port 80".into() }
}

/// A machine that is up since second 0, and its run.
fn up(policy: Policy) -> (Machine, Run) {
    let mut machine = Machine::new(policy);
    let Some(Order::Start(run)) = machine.on(at(0), 0.0, Input::Start).order else {
        panic!("a cold one starts");
    };
    machine.on(at(0), 0.0, Input::Started(at(0)));
    (machine, run)
}

#[test]
fn a_hundred_requests_start_it_once_and_are_all_served() {
    let mut machine = Machine::new(Policy { waiting_max: 100, ..POLICY });
    let mut orders = Vec::new();
    for _ in 0..100 {
        let (wanted, step) = machine.want(at(0));
        assert_eq!(wanted, Wanted::Waits);
        orders.extend(step.order);
    }
    assert_eq!(orders.len(), 1);
    assert_eq!(machine.want(at(0)).0, Wanted::Refused(Refused::Full));
    let step = machine.on(at(3), 0.0, Input::Started(at(1)));
    let Some(Order::Start(run)) = orders.pop() else { panic!("not {orders:?}") };
    assert_eq!(step.verdict, Some(Verdict::Serve(run)));
    assert_eq!(step.facts, [Fact::Started { latency: at(3), start: at(1) }]);
    for _ in 0..100 {
        assert_eq!(machine.state(), State::Ready);
        machine.on(at(4), 0.0, Input::Released(run));
    }
    assert_eq!((machine.state(), machine.alarm()), (State::Idle, Some(at(64))));
}

#[test]
fn a_failed_start_fails_all_who_wait_and_is_not_tried_before_its_time() {
    let mut machine = Machine::new(POLICY);
    machine.want(at(0));
    machine.want(at(0));
    let step = machine.on(at(5), 0.0, Input::StartFailed(failure()));
    assert_eq!(step.verdict, Some(Verdict::Failed(failure(), at(1))));
    assert_eq!(step.facts, [Fact::StartFailed { failure: failure(), attempt: 1, retry_in: at(1) }]);
    let (wanted, step) = machine.want(Duration::from_millis(5_900));
    let retry_in = Duration::from_millis(100);
    assert_eq!(wanted, Wanted::Refused(Refused::Failed(failure(), retry_in)));
    assert_eq!(step, Step::default());
    assert_eq!(machine.alarm(), None, "a lazy one waits to be asked");
    let (wanted, step) = machine.want(at(6));
    assert_eq!(wanted, Wanted::Waits);
    assert!(matches!(step.order, Some(Order::Start(_))));
}

#[test]
fn it_stops_when_it_is_idle_for_long_enough_and_says_for_how_long() {
    let (mut machine, run) = up(POLICY);
    assert_eq!(machine.on(at(59), 0.0, Input::Alarm), Step::default(), "too early");
    let step = machine.on(at(61), 0.0, Input::Alarm);
    assert_eq!(step.order, Some(Order::Stop(run)));
    let step = machine.on(at(63), 0.0, Input::Stopped);
    assert_eq!(step.facts, [Fact::Stopped { idle: at(61), reason: StopReason::Idle }]);
    assert_eq!(machine.state(), State::Cold);
}

#[test]
fn who_comes_while_it_stops_waits_and_starts_it_again() {
    let (mut machine, first) = up(POLICY);
    machine.on(at(60), 0.0, Input::Alarm);
    assert_eq!(machine.want(at(61)), (Wanted::Waits, Step::default()));
    let step = machine.on(at(62), 0.0, Input::Stopped);
    let Some(Order::Start(second)) = step.order else { panic!("not {step:?}") };
    assert!(second > first);
    assert_eq!(step.verdict, None);
    assert_eq!(machine.on(at(63), 0.0, Input::Started(at(0))).verdict, Some(Verdict::Serve(second)));
    machine.on(at(64), 0.0, Input::Released(first));
    assert_eq!(machine.state(), State::Ready, "what is said of an earlier run comes too late");
}

#[test]
fn a_start_that_nobody_waits_for_any_more_is_used_by_the_next() {
    let mut machine = Machine::new(POLICY);
    machine.want(at(0));
    machine.on(at(1), 0.0, Input::GaveUp);
    let step = machine.on(at(9), 0.0, Input::Started(at(0)));
    assert_eq!((step.verdict, step.facts.len()), (None, 1));
    assert!(matches!(machine.want(at(10)).0, Wanted::Up(_)));
}

#[test]
fn a_crash_loop_is_told_once_until_it_was_well() {
    let mut machine = Machine::new(POLICY);
    let mut told = Vec::new();
    let mut now = at(0);
    for _ in 0..6 {
        machine.want(now);
        machine.on(now, 0.0, Input::Started(at(0)));
        let run = Run(machine.runs);
        let step = machine.on(now, 0.0, Input::Exited(run, Exit { code: Some(1), ..Exit::default() }));
        told.extend(step.facts.into_iter().filter(|fact| matches!(fact, Fact::CrashLoop { .. })));
        now += at(300);
    }
    assert_eq!(told, [Fact::CrashLoop { failures: 3 }]);
    machine.want(now);
    machine.on(now, 0.0, Input::Started(at(0)));
    machine.on(now + at(30), 0.0, Input::Exited(Run(machine.runs), Exit::default()));
    assert_eq!((machine.state(), machine.failures), (State::Cold, 0));
}

#[test]
fn what_does_not_stop_is_stopped_again_before_it_is_started() {
    let (mut machine, run) = up(POLICY);
    machine.on(at(60), 0.0, Input::Alarm);
    machine.want(at(60));
    let step = machine.on(at(70), 0.0, Input::StopFailed("it is in the kernel".into()));
    assert!(matches!(step.verdict, Some(Verdict::Failed(Failure { kind: FailureKind::NotStopped, .. }, _))));
    assert_eq!(machine.alarm(), Some(at(71)), "even if nobody asks");
    assert_eq!(machine.want(at(71)).1.order, Some(Order::Stop(run)));
    assert!(matches!(machine.on(at(72), 0.0, Input::Stopped).order, Some(Order::Start(_))));

    let (mut machine, run) = up(POLICY);
    machine.on(at(60), 0.0, Input::Alarm);
    machine.on(at(70), 0.0, Input::StopFailed("it is in the kernel".into()));
    assert_eq!(machine.on(at(71), 0.0, Input::Start).order, Some(Order::Stop(run)));
    assert!(
        matches!(machine.on(at(72), 0.0, Input::Stopped).order, Some(Order::Start(_))),
        "an operator's start too"
    );
}

#[test]
fn a_hot_one_comes_back_and_stays_down_when_an_operator_stops_it() {
    let hot = Policy { start: Start::Hot, ..POLICY };
    let (mut machine, run) = up(hot);
    assert_eq!(machine.alarm(), None, "it is never idle for too long");
    let step = machine.on(at(40), 0.0, Input::Exited(run, Exit::default()));
    assert!(matches!(step.order, Some(Order::Start(_))), "after a good while at once");
    machine.on(at(41), 0.0, Input::StartFailed(failure()));
    assert_eq!(machine.alarm(), Some(at(42)));
    assert!(matches!(machine.on(at(42), 0.0, Input::Alarm).order, Some(Order::Start(_))));
    machine.on(at(43), 0.0, Input::Started(at(0)));
    machine.on(at(44), 0.0, Input::Stop(StopReason::Operator));
    assert_eq!(machine.on(at(45), 0.0, Input::Stopped).order, None);
    assert_eq!((machine.state(), machine.alarm()), (State::Cold, None));
}

#[test]
fn a_stop_sends_away_who_waits_and_an_end_for_good_lets_nobody_in() {
    for reason in [StopReason::Operator, StopReason::Shutdown, StopReason::Removed] {
        let mut machine = Machine::new(POLICY);
        let (_, step) = machine.want(at(0));
        let Some(Order::Start(run)) = step.order else { panic!("not {step:?}") };
        let step = machine.on(at(1), 0.0, Input::Stop(reason));
        assert_eq!(step.verdict, Some(Verdict::Stopped(reason)));
        assert_eq!(step.order, Some(Order::Stop(run)));
        assert_eq!(machine.on(at(2), 0.0, Input::Started(at(1))), Step::default(), "it comes too late");
        machine.on(at(3), 0.0, Input::Stopped);
        let (wanted, _) = machine.want(at(4));
        match reason {
            StopReason::Operator => assert_eq!(wanted, Wanted::Waits),
            _ => assert_eq!(wanted, Wanted::Refused(Refused::Gone(reason))),
        }
    }
}

#[test]
fn one_that_was_left_running_is_kept_and_stops_when_it_is_idle() {
    let mut machine = Machine::new(POLICY);
    let adopted = || Input::Adopted("plimsoll-worker-1".into());
    let fact = Fact::Adopted { container: "plimsoll-worker-1".into() };
    let step = machine.on(at(5), 0.0, adopted());
    assert_eq!(step, Step { facts: vec![fact.clone()], ..Step::default() });
    assert_eq!((machine.state(), machine.alarm()), (State::Idle, Some(at(65))));
    let (wanted, _) = machine.want(at(6));
    assert_eq!(wanted, Wanted::Up(machine.up().expect("it is up")));
    assert_eq!(machine.on(at(7), 0.0, adopted()), Step::default(), "only once");
}

#[test]
fn one_that_was_left_running_serves_who_already_waits_for_its_start() {
    let mut machine = Machine::new(POLICY);
    let Some(Order::Start(run)) = machine.want(at(0)).1.order else { panic!("a cold one starts") };
    let step = machine.on(at(1), 0.0, Input::Adopted("plimsoll-worker-1".into()));
    assert_eq!((step.verdict, machine.state()), (Some(Verdict::Serve(run)), State::Ready));
    assert_eq!(machine.on(at(2), 0.0, Input::Started(at(1))), Step::default(), "it was not started");
}

#[test]
fn one_that_is_found_when_it_shall_be_no_more_is_stopped() {
    for reason in [StopReason::Shutdown, StopReason::Removed] {
        let mut machine = Machine::new(POLICY);
        machine.on(at(0), 0.0, Input::Stop(reason));
        let step = machine.on(at(1), 0.0, Input::Adopted("plimsoll-worker-1".into()));
        assert!(matches!(step.order, Some(Order::Stop(_))));
        machine.on(at(2), 0.0, Input::Stopped);
        assert!(machine.is_over());
    }
}

/// Everything that can be said to a machine, of its current run and of an earlier one.
fn inputs(machine: &Machine) -> Vec<Option<Input>> {
    let (run, earlier) = (Run(machine.runs), Run(0));
    vec![
        None,
        Some(Input::Start),
        Some(Input::Stop(StopReason::Operator)),
        Some(Input::Stop(StopReason::Shutdown)),
        Some(Input::Released(earlier)),
        Some(Input::GaveUp),
        Some(Input::Started(at(1))),
        Some(Input::StartFailed(failure())),
        Some(Input::Stopped),
        Some(Input::StopFailed("it hangs".into())),
        Some(Input::Exited(run, Exit::default())),
        Some(Input::Exited(earlier, Exit::default())),
        Some(Input::Alarm),
        Some(Input::Adopted("plimsoll-worker-1".into())),
        Some(Input::Lost { action: LostAction::Stopped, container: None }),
        Some(Input::LetGo),
    ]
}

/// A machine with what its driver knows.
struct Driven {
    machine: Machine,
    now: Duration,
    waiting: usize,
    leases: HashMap<Run, usize>,
    taken: BTreeSet<(State, State)>,
}

impl Driven {
    fn new(policy: Policy) -> Self {
        let (now, leases, taken) = (at(0), HashMap::new(), BTreeSet::new());
        Self { machine: Machine::new(policy), now, waiting: 0, leases, taken }
    }

    /// A request (`None`) or an input, and what must hold after it.
    fn say(&mut self, said: Option<Input>) {
        let before = self.machine.state();
        let step = match said {
            None => self.want(),
            Some(Input::GaveUp) if self.waiting == 0 => return,
            Some(input) => {
                self.waiting -= usize::from(input == Input::GaveUp);
                self.machine.on(self.now, 0.5, input)
            }
        };
        match step.verdict {
            None => {}
            Some(Verdict::Serve(run)) => {
                *self.leases.entry(run).or_default() += std::mem::take(&mut self.waiting);
            }
            Some(Verdict::Failed(..) | Verdict::Stopped(_)) => self.waiting = 0,
        }
        let after = self.machine.state();
        if before != after {
            self.taken.insert((before, after));
        }
        assert_eq!(self.machine.waiting(), self.waiting, "nobody is forgotten or invented");
        let under_way = matches!(after, State::Starting | State::Stopping);
        assert!(under_way || self.waiting == 0, "nobody waits for nothing: {after:?}");
        assert!(step.order.is_none() || under_way);
        let ready = self.leases.get(&Run(self.machine.runs)).is_some_and(|leases| *leases > 0);
        assert!(after != State::Idle || !ready, "whoever has a lease keeps it up");
        assert!(self.machine.alarm().is_none() || matches!(after, State::Idle | State::Failed));
    }

    fn want(&mut self) -> Step {
        let (wanted, step) = self.machine.want(self.now);
        match wanted {
            Wanted::Up(run) => *self.leases.entry(run).or_default() += 1,
            Wanted::Waits => self.waiting += 1,
            Wanted::Refused(_) => assert_eq!(step, Step::default()),
        }
        step
    }

    /// One of all that can happen, after a pause in seconds.
    fn happen(&mut self, choice: usize, pause: u64) {
        self.now += at(pause);
        match inputs(&self.machine).into_iter().nth(choice) {
            Some(said) => self.say(said),
            None => self.release(),
        }
    }

    fn release(&mut self) {
        let Some((run, leases)) = self.leases.iter_mut().find(|(_, leases)| **leases > 0) else { return };
        *leases -= 1;
        let run = *run;
        self.say(Some(Input::Released(run)));
    }
}

proptest! {
    #[test]
    fn whatever_happens_nobody_is_left_waiting(
        hot: bool,
        happens in prop::collection::vec((0_usize..19, 0_u64..90), 0..120),
    ) {
        let start = if hot { Start::Hot } else { Start::Lazy };
        let mut driven = Driven::new(Policy { start, ..POLICY });
        for (choice, pause) in happens {
            driven.happen(choice, pause);
        }
    }
}

#[test]
fn every_edge_of_the_table_is_taken_and_no_other() {
    // What [`Driven::happen`] is told, with a pause.
    const STEPS: [(usize, u64); 15] = [
        (0, 1),
        (1, 1),
        (2, 1),
        (2, 61),
        (6, 1),
        (7, 1),
        (8, 1),
        (9, 1),
        (10, 1),
        (10, 61),
        (12, 1),
        (12, 61),
        (13, 1),
        (16, 1),
        (0, 61),
    ];
    // Whatever can happen in four steps, hot and lazy, soon and late.
    let mut taken = BTreeSet::new();
    for start in [Start::Hot, Start::Lazy] {
        for path in 0..STEPS.len().pow(4) {
            let mut driven = Driven::new(Policy { start, ..POLICY });
            for place in 0..4 {
                let (choice, pause) = STEPS[path / STEPS.len().pow(place) % STEPS.len()];
                driven.happen(choice, pause);
            }
            taken.extend(driven.taken);
        }
    }
    assert_eq!(taken, EDGES.iter().copied().collect());
}
