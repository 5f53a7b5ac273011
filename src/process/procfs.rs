//! What `/proc` says of processes: who runs, whose child it is, what it was started with.
//!
//! A process is its id and the moment it started: an id alone may belong to somebody else a moment later.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long one look may take: the environment of a process that the kernel holds may never come.
const LOOK_WAIT: Duration = Duration::from_secs(3);

/// A process as `/proc/PID/stat` tells of it (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    /// In clock ticks since the machine started.
    pub(crate) started: u64,
    pub(crate) parent: Option<Pid>,
    pub(crate) session: Option<Pid>,
    pub(crate) life: Life,
}

/// Whether it runs or waits to be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// It ended, and its parent has not asked how.
    Zombie,
}

impl Process {
    /// The process that has this id now.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        Self::look(pid).ok().flatten()
    }

    /// The same; `None` for one that is gone, or that is not shown to this user.
    fn look(pid: Pid) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(parse(pid, &stat)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Every process there is. It reads hundreds of files: not for the runtime.
    ///
    /// # Errors
    /// What the system says when it cannot be seen who there is: too many open files, say.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let id = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = id.and_then(Pid::from_raw) {
                all.extend(Self::look(pid)?);
            }
        }
        Ok(all)
    }

    /// Who it is, however often its id is used again.
    pub(crate) fn identity(&self) -> (Pid, u64) {
        (self.pid, self.started)
    }

    /// Sends a signal to this process and to no other that got its id since.
    ///
    /// # Errors
    /// What the system says when it may not be signalled. Whoever is gone needs no signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Ok(handle) = rustix::process::pidfd_open(self.pid, rustix::process::PidfdFlags::empty()) {
            if !self.is_there() {
                return Ok(());
            }
            if rustix::process::pidfd_send_signal(handle, signal).is_ok() {
                return Ok(());
            }
        }
        self.signal_by_id(signal)
    }

    /// The same where the system knows no handles, or a sandbox forbids them (gVisor, seccomp profiles of older
    /// engines): the id is looked at just before.
    fn signal_by_id(&self, signal: Signal) -> io::Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        match rustix::process::kill_process(self.pid, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(problem) => Err(problem.into()),
        }
    }

    /// Whether its id is still its own.
    fn is_there(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.identity() == self.identity())
    }

    /// Whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.identity() == self.identity() && now.life == Life::Alive)
    }

    /// The user it runs as.
    pub(crate) fn user(&self) -> Option<u32> {
        Some(fs::metadata(format!("/proc/{}", self.pid)).ok()?.uid())
    }

    /// The environment it was started with, unless another user's.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Its arguments, its own name first.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let text = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let text = text.strip_suffix(b"\0").unwrap_or(&text);
        text.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    }
}

/// Those of `all` that descend from one of `roots`; the roots are not among them.
pub(crate) fn descendants(all: &[Process], roots: impl IntoIterator<Item = Pid>) -> Vec<Process> {
    let mut children: HashMap<Pid, Vec<&Process>> = HashMap::new();
    for process in all {
        if let Some(parent) = process.parent {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut asked: Vec<Pid> = roots.into_iter().collect();
    let mut seen: HashSet<Pid> = asked.iter().copied().collect();
    let mut found = Vec::new();
    while let Some(pid) = asked.pop() {
        for child in children.get(&pid).into_iter().flatten().filter(|child| seen.insert(child.pid)) {
            found.push(**child);
            asked.push(child.pid);
        }
    }
    found
}

/// Their ids, for people.
pub(crate) fn ids(processes: &[Process]) -> String {
    let ids: Vec<String> = processes.iter().map(|process| process.pid.to_string()).collect();
    ids.join(", ")
}

/// Whether there is a `/proc` to read, and it counts processes as the system does for this one: that of another pid
/// namespace tells of others under the same ids.
pub(crate) fn is_there() -> bool {
    let own = fs::read_link("/proc/self").ok();
    own.and_then(|own| own.to_str()?.parse().ok()) == Some(rustix::process::getpid().as_raw_nonzero().get())
}

/// Looks without holding the runtime up.
///
/// # Errors
/// Those of `look`; [`io::ErrorKind::TimedOut`] when it takes too long.
pub(crate) async fn off_runtime<T: Send + 'static>(
    look: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match timeout(LOOK_WAIT, spawn_blocking(look)).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => Err(io::ErrorKind::Other.into()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn parse(pid: Pid, stat: &[u8]) -> Option<Process> {
    // The name in parentheses may hold anything, parentheses too.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let id = |index: usize| fields.get(index)?.parse().ok().and_then(Pid::from_raw);
    // A main thread that has ended while others run is a `Z` too.
    let threads: u64 = fields.get(17)?.parse().ok()?;
    let life = match *fields.first()? {
        "Z" if threads <= 1 => Life::Zombie,
        "X" => Life::Zombie,
        _ => Life::Alive,
    };
    Some(Process { pid, started: fields.get(19)?.parse().ok()?, parent: id(1), session: id(3), life })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).expect("not zero")
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_hides_nothing() {
        let stat = b"42 (a) R 1 (b) S 7 42 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 999 1";
        let expected = Process {
            pid: pid(42),
            started: 12_345,
            parent: Some(pid(7)),
            session: Some(pid(9)),
            life: Life::Alive,
        };
        assert_eq!(parse(pid(42), stat), Some(expected));
        assert_eq!(parse(pid(42), b"42 (cut"), None);
        assert_eq!(parse(pid(42), b"42 (cut) S 1"), None);
    }

    #[test]
    fn one_whose_main_thread_has_ended_is_alive_while_others_run() {
        let life = |threads: u32| {
            let stat = format!("42 (a) Z 7 42 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 12345 0 0");
            parse(pid(42), stat.as_bytes()).expect("whole").life
        };
        assert_eq!((life(1), life(2)), (Life::Zombie, Life::Alive));
    }

    #[test]
    fn descendants_are_found_over_generations_and_circles_end() {
        let process = |own: i32, parent: i32| Process {
            pid: pid(own),
            started: 0,
            parent: Some(pid(parent)),
            session: None,
            life: Life::Alive,
        };
        let all = [process(9, 8), process(2, 1), process(3, 2), process(4, 3), process(8, 9), process(5, 7)];
        let of = |root| {
            let mut found: Vec<_> =
                descendants(&all, [pid(root)]).iter().map(|p| p.pid.as_raw_nonzero().get()).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(of(1), [2, 3, 4]);
        assert_eq!(of(8), [9]);
        assert_eq!(of(6), [0; 0]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_found_with_its_arguments() {
        let own = rustix::process::getpid();
        let found =
            Process::all().expect("a /proc").into_iter().find(|process| process.pid == own).expect("it runs");
        assert_eq!(found.parent, rustix::process::getppid());
        assert!(found.arguments()[0].contains("plimsoll"), "{:?}", found.arguments());
        assert_eq!(found.user(), Some(rustix::process::getuid().as_raw()));
        assert!(is_there());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn without_handles_an_id_that_is_another_s_now_is_not_signalled() {
        let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep runs");
        let process = Process::of(Pid::from_child(&sleeper)).expect("it runs");
        let earlier = Process { started: process.started - 1, ..process };
        earlier.signal_by_id(Signal::KILL).expect("nobody to signal");
        process.signal_by_id(Signal::TERM).expect("signalled");
        let status = sleeper.wait().expect("it ended");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "only the second came");
        process.signal_by_id(Signal::KILL).expect("it is gone");
    }
}
