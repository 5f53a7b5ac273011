//! Instances that are real processes: started once, ready when they say so, and nothing of them left afterwards.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use plimsoll::clock::Clock;
use plimsoll::ids::AgentId;
use plimsoll::journal::{Fold, Journal, MemoryJournal, Record, Scan};
use plimsoll::lifecycle::{
    Backoff, Cause, FailureKind, Instances, InstancesParts, Kept, Lease, Ledger, Policy, ProcessConfig,
    ProcessRunner, Readiness, Start, State, Unavailable,
};
use plimsoll::process::Processes;
use plimsoll::telemetry::Registry;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::server::until;

const PLIMSOLL: &str = env!("CARGO_BIN_EXE_plimsoll");

/// An instance `worker` that runs a shell script.
struct Stand {
    instances: Instances,
    journal: Arc<MemoryJournal>,
    ledger: Arc<Ledger>,
    printed: Arc<Mutex<Vec<String>>>,
    id: AgentId,
    dir: TempDir,
}

/// What a test wants otherwise.
struct Wants {
    ready: Readiness,
    address: SocketAddr,
    idle_after: Duration,
    program: &'static str,
    ready_timeout: Duration,
}

impl Default for Wants {
    fn default() -> Self {
        Self {
            ready: Readiness::Line("ready".into()),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            idle_after: Duration::from_secs(3_600),
            program: "sh",
            ready_timeout: Duration::from_secs(30),
        }
    }
}

impl Stand {
    fn new(script: &str, wants: Wants) -> Self {
        let Wants { ready, address, idle_after, program, ready_timeout } = wants;
        let (clock, id) = (Clock::system(), AgentId::parse("worker").expect("valid"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("run.sh"), script).expect("written");
        let config = ProcessConfig {
            program: program.into(),
            arguments: vec!["run.sh".into()],
            variables: BTreeMap::from([("PATH".into(), std::env::var_os("PATH").expect("there is one"))]),
            cwd: dir.path().canonicalize().expect("there"),
            address,
            ready,
            ready_timeout,
            grace: Duration::from_millis(300),
        };
        let printed = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&printed);
        let hear = Arc::new(move |_, line: &[u8]| {
            heard.lock().expect("no panic under it").push(String::from_utf8_lossy(line).into_owned());
        });
        let processes = Processes::new("test", PLIMSOLL.into());
        let runner = ProcessRunner::new(id.clone(), config, processes, hear, clock.clone()).expect("made");
        let policy = Policy {
            start: Start::Lazy,
            idle_after,
            backoff: Backoff { min: Duration::from_millis(1), max: Duration::from_millis(1) },
            well_after: Duration::ZERO,
            crash_loop_failures: 3,
            waiting_max: 100,
        };
        let ledger = Arc::new(Ledger::default());
        let journal = Arc::new(MemoryJournal::new(clock.clone(), vec![Arc::clone(&ledger) as Arc<dyn Fold>]));
        let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
        let parts = InstancesParts::bare(
            Arc::clone(&ledger),
            Arc::clone(&journal) as Arc<dyn Journal>,
            &registry,
            &clock,
        );
        let instances = Instances::new(parts);
        instances.keep(id.clone(), Kept { policy, runner: Arc::new(runner) });
        Self { instances, journal, ledger, printed, id, dir }
    }

    async fn acquire(&self) -> Result<Lease, Unavailable> {
        self.instances.acquire(&self.id, Cause::system()).await
    }

    async fn failure(&self) -> (FailureKind, String) {
        let refused = self.acquire().await;
        let Err(Unavailable::Failed { failure, .. }) = refused else { panic!("not {refused:?}") };
        (failure.kind, failure.error.to_string())
    }

    fn state(&self) -> State {
        self.instances.state(&self.id).expect("known")
    }

    /// The ids of processes that the script wrote into `pids`.
    fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.dir.path().join("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().expect("a number")).collect()
    }

    fn records(&self) -> Vec<Record> {
        self.journal.scan(&Scan { limit: 100, ..Scan::default() }).expect("readable").records
    }

    async fn until_written(&self, kinds: &[&str]) {
        until("the records", async || {
            let written: Vec<String> = self.records().into_iter().map(|record| record.kind).collect();
            (written == kinds).then_some(())
        })
        .await;
    }
}

fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Writes its own id and that of a child in a session of its own, both deaf to SIGTERM.
const STUBBORN: &str = r#"
trap '' TERM
setsid sh -c 'trap "" TERM; echo $$ >> pids; exec sleep 1000' &
echo $$ > leader
echo $$ >> pids
while [ "$(wc -l < pids)" -lt 2 ]; do sleep 0.01; done
echo 'is ready now'
while :; do sleep 0.1; done
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_start_one_process_and_nothing_of_it_is_left_when_it_was_idle() {
    let idle_after = Duration::from_millis(200);
    let stand = Stand::new(STUBBORN, Wants { idle_after, ..Wants::default() });
    let leases = join_all((0..100).map(|_| stand.acquire())).await;
    assert!(leases.iter().all(Result::is_ok), "{leases:?}");
    let pids = stand.pids();
    assert_eq!(pids.len(), 2, "one start");
    assert!(pids.iter().all(|pid| runs(*pid)));
    drop(leases);
    stand.until_written(&["lazy_start", "lazy_stop"]).await;
    assert!(!pids.iter().any(|pid| runs(*pid)), "nothing is left of {pids:?}");
    assert_eq!(stand.records()[1].detail["reason"], "idle");
    assert!(stand.acquire().await.is_ok(), "and again");
    stand.instances.shut_down().await;
    assert_eq!(stand.pids().len(), 4);
    assert!(!stand.pids().into_iter().any(runs));
    let counted = stand.ledger.of(&stand.id);
    assert_eq!((counted.lazy_start, counted.lazy_stop), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_killed_leaves_a_row_and_is_started_by_the_next_request() {
    let stand = Stand::new(STUBBORN, Wants::default());
    drop(stand.acquire().await.expect("up"));
    let pids = stand.pids();
    let leader = fs::read_to_string(stand.dir.path().join("leader")).expect("written");
    let leader = Pid::from_raw(leader.trim().parse().expect("a number")).expect("no zero");
    kill_process(leader, Signal::KILL).expect("it runs");
    stand.until_written(&["lazy_start", "exited"]).await;
    assert_eq!(stand.records()[1].detail["signal"], 9);
    assert!(!pids.into_iter().any(runs), "its child is gone, too");
    assert!(stand.acquire().await.is_ok());
    stand.instances.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_start_says_why_and_leaves_nothing() {
    let at_once = Wants { ready_timeout: Duration::from_millis(300), ..Wants::default() };
    let never = Stand::new(&STUBBORN.replace("is ready now", "hm"), at_once);
    let (kind, error) = never.failure().await;
    assert_eq!(kind, FailureKind::NotReady, "{error}");
    assert!(error.contains("it printed no line with \"ready\" within 300ms"), "{error}");
    assert!(!never.pids().into_iter().any(runs));

    for (script, said) in
        [("exit 3", "with exit code 3"), ("exit 0", "with exit code 0"), ("kill -9 $$", "by signal 9")]
    {
        let (kind, error) = Stand::new(script, Wants::default()).failure().await;
        assert_eq!(kind, FailureKind::Exited, "{error}");
        assert!(error.contains(said), "{error}");
    }
    for (program, said) in [("no-such-program", "there is no program"), ("/etc/passwd", "make it executable")]
    {
        let (kind, error) = Stand::new("", Wants { program, ..Wants::default() }).failure().await;
        assert_eq!(kind, FailureKind::NotStarted, "{error}");
        assert!(error.contains(said), "{error}");
    }
    let gone = Stand::new("echo ready; sleep 1000", Wants::default());
    fs::remove_dir_all(gone.dir.path()).expect("removed");
    assert_eq!(gone.failure().await.0, FailureKind::NotStarted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_ready_once_it_answers_over_http_or_takes_connections() {
    for ready in [Readiness::Http("/ready".into()), Readiness::Tcp] {
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let script = format!(
            "printf '%s' '{{\"server\": {{\"listen\": \"{address}\"}}}}' > own.yaml\n\
             exec {PLIMSOLL} serve --config own.yaml --data-dir data"
        );
        let stand = Stand::new(&script, Wants { ready, address, ..Wants::default() });
        let lease = stand.acquire().await.expect("up");
        assert_eq!(lease.address(), Some(address));
        assert!(is_there(address).await);
        drop(lease);
        stand.instances.stop(&stand.id, Cause::system()).expect("known");
        stand.until_written(&["lazy_start", "lazy_stop"]).await;
        assert_eq!(stand.state(), State::Cold);
        assert!(!is_there(address).await);
    }
}

async fn is_there(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_without_an_end_is_passed_over_and_what_it_prints_is_heard() {
    let script = "head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; echo ready; echo no >&2; exec sleep 1000";
    let stand = Stand::new(script, Wants::default());
    stand.acquire().await.expect("up");
    until("both lines", async || {
        let printed = stand.printed.lock().expect("no panic under it").clone();
        (printed.len() == 2 && ["ready", "no"].iter().all(|line| printed.contains(&(*line).to_owned())))
            .then_some(())
    })
    .await;
    stand.instances.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_a_start_leaves_nothing_of_it() {
    let stand = Stand::new(&STUBBORN.replace("is ready now", "hm"), Wants::default());
    let stop = async {
        until("the process", async || (stand.pids().len() == 2).then_some(())).await;
        stand.instances.stop(&stand.id, Cause::system()).expect("known");
    };
    let (refused, ()) = tokio::join!(stand.acquire(), stop);
    assert!(matches!(refused, Err(Unavailable::Stopped { .. })), "{refused:?}");
    stand.until_written(&["lazy_stop"]).await;
    assert!(!stand.pids().into_iter().any(runs));
    assert!(Path::new(stand.dir.path()).exists());
}
