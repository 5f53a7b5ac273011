//! The root of the configuration: one struct per part, each declared by the module that it configures.
//!
//! [`load`] finds the files, merges them, expands variables and checks everything; nothing here watches files or starts
//! anything. Start at [`Config`], then [`load`].

mod agents;
mod budgets;
mod de;
mod entries;
mod expand;
mod files;
mod instances;
mod notify;
mod parse;
mod problem;
mod schema;
mod secrets;
pub mod show;
mod towns;
mod tree;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::gateway::AgentConfig;
use crate::ids::{AgentId, TemplateId, TownId};
use crate::limits::CONFIG_PROBLEMS_MAX;
use crate::notify::WebhookConfig;
use crate::reconciler::TownConfig;
use crate::{api, gateway, journal, lifecycle, live, provider, telemetry};

pub use entries::AgentRules;
pub use expand::Environment;
pub use files::{LoadRequest, Located, Overlay, locate, searched};
pub use problem::{ConfigProblem, KeyPath, Origin, Step};
pub use secrets::secrets;
use tree::Node;

/// Everything that can be configured. Without any file it serves an echo agent and a town on loopback.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// Where everything that must survive a restart is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// How it is reached.
    pub server: api::Config,
    /// Who may do what.
    pub auth: api::AuthConfig,
    /// Who may scrape.
    pub metrics: api::MetricsConfig,
    /// How long what happened is kept.
    pub journal: journal::Config,
    /// Lanes, sessions, deadlines.
    pub gateway: gateway::Config,
    /// The sizes of the rings.
    pub live: live::Config,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
    /// Who outside is told what happened.
    pub notify: BTreeMap<String, WebhookConfig>,
    /// Who makes answers.
    pub providers: BTreeMap<String, provider::Config>,
    /// What a million tokens cost, by model.
    pub prices: BTreeMap<String, provider::Price>,
    /// The container engine.
    pub engine: lifecycle::EngineConfig,
    /// Who answers.
    pub agents: BTreeMap<AgentId, AgentConfig>,
    /// What agents are made of that join a town while plimsoll serves.
    pub templates: BTreeMap<TemplateId, AgentConfig>,
    /// Fleets with their work.
    pub towns: BTreeMap<TownId, TownConfig>,
}

impl Config {
    /// Every agent that there is or can be, by the key that it stands under: those of `agents:` and those of `templates:`.
    pub(crate) fn every_agent(&self) -> impl Iterator<Item = (KeyPath, &AgentConfig)> {
        let agents = self.agents.iter().map(|(id, agent)| (KeyPath::of(&["agents", id.as_str()]), agent));
        let templates = self.templates.iter();
        agents.chain(templates.map(|(id, agent)| (KeyPath::of(&["templates", id.as_str()]), agent)))
    }
}

impl Default for Config {
    fn default() -> Self {
        let echo = AgentId::parse("echo").expect("it keeps the rule");
        let agents = BTreeMap::from([(echo, AgentConfig::of_provider("echo"))]);
        Self {
            data_dir: None,
            server: api::Config::default(),
            auth: api::AuthConfig::default(),
            metrics: api::MetricsConfig::default(),
            journal: journal::Config::default(),
            gateway: gateway::Config::default(),
            live: live::Config::default(),
            telemetry: telemetry::Config::default(),
            notify: BTreeMap::new(),
            providers: BTreeMap::from([(
                "echo".to_owned(),
                provider::Config::Echo(provider::EchoConfig::default()),
            )]),
            prices: BTreeMap::new(),
            engine: lifecycle::EngineConfig::default(),
            templates: BTreeMap::new(),
            towns: schema::usual_towns(&agents),
            agents,
        }
    }
}

/// A configuration that is ready for use.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Every value, with its default where no file gives it.
    pub config: Config,
    /// The files merged, the base first; empty where the built-in defaults are all there is.
    pub files: Vec<PathBuf>,
    /// The directory of the base file; where there is none, the one that relative arguments begin in.
    pub base_dir: PathBuf,
    /// Where everything that must survive a restart is kept. Not made yet.
    pub data_dir: PathBuf,
    /// What works and should be otherwise.
    pub warnings: Vec<ConfigProblem>,
    tree: Node,
}

impl Loaded {
    /// Where a value stands in the files; none where it is a default.
    #[must_use]
    pub fn origin(&self, path: &KeyPath) -> Option<Origin> {
        self.tree.get(&path.0).and_then(|_| self.tree.origin(path))
    }
}

