//! `plimsoll exec-guard`: the process between plimsoll and an agent's program.
//!
//! It runs the program and reports how it ended. When the program ends, when plimsoll says so or when plimsoll is gone,
//! it ends every process that descends from the program, whatever they did to get away: it is their subreaper
//! (prctl(2)), so whoever loses its parent becomes its child. It ends itself only when none is left, or one stays that
//! cannot be killed.
//!
//! Its standard input is a socket to plimsoll. Over it comes the program's own standard input; its end says "end all",
//! and is there too when plimsoll is killed, whichever thread of it started this. The report goes the other way. All
//! else is the program's: output, environment, working directory. Start at [`run`].

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, WaitOptions, WaitStatus, kill_process_group};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::Exit;
use super::ending;
use super::procfs::{self, Life, Process, descendants};

/// The subcommand under which plimsoll runs itself as a guard. Not for people.
pub const GUARD_COMMAND: &str = "exec-guard";

/// What it is started with, after its name.
const USAGE: &str =
    "plimsoll runs this itself: exec-guard <pid of plimsoll> <grace in ms> <program> [arguments]";

/// Added to the program's `oom_score_adj` (proc_pid_oom_score_adj(5)): when memory ends, agents go before plimsoll.
const OOM_SCORE_ADD: i32 = 500;

/// Where a process reads and sets its own.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// The exit code of a guard that could not end all: somebody stayed although it was killed.
pub(crate) const LEFT_SOME: u8 = 3;

/// How often the end of a group is looked for.
const GROUP_LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How a program ended, as its guard reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// It could not be started; the system's number says why.
    Failed(i32),
    /// It ran.
    Ended(Exit),
}

impl Report {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (word, number) = text.trim_end().split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "failed" => Some(Self::Failed(number)),
            "exited" => Some(Self::Ended(Exit::Code(number))),
            "killed" => Some(Self::Ended(Exit::Signal(number))),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Failed(number) => format!("failed {number}\n"),
            Self::Ended(Exit::Code(number)) => format!("exited {number}\n"),
            Self::Ended(Exit::Signal(number)) => format!("killed {number}\n"),
        }
    }
}

/// Runs as a guard, to the end of all that it guards.
#[must_use]
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut number = || arguments.next()?.to_str()?.parse::<u64>().ok();
    // The first number is for those who look from outside: it tells whose guard this is.
    let (Some(_plimsoll), Some(grace)) = (number(), number()) else { return misused() };
    let Some(program) = arguments.next() else { return misused() };
    // Before anything else: from here on a key on plimsoll's terminal is none of the program's business.
    let _ = rustix::process::setsid();
    let Ok(message) = receive() else { return misused() };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::from(message)).process_group(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(guard(command, Duration::from_millis(grace)))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(LEFT_SOME),
        Err(_) => ExitCode::FAILURE,
    }
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// The program's standard input, which comes over our own.
fn receive() -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(io::stdin(), &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty())?;
    let handles = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(handles) => Some(handles),
        _ => None,
    });
    let handle = handles.flatten().next().ok_or(io::ErrorKind::InvalidData)?;
    // Nothing is started before this, so nobody inherits it.
    rustix::io::fcntl_setfd(&handle, rustix::io::FdFlags::CLOEXEC)?;
    Ok(handle)
}

/// Whether nobody is left.
async fn guard(mut command: Command, grace: Duration) -> io::Result<bool> {
    let control = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    control.set_nonblocking(true)?;
    let heard = UnixStream::from_std(control.try_clone()?)?;
    // Before the program is started: none of its signs may be missed.
    let mut child = signal(SignalKind::child())?;
    let mut enders =
        [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?];
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // The standard library inherits nothing to anybody; whoever started plimsoll may have been less careful.
    close_fds::set_fds_cloexec(3, &[]);
    let usual = raise_oom_score();
    let started = command.spawn();
    usual.iter().for_each(|score| set_oom_score(*score));
    let program = match started {
        Ok(program) => Pid::from_child(&program),
        Err(error) => {
            report(&control, Report::Failed(error.raw_os_error().unwrap_or_default()))?;
            return Ok(true);
        }
    };
    // Its input and its output are its own from here on: they end when it ends them.
    drop(command);
    leave_output()?;
    let wards = Wards { program, control: &control, left: Cell::new(true) };
    loop {
        tokio::select! {
            _ = child.recv() => if wards.reap() { break },
            () = any(&mut enders) => break,
            () = closed(&heard) => break,
        }
    }
    if procfs::is_there() {
        let look = || std::future::ready(wards.alive());
        return Ok(ending::end(look, || !wards.left.get(), grace).await.over);
    }
    wards.end_group(grace).await;
    Ok(true)
}

