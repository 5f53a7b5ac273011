//! Ends processes: asks them (SIGTERM), gives them time, kills them (SIGKILL), until none is left.
//!
//! It knows a process only by what `find` finds, and looks again after every step: whoever forks meanwhile is found
//! the next time.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::procfs::Process;

/// The first wait before looking again; each further one is twice as long.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(2);
/// The longest wait before looking again.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);

/// Ends all that `find` finds; gives how many there were. Returns once it finds none, twice in a row (a process whose
/// parent ends while it looks may be missed once), and `sure` says that there is none.
pub(super) async fn end(find: impl Fn() -> Vec<Process>, sure: impl Fn() -> bool, grace: Duration) -> usize {
    let mut met = HashSet::new();
    let asking = each(&find, &sure, |process| {
        if met.insert(process.identity()) {
            process.signal(Signal::TERM);
            // One that was stopped hears nothing else.
            process.signal(Signal::CONT);
        }
    });
    if timeout(grace, asking).await.is_err() {
        let killing = each(&find, &sure, |process| {
            met.insert(process.identity());
            process.signal(Signal::KILL);
        });
        killing.await;
    }
    met.len()
}

/// Does this to all that is found, the youngest first because it may just fork, until nothing is.
async fn each(find: &impl Fn() -> Vec<Process>, sure: &impl Fn() -> bool, mut act: impl FnMut(&Process)) {
    let (mut wait, mut none) = (LOOK_AGAIN_MIN, 0);
    loop {
        let mut found = find();
        found.sort_unstable_by_key(|process| std::cmp::Reverse(process.started));
        found.iter().for_each(&mut act);
        none = if found.is_empty() { none + 1 } else { 0 };
        match (none, sure()) {
            (2.., true) => return,
            (1, true) => {}
            _ => {
                sleep(wait).await;
                wait = (wait * 2).min(LOOK_AGAIN_MAX);
            }
        }
    }
}
