//! The configuration keys `engine:` and `agents.<id>.instance:`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::machine::Start;
use crate::secret::Secret;
use crate::units::{Bytes, Period};

/// `agents.<id>.instance:`: the process or the container that hosts an agent. Exactly one of [`process`](Self::process),
/// [`container`](Self::container) and [`scripted`](Self::scripted) is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceConfig {
    /// When it starts: `lazy`, with the first request, or `hot`, with plimsoll.
    #[serde(default = "default_start")]
    pub start: Start,
    /// How long a lazy one stays up without a request; 1 s to 30 d.
    #[serde(default = "default_idle_after")]
    pub idle_after: Period,
    /// The port that it answers on: of a process on 127.0.0.1, of a container on its own address; 1 to 65535. A scripted
    /// one has none.
    #[serde(default)]
    pub port: u16,
    /// What the paths of its API stand under.
    #[serde(default = "default_path")]
    pub path: String,
    /// How one knows that it is ready.
    #[serde(default)]
    pub ready: ReadyConfig,
    /// How long that may take, pulls of an image not counted; 100 ms to 1 h.
    #[serde(default = "default_ready_timeout")]
    pub ready_timeout: Period,
    /// How long it may take to end by itself once it was asked to (SIGTERM), before it is killed; 0 s to 10 m.
    #[serde(default = "default_stop_grace")]
    pub stop_grace: Period,
    /// Requests that may wait for it to start; 1 to 100,000.
    #[serde(default = "default_waiting_max")]
    pub waiting_max: usize,
    /// It is a process on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessHost>,
    /// It is a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerHost>,
    /// It only plays that it starts and stops, for trying out: its agent answers through a provider that needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripted: Option<ScriptedHost>,
}

/// What hosts an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// A process on this machine.
    Process,
    /// A container.
    Container,
    /// A script.
    Scripted,
}

impl HostKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Process, Self::Container, Self::Scripted];

    /// Its key in the configuration, and its name elsewhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Scripted => "scripted",
        }
    }
}

impl InstanceConfig {
    /// A lazy one that plays this script.
    #[must_use]
    pub fn scripted(idle_after: Period, script: ScriptedHost) -> Self {
        Self {
            start: default_start(),
            idle_after,
            port: 0,
            path: default_path(),
            ready: ReadyConfig::default(),
            ready_timeout: default_ready_timeout(),
            stop_grace: default_stop_grace(),
            waiting_max: default_waiting_max(),
            process: None,
            container: None,
            scripted: Some(script),
        }
    }
}

/// `ready:`: how one knows that an instance is ready. At most one of these; with none, it is ready once it takes
/// connections on its port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadyConfig {
    /// It answers `GET` of this path on its port with a status of 200 to 299.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// It prints a line that holds this text: a process on standard output, a container on either output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The engine says so, by the `HEALTHCHECK` of the image; containers only.
    pub healthcheck: bool,
}

/// `process:`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessHost {
    /// The program: a name to be found in `PATH`, or a path; a relative one begins at the file that names it.
    pub program: String,
    /// What it is given. No shell ever sees it.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables of plimsoll's own environment that it gets too, besides PATH, HOME, LANG and TMPDIR.
    #[serde(default)]
    pub env_pass: Vec<String>,
    /// Variables that it gets with these values.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
}

/// `container:`. Exactly one of [`name`](Self::name) and [`image`](Self::image) is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerHost {
    /// A container that somebody made and labelled `io.plimsoll.instance=<id of the agent>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// An image of `engine.images`, to make one of. What follows is for such a container only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What is run in it, in place of what the image says.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables that it gets with these values.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// What of this machine it sees.
    #[serde(default)]
    pub binds: Vec<BindConfig>,
    /// The user that it runs as, as Docker writes one (`1000`, `1000:1000`, `nobody`); the image's where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Memory that it may use; 6 MiB to 1 TiB.
    #[serde(default = "default_memory_max")]
    pub memory_max: Bytes,
    /// Processors that it may use; 0.01 to 1,024.
    #[serde(default = "default_cpus")]
    pub cpus: f64,
    /// Processes and threads that it may have; 1 to 1,000,000.
    #[serde(default = "default_pids_max")]
    pub pids_max: u32,
}