/// Those who are guarded.
struct Wards<'a> {
    program: Pid,
    control: &'a StdUnixStream,
    /// Whether there may be any; exact after [`Wards::reap`].
    left: Cell<bool>,
}

impl Wards<'_> {
    /// Takes the word of every child that ended; whether the program is among them.
    fn reap(&self) -> bool {
        let mut program_ended = false;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.program => {
                    program_ended = true;
                    // A plimsoll that is gone does not ask.
                    let _ = report(self.control, Report::Ended(exit(status)));
                }
                Ok(Some(_)) => {}
                Ok(None) => return program_ended,
                // No child, and so no descendant either.
                Err(_) => {
                    self.left.set(false);
                    return program_ended;
                }
            }
        }
    }

    /// Those that run.
    fn alive(&self) -> io::Result<Vec<Process>> {
        self.reap();
        if !self.left.get() {
            return Ok(Vec::new());
        }
        let mut found = descendants(&Process::all()?, [rustix::process::getpid()]);
        found.retain(|process| process.life == Life::Alive);
        Ok(found)
    }

    /// Where nobody tells who descends from whom: ends those that stayed in the program's group.
    async fn end_group(&self, grace: Duration) {
        let gone = async {
            while self.left.get() {
                sleep(GROUP_LOOK_AGAIN).await;
                self.reap();
            }
        };
        self.reap();
        let _ = kill_process_group(self.program, rustix::process::Signal::TERM);
        let _ = timeout(grace, gone).await;
        let _ = kill_process_group(self.program, rustix::process::Signal::KILL);
        self.reap();
    }
}

fn exit(status: WaitStatus) -> Exit {
    let signal = status.terminating_signal().map(Exit::Signal);
    signal.unwrap_or_else(|| Exit::Code(status.exit_status().unwrap_or_default()))
}

fn report(mut control: &StdUnixStream, report: Report) -> io::Result<()> {
    // A few bytes into an empty socket: they fit, so nothing is waited for.
    control.write_all(report.text().as_bytes())
}

/// Waits until plimsoll says "end all" or is gone: either is the end of what it says.
async fn closed(control: &UnixStream) {
    while control.readable().await.is_ok() {
        match control.try_read(&mut [0; 16]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

async fn any(signals: &mut [Signal; 3]) {
    let [a, b, c] = signals;
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
        _ = c.recv() => {}
    }
}

/// Lets go of the output, so that it ends with the program.
fn leave_output() -> io::Result<()> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(())
}

/// Gives what it was before, where there is such a thing.
fn raise_oom_score() -> Option<i32> {
    let usual: i32 = fs::read_to_string(OOM_SCORE).ok()?.trim().parse().ok()?;
    set_oom_score(usual.saturating_add(OOM_SCORE_ADD).min(1_000));
    Some(usual)
}

fn set_oom_score(score: i32) {
    // Without it the kernel chooses by size alone.
    let _ = fs::write(OOM_SCORE, score.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_is_written() {
        let all = [Report::Failed(2), Report::Ended(Exit::Code(0)), Report::Ended(Exit::Signal(9))];
        for report in all {
            assert_eq!(Report::parse(&report.text()), Some(report));
        }
        for text in ["", "exited", "exited x", "exited 1 2", "left 3"] {
            assert_eq!(Report::parse(text), None, "{text:?}");
        }
    }
}
