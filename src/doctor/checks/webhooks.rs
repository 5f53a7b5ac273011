//! Does somebody take connections where alarms go? No alarm is sent: `plimsoll notify test` does that.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::Verdict;
use super::super::scene::Scene;
use super::NO_CONFIGURATION;
use crate::config::Config;
use crate::notify::WebhookConfig;

/// Less than a check as a whole may take, so that one that hangs is told by name.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let Ok(loaded) = &scene.loaded else {
        return std::future::ready(Verdict::skip(NO_CONFIGURATION)).boxed();
    };
    look(&loaded.config).boxed()
}

async fn look(config: &Config) -> Verdict {
    if config.notify.is_empty() {
        return Verdict::skip("nobody outside is told of anything: no `notify`");
    }
    let answers = join_all(config.notify.iter().map(|(name, webhook)| connect(name, webhook))).await;
    let all = answers.iter().all(Result::is_ok);
    let lines: Vec<String> = answers.into_iter().map(|answer| answer.unwrap_or_else(|line| line)).collect();
    let lines = lines.join("\n");
    let advice = "mend `notify`, or start what is to be told; plimsoll runs without it";
    if all { Verdict::pass(lines) } else { Verdict::warn(lines, advice) }
}

async fn connect(name: &str, webhook: &WebhookConfig) -> Result<String, String> {
    let Some((host, port)) = webhook.server() else { return Err(format!("{name}: it has no address")) };
    let socket = timeout(CONNECT_DEADLINE, TcpStream::connect((host.as_str(), port))).await;
    match socket {
        Ok(Ok(_)) => Ok(format!("{name}: {host}:{port} takes connections")),
        Ok(Err(error)) => Err(format!("{name}: {host}:{port}: {error}")),
        Err(_) => Err(format!("{name}: {host}:{port}: no answer within {} s", CONNECT_DEADLINE.as_secs())),
    }
}
