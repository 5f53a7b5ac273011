//! One turn: the program is run, told the message, heard, and gone at the end.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use tokio::process::{ChildStderr, ChildStdout};

use super::super::call::{Call, Used};
use super::super::emit::Emitter;
use super::super::{Edges, ProviderError, ProviderEvent, Turn};
use super::command;
use super::dialect::{Called, Finished, Heard, Invocation, Reader};
use super::lines::{Budget, Lines, Overlong, Piece};
use super::readings::Asking;
use super::words::LastWords;
use super::{MessageRoad, Shared};
use crate::limits::{OUTPUT_LINE_BYTES_MAX, SECRET_FILE_BYTES_MAX};
use crate::live::OutputStream;
use crate::process::{Ended, Ends, Exit, Found, GUARD_END, KILL_WAIT_MAX, Outputs, Program, Tree, Unsettled};

/// How long a turn waits for an earlier one that was stopped to be gone from its directory, beyond its grace and what a
/// guard may take.
const SETTLE_WAIT: Duration = KILL_WAIT_MAX.saturating_add(Duration::from_secs(2));

/// Bytes of a line that are looked at for the output that is kept.
const SHOWN_BYTES_MAX: usize = OUTPUT_LINE_BYTES_MAX + SECRET_FILE_BYTES_MAX as usize;

/// Takes one turn to its end; nothing of the program is left then. Dropped, it is stopped.
pub(super) async fn take(shared: &Shared, turn: &Turn, out: &Emitter) -> Result<(), ProviderError> {
    let Shared { config, deps, .. } = shared;
    let cwd = directory(turn).await?;
    let wait = config.kill_grace.0 + GUARD_END + SETTLE_WAIT;
    deps.processes.settled(&cwd, wait).await.map_err(|unsettled| match unsettled {
        Unsettled::Ending => ProviderError::NotStarted {
            problem: "an earlier run in its directory has not ended: try again later".into(),
            retry_after: Some(SETTLE_WAIT),
        },
        Unsettled::Left(ids) => not_started(&format!(
            "plimsoll could not end what an earlier run in its directory left (process {ids}): end it yourself"
        )),
    })?;
    let invocation = Invocation {
        model: turn.model.as_deref(),
        system: turn.system.as_deref(),
        resume: turn.agent_session.as_deref(),
        args: &config.args,
    };
    let call = Call::start(deps, turn, &shared.asks(turn.model.as_deref()));
    let trace = call.traceparent();
    let mut hearing = Hearing {
        shared,
        turn,
        out,
        call: Some(call),
        reader: Some(config.dialect.reader(&invocation)),
        unknown: 0,
    };
    let program = Program {
        name: config.program.clone().into(),
        arguments: command::arguments(config, &invocation, &config.dialect.message(&turn.message)),
        variables: command::variables(config, &invocation, trace.as_ref(), deps.processes.mark(&turn.agent)),
        cwd,
        grace: config.kill_grace.0,
    };
    let mut words = LastWords::default();
    let heard = match Tree::start(&deps.processes, program) {
        Ok((tree, stdin)) => hearing.listen(tree, stdin, &mut words).await,
        Err(error) => Err(shared.unstarted(&error)),
    };
    hearing.end(heard, &words)
}

/// The directory that the agent works in, absolute and there.
async fn directory(turn: &Turn) -> Result<PathBuf, ProviderError> {
    let cwd =
        turn.cwd.as_deref().ok_or_else(|| not_started("it has no directory to work in: give it a `cwd`"))?;
    let gone = |_| not_started("the directory it works in is gone, or may not be entered");
    let cwd = tokio::fs::canonicalize(cwd).await.map_err(gone)?;
    if cwd.is_dir() { Ok(cwd) } else { Err(not_started("what it should work in is no directory")) }
}

/// What a program says while it runs, on its way out. Dropped, what it used until then is recorded.
struct Hearing<'a> {
    shared: &'a Shared,
    turn: &'a Turn,
    out: &'a Emitter,
    /// `None` once it was recorded.
    call: Option<Call>,
    /// `None` once it was asked how the turn ended.
    reader: Option<Reader>,
    /// Lines that meant nothing.
    unknown: u64,
}

