//! An instance that is a container: one that somebody made and labelled, or one that plimsoll makes of a listed image.
//!
//! A container that plimsoll makes has a name that nobody can guess, which is in the journal before the container is
//! there ([`ContainerBook`]); whatever is interrupted, the next start finds it by that. Nothing else is ever touched.
//! bollard is named in this directory only. Start at [`DockerRunner`].

mod binds;
mod body;
mod book;
mod circuit;
mod container;
mod engine;
mod failures;
mod finding;
mod making;
mod output;
mod probe;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::ready::{Looker, Readiness};
use super::{Found, Printed, Runner, Up};
use crate::clock::Clock;
use crate::ids::AgentId;
use crate::lifecycle::machine::{Failure, FailureKind, Run};
use crate::lifecycle::{ContainerHost, HostKind, InstanceConfig, Trust};
use container::Seen;
use engine::EngineError;
use failures::{absent, failure, trouble, unstarted};
use making::Before;
use output::{Hears, Past};
use watching::Health;

pub use book::ContainerBook;
pub use circuit::EngineStatus;
pub use engine::DockerEngine;
pub use making::remove_left;
pub use probe::NamedContainer;

/// How long the last lines of a container that ended are waited for: they say why.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub struct DockerRunner {
    instance: AgentId,
    config: InstanceConfig,
    host: ContainerHost,
    engine: Arc<DockerEngine>,
    book: ContainerBook,
    looker: Looker,
    printed: Printed,
    clock: Clock,
    /// Held while a container is told to start: whoever stops it comes after that, also when nobody waits for the start
    /// any more.
    starting: Arc<tokio::sync::Mutex<()>>,
    /// Who hears what each container prints. A std mutex suffices: a hold is one look.
    following: Mutex<BTreeMap<String, Following>>,
    /// Whether this plimsoll told a container to start, and did not see it stopped.
    launched: AtomicBool,
    /// Whether it is known what an earlier plimsoll left running.
    looked: AtomicBool,
    /// What was found and stopped, and is not told yet: a look can be dropped in its middle. A std mutex suffices: a hold is
    /// one look.
    lost: Mutex<BTreeSet<String>>,
    /// What its container may write to: the engine knows it as long as this is here.
    _writable: Arc<Vec<PathBuf>>,
}

/// A task that ends with its owner, at the latest.
struct Following(JoinHandle<()>);

