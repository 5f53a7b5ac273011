//! From the configuration of an instance to the runner that hosts it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::Backoff;
use super::config::{EngineConfig, InstanceConfig, ProcessHost, ReadyConfig, ScriptedAct, ScriptedHost};
use super::machine::{Failure, FailureKind, Policy};
use super::runner::{
    Act, ContainerBook, DockerEngine, DockerRunner, EngineStatus, Printed, ProcessConfig, ProcessRunner,
    Readiness, Runner, Script, ScriptedRunner,
};
use crate::clock::Clock;
use crate::ids::AgentId;
use crate::limits::{
    INSTANCE_BACKOFF_MAX, INSTANCE_BACKOFF_MIN, INSTANCE_CRASH_LOOP_FAILURES, INSTANCE_WELL_AFTER,
};
use crate::live::Heard;
use crate::process::{self, LeftBehind, Processes};

/// Makes runners.
pub struct Hosts {
    processes: Processes,
    heard: Heard,
    clock: Clock,
    config: EngineConfig,
    data_dir: PathBuf,
    /// Made with the first container: where there is none, no engine is asked.
    engine: OnceLock<Arc<DockerEngine>>,
}

/// What hosts an instance.
pub(super) enum Host<'a> {
    /// A process, which works in this directory.
    Process(&'a ProcessHost, &'a Path),
    Container,
    Scripted(&'a ScriptedHost),
}

/// # Errors
/// Says what is wrong with what hosts it.
pub(super) fn host<'a>(config: &'a InstanceConfig, cwd: Option<&'a Path>) -> Result<Host<'a>, String> {
    match (&config.process, &config.container, &config.scripted) {
        (Some(process), None, None) => {
            let cwd = cwd.ok_or("it works in no directory: give the agent a `cwd`")?;
            Ok(Host::Process(process, cwd))
        }
        (None, Some(_), None) => Ok(Host::Container),
        (None, None, Some(script)) => Ok(Host::Scripted(script)),
        _ => Err("give it one of `process`, `container` and `scripted`".to_owned()),
    }
}

impl InstanceConfig {
    /// How it is kept.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            start: self.start,
            idle_after: self.idle_after.0,
            backoff: Backoff { min: INSTANCE_BACKOFF_MIN, max: INSTANCE_BACKOFF_MAX },
            well_after: INSTANCE_WELL_AFTER,
            crash_loop_failures: INSTANCE_CRASH_LOOP_FAILURES,
            waiting_max: self.waiting_max,
        }
    }
}

impl ReadyConfig {
    /// What is looked at, where it is no HEALTHCHECK.
    pub(super) fn readiness(&self) -> Readiness {
        match (&self.http, &self.line) {
            (Some(path), _) => Readiness::Http(path.clone()),
            (None, Some(text)) => Readiness::Line(text.clone()),
            (None, None) => Readiness::Tcp,
        }
    }
}

impl ScriptedHost {
    fn script(&self) -> Script {
        const ERROR: &str = "the script says that it fails";
        let start = |act: &ScriptedAct| Act {
            takes: act.takes.0,
            fails: act.fails.then(|| Failure { kind: FailureKind::NotReady, error: ERROR.into() }),
        };
        let stop = |act: &ScriptedAct| Act { takes: act.takes.0, fails: act.fails.then(|| ERROR.into()) };
        Script {
            starts: self.starts.iter().map(start).collect(),
            stops: self.stops.iter().map(stop).collect(),
            again: true,
            ..Script::default()
        }
    }
}

impl Hosts {
    /// Hosts of the agents of this data directory. `heard` hears what instances print.
    #[must_use]
    pub fn new(
        processes: Processes,
        config: EngineConfig,
        data_dir: &Path,
        heard: Heard,
        clock: &Clock,
    ) -> Self {
        let (data_dir, engine) = (data_dir.to_owned(), OnceLock::new());
        Self { processes, heard, clock: clock.clone(), config, data_dir, engine }
    }

