//! The container engine: one client for all instances, with a deadline on each call, a circuit in front, and, once there
//! is an instance, one subscription to what happens there. Events are hints: whoever hears one looks at the truth.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::EventsOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::body::INSTANCE_LABEL;
use super::circuit::{Circuit, EngineStatus};
use crate::clock::Clock;
use crate::ids::AgentId;
use crate::lifecycle::{Backoff, EngineConfig};

/// The oldest version of the API that does what is asked of it: that of Docker 20.10 and Podman 4.
const API_VERSION_MIN: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// bollard's own limit of a call, in seconds; ours come first.
const CALL_SECONDS_MAX: u64 = 90_000;

/// How long to wait before the events are asked for again.
const LISTEN_AGAIN: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(5) };

/// How often an engine that tells nothing is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(10);

/// What a container does that may change whether an instance is up; an engine tells much more.
const EVENTS: [&str; 8] = ["start", "die", "stop", "kill", "oom", "destroy", "health_status", "restart"];

/// Bytes of what an engine says that are told on.
const SAID_BYTES_MAX: usize = 300;

/// See the module. One for all instances.
pub struct DockerEngine {
    link: Arc<Link>,
    /// The id of the data directory: whose the containers are.
    pub(super) owner: String,
    /// What no container may see.
    pub(super) data_dir: PathBuf,
    pub(super) clock: Clock,
    /// What containers may write to, as long as there is a runner for them. A std mutex suffices: a hold is one look.
    writable: Mutex<Vec<Weak<Vec<PathBuf>>>>,
    /// Of which instance a container is removed that nobody needs.
    discarding: watch::Sender<Option<AgentId>>,
    /// Begins with the first instance: who asks once needs no news.
    listener: OnceLock<JoinHandle<()>>,
}

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EngineError {
    /// Nobody knows what it did.
    #[error("{0}")]
    Down(Arc<str>),
    /// There is nothing of this name.
    #[error("the engine does not know it: {0}")]
    Missing(String),
    /// Something of this name is there, or does something else.
    #[error("the engine says that it conflicts: {0}")]
    Conflict(String),
    /// Anything else that it answered.
    #[error("the engine says: {0}")]
    Said(String),
}

/// What calls share with the task that listens.
struct Link {
    config: EngineConfig,
    clock: Clock,
    /// Std mutexes suffice: a hold is one look.
    circuit: Mutex<Circuit>,
    client: Mutex<Option<Docker>>,
    /// Steps with everything that happened to any container, and when nobody may have listened.
    hints: watch::Sender<u64>,
}

impl DockerEngine {
    /// A client of this engine, which need not be there yet. `owner` is the id of the data directory.
    #[must_use]
    pub fn new(config: &EngineConfig, owner: &str, data_dir: &Path, clock: Clock) -> Arc<Self> {
        let link = Arc::new(Link {
            config: config.clone(),
            clock: clock.clone(),
            circuit: Mutex::default(),
            client: Mutex::default(),
            hints: watch::Sender::new(0),
        });
        let (owner, data_dir) = (owner.to_owned(), data_dir.to_owned());
        let (writable, discarding, listener) = (Mutex::default(), watch::Sender::new(None), OnceLock::new());
        Arc::new(Self { link, owner, data_dir, clock, writable, discarding, listener })
    }

    /// Hears from now on what happens there. To be called within a runtime.
    pub(super) fn listen(&self) {
        self.listener.get_or_init(|| tokio::spawn(listen(Arc::clone(&self.link))));
    }

    /// A container may write to these, for as long as the result is kept.
    pub(super) fn may_write(&self, paths: Vec<PathBuf>) -> Arc<Vec<PathBuf>> {
        let paths = Arc::new(paths);
        let mut writable = self.writable.lock().unwrap_or_else(PoisonError::into_inner);
        writable.retain(|paths| paths.strong_count() > 0);
        writable.push(Arc::downgrade(&paths));
        paths
    }

