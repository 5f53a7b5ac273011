//! What several checks look at, looked at once: the configuration, a running server, the data directory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::client::{Client, Target};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config, ConfigProblem, LoadRequest, Loaded, Located};
use crate::journal::offline::{Outline, outline};
use crate::journal::{OpenError, check_free};
use crate::lifecycle::DockerEngine;
use crate::provider;
use crate::telemetry::{Collector, SettingsError, collector};

/// How long a running server may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// Less than a check as a whole may take, so that an engine that hangs is told as such.
const ENGINE_DEADLINE: Duration = Duration::from_secs(8);

/// Everything that checks look at.
pub(super) struct Scene {
    pub(super) located: Located,
    pub(super) searched: Vec<std::path::PathBuf>,
    pub(super) loaded: Result<Loaded, Vec<ConfigProblem>>,
    /// Whether a plimsoll answers on the control socket of the data directory.
    pub(super) server: Server,
    pub(super) store: Store,
    pub(super) clock: Clock,
    /// Where traces go, if the configuration can be used.
    pub(super) collector: Option<Result<Option<Collector>, SettingsError>>,
    /// The variables that programs of agents are to get and that are not set.
    pub(super) unset: Vec<String>,
    /// When this program's own file was written.
    pub(super) program: Option<Timestamp>,
}

/// Whether a plimsoll runs on the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Answers,
    Silent,
}

/// What is in the data directory.
#[derive(Debug)]
pub(super) enum Store {
    /// It is not known which directory that is.
    Unknown,
    /// There is no such directory yet.
    Absent,
    /// A plimsoll that answers uses it; what it says is wrong with the journal.
    Served(Option<String>),
    /// It cannot be used.
    Unusable(OpenError),
    /// There is nothing in it yet.
    Empty,
    /// What can be seen of the journal in it.
    Seen(Outline),
}

impl Scene {
    pub(super) async fn look(request: &LoadRequest<'_>, clock: Clock) -> Self {
        let variable = |name: &str| (request.environment)(name)?.into_string().ok();
        let loaded = config::load(request);
        let collector = loaded.as_ref().ok().map(|it| collector(&it.config.telemetry.otlp, &variable));
        let unset = loaded.as_ref().map(|it| unset(&it.config, request)).unwrap_or_default();
        let data_dir = loaded.as_ref().ok().map(|loaded| loaded.data_dir.clone());
        let health = match &data_dir {
            Some(dir) => asked(dir, "/health").await,
            None => None,
        };
        let server = if health.is_some() { Server::Answers } else { Server::Silent };
        let store = match (data_dir, health) {
            (None, _) => Store::Unknown,
            (Some(_), Some(health)) => {
                let problem = health.pointer("/components/journal/problem").and_then(Value::as_str);
                Store::Served(problem.map(str::to_owned))
            }
            (Some(dir), None) => {
                let seen = spawn_blocking(move || store(&dir)).await;
                seen.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()))
            }
        };
        let program = std::env::current_exe().and_then(|path| path.metadata()?.modified());
        Self {
            located: config::locate(request),
            searched: config::searched(request),
            loaded,
            server,
            store,
            clock,
            collector,
            unset,
            program: program.ok().map(Timestamp::from),
        }
    }

    /// What the plimsoll that runs says at this path, if one does.
    pub(super) async fn ask(&self, path: &str) -> Option<Value> {
        let (Ok(loaded), Server::Answers) = (&self.loaded, self.server) else { return None };
        asked(&loaded.data_dir, path).await
    }

    /// The container engine, to be asked within the deadline of a check.
    pub(super) fn engine(&self, loaded: &Loaded) -> Arc<DockerEngine> {
        let mut config = loaded.config.engine.clone();
        config.timeout.0 = config.timeout.0.min(ENGINE_DEADLINE);
        DockerEngine::new(&config, "", &loaded.data_dir, self.clock.clone())
    }
}

fn unset(config: &Config, request: &LoadRequest<'_>) -> Vec<String> {
    let programs = config.providers.values().filter_map(|provider| match provider {
        provider::Config::Exec(program) => Some(&program.env_pass),
        provider::Config::Echo(_) | provider::Config::OpenAi(_) | provider::Config::Anthropic(_) => None,
    });
    let processes = config.every_agent().filter_map(|(_, agent)| agent.instance.as_ref()?.process.as_ref());
    let wanted = programs.chain(processes.map(|process| &process.env_pass));
    let unset: BTreeSet<&String> =
        wanted.flatten().filter(|name| (request.environment)(name).is_none()).collect();
    unset.into_iter().cloned().collect()
}

/// What the plimsoll on this data directory says, if one answers.
async fn asked(data_dir: &Path, path: &str) -> Option<Value> {
    let client = Client::new(Target::DataDir(data_dir.to_owned())).ok()?;
    let ask = async { client.get(path).await.ok()?.json().await.ok() };
    tokio::time::timeout(ANSWER_DEADLINE, ask).await.ok()?
}

fn store(data_dir: &Path) -> Store {
    if !data_dir.exists() {
        return Store::Absent;
    }
    if let Err(error) = check_free(data_dir) {
        return Store::Unusable(error);
    }
    if !data_dir.join("FORMAT").exists() {
        return Store::Empty;
    }
    match outline(data_dir) {
        Ok(seen) => Store::Seen(seen),
        Err(error) => Store::Unusable(error),
    }
}
