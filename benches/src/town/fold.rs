//! How fast events fold, on one core.

use plimsoll::clock::Clock;
use plimsoll::town::Town;
use plimsoll::town::event::{TownEvent, VERSION};

use super::story::{Told, events};
use crate::child::cpu_seconds;

pub(super) fn run(count: u64) {
    let count = usize::try_from(count).expect("it fits");
    println!("\nevents a second, by the clock and by CPU time");
    println!("| events | agents | folded | CPU | read from JSON and folded | CPU |");
    println!("|---|---|---|---|---|---|");
    for agents in [100, 1_000, 10_000] {
        let events = events(agents, count);
        let [folded, folded_cpu] = median((0..5).map(|_| fold(&events)));
        let [read, read_cpu] = median((0..3).map(|_| read(&events)));
        println!("| {count} | {agents} | {folded:.0} | {folded_cpu:.0} | {read:.0} | {read_cpu:.0} |");
        if agents == 1_000 {
            kinds(&events);
        }
    }
}

/// By the clock, and by CPU time.
fn median(rates: impl Iterator<Item = [f64; 2]>) -> [f64; 2] {
    let mut rates: Vec<[f64; 2]> = rates.collect();
    let middle = rates.len() / 2;
    [0, 1].map(|of| {
        rates.sort_by(|a, b| a[of].total_cmp(&b[of]));
        rates[middle][of]
    })
}

fn rates(events: &[Told], clock: &Clock, cpu: f64) -> [f64; 2] {
    [clock.elapsed().as_secs_f64(), cpu_seconds() - cpu].map(|seconds| events.len() as f64 / seconds)
}

fn kinds(events: &[Told]) {
    let mut kinds = std::collections::BTreeMap::<_, usize>::new();
    events.iter().for_each(|(_, _, event)| *kinds.entry(event.kind()).or_default() += 1);
    eprintln!("with 1,000 agents: {kinds:?}");
}

fn fold(events: &[Told]) -> [f64; 2] {
    let mut town = Town::default();
    let (clock, cpu) = (Clock::system(), cpu_seconds());
    for (seq, time, event) in events {
        town.apply(*seq, *time, event).expect("it is accepted");
    }
    rates(events, &clock, cpu)
}

fn read(events: &[Told]) -> [f64; 2] {
    let details: Vec<String> = events.iter().map(|(_, _, event)| event.detail().to_string()).collect();
    let mut town = Town::default();
    let (clock, cpu) = (Clock::system(), cpu_seconds());
    for ((seq, time, event), detail) in events.iter().zip(&details) {
        let detail = serde_json::from_str(detail).expect("JSON");
        let event = TownEvent::parse(event.kind(), VERSION, &detail).expect("it is readable");
        town.apply(*seq, *time, &event).expect("it is accepted");
    }
    rates(events, &clock, cpu)
}
