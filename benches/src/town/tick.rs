//! Ticks: a thousand events read and folded, a plan, its events folded, the invariants; and its events made durable.

use std::path::Path;
use std::time::Duration;

use plimsoll::clock::{Clock, Timestamp};
use plimsoll::ids::Seq;
use plimsoll::town::event::{TownEvent, VERSION};
use plimsoll::town::invariant::{Scope, check_all, episodes};
use plimsoll::town::plan;
use plimsoll::town::words::{AgentStatus, BeadStatus};
use serde_json::Value;

use super::paper::{self, Paper};
use super::story::Story;
use crate::child::cpu_seconds;

const PENDING: usize = 1_000;

/// A town to measure.
struct Size {
    agents: usize,
    open: usize,
    closed: usize,
}

const SIZES: [Size; 5] = [
    Size { agents: 1_000, open: 1_000, closed: 9_000 },
    Size { agents: 10_000, open: 10_000, closed: 90_000 },
    Size { agents: 10_000, open: 10_000, closed: 0 },
    Size { agents: 10_000, open: 10_000, closed: 900_000 },
    Size { agents: 100_000, open: 99_000, closed: 100_000 },
];

/// How long the parts of a tick took.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    drain: Duration,
    plan: Duration,
    fold: Duration,
    check: Duration,
    /// Of all before, in seconds.
    cpu: f64,
    /// Its events written to the journal, on disk.
    append: Duration,
}

impl Parts {
    fn whole(self) -> Duration {
        self.drain + self.plan + self.fold + self.check
    }
}

pub(super) fn run(ticks: u32, dir: &Path) -> Result<(), String> {
    println!("\n{ticks} ticks with {PENDING} events each; milliseconds, without the journal and with it");
    println!(
        "| agents | beads open | closed | closed kept | actions | p50 | p99 | max | CPU, p99 | drain | plan | fold | invariants | append | p50 with it | p99 with it |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    SIZES.iter().try_for_each(|size| measure(size, ticks, dir))
}

fn measure(size: &Size, ticks: u32, dir: &Path) -> Result<(), String> {
    let root = tempfile::tempdir_in(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut story = Story::new(size.agents, None);
    story.close(size.closed);
    story.open(size.open);
    story.settle();
    let kept = story.town.closed().len();
    let (paper, stream) = (Paper::new(root.path(), story.now())?, paper::stream("main"));
    let (mut took, mut actions) = (Vec::new(), 0);
    for _ in 0..ticks {
        story.pass(5_000);
        let pending: Vec<_> = story.news(PENDING).iter().map(|event| record(&mut story, event)).collect();
        let (parts, events) = tick(&mut story, &pending);
        let records: Vec<_> = events.iter().map(paper::record).collect();
        let clock = Clock::system();
        paper.write(&stream, &records)?;
        took.push(Parts { append: clock.elapsed(), ..parts });
        actions += records.len();
    }
    let sorted = |of: fn(&Parts) -> Duration| {
        let mut all: Vec<Duration> = took.iter().map(of).collect();
        all.sort();
        all
    };
    let (whole, journaled) = (sorted(|parts| parts.whole()), sorted(|parts| parts.whole() + parts.append));
    let mut cpus: Vec<f64> = took.iter().map(|parts| parts.cpu).collect();
    cpus.sort_by(f64::total_cmp);
    let at = |all: &[Duration], share: usize| ms(all[(all.len() * share / 100).min(all.len() - 1)]);
    let median = |of: fn(&Parts) -> Duration| at(&sorted(of), 50);
    let Size { agents, open, closed } = size;
    println!(
        "| {agents} | {open} | {closed} | {kept} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
        f64::from(u32::try_from(actions).unwrap_or(u32::MAX)) / f64::from(ticks),
        at(&whole, 50),
        at(&whole, 99),
        at(&whole, 100),
        cpus[(cpus.len() * 99 / 100).min(cpus.len() - 1)] * 1e3,
        median(|parts| parts.drain),
        median(|parts| parts.plan),
        median(|parts| parts.fold),
        median(|parts| parts.check),
        median(|parts| parts.append),
        at(&journaled, 50),
        at(&journaled, 99),
    );
    Ok(())
}

/// A record in line, as far as a tick reads it.
type InLine = (Seq, Timestamp, &'static str, Value);

fn record(story: &mut Story, event: &TownEvent) -> InLine {
    let (seq, time) = story.place();
    (seq, time, event.kind(), event.detail())
}

/// How long it took, and what it would append.
fn tick(story: &mut Story, pending: &[InLine]) -> (Parts, Vec<TownEvent>) {
    let (clock, cpu) = (Clock::system(), cpu_seconds());
    let mut parts = Parts::default();
    for (seq, time, kind, detail) in pending {
        let event = TownEvent::parse(kind, VERSION, detail).expect("it is readable");
        story.town.apply(*seq, *time, &event).expect("it is accepted");
    }
    parts.drain = clock.elapsed();
    let plan = plan(&story.town, story.now());
    parts.plan = clock.elapsed() - parts.drain;
    for action in &plan.actions {
        story.carry_out(action.event());
    }
    parts.fold = clock.elapsed() - parts.drain - parts.plan;
    let found = check_all(&story.town);
    let episodes = episodes(&story.town, &found, Scope::Town);
    let counts = AgentStatus::ALL.iter().map(|status| story.town.agent_count(*status)).sum::<usize>()
        + BeadStatus::ALL.iter().map(|status| story.town.bead_count(*status)).sum::<usize>();
    std::hint::black_box(counts);
    parts.check = clock.elapsed() - parts.drain - parts.plan - parts.fold;
    parts.cpu = cpu_seconds() - cpu;
    assert!(episodes.events.is_empty(), "nothing is violated: {found:?}");
    (parts, plan.actions.iter().map(|action| action.event().clone()).collect())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
