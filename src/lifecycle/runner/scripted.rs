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
use crate::limits::SCRIPTED_CALLS_MAX;

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
    /// What was asked for last and what came of it, in order.
    calls: VecDeque<(&'static str, Run)>,
    /// The run that is up, and how to end it.
    up: Option<(Run, oneshot::Sender<Exit>)>,
    /// The same of what was found running.
    found: Option<oneshot::Sender<Exit>>,
}

impl Stage {
    fn called(&mut self, call: &'static str, run: Run) {
        if self.calls.len() == SCRIPTED_CALLS_MAX {
            self.calls.pop_front();
        }
        self.calls.push_back((call, run));
    }

    fn is_up(&self) -> bool {
        self.up.is_some() || self.found.is_some()
    }
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

    /// Every `start` and `stop`, and each that came to its end (`started`, `start failed`, `stopped`, `stop failed`),
    /// with its run: the last so many. `start again` is a start of what was up already, which nobody should ask for.
    #[must_use]
    pub fn calls(&self) -> Vec<(&'static str, Run)> {
        self.stage().calls.iter().copied().collect()
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
                let call = if stage.is_up() { "start again" } else { "start" };
                stage.called(call, run);
                stage.script.next(|script| &mut script.starts)
            };
            tokio::time::sleep(takes).await;
            let mut stage = self.stage();
            if let Some(failure) = fails {
                stage.called("start failed", run);
                return Err(failure);
            }
            let (end, ended) = oneshot::channel();
            stage.called("started", run);
            stage.up = Some((run, end));
            Ok(Up { address: stage.script.address, start: takes, ended: until(ended) })
        }
        .boxed()
    }

    fn stop(&self, run: Run) -> BoxFuture<'_, Result<(), Arc<str>>> {
        async move {
            let Act { takes, fails } = {
                let mut stage = self.stage();
                stage.called("stop", run);
                stage.script.next(|script| &mut script.stops)
            };
            tokio::time::sleep(takes).await;
            let mut stage = self.stage();
            if let Some(error) = fails {
                stage.called("stop failed", run);
                return Err(error);
            }
            stage.called("stopped", run);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_it_was_asked_for_last_is_remembered() {
        let runner = ScriptedRunner::default();
        let runs = (1..=SCRIPTED_CALLS_MAX as u64).map(Run);
        for run in runs.clone() {
            runner.stop(run).await.expect("nothing is in the way");
        }
        let last: Vec<_> =
            runs.flat_map(|run| [("stop", run), ("stopped", run)]).skip(SCRIPTED_CALLS_MAX).collect();
        assert_eq!(runner.calls(), last);
    }

    #[tokio::test]
    async fn a_start_of_what_is_up_already_is_told_as_that() {
        let runner = ScriptedRunner::new(Script { finds: [Find::Running].into(), ..Script::default() });
        let asked = async |run| drop(runner.start(Run(run)).await.expect("nothing is in the way"));
        asked(1).await;
        asked(2).await;
        runner.exit(Exit::default());
        asked(3).await;
        runner.stop(Run(3)).await.expect("nothing is in the way");
        drop(runner.find(true).await);
        asked(4).await;
        let starts = ["start", "start again"];
        let told: Vec<_> = runner.calls().into_iter().filter(|(call, _)| starts.contains(call)).collect();
        assert_eq!(
            told,
            [("start", Run(1)), ("start again", Run(2)), ("start", Run(3)), ("start again", Run(4))]
        );
    }
}
