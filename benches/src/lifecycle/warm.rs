//! What a request waits for an instance that is up, and how long after its start the last of a crowd has it. Inside one
//! process, over runners that start when they are told.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use plimsoll::clock::Clock;
use plimsoll::ids::AgentId;
use plimsoll::journal::{Fold, MemoryJournal};
use plimsoll::lifecycle::{
    Backoff, Cause, Failure, HostKind, Instances, InstancesParts, Kept, Ledger, Policy, Run, Runner, Script,
    ScriptedRunner, Start, State, Up,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::gateway::{median, quantile};

/// The goals of the performance table.
const ACQUIRE_GOAL_NS: f64 = 2_000.0;
const CROWD_GOAL_MS: f64 = 5.0;

const ROUNDS: usize = 9;
const REQUESTS: usize = 200_000;
const CROWD: usize = 100;

/// Crowds before anything is counted.
const WARM_UP: u32 = 10;

const POLICY: Policy = Policy {
    start: Start::Lazy,
    idle_after: Duration::from_secs(3_600),
    backoff: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(1) },
    well_after: Duration::from_secs(60),
    crash_loop_failures: 5,
    waiting_max: 1_000,
};

fn instances(clock: &Clock) -> Arc<Instances> {
    let ledger = Arc::new(Ledger::default());
    let journal = MemoryJournal::new(clock.clone(), vec![Arc::clone(&ledger) as Arc<dyn Fold>]);
    let registry = plimsoll::catalogue::registry();
    Arc::new(Instances::new(InstancesParts::bare(ledger, Arc::new(journal), &registry, clock)))
}

fn id(number: usize) -> Result<AgentId, String> {
    AgentId::parse(&format!("i{number}")).map_err(|error| error.to_string())
}

/// A request to an instance that is up, and the end of its lease.
pub(super) async fn one_request() -> Result<(), String> {
    let clock = Clock::system();
    println!("\nA request to an instance that is up, and its end; medians of {ROUNDS} rounds of {REQUESTS}");
    println!("{:<34} {:>9} {:>9}", "", "each, ns", "goal");
    for kept in [1, 100] {
        let instances = instances(&clock);
        let ids = (0..kept).map(id).collect::<Result<Vec<_>, _>>()?;
        for id in &ids {
            let runner = Arc::new(ScriptedRunner::new(Script::default()));
            instances.keep(id.clone(), Kept { policy: POLICY, runner });
            instances.acquire(id, Cause::system()).await.map_err(|error| error.to_string())?;
        }
        let (mut acquired, mut joined) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = clock.elapsed();
            for id in ids.iter().cycle().take(REQUESTS) {
                instances.acquire(id, Cause::system()).await.map_err(|error| error.to_string())?;
            }
            let between = clock.elapsed();
            for id in ids.iter().cycle().take(REQUESTS) {
                instances.join(id).ok_or("it is not up")?;
            }
            acquired.push((between - began).as_nanos() as f64 / REQUESTS as f64);
            joined.push((clock.elapsed() - between).as_nanos() as f64 / REQUESTS as f64);
        }
        for (name, samples) in [("acquire", &mut acquired), ("join", &mut joined)] {
            let name = format!("{name}, instances kept: {kept}");
            println!("{name:<34} {:>9.0} {:>9}", median(samples), format!("<= {ACQUIRE_GOAL_NS}"));
        }
        instances.shut_down().await;
    }
    Ok(())
}

/// Starts when it is told to, and notes when.
struct Gate {
    open: Notify,
    clock: Clock,
    /// A std mutex suffices: a hold is one step.
    opened: Mutex<Duration>,
}

impl Runner for Gate {
    fn kind(&self) -> HostKind {
        HostKind::Scripted
    }

    fn start(&self, _run: Run) -> BoxFuture<'_, Result<Up, Failure>> {
        Box::pin(async {
            self.open.notified().await;
            let up = Up { address: None, start: Duration::ZERO, ended: Box::pin(std::future::pending()) };
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.elapsed();
            Ok(up)
        })
    }

    fn stop(&self, _run: Run) -> BoxFuture<'_, Result<(), Arc<str>>> {
        Box::pin(async { Ok(()) })
    }
}

/// A hundred requests that wait for one start: from its end to the last of them served.
pub(super) async fn crowds(crowds: u32) -> Result<(), String> {
    let clock = Clock::system();
    let (instances, id) = (instances(&clock), id(0)?);
    let gate = Arc::new(Gate { open: Notify::new(), clock: clock.clone(), opened: Mutex::default() });
    instances.keep(id.clone(), Kept { policy: POLICY, runner: Arc::clone(&gate) as Arc<dyn Runner> });
    let mut samples = Vec::new();
    for turn in 0..WARM_UP + crowds {
        let last = crowd(&instances, &id, &gate).await?;
        if turn >= WARM_UP {
            samples.push(last.as_secs_f64() * 1e3);
        }
    }
    println!("\nFrom the end of a start to the last of {CROWD} requests that waited for it, {crowds} times");
    println!("{:<22} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p99", "max", "goal p99");
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(&mut samples, share));
    println!(
        "{:<22} {p50:>9.3} {p99:>9.3} {max:>9.3} {:>9}",
        "all served, ms",
        format!("<= {CROWD_GOAL_MS}")
    );
    instances.shut_down().await;
    Ok(())
}

async fn crowd(instances: &Arc<Instances>, id: &AgentId, gate: &Gate) -> Result<Duration, String> {
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut requests = JoinSet::new();
    for _ in 0..CROWD {
        let (instances, id, waiting) = (Arc::clone(instances), id.clone(), Arc::clone(&waiting));
        let clock = gate.clock.clone();
        requests.spawn(async move {
            let mut acquiring = pin!(instances.acquire(&id, Cause::system()));
            let first = poll_fn(|context| Poll::Ready(acquiring.as_mut().poll(context))).await;
            if first.is_ready() {
                return Err("it was not cold".to_owned());
            }
            waiting.fetch_add(1, Ordering::AcqRel);
            let lease = acquiring.await.map_err(|error| error.to_string())?;
            Ok((lease, clock.elapsed()))
        });
    }
    while waiting.load(Ordering::Acquire) < CROWD {
        if requests.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gate.open.notify_one();
    let mut leases = Vec::new();
    let mut last = Duration::ZERO;
    while let Some(served) = requests.join_next().await {
        let (lease, at) = served.map_err(|error| error.to_string())??;
        leases.push(lease);
        last = last.max(at);
    }
    let opened = *gate.opened.lock().unwrap_or_else(PoisonError::into_inner);
    drop(leases);
    instances.stop(id, Cause::system()).map_err(|error| error.to_string())?;
    while instances.state(id).map_err(|error| error.to_string())? != State::Cold {
        tokio::task::yield_now().await;
    }
    Ok(last.saturating_sub(opened))
}
