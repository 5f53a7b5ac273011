//! One run of a program: its guard, its pipes, and its end.
//!
//! [`Tree`] is a handle: dropped, the program and all that descends from it are ended. That takes a moment, and
//! [`Processes`] knows until when.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::unix::pipe::Sender;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Exit;
use super::ending::Ending;
use super::guard::{GUARD_COMMAND, LEFT_SOME, Report};
use super::processes::{Entry, Processes};
use super::procfs;

/// How long a guard may take beyond the grace of its program until it is killed itself: it may have been stopped.
pub(crate) const GUARD_END: Duration = Duration::from_secs(3);

/// What is to be run.
pub(crate) struct Program {
    pub(crate) name: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) variables: BTreeMap<OsString, OsString>,
    /// Absolute, and there.
    pub(crate) cwd: PathBuf,
    /// How long it may take to end by itself once it was asked to.
    pub(crate) grace: Duration,
}

/// A program that runs, with what descends from it.
pub(crate) struct Tree {
    entry: Arc<Entry>,
    outputs: Option<Outputs>,
    stop: Option<oneshot::Sender<Outputs>>,
    ended: oneshot::Receiver<Ended>,
}

/// What it prints.
pub(crate) struct Outputs {
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// What a conversation with it needs, each by itself.
pub(crate) struct Ends<'a> {
    pub(crate) outputs: &'a mut Outputs,
    pub(crate) ended: &'a mut oneshot::Receiver<Ended>,
}

/// How a program ended. Nothing of it is left then that could be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It could not be started; the system's number says why.
    Failed(i32),
    /// It ran.
    Exited(Exit),
    /// Its guard was killed, and so were all the others then.
    Unguarded,
    /// Its guard failed by itself: the machine has no more memory or files.
    GuardFailed,
}

impl Tree {
    /// Starts a program under a guard. Must be called on the runtime.
    ///
    /// # Errors
    /// What the system says when the guard cannot be started; the program's own failure is told by its end.
    pub(crate) fn start(processes: &Processes, program: Program) -> io::Result<(Self, Sender)> {
        let (here, there) = UnixStream::pair()?;
        let (reader, writer) = io::pipe()?;
        hand_over(&here, reader.as_fd())?;
        drop(reader);
        here.set_nonblocking(true)?;
        let stdin = Sender::from_owned_fd(writer.into())?;
        let grace = program.grace;
        let mut command = guarded(processes, &program, there.into());
        let (mut guard, entry) = processes.spawn(&mut command, program.cwd)?;
        let (stdout, stderr) = (guard.stdout.take(), guard.stderr.take());
        let (stdout, stderr) = stdout.zip(stderr).ok_or(io::ErrorKind::BrokenPipe)?;
        let ((stop, stopped), (told, ended)) = (oneshot::channel(), oneshot::channel());
        let run =
            Run { processes: processes.clone(), guard, control: here, entry: Arc::clone(&entry), grace };
        processes.watch(async move {
            // Whoever stopped it may not care.
            let _ = told.send(run.see_to_its_end(stopped).await);
        });
        let outputs = Some(Outputs { stdout, stderr });
        Ok((Self { entry, outputs, stop: Some(stop), ended }, stdin))
    }

    /// As what [`Processes`] know it.
    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// What it prints, and its end; nothing is left of it then.
    pub(crate) fn ends(&mut self) -> Ends<'_> {
        let outputs = self.outputs.as_mut().expect("they are there until it is stopped");
        Ends { outputs, ended: &mut self.ended }
    }

    /// Ends it, and waits until nothing is left of it.
    pub(crate) async fn stop(mut self) {
        self.begin_ending();
        let _ = (&mut self.ended).await;
    }

    fn begin_ending(&mut self) {
        self.entry.begin_ending();
        if let Some((stop, outputs)) = self.stop.take().zip(self.outputs.take()) {
            // Nobody needs to be told about one that has ended.
            let _ = stop.send(outputs);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.begin_ending();
    }
}

