//! Whatever happens to instances, and whenever plimsoll is killed, what is told of them is true.

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;

/// Runs this in time that only it moves. Whatever it leaves under way ends with it, unheard.
fn in_paused_time(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(work);
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
        1 => Just(Happens::Stop),
        1 => Just(Happens::Start),
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
        });
    }
}

/// What an engine does while plimsoll starts and stops things on it.
fn engine_acts() -> impl Strategy<Value = Vec<Act<Failure>>> {
    let error = "the engine does not answer";
    acts(Failure { kind: FailureKind::Engine, error: error.into() })
}

/// What is found at the start of a life.
fn finds() -> impl Strategy<Value = Vec<Find>> {
    let failure = Failure { kind: FailureKind::Engine, error: "it does not answer".into() };
    let one = prop_oneof![
        2 => Just(Find::Nothing),
        2 => Just(Find::Running),
        1 => Just(Find::Stopped),
        1 => Just(Find::Fails(failure.clone())),
        1 => Just(Find::StoppedAndFails(failure)),
    ];
    prop::collection::vec(one, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn over_kills_the_counters_are_the_fold_of_the_rows(
        lives in prop::collection::vec(
            (engine_acts(), acts("it hangs".into()), finds(), prop::collection::vec(happens(), 1..12)),
            1..6,
        ),
        hot: bool,
    ) {
        let past = Past::new();
        for (starts, stops, finds, happens) in lives {
            in_paused_time(async {
                let (starts, stops, finds) = (starts.into(), stops.into(), finds.into());
                let start = if hot { Start::Hot } else { Start::Lazy };
                let script = Script { starts, stops, finds, ..Script::default() };
                let stand = Stand::after(&past, Policy { start, ..POLICY }, script);
                let mut requests = JoinSet::new();
                for happens in happens {
                    happen(&stand, happens, &mut requests).await;
                }
            });
            past.is_what_the_rows_say();
        }
    }
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
