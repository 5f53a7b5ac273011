//! A real Prometheus that scrapes a server under test every second.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use plimsoll::client::{Client, ClientError, Target};
use serde_json::Value;
use tempfile::TempDir;

use super::child::Running;
use super::server::{Server, free_port, until};
use super::tools::needs;

/// A running Prometheus.
pub(crate) struct Prometheus {
    child: Running,
    dir: TempDir,
    client: Client,
}

impl Prometheus {
    /// Starts one with the alert rules of the repository and waits until its first scrape of `server` is in; `None`
    /// where it is not installed.
    pub(crate) async fn scraping(server: &Server) -> Option<Self> {
        Self::scraping_at(server.url().trim_start_matches("http://")).await
    }

    /// The same of whatever answers at this host and port.
    pub(crate) async fn scraping_at(target: &str) -> Option<Self> {
        let program = needs("prometheus")?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/*.rules.yaml");
        let address = format!("127.0.0.1:{}", free_port());
        // It scrapes itself too, as the one of the stack does: what asks for plimsoll must not count it.
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: plimsoll, static_configs: [{{targets: ['{target}']}}]}}, \
             {{job_name: prometheus, static_configs: [{{targets: ['{address}']}}]}}]\n",
            rules.display()
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("the configuration is written");
        let log = File::create(dir.path().join("log")).expect("a log file");
        let mut command = Command::new(program);
        command
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir.path())
            .stderr(log)
            .stdout(Stdio::null())
            .stdin(Stdio::null());
        let child = Running::start(&mut command);
        let base = format!("http://{address}");
        let client = Client::new(Target::Url { base, token: None, ca_file: None }).expect("a client");
        let mut started = Self { child, dir, client };
        started.until_value("up{job=\"plimsoll\"}", 1.0).await;
        Some(started)
    }

    /// Waits until the expression has this one value.
    pub(crate) async fn until_value(&mut self, expression: &str, value: f64) {
        until(&format!("{expression} == {value}"), async || {
            if let Some(status) = self.child.0.try_wait().expect("the child can be asked") {
                panic!("prometheus ended with {status}:\n{}", self.log());
            }
            let values = self.values(expression).await?;
            matches!(values[..], [one] if (one - value).abs() < 1e-9).then_some(())
        })
        .await;
    }

    /// The values of an instant query, one for each series; `None` while it does not answer.
    pub(crate) async fn values(&self, expression: &str) -> Option<Vec<f64>> {
        let result = self.api("query", expression).await?;
        let series = result["data"]["result"].as_array()?;
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok());
        series.iter().map(value).collect()
    }

    /// The answer of `/api/v1/<what>?query=<expression>`; an expression that is not accepted fails the test.
    async fn api(&self, what: &str, expression: &str) -> Option<Value> {
        let encoded = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        match self.client.get(&format!("/api/v1/{what}?query={encoded}")).await {
            Ok(answer) => answer.json().await.ok(),
            // The API answers 400 and 422 for an expression, 503 while it starts.
            Err(ClientError::Status { status, message }) if matches!(status.as_u16(), 400 | 422) => {
                panic!("Prometheus does not accept {expression}: {message}")
            }
            Err(_) => None,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}
