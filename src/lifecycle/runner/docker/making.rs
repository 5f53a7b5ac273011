//! Makes the container of an instance, or finds the one that was made, and removes those that are not needed any more.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerCreateBody;

use super::binds::{Allowed, Machine};
use super::body;
use super::container::{PullError, Seen};
use super::engine::EngineError;
use super::failures::{absent, failure, missing, refused, stolen, trouble, uncreated, unremoved};
use super::{ContainerBook, DockerEngine, DockerRunner, output};
use crate::ids::AgentId;
use crate::lifecycle::machine::{Failure, FailureKind};
use crate::lifecycle::{EngineConfig, Pull, Trust};

/// What a container would be made of now.
pub(super) struct Wanted {
    body: ContainerCreateBody,
    pub(super) hash: String,
}

/// A container before it is started.
pub(super) struct Before {
    pub(super) seen: Seen,
    /// When it printed the last time.
    pub(super) printed: Option<jiff::Timestamp>,
}

impl DockerRunner {
    /// A container to be started: its name, and how it is.
    pub(super) async fn container(&self) -> Result<(String, Before), Failure> {
        let Some(name) = &self.host.name else { return self.made().await };
        let found = self.before(name).await?;
        let before = found.ok_or_else(|| absent(name))?;
        if !before.seen.is_for(&self.instance, &self.engine.owner) {
            let error = format!(
                "container {name} does not carry the label {}={}, or another plimsoll made it: it is left alone",
                body::INSTANCE_LABEL,
                self.instance
            );
            return Err(failure(FailureKind::Foreign, error));
        }
        if !before.seen.is_running && self.engine.config().trust == Trust::Observe {
            let error = format!(
                "container {name} does not run, and plimsoll may only look: start it, or set `engine.trust`"
            );
            return Err(failure(FailureKind::NotStarted, error));
        }
        Ok((name.clone(), before))
    }

    async fn before(&self, name: &str) -> Result<Option<Before>, Failure> {
        let (seen, printed) =
            tokio::join!(self.engine.inspect(name), output::last_printed(&self.engine, name));
        let seen = seen.map_err(|error| trouble(&error))?;
        let printed = printed.map_err(|error| trouble(&error))?;
        Ok(seen.map(|seen| Before { seen, printed }))
    }

    /// A container of ours that is as it would be made now; made, if need be.
    async fn made(&self) -> Result<(String, Before), Failure> {
        self.may_make()?;
        // Before an image is fetched: nothing is fetched for what may not be made.
        self.checked(self.body()?, "")?;
        let Wanted { body, hash } = self.wanted(&self.image().await?)?;
        if let Some(kept) = self.kept(&hash).await? {
            return Ok(kept);
        }
        let name = format!("plimsoll-{}-{:032x}", self.instance, rand::random::<u128>());
        let image = body.image.clone().unwrap_or_default();
        self.book.plan(&self.instance, &name, &image).await.map_err(|error| {
            failure(
                FailureKind::NotStarted,
                format!("no container is made that the journal does not know: {error}"),
            )
        })?;
        if let Err(error) = self.engine.create(&name, body).await {
            if !matches!(error, EngineError::Down(_)) {
                self.book.gone(&self.instance, &name).await;
            }
            return Err(uncreated(&name, &image, &error));
        }
        let seen = self.seen(&name).await?;
        Ok((name, Before { seen, printed: None }))
    }

    /// The container of ours that is as it would be made now. All others go, if they can.
    async fn kept(&self, hash: &str) -> Result<Option<(String, Before)>, Failure> {
        self.engine.until_not_discarding(&self.instance).await;
        let (mut kept, mut others) = (None, Vec::new());
        for name in self.book.names(&self.instance) {
            match self.before(&name).await? {
                Some(before)
                    if kept.is_none()
                        && self.is_ours(&before.seen)
                        && before.seen.has(body::CONFIG_LABEL, hash) =>
                {
                    kept = Some((name, before));
                }
                before => others.push((name, before)),
            }
        }
        for (name, before) in others {
            let gone = match before {
                Some(before) if !self.is_ours(&before.seen) => Err(stolen(&name)),
                Some(_) | None => self.discard(&name).await,
            };
            match gone {
                Err(failure) if kept.is_none() => return Err(failure),
                Err(Failure { kind: _, error }) => {
                    tracing::warn!(source = "lifecycle", instance = %self.instance, %error, "a container is one too many");
                }
                Ok(()) => {}
            }
        }
        Ok(kept)
    }

    fn may_make(&self) -> Result<(), Failure> {
        may_make(self.engine.config())
    }

    /// What would be made now of the image of this id.
    pub(super) fn wanted(&self, image_id: &str) -> Result<Wanted, Failure> {
        let body = self.body()?;
        let hash = body::hash(&body, image_id);
        Ok(Wanted { body: self.checked(body, &hash)?, hash })
    }

