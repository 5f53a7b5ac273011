//! What towns cost that have nothing to do, in a server of their own, beside one without towns.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plimsoll::clock::{Clock, Timestamp};
use plimsoll::town::TownEvent;
use plimsoll::town::words::Origin;

use super::paper::{Paper, record, stream};
use super::story::{START_MS, Story};
use crate::child::process_cpu_seconds;
use crate::footprint::start;

const TOWNS: usize = 1_000;
const AGENTS: usize = 10;
/// Of a core.
const GOAL_PERCENT: f64 = 1.0;
/// Until what a start brings with it is over.
const SETTLING: Duration = Duration::from_secs(20);
const CONFIG: &str = "server:\n  listen: 127.0.0.1:0\ntowns: {}\n";

pub(super) fn run(binary: &Path, seconds: u64, dir: &Path) -> Result<(), String> {
    println!("\n| {seconds} s of idleness | CPU s | of a core | goal |\n|---|---|---|---|");
    let idle = Duration::from_secs(seconds);
    for towns in [0, TOWNS] {
        let root = tempfile::tempdir_in(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let data = root.path().join("data");
        make(&data, towns)?;
        let used = measure(binary, root.path(), &data, idle)?;
        let share = used / idle.as_secs_f64() * 100.0;
        let goal = if towns == 0 { String::new() } else { format!("{GOAL_PERCENT} %") };
        println!("| {towns} towns of {AGENTS} agents | {used:.2} | {share:.2} % | {goal} |");
    }
    Ok(())
}

fn make(data: &Path, towns: usize) -> Result<(), String> {
    let paper = Paper::new(data, Timestamp::from_millis(START_MS))?;
    let story = Story::new(AGENTS, Some(Vec::new()));
    let records: Vec<_> =
        story.log.into_iter().flatten().map(|(.., event)| record(&elsewhere(event))).collect();
    (0..towns).try_for_each(|number| paper.write(&stream(&format!("town-{number}")), &records))
}

/// An agent of a runtime elsewhere: one of a configuration leaves with that.
fn elsewhere(mut event: TownEvent) -> TownEvent {
    if let TownEvent::AgentRegistered { origin, .. } = &mut event {
        *origin = Origin::External;
    }
    event
}

fn measure(binary: &Path, root: &Path, data: &Path, idle: Duration) -> Result<f64, String> {
    let config = root.join("plimsoll.yaml");
    fs::write(&config, CONFIG).map_err(|error| format!("no configuration: {error}"))?;
    let (child, _) = start(binary, &config, data)?;
    let pass = |time: Duration| {
        let clock = Clock::system();
        while let Some(left) = time.checked_sub(clock.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
    };
    pass(SETTLING);
    let before = process_cpu_seconds(child.0.id())?;
    pass(idle);
    Ok(process_cpu_seconds(child.0.id())? - before)
}