impl Hearing<'_> {
    /// Talks with the program until nothing is left of it.
    async fn listen(
        &mut self,
        mut tree: Tree,
        stdin: Sender,
        words: &mut LastWords,
    ) -> Result<Exit, ProviderError> {
        let (shared, turn) = (self.shared, self.turn);
        let Ends { outputs: Outputs { stdout, stderr }, ended } = tree.ends();
        let budget = Budget::new(shared.config.output_bytes_max);
        let message = match shared.config.message {
            MessageRoad::Stdin => shared.config.dialect.message(&turn.message),
            MessageRoad::Argument => "".into(),
        };
        let ending = async {
            // One whose watcher panicked is as good as unguarded.
            let ended = ended.await.unwrap_or(Ended::Unguarded);
            budget.gone.cancel();
            Ok(ended)
        };
        let talk = async {
            tokio::try_join!(
                tell(stdin, message.as_bytes(), &budget),
                self.hear(stdout, &budget),
                complaints(shared, turn, stderr, &budget, words),
                ending
            )
        };
        match talk.await {
            Ok(((), (), (), Ended::Exited(exit))) => Ok(exit),
            Ok(((), (), (), Ended::Failed(number))) => {
                Err(shared.unstarted(&io::Error::from_raw_os_error(number)))
            }
            Ok(((), (), (), Ended::Unguarded)) => Err(exited("when the process that guards it was killed")),
            Ok(((), (), (), Ended::GuardFailed)) => Err(exited(
                "when the process that guards it failed: the machine may be short of memory or open files",
            )),
            Err(error) => {
                tree.stop().await;
                Err(error)
            }
        }
    }

    /// Takes what it prints on standard output and passes on what that says. While nobody takes that, nothing is read.
    async fn hear(&mut self, stdout: &mut ChildStdout, budget: &Budget) -> Result<(), ProviderError> {
        let line_bytes_max = usize::try_from(self.shared.config.line_bytes_max.0).unwrap_or(usize::MAX);
        let mut lines = Lines::new(stdout, budget, line_bytes_max, Overlong::Refused);
        while let Some(line) = lines.next().await? {
            show(self.shared, self.turn, OutputStream::Stdout, &line);
            let heard = self.reader.as_mut().map(|reader| reader.line(&line.bytes));
            let heard = heard.unwrap_or_default();
            let names = heard.iter().any(|heard| matches!(heard, Heard::Session(_)));
            for heard in heard {
                self.take(heard).await;
            }
            if names {
                self.out.taken().await;
            }
            self.reader.iter_mut().for_each(Reader::told);
        }
        Ok(())
    }

    async fn take(&mut self, heard: Heard) {
        let event = match heard {
            Heard::Session(name) => ProviderEvent::AgentSession(name),
            Heard::Delta(text) => {
                self.call.iter_mut().for_each(Call::token_arrived);
                ProviderEvent::Delta(text)
            }
            Heard::ToolStart { id, name } => ProviderEvent::ToolStart { id, name },
            Heard::ToolEnd { id, name, error } => ProviderEvent::ToolEnd { id, name, error },
            Heard::Retry { attempt, after, cause } => ProviderEvent::Retry { attempt, after, cause },
            Heard::Unknown => {
                self.unknown += 1;
                return;
            }
        };
        self.out.emit(event).await;
    }

    /// Says how the turn ended, and records what it used.
    fn end(mut self, heard: Result<Exit, ProviderError>, words: &LastWords) -> Result<(), ProviderError> {
        let reader = self.reader.take().expect("a turn ends once");
        self.expect(&reader);
        let Finished { result, used, called } = match heard {
            Ok(exit) => reader.finish(exit),
            Err(error) => Finished { result: Err(error), used: reader.used(), called: Called::Maybe },
        };
        if self.unknown > 0 {
            tracing::debug!(agent = %self.turn.agent, lines = self.unknown, "a program printed lines of no known shape");
        }
        let result = result.map_err(|error| self.explained(error, words));
        self.record(used, Some(&result), called);
        result
    }

    /// The error with what is known of it. One that did not say why may have told its standard error.
    fn explained(&self, error: ProviderError, words: &LastWords) -> ProviderError {
        let Shared { config, deps, .. } = self.shared;
        match error {
            ProviderError::Exited { how, quoted } if quoted.is_empty() => {
                let gone = |resume: &str| config.dialect.says_session_gone(&words.text(), resume);
                let quoted = words.quote(&deps.mask);
                if self.turn.agent_session.as_deref().is_some_and(gone) {
                    return ProviderError::Stopped { reason: "session_not_found", quoted };
                }
                ProviderError::Exited { how, quoted }
            }
            other => other.masked(&deps.mask),
        }
    }

    /// Keeps what the turn read, or says what it will have read if it does not say it. Before a program named its model it
    /// has asked none.
    fn expect(&mut self, reader: &Reader) {
        let asking = Asking::of(self.turn);
        if let Some(reading) = reader.first_reading() {
            self.shared.readings.keep(&asking, reading);
        } else if reader.named_model()
            && let (Some(call), Some(reading)) = (&mut self.call, self.shared.readings.expected(&asking))
        {
            call.expects(reading);
        }
    }

    /// One call a model. Without a result, each is recorded as what stopped the turn.
    fn record(&mut self, used: Vec<Used>, result: Option<&Result<(), ProviderError>>, called: Called) {
        let Some(first) = self.call.take() else { return };
        let asked = self.shared.asks(self.turn.model.as_deref());
        let more: Vec<Call> = used.iter().skip(1).map(|_| first.beside(self.turn, &asked)).collect();
        for (mut call, used) in std::iter::once(first).chain(more).zip(used) {
            let charged_later = used.charged_later && self.turn.remembered;
            call.report.used = Used { charged_later, ..used };
            match (result, called) {
                (None, _) => {}
                (Some(Err(error)), Called::Never) => call.end_uncalled(error),
                (Some(result), Called::Maybe | Called::Never) => call.end(result),
            }
        }
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.expect(&reader);
            self.record(reader.used(), None, Called::Maybe);
        }
    }
}