    /// A body with its labels, looked at as it will be sent.
    fn checked(&self, mut body: ContainerCreateBody, hash: &str) -> Result<ContainerCreateBody, Failure> {
        body.labels = Some(body::labels(&self.instance, &self.engine.owner, hash));
        let sent = serde_json::to_value(&body).unwrap_or_default();
        self.within(|allowed| body::check(&sent, allowed)).map_err(refused)?;
        Ok(body)
    }

    /// Whether what the container sees is still what it may see: links can be swapped at any time, and the engine
    /// follows them when a container starts.
    pub(super) fn still_allowed(&self) -> Result<(), Failure> {
        if self.host.name.is_some() {
            return Ok(());
        }
        self.checked(self.body()?, "").map(drop)
    }

    fn body(&self) -> Result<ContainerCreateBody, Failure> {
        self.within(|allowed| body::body(&self.host, allowed)).map_err(refused)
    }

    fn within<T>(&self, look: impl FnOnce(&Allowed<'_>) -> T) -> T {
        let writable = self.engine.writable();
        let (engine, data_dir) = (self.engine.config(), &*self.engine.data_dir);
        look(&Allowed { engine, data_dir, writable: &writable, files: &Machine })
    }

    /// The id of the image, if it is there.
    pub(super) async fn image_there(&self) -> Result<String, Failure> {
        let image = self.host.image.as_deref().unwrap_or_default();
        let id = self.engine.image_id(image).await.map_err(|error| trouble(&error))?;
        id.ok_or_else(|| missing(image))
    }

    /// The id of the image, fetched if that may be and has to be.
    async fn image(&self) -> Result<String, Failure> {
        let EngineConfig { pull, pull_timeout, .. } = self.engine.config();
        let image = self.host.image.as_deref().unwrap_or_default();
        match self.image_there().await {
            Err(failure) if failure.kind == FailureKind::ImageMissing && *pull == Pull::Missing => {}
            there => return there,
        }
        self.engine.pull(image).await.map_err(|error| match error {
            PullError::Engine(error @ EngineError::Down(_)) => trouble(&error),
            PullError::Engine(error) => {
                let error = format!("image {image} could not be fetched: {error}; try `docker pull {image}`");
                failure(FailureKind::PullRefused, error)
            }
            PullError::Late => {
                let error =
                    format!("image {image} was not fetched within {pull_timeout}: see `engine.pull_timeout`");
                failure(FailureKind::PullRefused, error)
            }
        })?;
        self.image_there().await
    }

    async fn discard(&self, name: &str) -> Result<(), Failure> {
        discard(&self.engine, &self.book, &self.instance, name, self.config.stop_grace.0).await
    }

    /// Removes all that was made for the instance.
    pub(super) async fn clear(&self) -> Result<(), Arc<str>> {
        if self.host.name.is_some() {
            return Ok(());
        }
        for name in self.names() {
            self.discard(&name).await.map_err(|failure| Arc::<str>::from(unremoved(&name, &failure)))?;
        }
        Ok(())
    }
}

/// Removes what was made for instances that are gone, and is there. Says which could not be removed, and why.
pub async fn remove_left(
    engine: &DockerEngine,
    book: &ContainerBook,
    is_gone: impl Fn(&AgentId) -> bool,
    grace: Duration,
) -> Vec<String> {
    let mut left = Vec::new();
    for instance in book.instances() {
        for name in book.names(&instance) {
            // Asked each time: an agent of the same name may be made again meanwhile, and looks at what is there once
            // this is done.
            let _discarding = engine.discards(&instance);
            if !is_gone(&instance) {
                break;
            }
            if let Err(failure) = discard(engine, book, &instance, &name, grace).await {
                left.push(unremoved(&name, &failure));
            }
        }
    }
    left
}

/// Removes a container of ours that nobody needs any more. What is not there and may still come stays in the book.
async fn discard(
    engine: &DockerEngine,
    book: &ContainerBook,
    instance: &AgentId,
    name: &str,
    grace: Duration,
) -> Result<(), Failure> {
    may_make(engine.config())?;
    match engine.inspect(name).await.map_err(|error| trouble(&error))? {
        // Its name was ours, and somebody else made something of it: that is theirs.
        Some(seen) if !seen.is_of(instance, &engine.owner) => {}
        Some(seen) => {
            if seen.may_run {
                engine.stop(name, grace).await.map_err(|error| trouble(&error))?;
            }
            engine.remove(name).await.map_err(|error| trouble(&error))?;
        }
        None if book.may_come(instance, name, engine.clock.now()) => return Ok(()),
        None => {}
    }
    book.gone(instance, name).await;
    Ok(())
}

/// Whoever may not make containers removes none.
fn may_make(config: &EngineConfig) -> Result<(), Failure> {
    match config.trust {
        Trust::Create => Ok(()),
        Trust::Observe | Trust::StartStop => Err(failure(
            FailureKind::Refused,
            "plimsoll may neither make nor remove containers: set `engine.trust: create`".to_owned(),
        )),
    }
}