impl Following {
    /// Hears what there is left to hear of a container that ended.
    async fn end(mut self) {
        // Late is as good as never.
        let _ = timeout(LAST_LINES_MAX, &mut self.0).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl DockerRunner {
    /// A runner of this instance; the engine is listened to from now on. To be called within a runtime.
    ///
    /// # Errors
    /// Says why nothing could be looked at over HTTP.
    ///
    /// # Panics
    /// When the configuration is not that of a container.
    pub fn new(
        instance: AgentId,
        config: &InstanceConfig,
        engine: Arc<DockerEngine>,
        book: ContainerBook,
        printed: Printed,
    ) -> Result<Self, String> {
        let host = config.container.clone().expect("an instance that is a container");
        engine.listen();
        let writable = host.binds.iter().filter(|bind| bind.writable).map(|bind| bind.source.clone());
        let writable = engine.may_write(writable.collect());
        Ok(Self {
            instance,
            config: config.clone(),
            host,
            clock: engine.clock.clone(),
            engine,
            book,
            looker: Looker::new()?,
            printed,
            starting: Arc::default(),
            following: Mutex::default(),
            launched: AtomicBool::new(false),
            looked: AtomicBool::new(false),
            lost: Mutex::default(),
            _writable: writable,
        })
    }

    async fn begin(&self) -> Result<Up, Failure> {
        let (name, Before { seen: before, printed }) = self.container().await?;
        // What others made and started runs for them, whether it is ready for us or not.
        let ours = !before.is_running || self.host.image.is_some() || self.launched.load(Ordering::Relaxed);
        let mut past = Past::default();
        let began = self.clock.elapsed();
        let mut start = None;
        if before.is_running {
            past.after = before.finished_at.parse().ok();
        } else {
            past.after = printed;
            self.launch(&name).await?;
            start = Some(self.clock.elapsed().saturating_sub(began));
        }
        match self.up(&name, past, start).await {
            Ok(up) => Ok(up),
            Err(failure) if ours => Err(self.unlaunched(&name, failure).await),
            Err(failure) => Err(failure),
        }
    }

    /// Tells a container to start, and sees that it may still be what it was made as.
    async fn launch(&self, name: &str) -> Result<(), Failure> {
        self.still_allowed()?;
        if self.host.name.is_some() {
            self.book.starting(&self.instance, name).await.map_err(|error| {
                failure(
                    FailureKind::NotStarted,
                    format!("no container is started without the journal knowing: {error}"),
                )
            })?;
        }
        self.launched.store(true, Ordering::Relaxed);
        let guard = Arc::clone(&self.starting).lock_owned().await;
        let (engine, container) = (Arc::clone(&self.engine), name.to_owned());
        // Not to be interrupted: a start that is half told would come after the stop that follows.
        let started = tokio::spawn(async move {
            let started = engine.start(&container).await;
            drop(guard);
            started
        });
        let started =
            started.await.unwrap_or_else(|_| Err(EngineError::Said("a bug in plimsoll".to_owned())));
        let allowed = started.map_err(|error| unstarted(name, &error)).and_then(|()| self.still_allowed());
        match allowed {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.unlaunched(name, failure).await),
        }
    }

    /// Stops what failed to come up. One that cannot be stopped may run, as after a start that the engine did not
    /// answer, and is looked for.
    async fn unlaunched(&self, name: &str, failed: Failure) -> Failure {
        match self.halt(name).await {
            Ok(()) => failed,
            Err(error) => failure(
                FailureKind::Engine,
                format!(
                    "{}; container {name} may still run, for it could not be stopped: {error}",
                    failed.error
                ),
            ),
        }
    }

    /// Waits until a container is ready that was started, which took so long, or ran before.
    async fn up(&self, name: &str, past: Past, start: Option<Duration>) -> Result<Up, Failure> {
        let seen = self.seen(name).await?;
        if !seen.is_running {
            return Err(self.ended_early(name, seen.exit));
        }
        let (said, line) = watch::channel(false);
        let wanted = self.config.ready.line.clone();
        if seen.has_terminal {
            if wanted.is_some() {
                let error =
                    format!("container {name} prints to a terminal, so no line of it is heard: set `ready`");
                return Err(failure(FailureKind::NotReady, error));
            }
        } else {
            let hears = Hears::new(Arc::clone(&self.printed), wanted, said, past);
            let engine = Arc::clone(&self.engine);
            let task = output::follow(engine, name.to_owned(), seen.started_at.clone(), hears);
            self.following().insert(name.to_owned(), Following(tokio::spawn(task)));
        }
        let mut ended =
            watching::ended(Arc::clone(&self.engine), name.to_owned(), seen.started_at.clone()).boxed();
        // The engine may not keep the line of one that has run for long; of a younger one it does.
        let young = match start {
            Some(_) => Duration::ZERO,
            None => self.config.ready_timeout.0.saturating_sub(seen.age(self.clock.now())),
        };
        let ready = async {
            let address = self.address(name, &seen)?;
            let ready = self.ready(name, address, line.clone());
            if start.is_some() || self.config.ready.line.is_none() {
                return ready.await.map(|()| address);
            }
            let by_port = async {
                tokio::time::sleep(young).await;
                self.looker.wait(&Readiness::Tcp, address, line).await;
            };
            tokio::select! {
                ready = ready => ready.map(|()| address),
                () = by_port => Ok(address),
            }
        };
        let address = tokio::select! {
            biased;
            exit = &mut ended => return Err(self.ended_early(name, exit)),
            ready = timeout(self.config.ready_timeout.0.saturating_add(young), ready) => match ready {
                Ok(address) => address?,
                Err(_) => return Err(self.not_ready(name)),
            },
        };
        Ok(Up { address: Some(address), start: start.unwrap_or_default(), ended })
    }

    async fn ready(
        &self,
        name: &str,
        address: SocketAddr,
        line: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        if self.config.ready.healthcheck {
            return match watching::healthy(&self.engine, name).await {
                Health::Good => Ok(()),
                Health::Bad => Err(failure(
                    FailureKind::NotReady,
                    format!("the HEALTHCHECK of container {name} fails: see `docker inspect {name}`"),
                )),
                Health::None => Err(failure(
                    FailureKind::NotReady,
                    format!("container {name} has no HEALTHCHECK: set `ready` to something that it has"),
                )),
            };
        }
        self.looker.wait(&self.config.ready.readiness(), address, line).await;
        Ok(())
    }

    /// Stops a container that is ours, where any may be stopped.
    async fn halt(&self, name: &str) -> Result<(), EngineError> {
        if self.may_halt().is_err() {
            return Ok(());
        }
        // Who starts it at this moment does so first.
        let _starting = self.starting.lock().await;
        let following = self.following().remove(name);
        match self.engine.inspect(name).await? {
            Some(seen) if seen.may_run && self.is_ours(&seen) => {
                self.engine.stop(name, self.config.stop_grace.0).await?;
            }
            Some(_) | None => {}
        }
        if let Some(following) = following {
            following.end().await;
        }
        self.launched.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// # Errors
    /// In words for an operator: plimsoll may stop none.
    fn may_halt(&self) -> Result<(), Arc<str>> {
        match self.engine.config().trust {
            Trust::Observe => {
                Err("plimsoll may only look at containers: stop it yourself, or set `engine.trust`".into())
            }
            Trust::StartStop | Trust::Create => Ok(()),
        }
    }

    async fn end(&self) -> Result<(), Arc<str>> {
        self.may_halt()?;
        for name in self.names() {
            self.halt(&name).await.map_err(|error| {
                Arc::<str>::from(format!("container {name} could not be stopped: {error}"))
            })?;
        }
        Ok(())
    }

    /// Whatever may be the container of this instance.
    fn names(&self) -> Vec<String> {
        match &self.host.name {
            Some(name) => vec![name.clone()],
            None => self.book.names(&self.instance),
        }
    }

    /// Whether a container of such a name is what it should be.
    fn is_ours(&self, seen: &Seen) -> bool {
        match self.host.name {
            Some(_) => seen.is_for(&self.instance, &self.engine.owner),
            None => seen.is_of(&self.instance, &self.engine.owner),
        }
    }

    async fn seen(&self, name: &str) -> Result<Seen, Failure> {
        let seen = self.engine.inspect(name).await.map_err(|error| trouble(&error))?;
        seen.ok_or_else(|| absent(name))
    }

    fn address(&self, name: &str, seen: &Seen) -> Result<SocketAddr, Failure> {
        let network = &self.engine.config().network;
        let address = seen.address.map(|address| SocketAddr::from((address, self.config.port)));
        address.ok_or_else(|| {
            let error = format!(
                "container {name} has no address on network {network}: connect it (`docker network connect \
                 {network} {name}`), or set `engine.network`"
            );
            failure(FailureKind::Unreachable, error)
        })
    }

    fn following(&self) -> MutexGuard<'_, BTreeMap<String, Following>> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner for DockerRunner {
    fn kind(&self) -> HostKind {
        HostKind::Container
    }

    fn find(&self, keep: bool) -> BoxFuture<'_, Found> {
        self.look(keep).boxed()
    }

    fn start(&self, _run: Run) -> BoxFuture<'_, Result<Up, Failure>> {
        self.begin().boxed()
    }

    fn stop(&self, _run: Run) -> BoxFuture<'_, Result<(), Arc<str>>> {
        self.end().boxed()
    }

    fn may_stop(&self) -> Result<(), Arc<str>> {
        self.may_halt()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), Arc<str>>> {
        self.clear().boxed()
    }
}
