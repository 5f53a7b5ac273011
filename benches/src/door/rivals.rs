//! The gateways that plimsoll is measured beside, as their documentation says to start them, each on a port of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;
use tempfile::TempDir;

use crate::child::{Running, status};
use crate::gateway::http;

/// They take that long to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);

const KEY: &str = "sk-bench";

/// Where the gateways are.
#[derive(Debug, clap::Args)]
pub(crate) struct Installed {
    /// `LiteLLM`'s program: `pip install 'litellm[proxy]'`.
    #[arg(long, env = "PLIMSOLL_LITELLM", default_value = "target/ci/venv/bin/litellm")]
    litellm: PathBuf,
    /// The directory of Node packages with Portkey: `npm install @portkey-ai/gateway`.
    #[arg(long, env = "PLIMSOLL_NODE_MODULES", default_value = "target/ci/node/node_modules")]
    node_modules: PathBuf,
}

/// Starts one, if it is installed.
type Start = for<'a> fn(&'a Installed, [SocketAddr; 2]) -> BoxFuture<'a, Result<Option<Rival>, String>>;

/// Every gateway that plimsoll is measured beside.
pub(super) const ALL: [(&str, Start); 2] = [
    ("litellm", |installed, upstreams| litellm(installed, upstreams).boxed()),
    ("portkey", |installed, _upstreams| portkey(installed).boxed()),
];

/// A running gateway.
pub(super) struct Rival {
    pub(super) address: SocketAddr,
    kind: Kind,
    child: Running,
    dir: TempDir,
}

#[derive(Clone, Copy)]
enum Kind {
    LiteLlm,
    Portkey,
}

impl Rival {
    /// What a request for this model server needs.
    pub(super) fn headers(&self, upstream: SocketAddr) -> Vec<(&'static str, String)> {
        let key = ("authorization", format!("Bearer {KEY}"));
        match self.kind {
            Kind::LiteLlm => vec![key],
            Kind::Portkey => vec![
                key,
                ("x-portkey-provider", "openai".to_owned()),
                ("x-portkey-custom-host", format!("http://{upstream}/v1")),
            ],
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    async fn start(
        kind: Kind,
        mut command: Command,
        port: u16,
        dir: TempDir,
    ) -> Result<Option<Self>, String> {
        let log = File::create(dir.path().join("log")).map_err(|error| format!("no log: {error}"))?;
        let errors = log.try_clone().map_err(|error| format!("no log: {error}"))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|error| format!("{command:?} does not start: {error}"))?;
        let child = Running(child);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut rival = Self { address, kind, child, dir };
        let ready = tokio::time::timeout(START_TIMEOUT, rival.ready()).await;
        ready.map_err(|_| format!("not ready after {START_TIMEOUT:?}: {}", rival.log()))??;
        Ok(Some(rival))
    }

    async fn ready(&mut self) -> Result<(), String> {
        while http::get(self.address, "/").await.is_err() {
            if let Ok(Some(status)) = self.child.0.try_wait() {
                return Err(format!("it ended with {status}: {}", self.log()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

async fn litellm(installed: &Installed, upstreams: [SocketAddr; 2]) -> Result<Option<Rival>, String> {
    if !installed.litellm.is_file() {
        return Ok(None);
    }
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let model = |name: &str, upstream: SocketAddr| {
        let params =
            json!({"model": "openai/m", "api_base": format!("http://{upstream}/v1"), "api_key": "none"});
        json!({"model_name": name, "litellm_params": params})
    };
    let config = json!({
        "model_list": [model("m", upstreams[0]), model("slow", upstreams[1])],
        "general_settings": {"master_key": KEY},
    });
    let file = dir.path().join("litellm.yaml");
    fs::write(&file, config.to_string()).map_err(|error| format!("no configuration: {error}"))?;
    let port = free_port()?;
    let mut command = Command::new(&installed.litellm);
    command.args(["--host", "127.0.0.1", "--telemetry", "False", "--port", &port.to_string(), "--config"]);
    command.arg(&file).env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
    Rival::start(Kind::LiteLlm, command, port, dir).await
}

async fn portkey(installed: &Installed) -> Result<Option<Rival>, String> {
    let server = installed.node_modules.join("@portkey-ai/gateway/build/start-server.js");
    if !server.is_file() {
        return Ok(None);
    }
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let port = free_port()?;
    let mut command = Command::new("node");
    command.arg(server).args([&format!("--port={port}"), "--headless"]);
    command.env("TRUSTED_CUSTOM_HOSTS", "127.0.0.1").env("NODE_ENV", "production");
    Rival::start(Kind::Portkey, command, port, dir).await
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// The most memory that the processes of this tree ever held, together, in MiB.
pub(super) fn peak_mib(root: u32) -> f64 {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, status(pid, "PPid:").ok()? as u32))
        })
        .collect();
    let (mut tree, mut next) = (vec![root], 0);
    while next < tree.len() {
        let above = tree[next];
        tree.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    tree.into_iter().filter_map(|pid| status(pid, "VmHWM:").ok()).sum::<u64>() as f64 / 1_024.0
}
