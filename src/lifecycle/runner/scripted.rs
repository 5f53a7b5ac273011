//! An instance that obeys a script: for tests, simulation and the demo.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Found, Runner, Up};
use crate::lifecycle::HostKind;
use crate::lifecycle::machine::{Exit, Failure, LostAction, Run};

/// What it does, one act after the other; at its end it does everything well and at once.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// For each look at what was left running.
    pub finds: VecDeque<Find>,
    /// For each start.
    pub starts: VecDeque<Act<Failure>>,
    /// For each stop.
    pub stops: VecDeque<Act<Arc<str>>>,
    /// Where it says that it answers.
    pub address: Option<SocketAddr>,
    /// Whether it begins again at its end.
    pub again: bool,
}

impl Script {
    /// The next of these acts; one that comes again goes to the end.
    fn next<E: Clone>(&mut self, acts: impl FnOnce(&mut Self) -> &mut VecDeque<Act<E>>) -> Act<E> {
        let again = self.again;
        let acts = acts(self);
        let act = acts.pop_front();
        if again {
            acts.extend(act.clone());
        }
        act.unwrap_or_default()
    }
}

/// What one look at what was left running finds; without a script, nothing.
#[derive(Debug, Clone)]
pub enum Find {
    /// Nothing.
    Nothing,
    /// A container that runs.
    Running,
    /// A container that it stops.
    Stopped,
    /// It cannot tell.
    Fails(Failure),
    /// A container that it stops, and it cannot tell what else.
    StoppedAndFails(Failure),
}

/// What one order does.
#[derive(Debug, Clone)]
pub struct Act<E> {
    /// How long it takes.
    pub takes: Duration,
    /// How it fails, if it does.
    pub fails: Option<E>,
}

impl<E> Default for Act<E> {
    fn default() -> Self {
        Self { takes: Duration::ZERO, fails: None }
    }
}

/// See the module.
#[derive(Default)]
pub struct ScriptedRunner {
    /// A std mutex suffices: a hold is one step of the script.
    stage: Mutex<Stage>,
}

#[derive(Default)]
struct Stage {
    script: Script,
    /// What was asked for and what came of it, in order.
    calls: Vec<(&'static str, Run)>,
    /// The run that is up, and how to end it.
    up: Option<(Run, oneshot::Sender<Exit>)>,
    /// The same of what was found running.
    found: Option<oneshot::Sender<Exit>>,
}

impl ScriptedRunner {
    /// A runner at the beginning of its script.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self { stage: Mutex::new(Stage { script, ..Stage::default() }) }
    }

    /// Ends the run that is up, if there is one, as if by itself.
    pub fn exit(&self, exit: Exit) {
        let mut stage = self.stage();
        if let Some(end) = stage.up.take().map(|(_, end)| end).or(stage.found.take()) {
            // Nobody may look after it any more.
            let _ = end.send(exit);
        }
    }

    /// The run that is up.
    #[must_use]
    pub fn up(&self) -> Option<Run> {
        self.stage().up.as_ref().map(|(run, _)| *run)
    }

    /// Every `start` and `stop` so far, and each that came to its end (`started`, `start failed`, `stopped`,
    /// `stop failed`), with its run.
    #[must_use]
    pub fn calls(&self) -> Vec<(&'static str, Run)> {
        self.stage().calls.clone()
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner for ScriptedRunner {
    fn kind(&self) -> HostKind {
        HostKind::Scripted
    }

    fn find(&self, keep: bool) -> BoxFuture<'_, Found> {
        let mut stage = self.stage();
        let container = || "scripted".into();
        let stopped = || vec![(LostAction::Stopped, Some(container()))];
        let found = match stage.script.finds.pop_front() {
            None | Some(Find::Nothing) => Found::default(),
            Some(Find::Stopped) => Found { lost: stopped(), ..Found::default() },
            Some(Find::Running) if !keep => Found { lost: stopped(), ..Found::default() },
            Some(Find::Fails(failure)) => Found { untold: Some(failure), ..Found::default() },
            Some(Find::StoppedAndFails(failure)) => {
                Found { lost: stopped(), untold: Some(failure), ..Found::default() }
            }
            Some(Find::Running) => {
                let (end, ended) = oneshot::channel();
                stage.found = Some(end);
                let up = Up { address: stage.script.address, start: Duration::ZERO, ended: until(ended) };
                Found { adopted: Some((container(), up)), ..Found::default() }
            }
        };
        std::future::ready(found).boxed()
    }

    fn start(&self, run: Run) -> BoxFuture<'_, Result<Up, Failure>> {
        async move {
            let Act { takes, fails } = {
                let mut stage = self.stage();
                stage.calls.push(("start", run));
                stage.script.next(|script| &mut script.starts)
            };
            tokio::time::sleep(takes).await;
            let mut stage = self.stage();
            if let Some(failure) = fails {
                stage.calls.push(("start failed", run));
                return Err(failure);
            }
            let (end, ended) = oneshot::channel();
            stage.calls.push(("started", run));
            stage.up = Some((run, end));
            Ok(Up { address: stage.script.address, start: takes, ended: until(ended) })
        }
        .boxed()
    }

    fn stop(&self, run: Run) -> BoxFuture<'_, Result<(), Arc<str>>> {
        async move {
            let Act { takes, fails } = {
                let mut stage = self.stage();
                stage.calls.push(("stop", run));
                stage.script.next(|script| &mut script.stops)
            };
            tokio::time::sleep(takes).await;
            let mut stage = self.stage();
            if let Some(error) = fails {
                stage.calls.push(("stop failed", run));
                return Err(error);
            }
            stage.calls.push(("stopped", run));
            (stage.up, stage.found) = (None, None);
            Ok(())
        }
        .boxed()
    }
}

/// An end that is dropped was ordered: it is nothing that the run did by itself.
fn until(ended: oneshot::Receiver<Exit>) -> BoxFuture<'static, Exit> {
    async {
        match ended.await {
            Ok(exit) => exit,
            Err(_) => std::future::pending().await,
        }
    }
    .boxed()
}
