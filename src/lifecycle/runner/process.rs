//! An instance that is a process on this machine. A guard stands between it and plimsoll: nothing of it outlives its
//! stop, or plimsoll ([`crate::process`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncRead;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};

use super::ready::{Looker, Readiness};
use super::{Runner, Up};
use crate::clock::Clock;
use crate::ids::AgentId;
use crate::lifecycle::HostKind;
use crate::lifecycle::machine::{Exit, Failure, FailureKind, Run};
use crate::limits::OUTPUT_LINE_BYTES_MAX;
use crate::live::OutputStream;
use crate::process::{self, Ended, Ends, Entry, OWNER, Outputs, Processes, Program, Tree};

/// What is run, and how one knows that it is ready.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// A name in `PATH`, or a path.
    pub program: OsString,
    /// What it is given.
    pub arguments: Vec<OsString>,
    /// Its whole environment, but for the mark of its owner.
    pub variables: BTreeMap<OsString, OsString>,
    /// Where it works: absolute.
    pub cwd: PathBuf,
    /// Where it answers.
    pub address: SocketAddr,
    /// How one knows that it is ready.
    pub ready: Readiness,
    /// How long that may take.
    pub ready_timeout: Duration,
    /// How long it may take to end by itself once it was asked to.
    pub grace: Duration,
}

/// How long the last lines of a run are waited for after its end: they are in the pipe by then.
const LAST_LINES_MAX: Duration = Duration::from_millis(200);

/// Hears each line that an instance prints, without its end.
pub type Printed = Arc<dyn Fn(OutputStream, &[u8]) + Send + Sync>;

/// See the module.
pub struct ProcessRunner {
    instance: AgentId,
    config: ProcessConfig,
    processes: Processes,
    looker: Looker,
    printed: Printed,
    clock: Clock,
    /// The run that was started last; one that has ended stays until the next. A std mutex suffices: a hold is one look.
    running: Mutex<Option<Running>>,
}

/// A run.
struct Running {
    run: Run,
    /// What may be left of it.
    entry: Arc<Entry>,
    /// Who looks after it.
    keeper: Option<Keeper>,
}

struct Keeper {
    /// Tells it to stop; once.
    stop: Option<oneshot::Sender<()>>,
    /// Its end, for everybody who waits for it.
    ended: Shared<BoxFuture<'static, ()>>,
}

impl ProcessRunner {
    /// A runner of this instance.
    ///
    /// # Errors
    /// Says why nothing could be looked at over HTTP.
    pub fn new(
        instance: AgentId,
        config: ProcessConfig,
        processes: Processes,
        printed: Printed,
        clock: Clock,
    ) -> Result<Self, String> {
        let (looker, running) = (Looker::new()?, Mutex::default());
        Ok(Self { instance, config, processes, looker, printed, clock, running })
    }

    async fn begin(&self, run: Run) -> Result<Up, Failure> {
        let began = self.clock.elapsed();
        self.look_at_port().await?;
        let (tree, _stdin) =
            Tree::start(&self.processes, self.program()).map_err(|error| self.unstarted(&error))?;
        let (said, line) = watch::channel(false);
        let (over, mut ended) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let hears = Hears { printed: Arc::clone(&self.printed), wanted: self.wanted(), said };
        let entry = Arc::clone(tree.entry());
        let task = tokio::spawn(look_after(tree, hears, stopped, over));
        let keeper = Keeper { stop: Some(stop), ended: task.map(drop).boxed().shared() };
        *self.running() = Some(Running { run, entry, keeper: Some(keeper) });
        let start = self.clock.elapsed().saturating_sub(began);
        let ready = self.looker.wait(&self.config.ready, self.config.address, line);
        let failure = tokio::select! {
            biased;
            ended = &mut ended => self.ended_early(ended.unwrap_or(Ended::Unguarded)),
            ready = timeout(self.config.ready_timeout, ready) => match ready {
                Ok(()) => {
                    let ended = async { exit_of(ended.await.unwrap_or(Ended::Unguarded)) }.boxed();
                    return Ok(Up { address: Some(self.config.address), start, ended });
                }
                Err(_) => self.not_ready(),
            },
        };
        self.end(run).await;
        Err(failure)
    }

