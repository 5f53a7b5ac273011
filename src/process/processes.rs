//! All programs that run for agents: who guards them, which are ending, and what an earlier plimsoll left behind.
//!
//! Start at [`Processes`].

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::ending::{self, Ending};
use super::procfs::{self, Life, Process, descendants};
use super::sweep::{self, LeftBehind};
use crate::ids::AgentId;

/// What an earlier plimsoll left behind has so long to end by itself.
const LEFT_BEHIND_GRACE: Duration = Duration::from_secs(5);

/// The programs that run for the agents of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Processes(Arc<Shared>);

struct Shared {
    /// The id of the data directory.
    owner: String,
    /// The program that can be a guard: plimsoll.
    guard: PathBuf,
    /// Whether those who lose their parent become children of this process, and it can see who they are.
    reaper: bool,
    /// Whether nobody else's do.
    exclusive: bool,
    /// What became of those that an earlier plimsoll had left behind.
    left_behind: BTreeMap<AgentId, LeftBehind>,
    /// A std mutex suffices: a hold is one spawn or a look through a list.
    table: Mutex<Table>,
    /// Steps whenever an entry goes.
    changed: watch::Sender<()>,
    tasks: TaskTracker,
}

struct Table {
    entries: Vec<Arc<Entry>>,
    /// Children that this process had before it ran anything.
    strangers: HashSet<(Pid, u64)>,
    /// Those that stayed although they were killed, with the program whose they are.
    left: Vec<(Arc<Entry>, Process)>,
}

/// What a process found, and became, when it took a data directory over.
#[derive(Default)]
struct Taken {
    /// Whether those who lose their parent become children of this process, and it can see who they are.
    reaper: bool,
    /// The children that it had already, if that could be seen.
    strangers: Option<HashSet<(Pid, u64)>>,
    /// What became of those that an earlier plimsoll had left behind.
    left_behind: BTreeMap<AgentId, LeftBehind>,
}

/// Why a directory cannot be worked in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsettled {
    /// An earlier run in it ends still.
    Ending,
    /// These of an earlier run could not be ended; their ids.
    Left(String),
}

/// One program that runs or ends.
pub(crate) struct Entry {
    /// `None` once it has ended and was reaped.
    guard: Mutex<Option<Pid>>,
    /// The session that its guard leads, or led.
    session: Option<Pid>,
    cwd: PathBuf,
    ending: AtomicBool,
}

impl Entry {
    /// Notes that it was told to end.
    pub(crate) fn begin_ending(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    fn guard(&self) -> MutexGuard<'_, Option<Pid>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Processes {
    /// Those of nobody: for looking at providers without asking them.
    fn default() -> Self {
        Self::new("nobody", own_binary())
    }
}

impl Processes {
    /// Those of the data directory with this id, guarded by this plimsoll.
    #[must_use]
    pub fn new(owner: &str, guard: PathBuf) -> Self {
        Self::with(owner, guard, Taken::default())
    }

    fn with(owner: &str, guard: PathBuf, taken: Taken) -> Self {
        let Taken { reaper, strangers, left_behind } = taken;
        let (changed, _) = watch::channel(());
        let (owner, tasks) = (owner.to_owned(), TaskTracker::new());
        // It takes tasks all the same, and can be waited for at any time.
        tasks.close();
        let exclusive =
            !rustix::process::getpid().is_init() && strangers.as_ref().is_some_and(HashSet::is_empty);
        let strangers = strangers.unwrap_or_default();
        let table = Mutex::new(Table { entries: Vec::new(), strangers, left: Vec::new() });
        Self(Arc::new(Shared { owner, guard, reaper, exclusive, left_behind, table, changed, tasks }))
    }

    /// Makes this process the one that runs the agents of a data directory, whose lock it holds: ends what an earlier
    /// one left behind, and becomes the parent of whoever outlives its guard.
    pub async fn take_over(owner: &str) -> Self {
        let ours = rustix::process::getpid();
        if !procfs::is_there() {
            #[cfg(target_os = "linux")]
            tracing::warn!(
                source = "agent.process",
                "/proc is missing, or that of another pid namespace: what leaves the process group of an agent's \
                 program cannot be ended; mount one for this namespace"
            );
            return Self::new(owner, own_binary());
        }
        let all = procfs::off_runtime(Process::all).await;
        let children = |all: Vec<Process>| {
            let children = all.into_iter().filter(|process| process.parent == Some(ours));
            children.map(|process| process.identity()).collect()
        };
        let strangers = all.ok().map(children);
        #[cfg(target_os = "linux")]
        let reaper = rustix::process::set_child_subreaper(Some(ours)).is_ok();
        #[cfg(not(target_os = "linux"))]
        let reaper = false;
        let (ending, left_behind) = sweep::end_left_behind(owner, LEFT_BEHIND_GRACE).await;
        let Ending { met, over, left, problem } = ending;
        if met > 0 {
            tracing::warn!(
                source = "agent.process",
                processes = met - left.len().min(met),
                "processes that agents of an earlier run left behind were ended"
            );
        }
        if !over {
            tracing::warn!(
                source = "agent.process",
                pids = procfs::ids(&left),
                problem = problem.map(tracing::field::display),
                "what agents of an earlier run left behind could not all be looked for and ended"
            );
        }
        Self::with(owner, own_binary(), Taken { reaper, strangers, left_behind })
    }

