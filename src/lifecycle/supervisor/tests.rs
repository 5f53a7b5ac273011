//! Instances over scripted runners, in time that only the tests move.

mod found;
mod properties;

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};

use super::*;
use crate::clock::{ManualTime, Timestamp};
use crate::ids::Seq;
use crate::journal::{Fold, MemoryJournal, Record, Scan};
use crate::lifecycle::machine::{Exit, FailureKind, Run, Start};
use crate::lifecycle::runner::{Act, Find, Script, ScriptedRunner, Up};
use crate::lifecycle::{EventKind, HostKind, Ledger, machine, metrics};

const POLICY: Policy = Policy { waiting_max: 100, ..machine::POLICY };

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Instances with all that the tests look at. Needs a runtime whose time is paused.
struct Stand {
    instances: Arc<Instances>,
    runner: Arc<ScriptedRunner>,
    journal: Arc<MemoryJournal>,
    ledger: Arc<Ledger>,
    time: Arc<ManualTime>,
    id: AgentId,
}

fn instances(
    ledger: &Arc<Ledger>,
    journal: &Arc<MemoryJournal>,
    registry: &Registry,
    clock: &Clock,
) -> Instances {
    let journal = Arc::clone(journal) as Arc<dyn Journal>;
    Instances::new(InstancesParts::bare(Arc::clone(ledger), journal, registry, clock))
}

fn registry() -> Registry {
    let catalogue: Vec<_> = metrics::CATALOGUE.iter().map(|definition| **definition).collect();
    Registry::new(&catalogue).expect("buckets are set")
}

/// What outlives plimsoll, and what a boot makes of it.
struct Past {
    clock: Clock,
    time: Arc<ManualTime>,
    journal: Arc<MemoryJournal>,
    /// What the ledger wrote down last of itself, and after which record.
    snapshot: (String, Seq),
    ledger: Arc<Ledger>,
    registry: Registry,
    id: AgentId,
}

impl Past {
    fn new() -> Self {
        let (clock, time) = Clock::manual(Timestamp::from_millis(1_000_000));
        let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
        let (ledger, registry) = (Arc::default(), registry());
        let (snapshot, id) = (("{}".to_owned(), Seq(0)), AgentId::parse("worker").expect("valid"));
        let mut past = Self { clock, time, journal, snapshot, ledger, registry, id };
        past.boot();
        past
    }

    /// Counts from the snapshot and what came after it on.
    fn boot(&mut self) {
        let (snapshot, last) = &self.snapshot;
        let ledger = Arc::new(Ledger::default());
        ledger.restore(&serde_json::from_str(snapshot).expect("JSON")).expect("its own snapshot");
        self.journal.reopen(*last, vec![Arc::clone(&ledger) as Arc<dyn Fold>]);
        (self.ledger, self.registry) = (ledger, registry());
    }

    /// As a journal does now and then.
    fn take_snapshot(&mut self) {
        self.snapshot = (self.ledger.snapshot().to_string(), self.journal.status().last);
    }

    fn records(&self) -> Vec<Record> {
        self.journal.scan(&Scan { limit: 10_000, ..Scan::default() }).expect("readable").records
    }

    /// What is counted and what is exposed is what the rows say.
    fn is_what_the_rows_say(&self) {
        let (again, records) = (Ledger::default(), self.records());
        records.iter().for_each(|record| again.apply(record));
        assert_eq!(again.snapshot(), self.ledger.snapshot());
        let text = self.registry.render();
        for kind in EventKind::ALL.into_iter().filter(|kind| kind.is_counted()) {
            let rows = records.iter().filter(|record| record.kind == kind.as_str()).count();
            let name = "plimsoll_lifecycle_events_total";
            let line = format!("{name}{{agent_instance=\"worker\",event=\"{}\"}} {rows}\n", kind.as_str());
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }
}

impl Stand {
    fn new(policy: Policy, script: Script) -> Self {
        Self::after(&Past::new(), policy, script)
    }

    /// One life of plimsoll, after a boot.
    fn after(past: &Past, policy: Policy, script: Script) -> Self {
        let Past { clock, time, journal, snapshot: _, ledger, registry, id } = past;
        let runner = Arc::new(ScriptedRunner::new(script));
        let kept = Kept { policy, runner: Arc::clone(&runner) as Arc<dyn Runner> };
        let instances = Arc::new(instances(ledger, journal, registry, clock));
        ledger.publish(&instances.metrics);
        instances.keep(id.clone(), kept);
        let (journal, ledger, time) = (Arc::clone(journal), Arc::clone(ledger), Arc::clone(time));
        Self { instances, runner, journal, ledger, time, id: id.clone() }
    }

