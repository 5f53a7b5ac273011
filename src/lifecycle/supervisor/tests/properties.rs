//! Whatever happens to instances, and whenever plimsoll is killed, what is told of them is true.

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

/// Runs this in time that only it moves. Whatever it leaves under way ends with it, unheard.
fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(work)
}

/// What may happen to an instance.
#[derive(Debug, Clone)]
enum Happens {
    /// A request comes, which works for so long and waits for so long at most, if it does not wait for ever.
    Request {
        works: u64,
        waits: Option<u64>,
    },
    /// An operator.
    Stop,
    Start,
    Exit,
    Pass(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0_u64..40, prop::option::of(1_u64..40)).prop_map(|(works, waits)| Happens::Request { works, waits }),
        2 => Just(Happens::Stop),
        2 => Just(Happens::Start),
        2 => Just(Happens::Exit),
        6 => (1_u64..100).prop_map(Happens::Pass),
    ]
}

fn acts<E: Clone + std::fmt::Debug + 'static>(error: E) -> impl Strategy<Value = Vec<Act<E>>> {
    let act = (0_u64..20, prop::bool::weighted(0.3))
        .prop_map(move |(takes, fails)| Act { takes: secs(takes), fails: fails.then(|| error.clone()) });
    prop::collection::vec(act, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn every_request_is_answered_and_what_is_counted_is_what_the_runner_did(
        starts in acts(failure()),
        stops in acts("it hangs".into()),
        hot: bool,
        happens in prop::collection::vec(happens(), 1..40),
    ) {
        in_paused_time(async {
            let script = Script { starts: starts.into(), stops: stops.into(), ..Script::default() };
            let start = if hot { Start::Hot } else { Start::Lazy };
            let stand = Stand::new(Policy { start, ..POLICY }, script);
            let mut requests = JoinSet::new();
            for happens in happens {
                happen(&stand, happens, &mut requests).await;
            }
            // Longer than any wait, start and stop of the script together.
            stand.pass(secs(1_000)).await;
            while let Some(answered) = requests.try_join_next() {
                answered.expect("no request panics");
            }
            assert!(requests.is_empty(), "a request was left without an answer");
            stand.instances.shut_down().now_or_never();
            stand.pass(secs(1_000)).await;
            assert_eq!(stand.state(), State::Cold);
            let gave_up = stand.runner.calls().last().is_some_and(|(call, _)| *call == "stop failed");
            assert!(stand.runner.up().is_none() || gave_up, "nothing is left that could be stopped");
            let counted = stand.ledger.of(&stand.id);
            let of_ledger =
                [counted.lazy_start, counted.lazy_start_failed, counted.lazy_stop, counted.lazy_stop_failed];
            let of_runner =
                ["started", "start failed", "stopped", "stop failed"].map(|call| stand.calls(call));
            assert_eq!(of_ledger, of_runner);
            assert_eq!(told(&stand.records()), outcomes(&stand.runner));
        });
    }
}

/// What an engine does while plimsoll starts and stops things on it.
fn engine_acts() -> impl Strategy<Value = Vec<Act<Failure>>> {
    let error = "the engine does not answer";
    acts(Failure { kind: FailureKind::Engine, error: error.into() })
}

/// Why nobody can tell what was left running.
const UNTOLD: &str = "it does not answer";

/// What is found at the start of a life.
fn finds() -> impl Strategy<Value = Vec<Find>> {
    let failure = Failure { kind: FailureKind::Engine, error: UNTOLD.into() };
    let one = prop_oneof![
        2 => Just(Find::Nothing),
        2 => Just(Find::Running),
        1 => Just(Find::Stopped),
        1 => Just(Find::Fails(failure.clone())),
        1 => Just(Find::StoppedAndFails(failure)),
    ];
    prop::collection::vec(one, 0..4)
}

/// What each start and stop of this runner came to, as the rows have it. Nothing is started while it is up.
fn outcomes(runner: &ScriptedRunner) -> Vec<EventKind> {
    let of_call = |(call, run)| match call {
        "started" => Some(EventKind::LazyStart),
        "start failed" => Some(EventKind::LazyStartFailed),
        "stopped" => Some(EventKind::LazyStop),
        "stop failed" => Some(EventKind::LazyStopFailed),
        "start again" => panic!("{run:?} was started while another was up"),
        _ => None,
    };
    runner.calls().into_iter().filter_map(of_call).collect()
}

