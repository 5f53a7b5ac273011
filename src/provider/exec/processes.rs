//! All programs that run for agents: who guards them, which are ending, and what an earlier plimsoll left behind.
//!
//! Start at [`Processes`].

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

use super::procfs::{Life, Process, descendants};
use super::{ending, sweep};
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
    /// Whether those who lose their parent become children of this process.
    reaper: bool,
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
}

/// One program that runs or ends.
pub(super) struct Entry {
    /// `None` once it has ended and was reaped.
    guard: Mutex<Option<Pid>>,
    cwd: PathBuf,
    ending: AtomicBool,
}

impl Entry {
    /// Notes that it was told to end.
    pub(super) fn begin_ending(&self) {
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
        Self::with(owner, guard, false, HashSet::new())
    }

    fn with(owner: &str, guard: PathBuf, reaper: bool, strangers: HashSet<(Pid, u64)>) -> Self {
        let (changed, _) = watch::channel(());
        let (owner, tasks) = (owner.to_owned(), TaskTracker::new());
        // It takes tasks all the same, and can be waited for at any time.
        tasks.close();
        let table = Mutex::new(Table { entries: Vec::new(), strangers });
        Self(Arc::new(Shared { owner, guard, reaper, table, changed, tasks }))
    }

    /// Makes this process the one that runs the agents of a data directory, whose lock it holds: ends what an earlier
    /// one left behind, and becomes the parent of whoever outlives its guard.
    pub async fn take_over(owner: &str) -> Self {
        let ours = rustix::process::getpid();
        let all = spawn_blocking(Process::all).await.unwrap_or_default();
        let children = all.iter().filter(|process| process.parent == Some(ours));
        let strangers = children.map(Process::identity).collect();
        #[cfg(target_os = "linux")]
        let reaper = rustix::process::set_child_subreaper(Some(ours)).is_ok();
        #[cfg(not(target_os = "linux"))]
        let reaper = false;
        let count = sweep::end_left_behind(owner.to_owned(), LEFT_BEHIND_GRACE).await;
        if count > 0 {
            tracing::warn!(
                source = "agent.process",
                processes = count,
                "processes that agents of an earlier run left behind were ended"
            );
        }
        Self::with(owner, own_binary(), reaper, strangers)
    }

    /// Waits until no program runs or ends any more, but not for longer than `wait`; whether none does.
    pub(super) async fn none_left(&self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.0.tasks.wait()).await.is_ok()
    }

    /// Waits until nothing ends any more in this directory, but not for longer than `wait`; whether nothing does.
    pub(super) async fn settled(&self, cwd: &Path, wait: Duration) -> bool {
        let mut changes = self.0.changed.subscribe();
        let quiet = || {
            let table = self.table();
            !table.entries.iter().any(|entry| entry.cwd == cwd && entry.ending.load(Ordering::SeqCst))
        };
        tokio::time::timeout(wait, changes.wait_for(|()| quiet())).await.is_ok()
    }

    /// What marks a process as one of this agent's.
    pub(super) fn mark(&self, agent: &AgentId) -> String {
        format!("{}/{agent}", self.0.owner)
    }

    pub(super) fn guard_binary(&self) -> &Path {
        &self.0.guard
    }

    /// Starts a guard.
    pub(super) fn spawn(&self, command: &mut Command, cwd: PathBuf) -> io::Result<(Child, Arc<Entry>)> {
        // Under the lock: nobody may take a child for an orphan that is not in the table yet.
        let mut table = self.table();
        let child = command.spawn()?;
        let guard = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let entry = Arc::new(Entry { guard: Mutex::new(guard), cwd, ending: AtomicBool::new(false) });
        table.entries.push(Arc::clone(&entry));
        Ok((child, entry))
    }

    /// Runs what watches a program; [`none_left`](Self::none_left) joins it.
    pub(super) fn watch(&self, watching: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(watching);
    }

    /// Notes that a guard was reaped: its id may soon be another's.
    pub(super) fn guard_ended(&self, entry: &Entry) {
        let _table = self.table();
        *entry.guard() = None;
    }

    /// Notes that nothing is left of a program.
    pub(super) fn gone(&self, entry: &Arc<Entry>) {
        self.table().entries.retain(|other| !Arc::ptr_eq(other, entry));
        self.0.changed.send_replace(());
    }

    /// Ends every child of this process that is no guard, and what descends from it; gives how many there were.
    pub(super) async fn end_orphans(&self, grace: Duration) -> usize {
        if !self.0.reaper {
            return 0;
        }
        ending::end(|| self.orphans(), || true, grace).await
    }

    fn orphans(&self) -> Vec<Process> {
        let table = self.table();
        let ours = rustix::process::getpid();
        let guards: HashSet<Pid> = table.entries.iter().filter_map(|entry| *entry.guard()).collect();
        let all = Process::all();
        let is_orphan = |process: &&Process| {
            process.parent == Some(ours)
                && !guards.contains(&process.pid)
                && !table.strangers.contains(&process.identity())
        };
        let (ended, mut orphans): (Vec<Process>, Vec<Process>) =
            all.iter().filter(is_orphan).partition(|process| process.life == Life::Zombie);
        for process in ended {
            // Each by its id: a guard's end is for whoever waits for that guard.
            let _ = rustix::process::waitpid(Some(process.pid), WaitOptions::NOHANG);
        }
        let below = descendants(&all, orphans.iter().map(|process| process.pid));
        orphans.extend(below.into_iter().filter(|process| process.life == Life::Alive));
        orphans
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This plimsoll, also after its file was replaced.
fn own_binary() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { link } else { std::env::current_exe().unwrap_or(link) }
}