    /// A stranger on its port would be taken for it, and get what was meant for it.
    async fn look_at_port(&self) -> Result<(), Failure> {
        let address = self.config.address;
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let error = format!(
                    "another program listens on {address}: end it, or give the instance another `port`"
                );
                Err(Failure { kind: FailureKind::PortInUse, error: error.into() })
            }
            // What else is wrong with the address, its own program finds out.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn end(&self, run: Run) {
        let keeper = self.of(run, |Running { keeper, .. }| {
            keeper.as_mut().map(|keeper| (keeper.stop.take(), keeper.ended.clone()))
        });
        if let Some((stop, ended)) = keeper.flatten() {
            // One that has ended needs no telling.
            let _ = stop.map(|stop| stop.send(()));
            ended.await;
        }
    }

    fn program(&self) -> Program {
        let ProcessConfig { program, arguments, variables, cwd, grace, .. } = &self.config;
        let mut variables = variables.clone();
        variables.insert(OWNER.into(), self.processes.mark(&self.instance).into());
        Program {
            name: program.clone(),
            arguments: arguments.clone(),
            variables,
            cwd: cwd.clone(),
            grace: *grace,
        }
    }

    /// The text of the line that says that it is ready.
    fn wanted(&self) -> Option<String> {
        match &self.config.ready {
            Readiness::Line(text) => Some(text.clone()),
            Readiness::Http(_) | Readiness::Tcp => None,
        }
    }

    fn unstarted(&self, error: &io::Error) -> Failure {
        let program = self.config.program.to_string_lossy();
        let error = match error.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no program {program}, or no directory {}", self.config.cwd.display())
            }
            io::ErrorKind::PermissionDenied => format!("{program} may not be run: make it executable"),
            _ => format!("{program} cannot be run: {error}"),
        };
        Failure { kind: FailureKind::NotStarted, error: error.into() }
    }

    fn ended_early(&self, ended: Ended) -> Failure {
        let how = match ended {
            Ended::Failed(number) => return self.unstarted(&io::Error::from_raw_os_error(number)),
            Ended::Exited(process::Exit::Code(code)) => format!("with exit code {code}"),
            Ended::Exited(process::Exit::Signal(signal)) => format!("by signal {signal}"),
            Ended::Unguarded | Ended::GuardFailed => "when the process that guards it ended".to_owned(),
        };
        let error = format!("it ended {how} before it was ready: see what it printed");
        Failure { kind: FailureKind::Exited, error: error.into() }
    }

    fn not_ready(&self) -> Failure {
        let (address, limit) = (self.config.address, self.config.ready_timeout);
        let what = match &self.config.ready {
            Readiness::Http(path) => format!("http://{address}{path} did not answer with 2xx"),
            Readiness::Tcp => format!("{address} took no connection"),
            Readiness::Line(text) => format!("it printed no line with {text:?}"),
        };
        let error = format!("{what} within {limit:?}: see what it printed");
        Failure { kind: FailureKind::NotReady, error: error.into() }
    }

    /// Looks at this run, if it was the last.
    fn of<T>(&self, run: Run, look: impl FnOnce(&mut Running) -> T) -> Option<T> {
        self.running().as_mut().filter(|running| running.run == run).map(look)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner for ProcessRunner {
    fn kind(&self) -> HostKind {
        HostKind::Process
    }

    fn start(&self, run: Run) -> BoxFuture<'_, Result<Up, Failure>> {
        self.begin(run).boxed()
    }

    /// The guard ends whatever is left within its own deadlines.
    fn stop(&self, run: Run) -> BoxFuture<'_, Result<(), Arc<str>>> {
        async move {
            self.end(run).await;
            let entry = self.of(run, |running| Arc::clone(&running.entry));
            match entry.and_then(|entry| self.processes.left_of(&entry)) {
                None => Ok(()),
                Some(ids) => {
                    let error =
                        format!("the processes {ids} go on although they were killed: look what holds them");
                    Err(error.into())
                }
            }
        }
        .boxed()
    }
}

/// Who hears what an instance prints.
struct Hears {
    printed: Printed,
    wanted: Option<String>,
    said: watch::Sender<bool>,
}

impl Hears {
    /// Takes all that comes, to its end. What is longer than a line may be is left out.
    async fn hear(&self, stream: OutputStream, source: &mut (impl AsyncRead + Unpin)) {
        let codec = AnyDelimiterCodec::new_with_max_length(b"\n".into(), b"\n".into(), OUTPUT_LINE_BYTES_MAX);
        let mut lines = FramedRead::new(source, codec);
        loop {
            let line = match lines.next().await {
                Some(Ok(line)) => line,
                Some(Err(AnyDelimiterCodecError::MaxChunkLengthExceeded)) => {
                    // It says once that it is over, and goes on after the line then.
                    let _ = lines.next().await;
                    continue;
                }
                Some(Err(AnyDelimiterCodecError::Io(_))) | None => return,
            };
            (self.printed)(stream, &line);
            let wanted = self.wanted.as_deref().filter(|_| stream == OutputStream::Stdout);
            if wanted.is_some_and(|text| String::from_utf8_lossy(&line).contains(text)) {
                self.said.send_replace(true);
            }
        }
    }
}