/// What these rows say of starts and stops, but for starts that no runner was asked for.
fn told(rows: &[Record]) -> Vec<EventKind> {
    let asked = rows.iter().filter(|row| row.detail["error"] != UNTOLD);
    let kinds = asked.filter_map(|row| EventKind::parse(&row.kind));
    let [start, stop] = [EventKind::LazyStart, EventKind::LazyStop];
    let [start_failed, stop_failed] = [EventKind::LazyStartFailed, EventKind::LazyStopFailed];
    kinds.filter(|kind| [start, stop, start_failed, stop_failed].contains(kind)).collect()
}

/// What happens between two boots.
#[derive(Debug, Clone)]
struct Life {
    starts: Vec<Act<Failure>>,
    stops: Vec<Act<Arc<str>>>,
    finds: Vec<Find>,
    happens: Vec<Happens>,
    /// What happens then, while the disk hangs, until plimsoll is killed.
    unwritten: Vec<Happens>,
    /// After how much of it the journal takes a snapshot, if it comes so far.
    snapshot: usize,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let (stops, snapshot) = (acts("it hangs".into()), 0_usize..24);
    let happen = [1..12, 0..4].map(|times| prop::collection::vec(happens(), times));
    let life = (engine_acts(), stops, finds(), happen, snapshot).prop_map(
        |(starts, stops, finds, [happens, unwritten], snapshot)| Life {
            starts,
            stops,
            finds,
            happens,
            unwritten,
            snapshot,
        },
    );
    prop::collection::vec(life, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn over_kills_what_is_counted_is_what_the_runners_did(lives in lives(), hot: bool) {
        let mut past = Past::new();
        let start = if hot { Start::Hot } else { Start::Lazy };
        for life in lives {
            past.boot();
            let before = past.records().len();
            let did = in_paused_time(live(&mut past, Policy { start, ..POLICY }, life));
            assert_eq!(told(&past.records()[before..]), did);
            past.is_what_the_rows_say();
        }
    }
}

/// To its kill. Gives what the runner had done before the disk hung.
async fn live(past: &mut Past, policy: Policy, life: Life) -> Vec<EventKind> {
    let Life { starts, stops, finds, happens, unwritten, snapshot } = life;
    let (starts, stops, finds) = (starts.into(), stops.into(), finds.into());
    let stand = Stand::after(past, policy, Script { starts, stops, finds, ..Script::default() });
    let mut requests = JoinSet::new();
    for (index, happens) in happens.into_iter().enumerate() {
        if index == snapshot {
            past.take_snapshot();
        }
        happen(&stand, happens, &mut requests).await;
    }
    stand.settle().await;
    let did = outcomes(&stand.runner);
    past.journal.hang();
    for happens in unwritten {
        happen(&stand, happens, &mut requests).await;
    }
    let all = outcomes(&stand.runner);
    assert!(all.starts_with(&did), "{all:?} after {did:?}");
    did
}

async fn happen(stand: &Stand, happens: Happens, requests: &mut JoinSet<()>) {
    match happens {
        Happens::Request { works, waits } => {
            let (instances, id) = (Arc::clone(&stand.instances), stand.id.clone());
            requests.spawn(async move {
                let acquired = instances.acquire(&id, Cause::system());
                let acquired = match waits {
                    Some(waits) => tokio::time::timeout(secs(waits), acquired).await.ok(),
                    None => Some(acquired.await),
                };
                if let Some(Ok(lease)) = acquired {
                    tokio::time::sleep(secs(works)).await;
                    drop(lease);
                }
            });
            stand.settle().await;
        }
        Happens::Stop => stand.instances.stop(&stand.id, Cause::system()).expect("known"),
        Happens::Start => stand.instances.start(&stand.id, Cause::system()).expect("known"),
        Happens::Exit => stand.runner.exit(Exit { code: Some(1), ..Exit::default() }),
        Happens::Pass(seconds) => stand.pass(secs(seconds)).await,
    }
}