    /// A container of this instance is removed, until the result is dropped.
    pub(super) fn discards(&self, instance: &AgentId) -> Discarding<'_> {
        self.discarding.send_replace(Some(instance.clone()));
        Discarding(&self.discarding)
    }

    pub(super) async fn until_not_discarding(&self, instance: &AgentId) {
        let mut discarding = self.discarding.subscribe();
        // The sender is here.
        let _ = discarding.wait_for(|discarding| discarding.as_ref() != Some(instance)).await;
    }

    /// All that containers may write to.
    pub(super) fn writable(&self) -> Vec<PathBuf> {
        let writable = self.writable.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = writable.iter().filter_map(Weak::upgrade);
        paths.flat_map(|paths| Vec::clone(&paths)).collect()
    }

    /// How the engine does, without asking it.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        self.link.circuit().status().clone()
    }

    pub(super) fn config(&self) -> &EngineConfig {
        &self.link.config
    }

    /// Changes whenever something may have happened to a container.
    pub(super) fn hints(&self) -> watch::Receiver<u64> {
        self.link.hints.subscribe()
    }

    /// One call. What is not answered within `engine.timeout` and `more` did not reach the engine.
    pub(super) async fn call<T>(
        &self,
        more: Duration,
        call: impl AsyncFnOnce(Docker) -> Result<T, Error>,
    ) -> Result<T, EngineError> {
        let link = &self.link;
        let limit = link.config.timeout.0.saturating_add(more);
        link.circuit().enter(link.clock.elapsed(), limit).map_err(EngineError::Down)?;
        let answer = timeout(limit, async { call(link.client().await?).await }).await;
        link.judge(answer.unwrap_or(Err(Error::RequestTimeoutError)))
    }

    /// A client for an answer that goes on. Its caller has deadlines of its own, and tells how it ended by
    /// [`DockerEngine::judge`].
    pub(super) async fn stream(&self) -> Result<Docker, EngineError> {
        let client = timeout(self.link.config.timeout.0, self.link.client()).await;
        self.link.judge(client.unwrap_or(Err(Error::RequestTimeoutError)))
    }

    pub(super) fn judge<T>(&self, answer: Result<T, Error>) -> Result<T, EngineError> {
        self.link.judge(answer)
    }
}

/// See [`DockerEngine::discards`].
pub(super) struct Discarding<'a>(&'a watch::Sender<Option<AgentId>>);

impl Drop for Discarding<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

impl Link {
    /// A client that speaks the engine's version.
    async fn client(&self) -> Result<Docker, Error> {
        let known = self.kept_client().clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let address = self.config.address.as_str();
        let client = if address.starts_with("unix://") {
            Docker::connect_with_unix(address, CALL_SECONDS_MAX, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_http(address, CALL_SECONDS_MAX, API_DEFAULT_VERSION)
        }?;
        let client = client.negotiate_version().await?;
        if client.client_version() < API_VERSION_MIN {
            let found = client.client_version();
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it speaks version {found} of Docker's API, and {API_VERSION_MIN} is the oldest that will do"),
            )
            .into());
        }
        *self.kept_client() = Some(client.clone());
        Ok(client)
    }

    /// Tells the circuit what an answer says of the engine.
    fn judge<T>(&self, answer: Result<T, Error>) -> Result<T, EngineError> {
        let answer = answer.map_err(|error| self.error(&error));
        let news = match &answer {
            Err(EngineError::Down(reason)) => {
                // It may be another engine when it comes back.
                *self.kept_client() = None;
                self.circuit().missed(self.clock.elapsed(), Arc::clone(reason))
            }
            Ok(_) | Err(_) => self.circuit().reached(),
        };
        match &answer {
            Err(EngineError::Down(reason)) if news => {
                tracing::warn!(
                    source = "lifecycle",
                    reason = &**reason,
                    "the container engine does not answer"
                );
            }
            _ if news => tracing::info!(source = "lifecycle", "the container engine answers"),
            _ => {}
        }
        answer
    }

    fn error(&self, error: &Error) -> EngineError {
        let address = &self.config.address;
        match error {
            Error::DockerResponseServerError { status_code: 404, message } => {
                EngineError::Missing(shortened(message))
            }
            Error::DockerResponseServerError { status_code: 409, message } => {
                EngineError::Conflict(shortened(message))
            }
            Error::DockerResponseServerError { message, .. } => EngineError::Said(shortened(message)),
            Error::DockerStreamError { error } => EngineError::Said(shortened(error)),
            Error::SocketNotFoundError(path) => EngineError::Down(unseen(address, Path::new(path)).into()),
            Error::RequestTimeoutError => EngineError::Down(
                format!(
                    "the container engine at {address} does not answer in time: see whether it hangs, or raise \
                     `engine.timeout`"
                )
                .into(),
            ),
            Error::IOError { .. } | Error::HyperResponseError { .. } | Error::HyperLegacyError { .. } => {
                EngineError::Down(unreachable(address, error).into())
            }
            other => EngineError::Said(shortened(&other.to_string())),
        }
    }

    fn hint(&self) {
        self.hints.send_modify(|hints| *hints += 1);
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept_client(&self) -> MutexGuard<'_, Option<Docker>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an engine cannot be reached, and what would help.
fn unreachable(address: &str, error: &Error) -> String {
    let mut source = error.source();
    let mut found = if let Error::IOError { err } = error { Some(err) } else { None };
    while let (None, Some(inner)) = (found, source) {
        found = inner.downcast_ref::<io::Error>();
        source = inner.source();
    }
    match found.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => {
            format!("there is no socket {address}: start the container engine, or set `engine.address`")
        }
        Some(io::ErrorKind::PermissionDenied) => format!(
            "plimsoll may not use {address}: make its user a member of the group that owns the socket (docker)"
        ),
        Some(io::ErrorKind::ConnectionRefused) => {
            format!("nothing listens at {address}: start the container engine, or set `engine.address`")
        }
        Some(io::ErrorKind::Unsupported) => {
            let what = found.map(ToString::to_string).unwrap_or_default();
            format!("the container engine at {address} is too old: {what}")
        }
        _ => format!("the connection to the container engine at {address} broke: see whether it runs"),
    }
}

