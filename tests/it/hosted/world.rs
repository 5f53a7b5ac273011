//! An agent `a` with an instance, in a process or in a container, and what the tests ask of the server that keeps it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll::client::ClientError;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker::engine::{Engine, IMAGE};
use crate::support::server::{Server, free_port, token_hash, until};

/// The token of an operator.
pub(crate) const TOKEN: &str = "operator";

/// How long rows, counters and `/agents` may differ: what happens is told in one place first.
const AGREEMENT: Duration = Duration::from_secs(10);

/// Answers as the OpenAI API does, by a script that busybox runs for each request.
const IN_CONTAINER: &str = r#"
trap 'exit 0' TERM
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/v1 <<'END'
#!/bin/sh
body=$(/bin/busybox head -c "$CONTENT_LENGTH")
text=${body##*\"content\":\"}; text=${text%%\"*}
printf 'Content-Type: application/json\r\n\r\n'
printf '{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}' "$text"
END
/bin/busybox chmod 755 /www/cgi-bin/v1
httpd -f -p 8080 -h /www & wait
"#;

/// Where the instance lives, and what is there of it.
pub(crate) struct World {
    dir: TempDir,
    port: u16,
    engine: Option<Engine>,
    /// The agent's id: in an engine that others use too, it must be nobody else's.
    pub(crate) id: String,
}

impl World {
    /// In a process: a second plimsoll with an echo agent, which is a real server that speaks the OpenAI API.
    pub(crate) fn in_a_process() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let world = Self { dir, port: free_port(), engine: None, id: "a".to_owned() };
        let inner = json!({
            "server": {"listen": format!("127.0.0.1:{}", world.port)},
            "providers": {"p": {"kind": "echo", "latency": "10ms"}},
            "agents": {"m": {"provider": "p"}},
        });
        std::fs::write(world.dir.path().join("inner.yaml"), inner.to_string()).expect("written");
        world
    }

    /// In a container of the machine's engine, or `None` after saying that the test is skipped.
    pub(crate) fn in_a_container(name: &str) -> Option<Self> {
        Some(Self::in_a_container_of(Engine::of_machine()?, name))
    }

    pub(crate) fn in_a_container_of(engine: Engine, name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let id = format!("hosted-{name}-{}", std::process::id());
        Self { dir, port: 8080, engine: Some(engine), id }
    }

    /// The configuration of the agent.
    pub(crate) fn config(&self) -> Value {
        let hash = token_hash(TOKEN);
        let engine = self.engine.as_ref().map_or_else(
            || json!({}),
            |engine| {
                json!({
                    "address": engine.address, "network": engine.network,
                    "trust": "create", "images": [IMAGE], "pull": "never",
                })
            },
        );
        let agent =
            json!({"provider": "own", "model": "m", "cwd": self.dir.path(), "instance": self.instance()});
        json!({
            "engine": engine,
            "auth": {"tokens": [{"name": "op", "role": "operator", "sha256": hash}]},
            "providers": {"own": {"kind": "openai", "retries": 0, "stream": self.engine.is_none()}},
            "agents": {&self.id: agent},
        })
    }

    fn instance(&self) -> Value {
        if self.engine.is_some() {
            return json!({
                "idle_after": "1h",
                "port": self.port,
                "path": "/cgi-bin/v1",
                "stop_grace": "2s",
                "container": {"image": IMAGE, "command": ["/bin/sh", "-c", IN_CONTAINER.replace("${", "$${")]},
            });
        }
        json!({
            "idle_after": "1h",
            "port": self.port,
            "ready": {"http": "/ready"},
            "process": {
                "program": env!("CARGO_BIN_EXE_plimsoll"),
                "args": ["serve", "--config", "inner.yaml", "--data-dir", "inner"],
            },
        })
    }

    /// What runs of the instance: processes, or containers.
    pub(crate) fn running(&self) -> Vec<String> {
        match &self.engine {
            None => self.pids().iter().map(|path| path.display().to_string()).collect(),
            Some(engine) => engine.containers(&self.id, &[]),
        }
    }

    /// Its containers, those included that do not run.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.engine.as_ref().map_or_else(Vec::new, |engine| engine.containers(&self.id, &["--all"]))
    }

    pub(crate) fn pids(&self) -> Vec<PathBuf> {
        let processes = std::fs::read_dir("/proc").expect("it is there").filter_map(Result::ok);
        let hosted = |dir: &Path| {
            let command = std::fs::read(dir.join("cmdline")).unwrap_or_default();
            let cwd = std::fs::read_link(dir.join("cwd")).unwrap_or_default();
            cwd == self.dir.path() && String::from_utf8_lossy(&command).contains("inner.yaml")
        };
        processes.map(|entry| entry.path()).filter(|dir| hosted(dir)).collect()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(engine) = &self.engine {
            engine.clear(&self.id);
        }
    }
}