    /// Those of nobody, heard by nobody.
    #[must_use]
    pub fn nobody(clock: &Clock) -> Self {
        let (processes, config) = (Processes::default(), EngineConfig::default());
        Self::new(processes, config, Path::new(""), Arc::new(|_, _, _| {}), clock)
    }

    /// What became of the processes of this agent that an earlier plimsoll had left behind, if it had.
    pub(super) fn left_behind(&self, id: &AgentId) -> Option<LeftBehind> {
        self.processes.left_behind(id)
    }

    /// Which engine that would be.
    pub(super) fn engine_config(&self) -> &EngineConfig {
        &self.config
    }

    /// How the container engine does; `None` where nobody needs one.
    pub(super) fn engine_status(&self) -> Option<EngineStatus> {
        self.engine.get().map(|engine| engine.status())
    }

    /// The container engine.
    pub(super) fn engine(&self) -> Arc<DockerEngine> {
        let make =
            || DockerEngine::new(&self.config, self.processes.owner(), &self.data_dir, self.clock.clone());
        Arc::clone(self.engine.get_or_init(make))
    }

    /// A runner of this instance. To be called within a runtime.
    ///
    /// # Errors
    /// Says what is wrong with what hosts it.
    pub(super) fn runner(
        &self,
        id: &AgentId,
        config: &InstanceConfig,
        cwd: Option<&Path>,
        book: &ContainerBook,
    ) -> Result<Arc<dyn Runner>, String> {
        Ok(match host(config, cwd)? {
            Host::Process(process, cwd) => Arc::new(self.process(id, config, process, cwd)?),
            Host::Container => {
                let (engine, printed) = (self.engine(), self.printed(id));
                Arc::new(DockerRunner::new(id.clone(), config, engine, book.clone(), printed)?)
            }
            Host::Scripted(script) => Arc::new(ScriptedRunner::new(script.script())),
        })
    }

    fn process(
        &self,
        id: &AgentId,
        config: &InstanceConfig,
        process: &ProcessHost,
        cwd: &Path,
    ) -> Result<ProcessRunner, String> {
        let ProcessHost { program, args, env_pass, env } = process;
        let set = env.iter().map(|(name, value)| (name.into(), value.expose().into()));
        let host = ProcessConfig {
            program: program.into(),
            arguments: args.iter().map(Into::into).collect(),
            variables: process::handed_on(env_pass).into_iter().chain(set).collect(),
            cwd: cwd.to_owned(),
            address: ([127, 0, 0, 1], config.port).into(),
            ready: config.ready.readiness(),
            ready_timeout: config.ready_timeout.0,
            grace: config.stop_grace.0,
        };
        ProcessRunner::new(id.clone(), host, self.processes.clone(), self.printed(id), self.clock.clone())
    }

    fn printed(&self, id: &AgentId) -> Printed {
        let (heard, agent) = (Arc::clone(&self.heard), id.clone());
        Arc::new(move |stream, line: &[u8]| heard(&agent, stream, line))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Configured;
    use super::*;

    fn check(keys: &Value, cwd: Option<PathBuf>) -> Result<(), String> {
        Configured { config: serde_json::from_value(keys.clone()).expect("valid"), cwd }.check()
    }

    /// There is no runtime here, which a task of an engine or a client needs.
    #[test]
    fn a_configuration_is_checked_without_an_engine() {
        let process = json!({"port": 8080, "process": {"program": "serve"}});
        assert_eq!(check(&process, Some("/srv".into())), Ok(()));
        assert!(check(&process, None).is_err_and(|problem| problem.contains("give the agent a `cwd`")));
        assert_eq!(check(&json!({"port": 8080, "container": {"image": "acme/agent:1"}}), None), Ok(()));
        let neither = check(&json!({"port": 8080}), None);
        assert!(neither.is_err_and(|problem| problem.contains("one of `process`")));
    }

    #[test]
    fn an_engine_that_is_only_asked_is_not_listened_to() {
        let engine = Hosts::nobody(&Clock::system()).engine();
        assert_eq!(engine.status(), EngineStatus::Unknown);
    }
}
