//! What is asked of the engine about one container, in our own words.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HealthStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use super::body::{INSTANCE_LABEL, OWNER_LABEL};
use super::engine::{DockerEngine, EngineError};
use crate::clock::Timestamp;
use crate::ids::AgentId;
use crate::lifecycle::machine::Exit;

/// How long the engine may take to kill what did not end by itself.
const KILL_MAX: Duration = Duration::from_secs(10);

/// A container as it was seen.
pub(super) struct Seen {
    pub(super) is_running: bool,
    /// Whether it runs, or the engine is about to start it again.
    pub(super) may_run: bool,
    /// When it began to run last, in the engine's words: another time is another run.
    pub(super) started_at: String,
    /// When it ended the last time before; what it printed until then is not of this run.
    pub(super) finished_at: String,
    pub(super) exit: Exit,
    pub(super) health: Option<HealthStatusEnum>,
    pub(super) labels: HashMap<String, String>,
    /// Whether it prints to a terminal, so that what it prints has no frames.
    pub(super) has_terminal: bool,
    /// Where it is on the network that the configuration names.
    pub(super) address: Option<IpAddr>,
}

impl Seen {
    /// Whether its labels say that it is of this instance, and nothing of another data directory.
    pub(super) fn is_for(&self, instance: &AgentId, owner: &str) -> bool {
        let made_by = self.labels.get(OWNER_LABEL);
        self.has(INSTANCE_LABEL, instance.as_str()) && made_by.is_none_or(|made_by| made_by == owner)
    }

    /// Whether its labels say that plimsoll made it, over this data directory.
    pub(super) fn is_of(&self, instance: &AgentId, owner: &str) -> bool {
        self.has(INSTANCE_LABEL, instance.as_str()) && self.has(OWNER_LABEL, owner)
    }

    /// How long it has run by then; no time at all if the engine's clock says nothing that can be told.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        Timestamp::parse_rfc3339(&self.started_at).map_or(Duration::ZERO, |started| now.since(started))
    }

    pub(super) fn has(&self, label: &str, value: &str) -> bool {
        self.labels.get(label).is_some_and(|found| found == value)
    }

    fn new(answer: ContainerInspectResponse, network: &str) -> Self {
        let ContainerInspectResponse { state, config, network_settings, .. } = answer;
        let (state, config) = (state.unwrap_or_default(), config.unwrap_or_default());
        let endpoint = network_settings.and_then(|settings| settings.networks?.remove(network));
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
        Self {
            may_run: state.running.unwrap_or_default(),
            is_running: state.running.unwrap_or_default() && !state.restarting.unwrap_or_default(),
            started_at: state.started_at.unwrap_or_default(),
            finished_at: state.finished_at.unwrap_or_default(),
            exit: Exit { code, signal: None, oom: state.oom_killed.unwrap_or_default() },
            health: state.health.and_then(|health| health.status),
            labels: config.labels.unwrap_or_default(),
            has_terminal: config.tty.unwrap_or_default(),
            address: endpoint.and_then(|endpoint| endpoint.ip_address?.parse().ok()),
        }
    }
}

/// Why an image could not be fetched.
pub(super) enum PullError {
    Engine(EngineError),
    Late,
}

impl DockerEngine {
    /// The container of this name, if there is one.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<Seen>, EngineError> {
        let answer =
            self.call(Duration::ZERO, async |docker| docker.inspect_container(name, None).await).await;
        match answer {
            Ok(answer) => Ok(Some(Seen::new(answer, &self.config().network))),
            Err(EngineError::Missing(_)) => Ok(None),
            Err(error @ (EngineError::Down(_) | EngineError::Conflict(_) | EngineError::Said(_))) => {
                Err(error)
            }
        }
    }

    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let made = self
            .call(Duration::ZERO, async |docker| docker.create_container(Some(options), body).await)
            .await;
        made.map(drop)
    }

    /// Starts it; one that runs is left alone.
    pub(super) async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.call(Duration::ZERO, async |docker| started(docker.start_container(name, None).await)).await
    }

    /// Asks it to end, and kills it when it did not within `grace`. One that does not run, or is not there, is left
    /// alone.
    pub(super) async fn stop(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let more = grace.saturating_add(KILL_MAX);
        let stopped =
            self.call(more, async |docker| started(docker.stop_container(name, Some(options)).await)).await;
        match stopped {
            Ok(()) | Err(EngineError::Missing(_)) => Ok(()),
            // It may have ended although the engine is not content.
            Err(error) => match self.inspect(name).await? {
                Some(seen) if seen.may_run => Err(error),
                Some(_) | None => Ok(()),
            },
        }
    }

    /// Removes it with what it stored of its own. One that is not there is left alone.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed =
            self.call(KILL_MAX, async |docker| docker.remove_container(name, Some(options)).await).await;
        match removed {
            Ok(()) | Err(EngineError::Missing(_)) => Ok(()),
            // Someone else removes it at this moment: whether it went is seen.
            Err(error) => match self.inspect(name).await? {
                Some(_) => Err(error),
                None => Ok(()),
            },
        }
    }

    /// What the name of an image stands for now, if it is there.
    pub(super) async fn image_id(&self, image: &str) -> Result<Option<String>, EngineError> {
        match self.call(Duration::ZERO, async |docker| docker.inspect_image(image).await).await {
            Ok(found) => Ok(Some(found.id.unwrap_or_default())),
            Err(EngineError::Missing(_)) => Ok(None),
            Err(error @ (EngineError::Down(_) | EngineError::Conflict(_) | EngineError::Said(_))) => {
                Err(error)
            }
        }
    }

    /// Fetches an image.
    pub(super) async fn pull(&self, image: &str) -> Result<(), PullError> {
        let docker = self.stream().await.map_err(PullError::Engine)?;
        let (name, tag) = name_and_tag(image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let pulled = docker.create_image(Some(options), None, None).try_for_each(async |_| Ok(()));
        match timeout(self.config().pull_timeout.0, pulled).await {
            Ok(pulled) => self.judge(pulled).map_err(PullError::Engine),
            Err(_) => Err(PullError::Late),
        }
    }
}

/// "It does already" (304) is as good as "it does now".
fn started(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(Error::DockerResponseServerError { status_code: 304, .. }) => Ok(()),
        other => other,
    }
}

/// An image without a tag is the latest; without this an engine fetches all that there are.
fn name_and_tag(image: &str) -> (&str, &str) {
    let last = image.rfind('/').map_or(0, |slash| slash + 1);
    match (image.contains('@'), image[last..].rfind(':')) {
        (true, _) => (image, ""),
        (false, Some(colon)) => (&image[..last + colon], &image[last + colon + 1..]),
        (false, None) => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_name_and_a_tag() {
        assert_eq!(name_and_tag("agent"), ("agent", "latest"));
        assert_eq!(name_and_tag("agent:1.2"), ("agent", "1.2"));
        assert_eq!(name_and_tag("localhost:5000/acme/agent"), ("localhost:5000/acme/agent", "latest"));
        assert_eq!(name_and_tag("localhost:5000/acme/agent:1"), ("localhost:5000/acme/agent", "1"));
        assert_eq!(name_and_tag("acme/agent@sha256:0f"), ("acme/agent@sha256:0f", ""));
    }
}