/// Why a socket is not seen, and what would help.
fn unseen(address: &str, path: &Path) -> String {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => format!(
            "plimsoll may not enter a directory on the way to {address}: run it as the user whose engine that is, or set \
             `engine.address`"
        ),
        Ok(_) | Err(_) => {
            format!("there is no socket {address}: start the container engine, or set `engine.address`")
        }
    }
}

/// What an engine says, in one line of a bearable length.
fn shortened(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > SAID_BYTES_MAX {
        line.truncate(line.floor_char_boundary(SAID_BYTES_MAX));
        line.push('…');
    }
    line
}

/// Hears the engine's events, for as long as anybody is interested. What happened while nobody listened is looked at
/// once somebody does again.
async fn listen(link: Arc<Link>) {
    let mut failures = 0;
    loop {
        let began = link.clock.elapsed();
        let client = timeout(link.config.timeout.0, link.client()).await;
        if let Ok(client) = link.judge(client.unwrap_or(Err(Error::RequestTimeoutError))) {
            hear(&link, &client).await;
        }
        let lasted = link.clock.elapsed().saturating_sub(began);
        failures = if lasted > LISTEN_AGAIN.max { 0 } else { failures + 1 };
        sleep(LISTEN_AGAIN.after(failures, rand::random())).await;
    }
}

/// Hears events until the engine is gone, and asks it now and then whether it is.
async fn hear(link: &Link, client: &Docker) {
    let events = EVENTS.map(str::to_owned).to_vec();
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("event".to_owned(), events),
        ("label".to_owned(), vec![INSTANCE_LABEL.to_owned()]),
    ]);
    // From a little before now: what happens while the subscription is made is told, too.
    let since = (link.clock.now().as_millis() / 1_000).saturating_sub(1).to_string();
    let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
    let mut events = std::pin::pin!(client.events(Some(options)));
    link.hint();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(_)) => link.hint(),
                Some(Err(error)) => {
                    // Only what it says of the engine is wanted.
                    let _ = link.judge::<()>(Err(error));
                    return;
                }
                None => {
                    *link.kept_client() = None;
                    return;
                }
            },
            () = sleep(PING_EVERY) => {
                let answer = timeout(link.config.timeout.0, client.ping()).await;
                if let Err(EngineError::Down(_)) = link.judge(answer.unwrap_or(Err(Error::RequestTimeoutError))) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_not_to_reach_an_engine_says_what_to_do() {
        for (kind, said) in [
            (io::ErrorKind::NotFound, "start the container engine, or set `engine.address`"),
            (io::ErrorKind::PermissionDenied, "a member of the group that owns the socket"),
            (io::ErrorKind::ConnectionRefused, "nothing listens at unix:///x: start the container engine"),
            (io::ErrorKind::Unsupported, "is too old"),
            (io::ErrorKind::ConnectionReset, "broke: see whether it runs"),
        ] {
            let why = unreachable("unix:///x", &io::Error::from(kind).into());
            assert!(why.contains(said), "{kind}: {why}");
        }
    }

    #[test]
    fn what_an_engine_says_is_one_line_of_a_bearable_length() {
        assert_eq!(shortened("one\ntwo"), "one two");
        let long = shortened(&"ö".repeat(SAID_BYTES_MAX));
        assert_eq!(long.chars().count(), SAID_BYTES_MAX / 2 + 1);
    }
}