/// Sends what the guard hands to the program as its standard input.
fn hand_over(control: &UnixStream, stdin: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let handles = [stdin.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&handles)), "there is space for one");
    sendmsg(control, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// The guard's command: plimsoll itself, with everything else as the program wants it.
fn guarded(processes: &Processes, program: &Program, control: OwnedFd) -> Command {
    let mut command = Command::new(processes.guard_binary());
    command
        .arg0("plimsoll")
        .arg(GUARD_COMMAND)
        .arg(std::process::id().to_string())
        .arg(program.grace.as_millis().to_string())
        .arg(&program.name)
        .args(&program.arguments)
        .env_clear()
        .envs(&program.variables)
        .current_dir(&program.cwd)
        .stdin(Stdio::from(control))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What sees a program to its end.
struct Run {
    processes: Processes,
    guard: Child,
    control: UnixStream,
    entry: Arc<Entry>,
    grace: Duration,
}

impl Run {
    async fn see_to_its_end(mut self, stop: oneshot::Receiver<Outputs>) -> Ended {
        let told = tokio::select! {
            _ = self.guard.wait() => false,
            outputs = stop => {
                self.stop(outputs.ok()).await;
                true
            }
        };
        // It wrote before it ended, and nobody else holds the other end.
        let mut text = [0; 32];
        let read = self.control.read(&mut text).unwrap_or_default();
        let report = std::str::from_utf8(&text[..read]).ok().and_then(Report::parse);
        let code = self.guard.try_wait().ok().flatten().and_then(|status| status.code());
        self.processes.guard_ended(&self.entry);
        if code != Some(0) {
            self.end_rest(code, told).await;
        }
        match report {
            Some(Report::Failed(number)) => Ended::Failed(number),
            Some(Report::Ended(exit)) => Ended::Exited(exit),
            None if code.is_some() => Ended::GuardFailed,
            None => Ended::Unguarded,
        }
    }

    /// Ends what a guard left that was killed, or ended with this code.
    async fn end_rest(&self, code: Option<i32>, told: bool) {
        let gave_up = code == Some(i32::from(LEFT_SOME));
        // Nobody is given time twice.
        let grace = if told || gave_up { Duration::ZERO } else { self.grace };
        let Ending { met, over, left, problem } = self.processes.end_orphans(grace).await;
        if !gave_up {
            let how = if code.is_some() { "failed" } else { "was killed" };
            tracing::warn!(
                source = "agent.process",
                processes = met,
                "the guard of an agent's program {how}; what it guarded was ended"
            );
        }
        if !over {
            self.processes.stay(&self.entry, &left);
            tracing::warn!(
                source = "agent.process",
                pids = procfs::ids(&left),
                problem = problem.map(tracing::field::display),
                "processes of an agent's program cannot be ended, or not be seen; while they run no message is taken \
                 in its directory"
            );
        }
    }

    /// Tells the guard to end all, and ends it itself if it does not.
    async fn stop(&mut self, outputs: Option<Outputs>) {
        // By its end; a guard that is gone needs no telling.
        let _ = self.control.shutdown(Shutdown::Write);
        let draining = drain(outputs);
        let ending = timeout(self.grace + GUARD_END, self.guard.wait());
        let in_time = tokio::select! {
            ended = ending => ended.is_ok(),
            () = draining => unreachable!("it goes on until the guard has ended"),
        };
        if !in_time {
            let _ = self.guard.start_kill();
            let _ = self.guard.wait().await;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Whatever became of it: nobody waits for it for ever.
        self.processes.gone(&self.entry);
    }
}

/// Takes what is still printed, to throw it away: a program that tidies up while it ends must not die of SIGPIPE.
async fn drain(outputs: Option<Outputs>) {
    if let Some(Outputs { mut stdout, mut stderr }) = outputs {
        let (mut nowhere, mut nowhere_too) = (tokio::io::sink(), tokio::io::sink());
        let _ = tokio::join!(
            tokio::io::copy(&mut stdout, &mut nowhere),
            tokio::io::copy(&mut stderr, &mut nowhere_too)
        );
    }
    std::future::pending().await
}
