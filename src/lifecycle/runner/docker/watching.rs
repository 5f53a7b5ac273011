//! Watches a container that runs. What the engine tells is a hint to look, and without one it is looked now and then.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::HealthStatusEnum;
use tokio::sync::watch;
use tokio::time::timeout;

use super::engine::DockerEngine;
use crate::lifecycle::machine::Exit;

/// How long to go without a look at a container that is up: an engine may lose an event.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The same while its health is waited for.
const HEALTH_AGAIN: Duration = Duration::from_millis(250);

/// What the HEALTHCHECK of an image says in the end.
pub(super) enum Health {
    Good,
    Bad,
    /// There is none.
    None,
}

/// Waits until the run that began then has ended. While nobody can tell, it has not.
pub(super) async fn ended(engine: Arc<DockerEngine>, name: String, started_at: String) -> Exit {
    let mut hints = engine.hints();
    loop {
        hints.mark_unchanged();
        match engine.inspect(&name).await {
            Ok(Some(seen)) if !seen.is_running => return seen.exit,
            Ok(Some(seen)) if seen.started_at == started_at => {}
            // It is gone, or another run of it: nobody knows how this one ended.
            Ok(_) => return Exit::default(),
            Err(_) => {}
        }
        hinted(&mut hints, LOOK_AGAIN).await;
    }
}

/// Waits until the engine knows whether a container is healthy.
pub(super) async fn healthy(engine: &DockerEngine, name: &str) -> Health {
    let mut hints = engine.hints();
    loop {
        hints.mark_unchanged();
        if let Ok(Some(seen)) = engine.inspect(name).await {
            match seen.health {
                Some(HealthStatusEnum::HEALTHY) => return Health::Good,
                Some(HealthStatusEnum::UNHEALTHY) => return Health::Bad,
                Some(HealthStatusEnum::STARTING) => {}
                Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => return Health::None,
            }
        }
        hinted(&mut hints, HEALTH_AGAIN).await;
    }
}

async fn hinted(hints: &mut watch::Receiver<u64>, longest: Duration) {
    // Either way it is looked at now.
    let _ = timeout(longest, hints.changed()).await;
}