    async fn acquire(&self) -> Result<Lease, Unavailable> {
        self.instances.acquire(&self.id, Cause::system()).await
    }

    fn state(&self) -> State {
        self.instances.state(&self.id).expect("known")
    }

    /// Lets everybody do what they can do now: no chain of wake-ups here is as long as this.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Lets time pass, second by second, for clock and timers alike.
    async fn pass(&self, time: Duration) {
        self.settle().await;
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(secs(1));
            self.time.advance(step);
            tokio::time::advance(step).await;
            self.settle().await;
            left -= step;
        }
    }

    fn starts(&self) -> u64 {
        self.calls("start")
    }

    fn calls(&self, wanted: &str) -> u64 {
        self.runner.calls().iter().filter(|(call, _)| *call == wanted).count() as u64
    }

    fn records(&self) -> Vec<Record> {
        self.journal.scan(&Scan { limit: 10_000, ..Scan::default() }).expect("readable").records
    }

    fn kinds(&self) -> Vec<String> {
        self.records().into_iter().map(|record| record.kind).collect()
    }
}

fn takes(seconds: u64) -> Script {
    Script { starts: [Act { takes: secs(seconds), fails: None }].into(), ..Script::default() }
}

fn failure() -> Failure {
    Failure { kind: FailureKind::NotReady, error: "no answer on port 80".into() }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_to_a_cold_one_cause_one_start_and_all_are_served() {
    let stand = Stand::new(POLICY, takes(3));
    let all = join_all((0..100).map(|_| stand.acquire()));
    let (leases, ()) = tokio::join!(all, stand.pass(secs(3)));
    assert!(leases.iter().all(Result::is_ok));
    assert_eq!((stand.starts(), stand.state()), (1, State::Ready));
    drop(leases);
    assert_eq!(stand.state(), State::Idle);
    stand.pass(secs(59)).await;
    assert_eq!(stand.state(), State::Idle);
    stand.pass(secs(1)).await;
    assert_eq!(stand.state(), State::Cold);
    let [started, stopped] = &stand.records()[..] else { panic!("not {:?}", stand.kinds()) };
    assert_eq!((started.kind.as_str(), &started.detail["latency_ms"]), ("lazy_start", &3_000.into()));
    assert_eq!((stopped.kind.as_str(), &stopped.detail["idle_seconds"]), ("lazy_stop", &60.into()));
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_fails_all_with_one_cause_and_is_tried_again_after_its_wait() {
    let fails = Act { takes: secs(1), fails: Some(failure()) };
    let stand = Stand::new(POLICY, Script { starts: [fails].into(), ..Script::default() });
    let all = join_all((0..5).map(|_| stand.acquire()));
    let (answers, ()) = tokio::join!(all, stand.pass(secs(1)));
    for answer in answers {
        let Err(Unavailable::Failed { failure: told, .. }) = answer else { panic!("not {answer:?}") };
        assert_eq!(told, failure());
    }
    assert!(matches!(stand.acquire().await, Err(Unavailable::Failed { .. })), "not yet");
    stand.pass(secs(1)).await;
    assert!(stand.acquire().await.is_ok());
    assert_eq!((stand.starts(), stand.kinds()), (2, vec!["lazy_start_failed".into(), "lazy_start".into()]));
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_it_stops_waits_for_that_and_starts_it_again() {
    let stops = [Act { takes: secs(5), fails: None }].into();
    let stand = Stand::new(POLICY, Script { stops, ..Script::default() });
    drop(stand.acquire().await);
    stand.pass(secs(60)).await;
    assert_eq!(stand.state(), State::Stopping);
    let (lease, ()) = tokio::join!(stand.acquire(), stand.pass(secs(5)));
    assert!(lease.is_ok());
    assert_eq!(stand.kinds(), ["lazy_start", "lazy_stop", "lazy_start"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_outlives_the_request_that_caused_it() {
    let stand = Stand::new(POLICY, takes(9));
    let short = tokio::time::timeout(secs(2), stand.acquire());
    let (late, ()) = tokio::join!(short, stand.pass(secs(2)));
    assert!(late.is_err());
    stand.pass(secs(7)).await;
    assert_eq!((stand.state(), stand.kinds()), (State::Idle, vec!["lazy_start".into()]));
    assert!(stand.acquire().now_or_never().is_some_and(|lease| lease.is_ok()), "the next one uses it");
    assert_eq!(stand.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_takes_keeps_nothing_up() {
    let stand = Stand::new(POLICY, takes(1));
    let mut waits = Box::pin(stand.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    stand.pass(secs(1)).await;
    assert_eq!(stand.state(), State::Ready, "served, and not heard of yet");
    drop(waits);
    assert_eq!(stand.state(), State::Idle);
}

#[tokio::test(start_paused = true)]
async fn an_operator_stops_a_start_and_whoever_waits_for_it() {
    let stand = Stand::new(POLICY, takes(30));
    let stop = async {
        stand.pass(secs(2)).await;
        let cause = Cause { actor: Actor::Local, ..Cause::system() };
        stand.instances.stop(&stand.id, cause).expect("known");
    };
    let (answer, ()) = tokio::join!(stand.acquire(), stop);
    assert!(matches!(answer, Err(Unavailable::Stopped { reason: StopReason::Operator, .. })));
    stand.settle().await;
    assert_eq!(stand.state(), State::Cold);
    let [stopped] = &stand.records()[..] else { panic!("not {:?}", stand.kinds()) };
    assert_eq!((stopped.kind.as_str(), &stopped.actor), ("lazy_stop", &Actor::Local));
    assert!(stand.acquire().await.is_ok(), "the next request starts it again");
}

#[tokio::test(start_paused = true)]
async fn a_start_is_recorded_as_that_of_whoever_waited_for_the_stop_before_it() {
    let stops = [Act { takes: secs(5), fails: None }].into();
    let stand = Stand::new(POLICY, Script { stops, ..Script::default() });
    drop(stand.acquire().await);
    let operator = Cause { actor: Actor::Local, ..Cause::system() };
    stand.instances.stop(&stand.id, operator.clone()).expect("known");
    stand.settle().await;
    let (lease, ()) = tokio::join!(stand.acquire(), stand.pass(secs(5)));
    drop(lease);
    stand.instances.stop(&stand.id, Cause::system()).expect("known");
    stand.instances.start(&stand.id, operator).expect("known");
    stand.pass(secs(5)).await;
    assert_eq!(stand.state(), State::Idle, "a start in the middle of a stop comes after it");
    let written: Vec<_> = stand.records().into_iter().map(|record| (record.kind, record.actor)).collect();
    let (start, stop) = ("lazy_start".to_owned(), "lazy_stop".to_owned());
    assert_eq!(
        written,
        [
            (start.clone(), Actor::System),
            (stop.clone(), Actor::Local),
            (start.clone(), Actor::System),
            (stop, Actor::System),
            (start, Actor::Local)
        ]
    );
}

/// A runner with a bug.
struct Buggy;

impl Runner for Buggy {
    fn kind(&self) -> HostKind {
        HostKind::Scripted
    }

    fn start(&self, _run: Run) -> BoxFuture<'_, Result<Up, Failure>> {
        async { panic!("a bug") }.boxed()
    }

    fn stop(&self, _run: Run) -> BoxFuture<'_, Result<(), Arc<str>>> {
        async { panic!("another") }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_runner_fails_who_waits_and_keeps_nothing_from_ending() {
    let id = AgentId::parse("worker").expect("valid");
    let (clock, _time) = Clock::manual(Timestamp::from_millis(0));
    let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
    let instances = instances(&Arc::default(), &journal, &registry(), &clock);
    instances.keep(id.clone(), Kept { policy: POLICY, runner: Arc::new(Buggy) });
    let refused = instances.acquire(&id, Cause::system()).await;
    assert!(matches!(refused, Err(Unavailable::Failed { .. })), "{refused:?}");
    instances.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_by_itself_is_started_by_the_next_request() {
    let stand = Stand::new(POLICY, Script::default());
    let lease = stand.acquire().await.expect("up");
    stand.pass(secs(40)).await;
    stand.runner.exit(Exit { code: Some(3), ..Exit::default() });
    stand.settle().await;
    assert_eq!(stand.state(), State::Cold);
    drop(lease);
    assert!(stand.acquire().await.is_ok());
    assert_eq!(stand.kinds(), ["lazy_start", "exited", "lazy_start"]);
}

#[tokio::test(start_paused = true)]
async fn a_hot_one_is_up_without_a_request_and_comes_back() {
    let stand = Stand::new(Policy { start: Start::Hot, ..POLICY }, Script::default());
    stand.pass(secs(3_600)).await;
    assert_eq!((stand.state(), stand.starts()), (State::Idle, 1));
    stand.runner.exit(Exit::default());
    stand.settle().await;
    assert_eq!((stand.state(), stand.starts()), (State::Idle, 2));
}

#[tokio::test(start_paused = true)]
async fn the_end_stops_it_lets_nobody_in_and_has_all_written() {
    let stand = Stand::new(POLICY, Script::default());
    let lease = stand.acquire().await.expect("up");
    stand.instances.shut_down().await;
    assert_eq!(stand.runner.up(), None);
    assert_eq!(stand.kinds(), ["lazy_start", "lazy_stop"]);
    let refused = stand.acquire().await;
    assert!(matches!(refused, Err(Unavailable::Stopped { reason: StopReason::Shutdown, .. })));
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_stop_holds_up_no_end() {
    let fails: Option<Arc<str>> = Some("it hangs".into());
    let stops = [Act { takes: secs(1), fails }].into();
    let stand = Stand::new(POLICY, Script { stops, again: true, ..Script::default() });
    let lease = stand.acquire().await.expect("up");
    let ((), ()) = tokio::join!(stand.instances.shut_down(), stand.pass(secs(2)));
    assert_eq!(
        (stand.calls("stop"), stand.state()),
        (1, State::Cold),
        "what is left is found at the next start"
    );
    assert_eq!(stand.kinds(), ["lazy_start", "lazy_stop_failed"]);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_stop_is_stopped_before_it_is_started_again() {
    let stops = [Act { takes: secs(1), fails: Some("it hangs".into()) }].into();
    let stand = Stand::new(POLICY, Script { stops, ..Script::default() });
    drop(stand.acquire().await);
    stand.instances.stop(&stand.id, Cause::system()).expect("known");
    stand.pass(secs(1)).await;
    assert_eq!(stand.state(), State::Failed);
    stand.instances.start(&stand.id, Cause::system()).expect("known");
    assert!(stand.acquire().await.is_ok());
    let calls: Vec<_> = stand.runner.calls().into_iter().map(|(call, _)| call).collect();
    assert_eq!(calls, ["start", "started", "stop", "stop failed", "stop", "stopped", "start", "started"]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_waits_for_no_back_off() {
    let starts = [Act { takes: secs(1), fails: Some(failure()) }].into();
    let stand = Stand::new(POLICY, Script { starts, ..Script::default() });
    let (refused, ()) = tokio::join!(stand.acquire(), stand.pass(secs(1)));
    assert!(refused.is_err());
    assert_eq!(stand.state(), State::Failed);
    let operator = Cause { actor: Actor::Local, ..Cause::system() };
    stand.instances.start(&stand.id, operator).expect("known");
    stand.settle().await;
    assert_eq!((stand.state(), stand.starts()), (State::Idle, 2));
    assert_eq!(stand.records()[1].actor, Actor::Local);
}

/// What is found on the way takes nothing from who caused the start.
#[tokio::test(start_paused = true)]
async fn a_start_is_its_causers_whatever_is_found_before_it() {
    let finds = [Find::Stopped].into();
    let stand = Stand::new(POLICY, Script { finds, ..Script::default() });
    let caller = Cause { actor: Actor::Local, ..Cause::system() };
    let lease = stand.instances.acquire(&stand.id, caller).await.expect("up");
    stand.settle().await;
    let told: Vec<_> = stand.records().into_iter().map(|record| (record.kind, record.actor)).collect();
    assert_eq!(told, [("lost".to_owned(), Actor::System), ("lazy_start".to_owned(), Actor::Local)]);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_one_is_named() {
    let stand = Stand::new(POLICY, Script::default());
    let other = AgentId::parse("other").expect("valid");
    let refused = stand.instances.acquire(&other, Cause::system()).await;
    assert!(matches!(refused, Err(Unavailable::Unknown(name)) if name == other));
}
