//! What an earlier plimsoll left running, found by its mark in `/proc` and ended before anything new is run.
//!
//! A guard ends its program when plimsoll is killed; this is for when the guard was killed too. Only processes of this
//! user that carry the mark of exactly this data directory are touched, what descends from them, and what stayed in a
//! session that they lead. Never this process or one it descends from, and never what runs under a plimsoll that is
//! alive: that one serves a copy of the directory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, getpid, getuid};

use super::ending::{self, Ending};
use super::guard::GUARD_COMMAND;
use super::procfs::{self, Life, Process, descendants};
use crate::ids::AgentId;

/// The variable that marks a process: `<id of the data directory>/<agent>`.
pub(crate) const OWNER: &str = "PLIMSOLL_OWNER";

/// What became of the processes of an agent that an earlier plimsoll had left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftBehind {
    /// They were ended.
    Ended,
    /// They may run still.
    Stays,
}

/// The agents whose marks they carry, by who they are.
type Met = HashMap<(Pid, u64), Option<AgentId>>;

/// Ends what carries this owner's mark. Says also what became of that, for each agent that it was started for.
pub(crate) async fn end_left_behind(owner: &str, grace: Duration) -> (Ending, BTreeMap<AgentId, LeftBehind>) {
    let said = &AtomicBool::new(false);
    let met = &Mutex::new(Met::new());
    let look = || {
        let owner = owner.to_owned();
        async move {
            let looked = procfs::off_runtime(move || {
                let found = left_behind(&owner, &Process::all()?);
                let marks: Met =
                    found.iter().map(|found| (found.identity(), agent_of(found, &owner))).collect();
                Ok((found, marks))
            });
            let (found, marks) = looked.await?;
            note(&mut met.lock().unwrap_or_else(PoisonError::into_inner), marks);
            // Before it is waited for: whoever looks at a start that takes long shall know why.
            if !found.is_empty() && !said.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    source = "agent.process",
                    pids = procfs::ids(&found),
                    "processes that agents of an earlier run left behind are being ended"
                );
            }
            Ok(found)
        }
    };
    let ending = ending::end(look, || true, grace).await;
    let fates = fates(&met.lock().unwrap_or_else(PoisonError::into_inner), &ending);
    (ending, fates)
}

/// Notes whose they are. One that is about to end may have lost its mark.
fn note(met: &mut Met, marks: Met) {
    for (identity, agent) in marks {
        let known = met.entry(identity).or_default();
        *known = agent.or(known.take());
    }
}

/// What became of all that was met. If one is left and nobody knows whose it is, it may be anybody's.
fn fates(met: &Met, ending: &Ending) -> BTreeMap<AgentId, LeftBehind> {
    let left: Vec<Option<&AgentId>> =
        ending.left.iter().map(|left| met.get(&left.identity())?.as_ref()).collect();
    let unknown = !ending.over && (left.is_empty() || left.contains(&None));
    let fate = |agent: &AgentId| {
        let stays = unknown || left.contains(&Some(agent));
        (agent.clone(), if stays { LeftBehind::Stays } else { LeftBehind::Ended })
    };
    met.values().flatten().map(fate).collect()
}

/// The agent that its mark names.
fn agent_of(process: &Process, owner: &str) -> Option<AgentId> {
    let mark = process.variable(OWNER)?;
    let (of, agent) = mark.split_once('/')?;
    AgentId::parse(agent).ok().filter(|_| of == owner)
}

/// Whether it is this user's and was started for an agent of this owner.
pub(crate) fn is_marked(process: &Process, owner: &str) -> bool {
    // The user first: reading what a process was started with takes its memory's lock.
    process.user() == Some(getuid().as_raw())
        && process.variable(OWNER).is_some_and(|mark| mark.split('/').next() == Some(owner))
}

fn left_behind(owner: &str, all: &[Process]) -> Vec<Process> {
    let user = getuid().as_raw();
    let spared = spared(all);
    let is_ours = |process: &&Process| {
        process.life == Life::Alive && !spared.contains(&process.pid) && is_marked(process, owner)
    };
    let mut found: HashMap<Pid, Process> =
        all.iter().filter(is_ours).map(|process| (process.pid, *process)).collect();
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
    // A guard leads a session, and nobody else's arguments need to be read.
    if process.session != Some(process.pid) || process.user() != Some(getuid().as_raw()) {
        return false;
    }
    let arguments = process.arguments();
    let [_, command, plimsoll, ..] = arguments.as_slice() else { return false };
    let plimsoll = plimsoll.parse().ok().and_then(Pid::from_raw);
    command == GUARD_COMMAND && plimsoll.is_some() && plimsoll == process.parent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentId {
        AgentId::parse(name).expect("valid")
    }

    fn process(pid: i32) -> Process {
        let pid = Pid::from_raw(pid).expect("not zero");
        Process { pid, started: 0, parent: None, session: None, life: Life::Alive }
    }

    /// What becomes of agents `a`, with processes 10 and 11, and `b`, with 20; 30 has no mark.
    fn check(over: bool, left: &[i32], expected: [LeftBehind; 2]) {
        let mut met = Met::new();
        let marks = [(10, Some("a")), (11, Some("a")), (20, Some("b")), (30, None)];
        let marks = marks.map(|(pid, name)| (process(pid).identity(), name.map(agent)));
        note(&mut met, marks.into());
        let left = left.iter().copied().map(process).collect();
        let ending = Ending { met: met.len(), over, left, problem: None };
        let [a, b] = expected;
        assert_eq!(fates(&met, &ending), BTreeMap::from([(agent("a"), a), (agent("b"), b)]), "{ending:?}");
    }

    #[test]
    fn an_agent_of_which_one_may_run_still_is_not_ended() {
        use LeftBehind::{Ended, Stays};
        check(true, &[], [Ended, Ended]);
        check(false, &[11], [Stays, Ended]);
        check(false, &[20], [Ended, Stays]);
        check(false, &[20, 30], [Stays, Stays]);
        check(false, &[40], [Stays, Stays]);
        check(false, &[], [Stays, Stays]);
    }

    #[test]
    fn one_that_lost_its_mark_is_known_still() {
        let (mut met, identity) = (Met::new(), process(10).identity());
        for mark in [None, Some(agent("a")), None] {
            note(&mut met, Met::from([(identity, mark)]));
        }
        assert_eq!(met, Met::from([(identity, Some(agent("a")))]));
    }
}