impl World {
    /// Over the network: a hundred at once are more than the control socket takes.
    pub(crate) async fn try_send(
        &self,
        server: &Server,
        session: &str,
        message: &str,
    ) -> Result<Value, ClientError> {
        let params = json!({"agent": self.id, "session": session, "message": message});
        server.tcp_client(Some(TOKEN)).call("agent.send", params).await
    }

    /// Does not wait for the answer.
    pub(crate) async fn enqueue(&self, server: &Server, session: &str, message: &str) {
        let params = json!({"agent": self.id, "session": session, "message": message, "async": true});
        let taken = server.tcp_client(Some(TOKEN)).call("agent.send", params).await;
        taken.unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) async fn send(&self, server: &Server, session: &str, message: &str) -> Value {
        self.try_send(server, session, message).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The code and the data with which a message is refused.
    pub(crate) async fn refused(&self, server: &Server) -> (i64, Value) {
        match server.client().call("agent.send", json!({"agent": self.id, "message": "hello"})).await {
            Err(ClientError::Rpc { code, data, .. }) => (code, data),
            other => panic!("not {other:?}"),
        }
    }

    pub(crate) async fn agent(&self, server: &Server) -> Value {
        let agents: Value =
            server.client().get("/agents").await.expect("answers").json().await.expect("JSON");
        agents["agents"][0].clone()
    }

    pub(crate) async fn state(&self, server: &Server, wanted: &str) -> Value {
        until(wanted, async || {
            let agent = self.agent(server).await;
            (agent["state"]["lifecycle_state"] == wanted).then_some(agent)
        })
        .await
    }

    /// The records of the instance, the oldest first.
    pub(crate) async fn records(&self, server: &Server) -> Vec<Value> {
        self.try_records(server).await.expect("the audit can be read")
    }

    /// The same; `None` where the server does not answer to the end.
    pub(crate) async fn try_records(&self, server: &Server) -> Option<Vec<Value>> {
        let first = format!("/audit?stream=instance/{}&order=asc&limit=1000", self.id);
        let (mut records, mut path) = (Vec::new(), first.clone());
        loop {
            let page: Value = server.client().get(&path).await.ok()?.json().await.ok()?;
            records.extend(page["records"].as_array()?.iter().cloned());
            let Some(next) = page["next"].as_u64() else { break };
            path = format!("{first}&cursor={next}");
        }
        Some(records)
    }

    pub(crate) async fn kinds(&self, server: &Server) -> Vec<String> {
        let records = self.records(server).await;
        records.iter().map(|record| record["kind"].as_str().expect("a kind").to_owned()).collect()
    }

    /// Waits until what is counted stands alike in `/agents`, in the rows and in `/metrics`.
    pub(crate) async fn agree(&self, server: &Server) {
        let mut said = String::new();
        let agreed = until("agreement", async || match self.disagreement(server).await {
            None => Some(()),
            Some(other) => {
                said = other;
                None
            }
        });
        if tokio::time::timeout(AGREEMENT, agreed).await.is_err() {
            panic!("{said}");
        }
    }

    async fn disagreement(&self, server: &Server) -> Option<String> {
        let counts = self.agent(server).await["state"]["lifecycle_metrics"].clone();
        let (rows, scrape) = (self.kinds(server).await, server.scrape().await);
        for kind in ["lazy_start", "lazy_start_failed", "lazy_stop", "lazy_stop_failed", "exited"] {
            let in_rows = rows.iter().filter(|row| *row == kind).count() as u64;
            let labels = [("agent_instance", self.id.as_str()), ("event", kind)];
            let exposed = scrape.count("plimsoll_lifecycle_events_total", &labels);
            if counts[kind] != in_rows || exposed != in_rows {
                return Some(format!("{kind}: {in_rows} rows, {exposed} exposed, of {counts}"));
            }
        }
        // What is planned or removed of containers did not happen to the instance.
        let last = rows.iter().rfind(|row| !row.starts_with("container_")).map(String::as_str);
        (counts["last_event"]["type"].as_str() != last)
            .then(|| format!("the last is {last:?}, not that of {counts}"))
    }
}