/// Hears what a run prints, until it has ended or is stopped.
async fn look_after(
    mut tree: Tree,
    hears: Hears,
    stopped: oneshot::Receiver<()>,
    over: oneshot::Sender<Ended>,
) {
    let ended = {
        let Ends { outputs: Outputs { stdout, stderr }, ended } = tree.ends();
        let heard = async {
            tokio::join!(hears.hear(OutputStream::Stdout, stdout), hears.hear(OutputStream::Stderr, stderr));
        };
        let mut heard = std::pin::pin!(heard.fuse());
        let mut ended = std::pin::pin!(ended);
        let mut stopped = std::pin::pin!(stopped);
        loop {
            tokio::select! {
                ended = &mut ended => {
                    // Its last lines say why.
                    let _ = timeout(LAST_LINES_MAX, &mut heard).await;
                    break Some(ended.unwrap_or(Ended::Unguarded));
                }
                // A runner that is gone wants nothing of it left.
                _ = &mut stopped => break None,
                () = &mut heard => {}
            }
        }
    };
    match ended {
        Some(ended) => {
            // Nobody may ask any more.
            let _ = over.send(ended);
        }
        // Its end was ordered: nobody is told of one by itself.
        None => tree.stop().await,
    }
}

fn exit_of(ended: Ended) -> Exit {
    match ended {
        Ended::Exited(process::Exit::Code(code)) => Exit { code: Some(code), ..Exit::default() },
        Ended::Exited(process::Exit::Signal(signal)) => Exit { signal: Some(signal), ..Exit::default() },
        Ended::Failed(_) | Ended::Unguarded | Ended::GuardFailed => Exit::default(),
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::path::Path;

    use tokio::process::Command;

    use super::*;
    use crate::process::{Process, Unsettled};

    /// A runner, and a program of its first run that has ended.
    fn ended(processes: &Processes, cwd: &Path) -> (ProcessRunner, Arc<Entry>) {
        let config = ProcessConfig {
            program: "true".into(),
            arguments: Vec::new(),
            variables: BTreeMap::new(),
            cwd: cwd.to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            ready: Readiness::Tcp,
            ready_timeout: Duration::from_secs(1),
            grace: Duration::ZERO,
        };
        let id = AgentId::parse("worker").expect("valid");
        let printed: Printed = Arc::new(|_, _| {});
        let runner = ProcessRunner::new(id, config, processes.clone(), printed, Clock::system());
        let runner = runner.expect("a client");
        let (_, entry) = processes.spawn(&mut Command::new("true"), cwd.to_owned()).expect("it is there");
        *runner.running() = Some(Running { run: Run(1), entry: Arc::clone(&entry), keeper: None });
        (runner, entry)
    }

    #[tokio::test]
    async fn a_stop_waits_for_the_end_that_a_start_waited_for() {
        let (runner, entry) = ended(&Processes::default(), &std::env::temp_dir());
        let ((stop, _stopped), (over, is_over)) = (oneshot::channel(), oneshot::channel::<()>());
        let keeper = Keeper { stop: Some(stop), ended: is_over.map(drop).boxed().shared() };
        *runner.running() = Some(Running { run: Run(1), entry, keeper: Some(keeper) });
        assert_eq!(runner.end(Run(1)).now_or_never(), None, "dropped in its middle");
        let mut stop = runner.stop(Run(1));
        assert_eq!((&mut stop).now_or_never(), None);
        over.send(()).expect("somebody waits");
        assert_eq!(stop.await, Ok(()));
    }

    #[tokio::test]
    async fn what_another_left_in_its_directory_is_no_matter_of_its_stop() {
        let (processes, cwd) = (Processes::default(), std::env::temp_dir());
        let ((leaves, entry), (other, _)) = (ended(&processes, &cwd), ended(&processes, &cwd));
        let stays = Process::of(rustix::process::getpid()).expect("it runs");
        processes.stay(&entry, &[stays]);
        assert_eq!(other.stop(Run(1)).await, Ok(()));
        for _ in 0..2 {
            let error = leaves.stop(Run(1)).await.expect_err("something stays");
            assert!(error.contains(&format!("the processes {} go on", stays.pid)), "{error}");
        }
        assert_eq!(leaves.stop(Run(2)).await, Ok(()));
        let settled = processes.settled(&cwd, Duration::ZERO).await;
        assert_eq!(settled, Err(Unsettled::Left(stays.pid.to_string())), "no turn is taken beside it");
    }
}
