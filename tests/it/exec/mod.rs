//! Agents that are programs, run by the real binary: small shell scripts that behave well, badly and very badly.

#![cfg(target_os = "linux")]

mod ending;
mod environment;
mod left_behind;
mod message;
mod output;
mod start;
mod strangers;

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::client::ClientError;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::{Server, until};

/// The program of the most obliging agent.
const OBLIGING: &str = r#"cat > message; echo '{"type":"delta","text":"done"}'"#;

/// A directory that an agent `a` works in, and what it runs there.
struct Work {
    dir: TempDir,
}

impl Work {
    /// With this as `agent.sh`.
    fn of(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let work = Self { dir };
        work.write("agent.sh", script);
        work
    }

    fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("it is there")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("written");
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.path().join(name)).ok()
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.read(name).unwrap_or_default()).into_owned()
    }

    /// A configuration whose agent runs `agent.sh`; `more` goes into its provider.
    fn config(&self, more: Value) -> Value {
        let mut config = json!({
            "server": {"shutdown_grace": "200ms"},
            "providers": {"p": {"kind": "exec", "program": "sh", "args": ["agent.sh"], "kill_grace": "300ms"}},
            "agents": {"a": {"provider": "p", "cwd": self.path()}},
        });
        let provider = config["providers"]["p"].as_object_mut().expect("an object");
        provider.extend(more.as_object().expect("an object").clone());
        config
    }

    async fn serve(&self, more: Value) -> Server {
        Server::start(self.config(more)).await
    }

    /// The processes that work in the directory, guards too.
    fn workers(&self) -> Vec<i32> {
        let own = self.path();
        pids().filter(|pid| alive(*pid) && works_in(*pid, &own)).collect()
    }

    /// Waits until nobody works there.
    async fn left_alone(&self) {
        until("the end of all that worked there", async || self.workers().is_empty().then_some(())).await;
    }

    /// Waits until a file has so many lines, and gives them as process ids.
    async fn noted(&self, name: &str, count: usize) -> Vec<i32> {
        until("notes of the agent", async || {
            let pids: Vec<i32> =
                self.text(name).lines().filter_map(|line| line.trim().parse().ok()).collect();
            (pids.len() >= count).then_some(pids)
        })
        .await
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("a /proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn works_in(pid: i32, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
}

/// Whether a process runs; one that only waits to be reaped does not. One whose main thread has ended while others run
/// does.
fn alive(pid: i32) -> bool {
    let stat = stat(pid);
    let state = stat.first().map_or("X", String::as_str);
    !matches!(state, "Z" | "X") || (state == "Z" && stat.get(17).is_some_and(|threads| threads != "1"))
}

/// What `/proc/PID/stat` says after the name; nothing of one that is gone.
fn stat(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().map(str::to_owned).collect()
}

/// The guards of a plimsoll.
fn guards(plimsoll: u32) -> Vec<i32> {
    let is_guard = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let parts: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        parts.get(1) == Some(&&b"exec-guard"[..]) && parts.get(2) == Some(&plimsoll.to_string().as_bytes())
    };
    pids().filter(is_guard).collect()
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the signal is sent");
}

/// Sends a message to `a` and gives the answer's text.
async fn ask(server: &Server, message: &str) -> String {
    let answer = server.call("agent.send", json!({"agent": "a", "message": message})).await;
    answer["text"].as_str().expect("an answer has a text").to_owned()
}

/// Sends a message to `a` that is not answered; gives code, message and data of the error.
async fn refused(server: &Server, params: Value) -> (i64, String, Value) {
    let mut all = json!({"agent": "a", "message": "m"});
    all.as_object_mut().expect("an object").extend(params.as_object().expect("an object").clone());
    match server.client().call("agent.send", all).await {
        Err(ClientError::Rpc { code, message, data }) => (code, message, data),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Sends a message to `a` under this request id, in a task of its own.
fn send(server: &Server, request: &str) -> tokio::task::JoinHandle<Result<Value, ClientError>> {
    let client = server.client();
    let params = json!({"agent": "a", "message": "m", "requestId": request, "session": request});
    tokio::spawn(async move { client.call("agent.send", params).await })
}