/// Loads the configuration: the base file, the overlay laid over it, variables expanded, everything checked.
///
/// # Errors
/// Every problem found, in the order of the files.
pub fn load(request: &LoadRequest<'_>) -> Result<Loaded, Vec<ConfigProblem>> {
    let Layers { tree, files, base_dir } = layers(request)?;
    let mut read = interpret(tree, request.environment, &base_dir);
    let data_dir = files::data_dir(request, read.config.data_dir.as_deref());
    let data_dir = data_dir.map_err(|problem| read.problems.push(problem)).unwrap_or_default();
    if let Some(tls) = &read.config.server.tls {
        let found = secrets::look_at_tls(tls, &read.tree);
        read.problems.extend(found.problems);
        read.warnings.extend(found.warnings);
    }
    let found = notify::look_at_certificates(&read.config, &read.tree);
    read.problems.extend(found.problems);
    if read.problems.is_empty() {
        let Interpreted { config, tree, warnings, problems: _ } = read;
        Ok(Loaded { config, files, base_dir, data_dir, warnings, tree })
    } else {
        Err(sorted(read.problems, &files))
    }
}

/// Finds the data directory and looks at nothing else, for who only asks a running server: a variable that only the
/// server has, or a mistake in another key, is not in the way.
///
/// # Errors
/// What is wrong with the files as YAML, or with the key.
pub fn data_dir(request: &LoadRequest<'_>) -> Result<PathBuf, Vec<ConfigProblem>> {
    if request.data_dir.is_some() {
        return files::data_dir(request, None).map_err(|problem| vec![problem]);
    }
    let Layers { mut tree, files, base_dir } = layers(request)?;
    tree.keep_only("data_dir");
    let read = interpret(tree, request.environment, &base_dir);
    if !read.problems.is_empty() {
        return Err(sorted(read.problems, &files));
    }
    files::data_dir(request, read.config.data_dir.as_deref()).map_err(|problem| vec![problem])
}

struct Layers {
    tree: Node,
    files: Vec<PathBuf>,
    base_dir: PathBuf,
}

/// The base file with the overlay laid over it.
fn layers(request: &LoadRequest<'_>) -> Result<Layers, Vec<ConfigProblem>> {
    let located = locate(request);
    let mut problems: Vec<_> = located.overlay.problem().map(ConfigProblem::general).into_iter().collect();
    let mut files: Vec<PathBuf> = located.base.iter().cloned().collect();
    files.extend(located.overlay.found().map(Path::to_owned));
    let base_dir = located.base.as_deref().and_then(Path::parent).unwrap_or(&request.cwd).to_owned();
    let mut tree = Node::empty(Origin::file(&base_dir));
    for file in &files {
        match files::read(file).map_err(|problem| vec![problem]).and_then(|bytes| parse::parse(file, &bytes))
        {
            Ok(layer) => tree.merge(layer),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(Layers { tree, files, base_dir }) } else { Err(problems) }
}

/// Reads one text as if it were the only file, without touching the disk but for the files of secrets it names.
/// For the fuzzer and for tests.
///
/// # Errors
/// Every problem found.
pub fn load_text(text: &[u8], environment: Environment<'_>) -> Result<Config, Vec<ConfigProblem>> {
    let file = Path::new("plimsoll.yaml");
    let read = interpret(parse::parse(file, text)?, environment, Path::new(""));
    if read.problems.is_empty() { Ok(read.config) } else { Err(sorted(read.problems, &[file.to_owned()])) }
}

struct Interpreted {
    config: Config,
    tree: Node,
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

/// From the merged tree to a checked configuration.
fn interpret(mut tree: Node, environment: Environment<'_>, folder: &Path) -> Interpreted {
    let mut problems = expand::expand(&mut tree, environment);
    tree.prune();
    let mut config = schema::fill(&mut tree, &mut problems);
    problems.extend(validate::validate(&config, &tree));
    let found = secrets::resolve(&mut config, &tree, folder);
    problems.extend(found.problems);
    let mut warnings = found.warnings;
    warnings.extend(budgets::unpriced(&config, &tree));
    warnings.extend(budgets::unbounded(&config, &tree));
    Interpreted { config, tree, problems, warnings }
}

/// In the order of the files, then of the lines.
fn sorted(mut problems: Vec<ConfigProblem>, files: &[PathBuf]) -> Vec<ConfigProblem> {
    problems.truncate(CONFIG_PROBLEMS_MAX);
    problems.sort_by_key(|problem| {
        problem.at.as_ref().map(|at| (files.iter().position(|file| **file == *at.file), at.line, at.column))
    });
    problems
}

#[cfg(test)]
mod tests;
