//! Ends processes: asks them (SIGTERM), gives them time, kills them (SIGKILL), until none is left or one stays although
//! it was killed.
//!
//! It knows a process only by what `find` finds, and looks again after every step: whoever forks meanwhile is found
//! the next time.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{sleep, timeout};

use super::procfs::Process;

/// The first wait before looking again; each further one is twice as long.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(2);
/// The longest wait before looking again.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);

/// How long those that were killed may take while no other comes up: another user's takes no signal, and one that the
/// kernel holds does not end by it.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// The same where others come up again and again, or where nobody can look.
pub(crate) const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

/// What became of those that were to end.
#[derive(Debug)]
pub(crate) struct Ending {
    /// How many there were.
    pub(crate) met: usize,
    /// Whether none is left, for sure.
    pub(crate) over: bool,
    /// Those that are left, if it could be seen who.
    pub(crate) left: Vec<Process>,
    /// What the system said when they were looked for or signalled.
    pub(crate) problem: Option<io::Error>,
}

/// Ends all that `find` finds. Returns once it finds none, twice in a row (a process whose parent ends while it looks
/// may be missed once), and `sure` says that there is none; or when killing does not help.
pub(crate) async fn end<F, L>(find: F, sure: impl Fn() -> bool, grace: Duration) -> Ending
where
    F: Fn() -> L,
    L: Future<Output = io::Result<Vec<Process>>>,
{
    let mut hunt =
        Hunt { find, sure, met: HashSet::new(), quiet: Duration::ZERO, left: Vec::new(), problem: None };
    let over = match timeout(grace, hunt.ask()).await {
        Ok(()) => true,
        Err(_) => timeout(KILL_WAIT_MAX, hunt.kill()).await.unwrap_or(false),
    };
    Ending { met: hunt.met.len(), over, left: hunt.left, problem: hunt.problem }
}

struct Hunt<F, S> {
    find: F,
    sure: S,
    met: HashSet<(Pid, u64)>,
    /// Waited since the last one was met.
    quiet: Duration,
    /// Who was there at the last look.
    left: Vec<Process>,
    problem: Option<io::Error>,
}

impl<F, L, S> Hunt<F, S>
where
    F: Fn() -> L,
    L: Future<Output = io::Result<Vec<Process>>>,
    S: Fn() -> bool,
{
    /// Asks each of them once, and waits until none is left.
    async fn ask(&mut self) {
        let ask = |process: &Process, new: bool| {
            if new {
                process.signal(Signal::TERM)?;
                // One that was stopped hears nothing else.
                process.signal(Signal::CONT)?;
            }
            Ok(())
        };
        let (mut wait, mut none) = (LOOK_AGAIN_MIN, 0);
        while !self.look(&mut none, ask).await {
            pause(&mut wait, none).await;
        }
    }

    /// Kills all of them until none is left; whether none is.
    async fn kill(&mut self) -> bool {
        self.quiet = Duration::ZERO;
        let (mut wait, mut none) = (LOOK_AGAIN_MIN, 0);
        while !self.look(&mut none, |process, _| process.signal(Signal::KILL)).await {
            if self.quiet >= KILL_WAIT && !self.left.is_empty() {
                return false;
            }
            self.quiet += wait;
            pause(&mut wait, none).await;
        }
        true
    }

    /// Does this to all that is found, the youngest first because it may just fork; whether nobody is left. `none`
    /// counts how often nobody was found.
    async fn look(&mut self, none: &mut u32, act: impl Fn(&Process, bool) -> io::Result<()>) -> bool {
        match (self.find)().await {
            Ok(mut found) => {
                self.problem = None;
                found.sort_unstable_by_key(|process| std::cmp::Reverse(process.started));
                for process in &found {
                    let new = self.met.insert(process.identity());
                    if new {
                        self.quiet = Duration::ZERO;
                    }
                    if let Err(problem) = act(process, new) {
                        self.problem = Some(problem);
                    }
                }
                *none = if found.is_empty() { *none + 1 } else { 0 };
                self.left = found;
            }
            Err(problem) => {
                *none = 0;
                self.problem = Some(problem);
            }
        }
        *none >= 2 && (self.sure)()
    }
}

async fn pause(wait: &mut Duration, none: u32) {
    // Who is missed is missed for a moment only.
    if none == 1 {
        tokio::task::yield_now().await;
        return;
    }
    sleep(*wait).await;
    *wait = (*wait * 2).min(LOOK_AGAIN_MAX);
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_is_named_and_not_waited_for_without_end() {
        // Nobody has this moment of start, so nobody is signalled.
        let ours = Process::of(rustix::process::getpid()).expect("it runs");
        let stays = Process { started: ours.started + 1, ..ours };
        let ending = end(|| std::future::ready(Ok(vec![stays])), || true, Duration::from_millis(10)).await;
        assert_eq!((ending.met, ending.over, ending.left), (1, false, vec![stays]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_and_processes_without_end_hold_nobody_up() {
        let grace = Duration::from_secs(3);
        let late = grace + KILL_WAIT_MAX + Duration::from_millis(10);
        let hangs = end(std::future::pending, || true, grace);
        let ending = timeout(late, hangs).await.expect("it gives up");
        assert!(!ending.over && ending.met == 0, "{ending:?}");
        let ours = Process::of(rustix::process::getpid()).expect("it runs");
        let next = std::cell::Cell::new(ours.started);
        let look = || {
            next.set(next.get() + 1);
            std::future::ready(Ok(vec![Process { started: next.get(), ..ours }]))
        };
        let ending = timeout(late, end(look, || true, grace)).await.expect("it gives up");
        assert!(!ending.over && ending.met > 100 && ending.left.len() == 1, "{ending:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_look_is_not_sure() {
        let look = || std::future::ready(Err(io::ErrorKind::Other.into()));
        let ending = end(look, || true, Duration::ZERO).await;
        assert!(!ending.over && ending.problem.is_some(), "{ending:?}");
        let looked = std::cell::Cell::new(0);
        let look = || {
            looked.set(looked.get() + 1);
            std::future::ready(if looked.get() < 5 {
                Err(io::ErrorKind::Other.into())
            } else {
                Ok(Vec::new())
            })
        };
        let ending = end(look, || true, Duration::ZERO).await;
        assert!(ending.over && ending.problem.is_none(), "{ending:?}");
    }
}