/// Hands the message over. A program that does not read it, or not all of it, may do so.
async fn tell(mut stdin: Sender, message: &[u8], budget: &Budget) -> Result<(), ProviderError> {
    tokio::select! {
        _ = stdin.write_all(message) => {}
        // A stranger to whom it was handed may hold the other end.
        () = budget.gone.cancelled() => {}
    }
    Ok(())
}

/// Takes what it prints on standard error.
async fn complaints(
    shared: &Shared,
    turn: &Turn,
    stderr: &mut ChildStderr,
    budget: &Budget,
    words: &mut LastWords,
) -> Result<(), ProviderError> {
    let mut lines = Lines::new(stderr, budget, SHOWN_BYTES_MAX, Overlong::Split);
    while let Some(line) = lines.next().await? {
        show(shared, turn, OutputStream::Stderr, &line);
        words.line(&line);
    }
    Ok(())
}

/// Keeps a line for the operator who looks over the agent's shoulder.
fn show(shared: &Shared, turn: &Turn, stream: OutputStream, line: &Piece) {
    // Whole secrets are needed to find them; what is kept is cut after that.
    let shown = &line.bytes[..line.bytes.len().min(SHOWN_BYTES_MAX)];
    let edges = Edges { ends: line.edges.ends && shown.len() == line.bytes.len(), ..line.edges };
    let text = shared.deps.mask.hide_piece(&String::from_utf8_lossy(shown), edges);
    shared.deps.live.record_output(&turn.agent, Some(&turn.request_id), stream, &text);
}

impl Shared {
    /// Why the program cannot be run, from what the system says.
    fn unstarted(&self, error: &io::Error) -> ProviderError {
        let shown = command::shown(&self.config);
        match Errno::from_io_error(error) {
            Some(Errno::NOENT) if command::look_for(&self.config) == Found::Executable => {
                not_started(&format!(
                    "`{shown}` is there, but not the interpreter that its first line names: install it, or mend that line"
                ))
            }
            Some(Errno::NOENT | Errno::NOTDIR) => not_found(&shown),
            Some(Errno::ACCESS | Errno::PERM) => not_executable(&shown),
            Some(Errno::NOEXEC) => not_started(&format!(
                "`{shown}` is no program of this machine, and no script that begins with #!"
            )),
            Some(Errno::TOOBIG) => {
                not_started("its arguments and variables are longer than the system takes")
            }
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
                not_started(&format!("the machine has no room for another process ({})", error.kind()))
            }
            None if error.kind() == io::ErrorKind::InvalidInput => {
                not_started("an argument or a variable of it holds a NUL")
            }
            _ => not_started(&format!("the system refuses to run `{shown}`: {}", error.kind())),
        }
    }
}

pub(super) fn not_found(shown: &str) -> ProviderError {
    not_started(&format!("there is no program `{shown}`: install it, or give its path as `program`"))
}

pub(super) fn not_executable(shown: &str) -> ProviderError {
    not_started(&format!("`{shown}` may not be executed by plimsoll's user: chmod +x it"))
}

fn exited(how: &str) -> ProviderError {
    ProviderError::Exited { how: how.to_owned(), quoted: String::new() }
}

fn not_started(problem: &str) -> ProviderError {
    ProviderError::NotStarted { problem: problem.to_owned().into(), retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    #[tokio::test]
    async fn a_message_that_nobody_reads_ends_with_the_program() {
        let (held, writer) = io::pipe().expect("a pipe");
        let stdin = Sender::from_owned_fd(writer.into()).expect("the end of a pipe");
        let budget = Budget::new(Bytes(1));
        budget.gone.cancel();
        // More than a pipe holds.
        tell(stdin, &[0; 1 << 21], &budget).await.expect("it does not matter");
        drop(held);
    }
}
