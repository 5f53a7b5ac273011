//! Programs that run for agents, and never alone: a guard stands between each and plimsoll, and ends whatever it leaves
//! behind. What outlives a guard too is found by its mark at the next start.
//!
//! Start at `Tree`, a run of a program, and [`Processes`], all of them.

mod ending;
mod guard;
mod processes;
mod procfs;
mod search;
mod sweep;
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsString;

pub use guard::{GUARD_COMMAND, run as run_guard};
pub use processes::Processes;

pub(crate) use ending::KILL_WAIT_MAX;
pub(crate) use processes::{Entry, Unsettled};
#[cfg(test)]
pub(crate) use procfs::Process;
pub(crate) use search::{Found, look_for};
pub(crate) use sweep::{LeftBehind, OWNER};
pub(crate) use tree::{Ended, Ends, GUARD_END, Outputs, Program, Tree};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// Whether a program ended itself in failure. Past 127 a shell says that a signal ended what it ran.
    pub(crate) fn is_own_failure(self) -> bool {
        matches!(self, Self::Code(1..=127))
    }
}

/// Variables of plimsoll's own environment that every program gets.
const ALWAYS_PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// What a program gets of plimsoll's own environment: these variables, and those without which little works.
pub(crate) fn handed_on(named: &[String]) -> BTreeMap<OsString, OsString> {
    let names = ALWAYS_PASSED.into_iter().chain(named.iter().map(String::as_str));
    names.filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect()
}