/// `scripted:`: one act after the other, and again from the first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptedHost {
    /// For each start.
    pub starts: Vec<ScriptedAct>,
    /// For each stop.
    pub stops: Vec<ScriptedAct>,
}

/// One act of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedAct {
    /// How long it takes; 0 s to 1 h.
    pub takes: Period,
    /// Whether it fails.
    #[serde(default)]
    pub fails: bool,
}

impl ContainerHost {
    /// Whether it surely runs as another user than root: by a number, for a name can be anybody's in the image.
    #[must_use]
    pub fn is_not_root(&self) -> bool {
        is_not_root(self.user.as_deref().unwrap_or_default())
    }
}

/// The same of a user as Docker writes one.
pub(super) fn is_not_root(user: &str) -> bool {
    let number = user.split_once(':').map_or(user, |(user, _group)| user);
    number.parse::<u32>().is_ok_and(|number| number != 0)
}

/// One entry of `binds:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindConfig {
    /// A directory or a file under `engine.bind_root`, once links are followed.
    pub source: PathBuf,
    /// Where it is seen in the container: absolute.
    pub target: String,
    /// Whether it may be written to.
    #[serde(default)]
    pub writable: bool,
}

/// `engine:`: the container engine, and what may be asked of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Where it listens: `unix:///path` or `tcp://host:port`.
    pub address: String,
    /// What plimsoll may do there.
    pub trust: Trust,
    /// Images that containers may be made of, exactly as agents name them.
    pub images: Vec<String>,
    /// Whether an image of that list is fetched that is not there.
    pub pull: Pull,
    /// How long that may take; 1 s to 24 h.
    pub pull_timeout: Period,
    /// The directory under which everything lies that containers may see; without one they see nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_root: Option<PathBuf>,
    /// The network that containers are in, and on which they are asked; never the host's, nor another container's.
    pub network: String,
    /// How long one call may take, its own waiting apart; 100 ms to 10 m.
    pub timeout: Period,
    /// What becomes of containers that an earlier plimsoll on this data directory left running.
    pub orphans: Orphans,
}

/// What plimsoll may do with containers; each includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Look.
    #[default]
    Observe,
    /// Start and stop those that somebody else made and labelled.
    StartStop,
    /// Make containers of listed images, and remove those.
    Create,
}

/// Whether images are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// What is not there is missing.
    Never,
    /// When it is not there.
    #[default]
    Missing,
}

/// What becomes of containers that are left running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orphans {
    /// They go on, and are kept again.
    #[default]
    Adopt,
    /// They are stopped.
    Stop,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            address: "unix:///var/run/docker.sock".to_owned(),
            trust: Trust::default(),
            images: Vec::new(),
            pull: Pull::default(),
            pull_timeout: Period::from_secs(600),
            bind_root: None,
            network: "bridge".to_owned(),
            timeout: Period::from_secs(20),
            orphans: Orphans::default(),
        }
    }
}

fn default_start() -> Start {
    Start::Lazy
}

fn default_idle_after() -> Period {
    Period::from_secs(300)
}

fn default_path() -> String {
    "/v1".to_owned()
}

fn default_ready_timeout() -> Period {
    Period::from_secs(60)
}

fn default_stop_grace() -> Period {
    Period::from_secs(10)
}

fn default_waiting_max() -> usize {
    1_000
}

fn default_memory_max() -> Bytes {
    Bytes(512 << 20)
}

fn default_cpus() -> f64 {
    1.0
}

fn default_pids_max() -> u32 {
    256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_says_surely_who_is_not_root() {
        let is_not_root = |user: &str| {
            let host = serde_json::json!({"image": "acme/agent:1", "user": user});
            serde_json::from_value::<ContainerHost>(host).expect("valid").is_not_root()
        };
        for user in ["1000", "1000:1000", "1000:0"] {
            assert!(is_not_root(user), "{user}");
        }
        for user in ["", "0", "0:1000", "00", "root", "nobody", "-1", "4294967296"] {
            assert!(!is_not_root(user), "{user}");
        }
    }
}
