//! Does the container engine answer, and what may plimsoll do there?

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::super::Verdict;
use super::super::scene::Scene;
use super::NO_CONFIGURATION;
use crate::config::Config;
use crate::lifecycle::{EngineConfig, Trust};

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    look(scene).boxed()
}

async fn look(scene: &Scene) -> Verdict {
    let Ok(loaded) = &scene.loaded else { return Verdict::skip(NO_CONFIGURATION) };
    if !wants_engine(&loaded.config) {
        return Verdict::skip("no agent is in a container");
    }
    let EngineConfig { address, trust, images, .. } = &loaded.config.engine;
    let version = match scene.engine(loaded).version().await {
        Ok(version) => version,
        Err(reason) => {
            return Verdict::fail(
                reason,
                "agents in containers do not start until it answers; others work without it",
            );
        }
    };
    let may = match trust {
        Trust::Observe => "observe: it is only looked at".to_owned(),
        Trust::StartStop => "start_stop: labelled containers are started and stopped".to_owned(),
        Trust::Create => format!("create: containers are made of {}", images.join(", ")),
    };
    let detail = format!("{version} at {address}\ntrust is {may}");
    if is_far(address) {
        let advice = "who can read or write on the way is root there: use a unix socket, or a proxy on this machine that \
                      brings TLS";
        return Verdict::warn(detail, advice);
    }
    Verdict::pass(detail)
}

pub(super) fn wants_engine(config: &Config) -> bool {
    let mut instances = config.agents.values().filter_map(|agent| agent.instance.as_ref());
    instances.any(|instance| instance.container.is_some())
}

/// Whether it is asked over a network, in plain text.
fn is_far(address: &str) -> bool {
    let host = address.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')).map(|(host, _)| host);
    host.is_some_and(|host| host != "localhost" && host != "[::1]" && !host.starts_with("127."))
}
