//! A model server that is not ours: the LiteLLM proxy, whose mock models answer offline.
//!
//! Needs `litellm` (`pip install 'litellm[proxy]'`) on the path, or its path in `PLIMSOLL_LITELLM`.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;

use super::child::Running;
use super::server::free_port;
use super::tools::needs_tool;

/// Its key.
pub(crate) const KEY: &str = "sk-test-master";

/// What the model `m-1` answers; `m-busy` answers 429.
pub(crate) const ANSWER: &str = "This answer comes from a mock, in order.";

/// It takes that long to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running proxy.
pub(crate) struct LiteLlm {
    child: Running,
    dir: TempDir,
    port: u16,
}

impl LiteLlm {
    /// One that answers; tests that run at the same time share it, because it takes seconds to start. `None` where it
    /// is not installed.
    pub(crate) async fn shared() -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<LiteLlm>> = Mutex::const_new(Weak::new());
        let mut running = RUNNING.lock().await;
        if let Some(proxy) = running.upgrade() {
            return Some(proxy);
        }
        let proxy = Arc::new(Self::start().await?);
        *running = Arc::downgrade(&proxy);
        Some(proxy)
    }

    async fn start() -> Option<Self> {
        let program = needs_tool("litellm", Some("PLIMSOLL_LITELLM"))?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let model = |name: &str, answer: &str| {
            let params =
                serde_json::json!({"model": "openai/mock", "api_key": "none", "mock_response": answer});
            serde_json::json!({"model_name": name, "litellm_params": params})
        };
        let config = serde_json::json!({
            "model_list": [model("m-1", ANSWER), model("m-busy", "litellm.RateLimitError")],
            "router_settings": {"num_retries": 0, "disable_cooldowns": true},
            "general_settings": {"master_key": KEY},
        });
        let file = dir.path().join("litellm.yaml");
        std::fs::write(&file, config.to_string()).expect("the configuration is written");
        let port = free_port();
        let log = File::create(dir.path().join("log")).expect("a log file");
        let mut command = Command::new(program);
        command
            .args(["--host", "127.0.0.1", "--telemetry", "False", "--port", &port.to_string(), "--config"])
            .arg(&file)
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .stdout(log.try_clone().expect("the log is shared"))
            .stderr(log)
            .stdin(Stdio::null());
        let child = Running::start(&mut command);
        let mut proxy = Self { child, dir, port };
        proxy.ready().await;
        Some(proxy)
    }

    async fn ready(&mut self) {
        let alive = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                if let Some(status) = self.child.0.try_wait().expect("the child can be asked") {
                    panic!("litellm ended with {status}: {}", self.log());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, alive).await.is_err() {
            panic!("litellm did not start within {PATIENCE:?}: {}", self.log());
        }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}
