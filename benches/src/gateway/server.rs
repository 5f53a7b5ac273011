//! The server under test: the release binary as a child process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::child::{Running, status};

/// Starting takes at most this.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Server {
    child: Running,
    pub(crate) address: SocketAddr,
    dir: TempDir,
}

impl Server {
    /// Starts it with this configuration, as JSON.
    pub(crate) async fn start(binary: &Path, config: serde_json::Value) -> Result<Self, String> {
        let mut command = Command::new(binary);
        command.arg("serve");
        Self::start_with(command, config).await
    }

    /// The same with a command that takes `--config` and `--data-dir`.
    pub(crate) async fn start_with(
        mut command: Command,
        mut config: serde_json::Value,
    ) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        config["server"]["listen"] = "127.0.0.1:0".into();
        let file = dir.path().join("plimsoll.yaml");
        fs::write(&file, config.to_string()).map_err(|error| format!("no configuration: {error}"))?;
        let log = fs::File::create(dir.path().join("log")).map_err(|error| format!("no log: {error}"))?;
        command.arg("--config").arg(&file).arg("--data-dir").arg(dir.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("the server does not start: {error}"))?;
        let child = Running(child);
        let mut server = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)), dir };
        let ready = tokio::time::timeout(START_TIMEOUT, server.ready()).await;
        ready.map_err(|_| format!("not ready after {START_TIMEOUT:?}: {}", server.log()))??;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<(), String> {
        loop {
            if let Ok(Some(status)) = self.child.0.try_wait() {
                return Err(format!("it ended with {status}: {}", self.log()));
            }
            let address = fs::read_to_string(self.data_dir().join("address")).unwrap_or_default();
            let bare = address.trim().trim_start_matches("http://");
            if let Ok(address) = bare.parse()
                && super::http::get(address, "/ready").await.is_ok_and(|(status, _)| status == 200)
            {
                self.address = address;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> Result<f64, String> {
        status(self.pid(), "VmRSS:").map(|kib| kib as f64)
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// CPU seconds used so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.0.id())).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        // Fields 14 and 15 of proc(5), in clock ticks of 10 ms.
        let ticks: f64 =
            after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
        ticks / 100.0
    }
}
