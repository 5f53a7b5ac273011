//! A town in a world that fails, lies and forgets, played from a seed: nothing bad ever happens, and once the faults stop
//! everything ends.
//!
//! The core is the real one; journal, executor, runtimes and people are played. Start at [`sim::Sim::step`]. A failing
//! seed is printed, and `PLIMSOLL_SIM_SEED` repeats it.

mod journal;
mod people;
mod roll;
mod runtime;
mod shell;
mod sim;
mod tally;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sim::Sim;
use tally::Tally;

const STEPS: u64 = 2_000;
const SEEDS: u64 = 100;
const SEEDS_OF_A_SOAK: u64 = 10_000;

#[test]
fn a_town_keeps_its_invariants_in_a_bad_world_and_comes_to_rest_in_a_good_one() {
    if let Ok(seed) = std::env::var("PLIMSOLL_SIM_SEED") {
        let tally = play(seed.parse().expect("PLIMSOLL_SIM_SEED is a number"));
        return println!("{}", tally.told());
    }
    let soak = std::env::var("PLIMSOLL_SOAK").is_ok_and(|value| value == "1");
    let seeds = if soak { SEEDS_OF_A_SOAK } else { SEEDS };
    let (next, total, failed) = (AtomicU64::new(0), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| play(seed))) {
                Ok(tally) => total.lock().expect("a tally").add(tally),
                Err(_) => failed.lock().expect("seeds").push(seed),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().expect("seeds");
    assert!(failed.is_empty(), "seeds {failed:?} failed: PLIMSOLL_SIM_SEED=<seed> repeats one");
    let total = total.into_inner().expect("a tally");
    println!("{seeds} seeds of {STEPS} steps\n{}", total.told());
    assert_eq!(total.missing(), [""; 0], "never exercised");
    assert_eq!(total.unknown(), [""; 0], "ways that should not be there");
}

fn play(seed: u64) -> Tally {
    let mut sim = Sim::new(seed);
    for _ in 0..STEPS {
        sim.step();
    }
    sim.rest();
    std::mem::take(&mut sim.tally)
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let [one, other] = [7, 7].map(|seed| play(seed).told());
    assert_eq!(one, other);
}
