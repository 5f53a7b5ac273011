//! The root of the configuration: one struct per part, each declared by the module that it configures.
//!
//! Start at [`Config`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::gateway::AgentConfig;
use crate::ids::AgentId;
use crate::{api, gateway, journal, live, provider, telemetry};

/// Everything that can be configured. Without any file it serves an echo agent on loopback.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
    /// Who makes answers.
    pub providers: BTreeMap<String, provider::Config>,
    /// What a million tokens cost, by model.
    pub prices: BTreeMap<String, provider::Price>,
    /// Who answers.
    pub agents: BTreeMap<AgentId, AgentConfig>,
}

impl Default for Config {
    fn default() -> Self {
        let echo = AgentId::parse("echo").expect("it keeps the rule");
        Self {
            data_dir: None,
            server: api::Config::default(),
            auth: api::AuthConfig::default(),
            metrics: api::MetricsConfig::default(),
            journal: journal::Config::default(),
            gateway: gateway::Config::default(),
            live: live::Config::default(),
            telemetry: telemetry::Config::default(),
            providers: BTreeMap::from([(
                "echo".to_owned(),
                provider::Config::Echo(provider::EchoConfig::default()),
            )]),
            prices: BTreeMap::new(),
            agents: BTreeMap::from([(echo, AgentConfig::of_provider("echo"))]),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error("{}: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
}

/// Reads one file.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    serde_saphyr::from_str(&text)
        .map_err(|error| LoadError::Wrong { path: path.to_owned(), problem: error.to_string() })
}
