//! What runs agents: programs and containers that work, are slow, fail, lie and vanish.

use std::collections::VecDeque;

use plimsoll::ids::{AgentId, DispatchId};
use plimsoll::town::words::{CompletionStatus, ContainerStatus, Outcome, Verdict};

use crate::roll::Roll;

/// Something that an agent or its host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Progress,
    Done(Outcome),
    Judged(Verdict),
    Ended(CompletionStatus),
    /// Says that another's dispatch is done.
    DoneForAnother,
    /// Says that the dispatch before this one is done.
    DoneForEarlier,
    /// What hosts it is seen so.
    Host(ContainerStatus),
    /// Its host says that it was thrown out.
    Evicted,
    /// Nothing more comes, and it keeps running.
    Hang,
}

/// One run of an agent for a dispatch.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) agent: AgentId,
    pub(crate) dispatch: DispatchId,
    pub(crate) host: ContainerStatus,
    pub(crate) works: bool,
    /// Nobody asked for it any more, or the answer to who asked was lost.
    pub(crate) orphan: bool,
    pub(crate) begun: u64,
    pub(crate) due: u64,
    pub(crate) script: VecDeque<(u64, Act)>,
}

impl Process {
    pub(crate) fn new(agent: AgentId, dispatch: DispatchId, now: u64, script: Vec<(u64, Act)>) -> Self {
        let (host, script) = (ContainerStatus::Running, VecDeque::from(script));
        let mut process =
            Self { agent, dispatch, host, works: true, orphan: false, begun: now, due: now, script };
        process.wait(now);
        process
    }

    pub(crate) fn wait(&mut self, now: u64) {
        self.due = self.script.front().map_or(u64::MAX, |(delay, _)| now + delay);
    }

    /// What it does now, if anything.
    pub(crate) fn act(&mut self, now: u64) -> Option<Act> {
        if self.due > now {
            return None;
        }
        let (_, act) = self.script.pop_front()?;
        self.wait(now);
        match act {
            Act::Done(_) | Act::Judged(_) | Act::Ended(_) | Act::Evicted => self.works = false,
            Act::Host(status) => {
                self.host = status;
                if status == ContainerStatus::Exited {
                    self.works = false;
                }
            }
            Act::Progress | Act::DoneForAnother | Act::DoneForEarlier | Act::Hang => {}
        }
        if act == Act::Evicted {
            self.host = ContainerStatus::Evicted;
        }
        Some(act)
    }

    pub(crate) fn play(&mut self, now: u64, script: Vec<(u64, Act)>) {
        self.script = script.into();
        self.wait(now);
    }
}

/// Work that goes well.
pub(crate) fn good(roll: &mut Roll, review: bool, calm: bool) -> Vec<(u64, Act)> {
    let mut script = Vec::new();
    for _ in 0..roll.between(0, 3) {
        script.push((roll.secs(1, 25), Act::Progress));
    }
    let verdict = if calm || roll.chance(600) { Verdict::Approved } else { Verdict::Changes };
    let said = if review { Act::Judged(verdict) } else { Act::Done(Outcome::Done) };
    script.extend(end(roll, said, CompletionStatus::Completed));
    script
}

/// What is said and the end of the run, in either order, together or apart.
fn end(roll: &mut Roll, said: Act, status: CompletionStatus) -> Vec<(u64, Act)> {
    let (first, second) = (roll.secs(0, 20), if roll.chance(500) { 0 } else { roll.secs(0, 4) });
    if roll.chance(500) {
        vec![(first, said), (second, Act::Ended(status))]
    } else {
        vec![(first, Act::Ended(status)), (second, said)]
    }
}

/// Whatever may come of a dispatch, and the name of what goes wrong.
pub(crate) fn any(roll: &mut Roll, review: bool) -> (&'static str, Vec<(u64, Act)>) {
    use CompletionStatus::{Completed, Failed};
    let mut well = good(roll, review, false);
    let pause = roll.secs(1, 30);
    match roll.between(0, 99) {
        0..42 => ("goes well", well),
        42..48 => {
            well.insert(0, (roll.secs(60, 1_500), Act::Progress));
            ("is slow", well)
        }
        48..54 => ("says that it failed", end(roll, Act::Done(Outcome::Failed), Failed)),
        54..59 => ("ends in an error", vec![(pause, Act::Ended(Failed))]),
        59..65 => ("ends without a word", vec![(pause, Act::Ended(Completed))]),
        65..68 => ("needs a person", end(roll, Act::Done(Outcome::NeedsHuman), Completed)),
        68..72 => ("hangs", vec![(pause, Act::Progress), (pause, Act::Hang)]),
        72..76 => ("exits", vec![(pause, Act::Host(ContainerStatus::Exited))]),
        76..79 => ("vanishes", vec![(pause, Act::Host(ContainerStatus::NotFound))]),
        79..83 => {
            let back = [ContainerStatus::NotFound, ContainerStatus::Starting, ContainerStatus::Running];
            let mut script: Vec<_> = back.map(|status| (roll.secs(5, 90), Act::Host(status))).into();
            script.append(&mut well);
            ("vanishes and comes back", script)
        }
        83..86 => ("is thrown out", vec![(pause, Act::Evicted)]),
        86..90 => {
            well.insert(0, (pause, Act::DoneForAnother));
            ("lies about another's dispatch", well)
        }
        90..93 => {
            well.insert(0, (pause, Act::DoneForEarlier));
            ("answers an earlier dispatch", well)
        }
        93..97 => {
            well.extend([(0, Act::Ended(Failed)), (pause, Act::Ended(Completed))]);
            ("ends twice", well)
        }
        _ => {
            let wrong = if review { Act::Done(Outcome::Done) } else { Act::Judged(Verdict::Approved) };
            ("says what does not fit", end(roll, wrong, Completed))
        }
    }
}

/// What comes of being asked how its work ended.
pub(crate) fn asked(roll: &mut Roll, review: bool, calm: bool) -> Vec<(u64, Act)> {
    if calm || roll.chance(600) {
        return good(roll, review, calm);
    }
    if roll.chance(500) {
        let status = roll.any(CompletionStatus::ALL);
        vec![(roll.secs(1, 20), Act::Ended(status))]
    } else {
        Vec::new()
    }
}
