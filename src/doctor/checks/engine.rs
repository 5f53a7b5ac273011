//! Does the container engine answer, and what may plimsoll do there?

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::super::Verdict;
use super::super::scene::Scene;
use super::NO_CONFIGURATION;
use crate::config::Loaded;
use crate::lifecycle::{EngineConfig, Trust};

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    look(scene).boxed()
}

async fn look(scene: &Scene) -> Verdict {
    let loaded = match with_containers(scene) {
        Ok(loaded) => loaded,
        Err(nothing) => return nothing,
    };
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

/// The configuration, if any agent in it is in a container.
///
/// # Errors
/// That there is nothing to ask an engine.
pub(super) fn with_containers(scene: &Scene) -> Result<&Loaded, Verdict> {
    let loaded = scene.loaded.as_ref().map_err(|_| Verdict::skip(NO_CONFIGURATION))?;
    let mut instances = loaded.config.every_agent().filter_map(|(_, agent)| agent.instance.as_ref());
    let wanted = instances.any(|instance| instance.container.is_some());
    wanted.then_some(loaded).ok_or_else(|| Verdict::skip("no agent is in a container"))
}

/// Whether it is asked over a network, in plain text.
fn is_far(address: &str) -> bool {
    let host = address.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')).map(|(host, _)| host);
    host.is_some_and(|host| host != "localhost" && host != "[::1]" && !host.starts_with("127."))
}