    /// The id of the data directory.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.0.owner
    }

    /// What became of the processes of this agent that an earlier plimsoll had left behind, if it had.
    #[must_use]
    pub(crate) fn left_behind(&self, agent: &AgentId) -> Option<LeftBehind> {
        self.0.left_behind.get(agent).copied()
    }

    /// Waits until no program runs or ends any more, but not for longer than `wait`; whether none does.
    pub(crate) async fn none_left(&self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.0.tasks.wait()).await.is_ok()
    }

    /// Waits until nothing ends any more in this directory, but not for longer than `wait`.
    ///
    /// # Errors
    /// [`Unsettled`] when something does all the same, or never did.
    pub(crate) async fn settled(&self, cwd: &Path, wait: Duration) -> Result<(), Unsettled> {
        let mut changes = self.0.changed.subscribe();
        let quiet = || {
            let table = self.table();
            !table.entries.iter().any(|entry| entry.cwd == cwd && entry.ending.load(Ordering::SeqCst))
        };
        if tokio::time::timeout(wait, changes.wait_for(|()| quiet())).await.is_err() {
            return Err(Unsettled::Ending);
        }
        self.left(|entry| entry.cwd == cwd).map_or(Ok(()), |ids| Err(Unsettled::Left(ids)))
    }

    /// The ids of those of this program that stay although they were killed, if any do.
    pub(crate) fn left_of(&self, entry: &Arc<Entry>) -> Option<String> {
        self.left(|other| Arc::ptr_eq(other, entry))
    }

    fn left(&self, of: impl Fn(&Arc<Entry>) -> bool) -> Option<String> {
        let mut table = self.table();
        table.left.retain(|(_, process)| process.runs());
        let left = table.left.iter().filter(|(entry, _)| of(entry));
        let left: Vec<Process> = left.map(|(_, process)| *process).collect();
        (!left.is_empty()).then(|| procfs::ids(&left))
    }

    /// What marks a process as one of this agent's.
    pub(crate) fn mark(&self, agent: &AgentId) -> String {
        format!("{}/{agent}", self.0.owner)
    }

    pub(crate) fn guard_binary(&self) -> &Path {
        &self.0.guard
    }

    /// Starts a guard.
    pub(crate) fn spawn(&self, command: &mut Command, cwd: PathBuf) -> io::Result<(Child, Arc<Entry>)> {
        // Under the lock: nobody may take a child for an orphan that is not in the table yet.
        let mut table = self.table();
        let child = command.spawn()?;
        let guard = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let ending = AtomicBool::new(false);
        let entry = Arc::new(Entry { guard: Mutex::new(guard), session: guard, cwd, ending });
        table.entries.push(Arc::clone(&entry));
        Ok((child, entry))
    }

    /// Runs what watches a program; [`none_left`](Self::none_left) joins it.
    pub(crate) fn watch(&self, watching: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(watching);
    }

    /// Notes that a guard was reaped: its id may soon be another's.
    pub(crate) fn guard_ended(&self, entry: &Entry) {
        let _table = self.table();
        *entry.guard() = None;
    }

    /// Notes that nothing ends any more of a program.
    pub(crate) fn gone(&self, entry: &Arc<Entry>) {
        self.table().entries.retain(|other| !Arc::ptr_eq(other, entry));
        self.0.changed.send_replace(());
    }

    /// Notes who stayed of a program although it was killed.
    pub(crate) fn stay(&self, entry: &Arc<Entry>, left: &[Process]) {
        self.table().left.extend(left.iter().map(|process| (Arc::clone(entry), *process)));
    }

    /// Ends the children of this process that lost their guard, and what descends from them.
    pub(crate) async fn end_orphans(&self, grace: Duration) -> Ending {
        if !self.0.reaper {
            return Ending { met: 0, over: true, left: Vec::new(), problem: None };
        }
        ending::end(|| self.orphans(), || true, grace).await
    }

    async fn orphans(&self) -> io::Result<Vec<Process>> {
        let this = self.clone();
        // The table is looked at before and after: who comes or goes meanwhile stands in one of them.
        let mut known = self.known();
        procfs::off_runtime(move || {
            let all = Process::all()?;
            known.add(this.known());
            let is_marked = |process: &Process| sweep::is_marked(process, &this.0.owner);
            let (ended, orphans) = known.orphans(&all, rustix::process::getpid(), is_marked);
            for process in ended {
                // Each by its id: a guard's end is for whoever waits for that guard.
                let _ = rustix::process::waitpid(Some(process.pid), WaitOptions::NOHANG);
            }
            Ok(orphans)
        })
        .await
    }

    fn known(&self) -> Known {
        let table = self.table();
        Known {
            exclusive: self.0.exclusive,
            guards: table.entries.iter().filter_map(|entry| *entry.guard()).collect(),
            sessions: table.entries.iter().filter_map(|entry| entry.session).collect(),
            spared: table
                .strangers
                .iter()
                .copied()
                .chain(table.left.iter().map(|(_, p)| p.identity()))
                .collect(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom this process knows among its children.
struct Known {
    /// Whether all its other children were a guard's.
    exclusive: bool,
    guards: HashSet<Pid>,
    /// Those that its guards lead, or led.
    sessions: HashSet<Pid>,
    /// Strangers, and those that killing does not end.
    spared: HashSet<(Pid, u64)>,
}

impl Known {
    fn add(&mut self, other: Self) {
        self.guards.extend(other.guards);
        self.sessions.extend(other.sessions);
        self.spared.extend(other.spared);
    }

    /// The children of `ours` that have ended and that nobody else waits for; and those that lost their guard, with
    /// all that descends from them. As process 1, or where it had children before, it is the parent of strangers too:
    /// there it takes only those that stand in a guard's session or are marked.
    fn orphans(
        &self,
        all: &[Process],
        ours: Pid,
        is_marked: impl Fn(&Process) -> bool,
    ) -> (Vec<Process>, Vec<Process>) {
        let children = all.iter().filter(|process| {
            process.parent == Some(ours)
                && !self.guards.contains(&process.pid)
                && !self.spared.contains(&process.identity())
        });
        let (ended, mut orphans): (Vec<Process>, Vec<Process>) =
            children.partition(|process| process.life == Life::Zombie);
        orphans.retain(|process| {
            self.exclusive
                || process.session.is_some_and(|own| self.sessions.contains(&own))
                || is_marked(process)
        });
        let below = descendants(all, orphans.iter().map(|process| process.pid));
        let is_left =
            |process: &Process| process.life == Life::Alive && !self.spared.contains(&process.identity());
        orphans.extend(below.into_iter().filter(is_left));
        (ended, orphans)
    }
}

/// This plimsoll, also after its file was replaced.
fn own_binary() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { link } else { std::env::current_exe().unwrap_or(link) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: i32 = 1;

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).expect("not zero")
    }

    /// A child of process 1 in this session.
    fn child(own: i32, session: i32) -> Process {
        let (parent, session) = (Some(pid(OURS)), Some(pid(session)));
        Process { pid: pid(own), started: 0, parent, session, life: Life::Alive }
    }

    /// Who is taken by one whose guard was 20, beside a guard 21 that lives and a stranger 5.
    fn taken(exclusive: bool) -> Vec<i32> {
        let below = |own, parent| Process { parent: Some(pid(parent)), ..child(own, 99) };
        let all = [
            child(5, 5),
            child(21, 21),
            child(30, 20),
            below(31, 30),
            child(32, 32),
            child(40, 40),
            below(41, 40),
            Process { life: Life::Zombie, ..child(50, 20) },
            child(60, 20),
        ];
        let known = Known {
            exclusive,
            guards: [pid(21)].into(),
            sessions: [pid(20), pid(21)].into(),
            spared: [(pid(5), 0), (pid(60), 0)].into(),
        };
        let (ended, orphans) = known.orphans(&all, pid(OURS), |process| process.pid == pid(32));
        assert_eq!(ended.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid(50)]);
        let mut orphans: Vec<i32> =
            orphans.iter().map(|process| process.pid.as_raw_nonzero().get()).collect();
        orphans.sort_unstable();
        orphans
    }

    #[test]
    fn where_others_children_come_only_those_of_guards_are_taken() {
        assert_eq!(taken(true), [30, 31, 32, 40, 41]);
        assert_eq!(taken(false), [30, 31, 32]);
    }
}
