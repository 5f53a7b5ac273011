//! What an earlier plimsoll left running, found by its mark in `/proc` and ended before anything new is run.
//!
//! A guard ends its program when plimsoll is killed; this is for when the guard was killed too. Only processes of this
//! user that carry the mark of exactly this data directory are touched, what descends from them, and what stayed in a
//! session that they lead. Never this process or one it descends from, and never what runs under a plimsoll that is
//! alive: that one serves a copy of the directory.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rustix::process::{Pid, getpid, getuid};

use super::ending;
use super::guard::GUARD_COMMAND;
use super::procfs::{Life, Process, descendants};

/// The variable that marks a process: `<id of the data directory>/<agent>`.
pub(super) const OWNER: &str = "PLIMSOLL_OWNER";

/// Ends what carries this owner's mark; gives how many there were.
pub(super) async fn end_left_behind(owner: String, grace: Duration) -> usize {
    ending::end(|| left_behind(&owner, &Process::all()), || true, grace).await
}

fn left_behind(owner: &str, all: &[Process]) -> Vec<Process> {
    let user = getuid().as_raw();
    let spared = spared(all);
    let is_marked = |process: &&Process| {
        process.life == Life::Alive
            && !spared.contains(&process.pid)
            && process.user() == Some(user)
            && process.variable(OWNER).is_some_and(|mark| mark.split('/').next() == Some(owner))
    };
    let mut found: HashMap<Pid, Process> =
        all.iter().filter(is_marked).map(|process| (process.pid, *process)).collect();
    let alive: HashSet<Pid> = all.iter().map(|process| process.pid).collect();
    // A guard opens a session of its own: one whose leader is gone, or marked, holds nobody else.
    let sessions: HashSet<Pid> = found
        .values()
        .filter_map(|process| process.session)
        .filter(|leader| found.contains_key(leader) || !alive.contains(leader))
        .collect();
    let beside = all.iter().filter(|process| process.session.is_some_and(|own| sessions.contains(&own)));
    let roots: Vec<Process> = found.values().chain(beside).copied().collect();
    let below = descendants(all, roots.iter().map(|process| process.pid));
    for process in roots.into_iter().chain(below) {
        let ours = process.life == Life::Alive && process.user() == Some(user);
        if ours && !spared.contains(&process.pid) {
            found.insert(process.pid, process);
        }
    }
    found.into_values().collect()
}

/// This process, those it descends from, and those under guards whose plimsoll is alive.
fn spared(all: &[Process]) -> HashSet<Pid> {
    let parents: HashMap<Pid, Option<Pid>> = all.iter().map(|p| (p.pid, p.parent)).collect();
    let mut spared = HashSet::new();
    let mut next = Some(getpid());
    while let Some(pid) = next.filter(|pid| spared.insert(*pid)) {
        next = parents.get(&pid).copied().flatten();
    }
    let guards: Vec<Pid> = all.iter().filter(|p| serves_another(p)).map(|process| process.pid).collect();
    spared.extend(descendants(all, guards.iter().copied()).iter().map(|process| process.pid));
    spared.extend(guards);
    spared
}

/// Whether it is a guard that is still a child of the plimsoll that started it.
fn serves_another(process: &Process) -> bool {
    let arguments = process.arguments();
    let [_, command, plimsoll, ..] = arguments.as_slice() else { return false };
    let plimsoll = plimsoll.parse().ok().and_then(Pid::from_raw);
    command == GUARD_COMMAND && plimsoll.is_some() && plimsoll == process.parent
}
