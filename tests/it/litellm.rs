//! A model server that is not ours: the LiteLLM proxy, whose mock models answer offline.
//!
//! Needs `litellm` (`pip install 'litellm[proxy]'`) on the path, or its path in `PLIMSOLL_LITELLM`.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plimsoll::gateway::{Accepted, AgentEvent};
use plimsoll::ids::SessionId;
use plimsoll::provider::OpenAiConfig;
use plimsoll::secret::Secret;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::provider::{House, agent_id, config, house, request};

const KEY: &str = "sk-test-master";
const ANSWER: &str = "This answer comes from a mock, in order.";
const SESSIONS: usize = 50;
const MESSAGES: usize = 3;

/// It takes that long to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running proxy; killed when dropped.
struct LiteLlm {
    child: Child,
    dir: TempDir,
    port: u16,
}

impl LiteLlm {
    /// Starts it and waits until it answers; `None` where it is not installed.
    async fn start() -> Option<Self> {
        let program = program()?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let yaml = format!(
            "model_list:\n  - model_name: m-1\n    litellm_params:\n      model: openai/mock\n      api_key: none\n      \
             mock_response: \"{ANSWER}\"\ngeneral_settings:\n  master_key: {KEY}\n"
        );
        let file = dir.path().join("litellm.yaml");
        std::fs::write(&file, yaml).expect("the configuration is written");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let log = File::create(dir.path().join("log")).expect("a log file");
        let child = Command::new(program)
            .args(["--host", "127.0.0.1", "--telemetry", "False", "--port", &port.to_string(), "--config"])
            .arg(&file)
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .stdout(log.try_clone().expect("the log is shared"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("litellm starts");
        let mut proxy = Self { child, dir, port };
        proxy.ready().await;
        Some(proxy)
    }

    async fn ready(&mut self) {
        let alive = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                    panic!("litellm ended with {status}: {}", self.log());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, alive).await.is_err() {
            panic!("litellm did not start within {PATIENCE:?}: {}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn config(&self, stream: bool) -> OpenAiConfig {
        let key = Secret::new(KEY.to_owned(), "${LITELLM_KEY}");
        let base_url = format!("http://127.0.0.1:{}/v1", self.port);
        OpenAiConfig { stream, api_key: Some(key), ..config(base_url) }
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let given = std::env::var_os("PLIMSOLL_LITELLM").map(PathBuf::from);
    let found = given
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join("litellm")))
        .find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var("PLIMSOLL_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "litellm is missing, and PLIMSOLL_REQUIRE_TOOLS=1");
        println!("skipped: needs litellm");
    }
    found
}

/// Reads a request to its end; gives the pieces of its answer.
async fn pieces(accepted: Accepted) -> Vec<String> {
    let Accepted { mut events, outcome, .. } = accepted;
    let mut pieces = Vec::new();
    while let Some(event) = events.recv().await {
        if let AgentEvent::Delta { text } = event {
            pieces.push(text);
        }
    }
    let answer = outcome.await.expect("every request has an outcome").expect("answered");
    assert_eq!((answer.text.as_str(), pieces.concat().as_str()), (ANSWER, ANSWER));
    assert!(answer.usage.output_tokens.is_some_and(|tokens| tokens > 0), "{:?}", answer.usage);
    pieces
}

/// Sends [`MESSAGES`] to each of [`SESSIONS`] at once.
async fn converse(house: &House) -> Vec<Vec<String>> {
    let mut tasks = JoinSet::new();
    for session in 0..SESSIONS {
        for message in 0..MESSAGES {
            let request = request(&format!("s{session}"), &format!("message {message}"));
            tasks.spawn(pieces(house.send(request)));
        }
    }
    let answers = tasks.join_all().await;
    for session in 0..SESSIONS {
        let session = SessionId::parse(&format!("s{session}")).expect("valid");
        let history = house.gateway.history(&agent_id(), &session).expect("kept");
        let said: Vec<_> = history.iter().step_by(2).map(|message| message.text.to_string()).collect();
        assert_eq!(said, ["message 0", "message 1", "message 2"]);
    }
    answers
}

#[tokio::test]
async fn fifty_sessions_at_once_are_answered_in_order_streamed_and_whole() {
    let Some(proxy) = LiteLlm::start().await else { return };
    for stream in [true, false] {
        let house = house(proxy.config(stream));
        let answers = converse(&house).await;
        assert_eq!(answers.len(), SESSIONS * MESSAGES);
        assert!(answers.iter().all(|pieces| (pieces.len() > 1) == stream), "streamed: {stream}");
        let calls = house.live.model_calls();
        assert_eq!((calls.total, calls.error_rate), (150, 0.0));
        let call = &calls.recent[0];
        assert_eq!((call.provider.as_str(), call.model.as_str()), ("openai", "m-1"));
        assert!(call.latency > 0.0 && call.tokens_per_sec.is_some_and(|rate| rate > 0.0));
        assert!(call.cost_usd.is_some_and(|cost| cost > 0.0), "m-1 has a price");
        assert_eq!(call.time_to_first_token.is_some(), stream);
        assert_eq!(house.gateway.snapshot().messages_processed, 150);
    }
}
