//! A real plimsoll as a child process, on a port of its own and with a data directory that goes with it.

#![allow(dead_code, reason = "each area uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use plimsoll::client::{Client, Target};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::child::Running;
use super::exposition::Scrape;
use super::http::Ask;

/// How long anything that is waited for may take; far more than it should, so that a busy machine fails no test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` again and again until it has something.
///
/// # Panics
/// When it has nothing within [`PATIENCE`].
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}

/// A running server.
pub(crate) struct Server {
    child: Running,
    dir: TempDir,
}

impl Server {
    /// Starts `plimsoll serve` with this configuration (JSON is YAML) and waits until it is ready. The port is
    /// a free one unless the configuration names it.
    pub(crate) async fn start(config: Value) -> Self {
        Self::start_with(config, &[]).await
    }

    /// The same with these variables in its environment.
    pub(crate) async fn start_with(config: Value, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self::spawn_with(dir, config, |command| {
            command.envs(env.iter().copied());
        });
        server.ready().await;
        server
    }

    /// Starts it without waiting, in `dir`, which may hold the data of an earlier run.
    pub(crate) fn spawn(dir: TempDir, config: Value) -> Self {
        Self::spawn_with(dir, config, |_| {})
    }

    /// The same; `set` may add to its environment.
    pub(crate) fn spawn_with(dir: TempDir, mut config: Value, set: impl FnOnce(&mut Command)) -> Self {
        if config.pointer("/server/listen").is_none() {
            config["server"]["listen"] = json!("127.0.0.1:0");
        }
        let file = dir.path().join("plimsoll.yaml");
        fs::write(&file, config.to_string()).expect("the configuration is written");
        Self::spawn_there(dir, set)
    }

    /// The same with the `plimsoll.yaml` that is in `dir`.
    pub(crate) fn spawn_there(dir: TempDir, set: impl FnOnce(&mut Command)) -> Self {
        let file = dir.path().join("plimsoll.yaml");
        let _ = fs::remove_file(dir.path().join("data/address"));
        let mut command = clean_command();
        command.arg("serve").arg("--config").arg(&file).arg("--data-dir").arg(dir.path().join("data"));
        set(&mut command);
        let log = fs::File::options().create(true).append(true).open(dir.path().join("log"));
        let log = log.expect("the log file is opened");
        command.stderr(log.try_clone().expect("the log file is shared")).stdout(log).stdin(Stdio::null());
        Self { child: Running::start(&mut command), dir }
    }

    /// Waits until it takes requests.
    pub(crate) async fn ready(&mut self) {
        let client = self.client();
        until("readiness", async || {
            if let Some(status) = self.child.0.try_wait().expect("the child can be asked") {
                panic!("plimsoll ended with {status}:\n{}", self.log());
            }
            client.get("/ready").await.ok()
        })
        .await;
    }

    /// Calls a method over the control socket.
    ///
    /// # Panics
    /// When it is not answered with a result.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.client().call(method, params).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The records of requests that ended, the newest first; `None` while they cannot be read.
    pub(crate) async fn finished(&self) -> Option<Vec<Value>> {
        let page: Value = self.client().get("/audit?kind=request_finished").await.ok()?.json().await.ok()?;
        page["records"].as_array().cloned()
    }

    /// What `/metrics` says.
    pub(crate) async fn scrape(&self) -> Scrape {
        let answer = self.client().get("/metrics").await.expect("/metrics answers");
        Scrape::parse(&answer.text().await.expect("/metrics is text"))
    }

    /// A client over the control socket.
    pub(crate) fn client(&self) -> Client {
        Client::new(Target::DataDir(self.data_dir())).expect("a client")
    }

    /// A client over TCP, with this token if there is one.
    pub(crate) fn tcp_client(&self, token: Option<&str>) -> Client {
        let token = token.map(|token| plimsoll::secret::Secret::new(token.to_owned(), "token"));
        Client::new(Target::Url { base: self.url(), token, ca_file: None }).expect("a client")
    }

    /// Its address, as `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        let address = fs::read_to_string(self.data_dir().join("address")).expect("the address file");
        format!("http://{}", address.trim())
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        let address = fs::read_to_string(self.data_dir().join("address")).expect("the address file");
        address.trim().parse().expect("an address")
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The directory that holds its configuration, its log and its data directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it has written to standard output and standard error so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What it has written once a line of that holds this text: the log is written behind what it tells of.
    pub(crate) async fn logged(&self, text: &str) -> String {
        let holds = async || Some(self.log()).filter(|log| log.contains(text));
        until(&format!("{text:?} in the log"), holds).await
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Its resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that was ever resident, in KiB.
    pub(crate) fn resident_kib_max(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child.0), signal)
            .expect("the signal is sent");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child.0;
        until("the end of plimsoll", async || child.try_wait().expect("the child can be asked")).await
    }

    /// Asks it to end, and waits until it did so well.
    pub(crate) async fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.ended().await.code(), Some(0), "{}", self.log());
    }

    /// Kills it where it stands, and gives its directory for another start.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.0.kill().expect("the child is killed");
        self.child.0.wait().expect("the child is waited for");
        std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a temporary directory"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what plimsoll said ---\n{}", self.log());
        }
    }
}

/// A configuration with one agent `a`, which repeats what it is told.
pub(crate) fn echo() -> Value {
    json!({"providers": {"p": {"kind": "echo"}}, "agents": {"a": {"provider": "p"}}})
}

/// The whole answer of a method over HTTP: a result or an error.
pub(crate) async fn rpc(server: &Server, method: &str, params: Value) -> Value {
    Ask::call(method, params).send(server.address()).await.json()
}

/// What `auth.tokens` has of a token.
pub(crate) fn token_hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A port that nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    listener.and_then(|listener| listener.local_addr()).expect("a port is free").port()
}

/// Lets another program run plimsoll: `command` begins with these words then.
pub(crate) fn run_by(command: &mut Command, words: &[&str]) {
    let mut by = Command::new(words[0]);
    by.args(&words[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    by.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    *command = by;
}

/// The binary without anything of this process' environment that could change what it does.
pub(crate) fn clean_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}
