//! The composition root: builds every part from its configuration, wires them, and stops them in reverse order.
//!
//! Each part gets only what it needs. Nothing is decided here; who reads the configuration and who hears signals is
//! the command line. Start at [`App::start`].

mod drill;
mod ground;
mod parts;
mod start_error;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{Readiness, Server, ServerParts, TokenBook};
use crate::clock::Clock;
use crate::config::{AgentRules, Config};
use crate::gateway::{Gateway, GatewayParts};
use crate::journal::{DataDir, Journal, LateJournal};
use crate::lifecycle::Hosts;
use crate::live::Live;
use crate::process::Processes;
use crate::provider;
use crate::reconciler::{Reconciler, ReconcilerParts};
use crate::secret::Secret;
use crate::telemetry::{self, Registry, Shared, Telemetry};

use ground::{Ground, provider_deps};
use parts::{Parts, call_up, keep_books};

pub use start_error::StartError;

/// How long open connections may take to end once the last request has: a little more than the server's own cap.
const SERVER_END: Duration = Duration::from_secs(15);
/// How long a record of what was spent may take that is being written.
const BOOKS_END: Duration = Duration::from_secs(1);
/// How long people outside may take to hear of what happened until now.
const NOTIFY_END: Duration = Duration::from_secs(3);
/// How long the journal may take to commit what was queued.
const JOURNAL_END: Duration = Duration::from_secs(10);
/// How long the last spans may take to leave, then the last lines to be written, then all that is counted and told.
const TELEMETRY_END: Duration = Duration::from_secs(3);

/// A plimsoll that serves.
pub struct App {
    /// Made because an agent is a program and there had never been one. Nothing else knows its text: show it.
    pub first_token: Option<Secret>,
    address: SocketAddr,
    grace: Duration,
    parts: Parts,
    readiness: watch::Sender<Readiness>,
    stop: CancellationToken,
    server: JoinHandle<()>,
    /// Keeps the books until its token is cancelled.
    books: (CancellationToken, JoinHandle<()>),
    journal: Arc<dyn Journal>,
    telemetry: Telemetry,
}

impl App {
    /// Builds and wires everything, and serves: probes while the journal is opened, and everything once this returns.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs on then, nor if this is dropped.
    pub async fn start(
        config: Config,
        data_dir: PathBuf,
        clock: Clock,
        registry: Registry,
    ) -> Result<Self, StartError> {
        let shared = Shared::new(&registry);
        let live = Live::new(&config.live, &registry, clock.clone());
        let telemetry = telemetry::install(&config.telemetry, &registry, live.sink(), clock.clone())?;
        telemetry::log_panics();
        let (dir, rate) = (data_dir.clone(), config.server.requests_per_second);
        let tokens = Arc::new(TokenBook::new(&config.auth.tokens, rate, clock.clone())?);
        Server::may_listen(config.server.listen, &data_dir).await?;
        let dir = spawn_blocking(move || DataDir::open(&dir)).await??;
        let processes = Processes::take_over(dir.id()).await;
        let journal = Arc::new(LateJournal::default());
        let read_entry = AgentRules::reader(&config);
        let deps = provider_deps(&config, &live, &clock, processes.clone());
        let hosts = Hosts::new(processes, config.engine, &data_dir, deps.heard(), &clock);
        let ground = Ground {
            live: Arc::clone(&live),
            journal: Arc::clone(&journal) as _,
            registry: registry.clone(),
            shared: shared.clone(),
            clock: clock.clone(),
        };
        let gateway = Gateway::new(GatewayParts {
            providers: provider::build_all(&config.providers, &deps)?,
            read_entry,
            config: config.gateway,
            agents: config.agents,
            templates: config.templates,
            ..ground.gateway(hosts)
        })?;
        let reconciler =
            Reconciler::new(ReconcilerParts { towns: config.towns, ..ground.reconciler(&gateway) });
        let alerts = ground.alerts();
        let own = [Arc::clone(&tokens) as _, Arc::clone(&alerts) as _, reconciler.fold()];
        let deps = ground.journal(gateway.folds().into_iter().chain(own));
        let (readiness, ready) = watch::channel(Readiness::Recovering);
        let (grace, listen) = (config.server.shutdown_grace.0, config.server.listen);
        let server = Server::bind(ServerParts {
            config: config.server,
            auth: config.auth,
            metrics: config.metrics,
            tokens: Arc::clone(&tokens),
            gateway: gateway.clone(),
            reconciler: reconciler.clone(),
            alerts,
            live,
            journal: Arc::clone(&journal) as _,
            registry,
            shared,
            clock,
            data_dir,
            readiness: ready,
        })
        .await?;
        let (address, stop) = (server.addr(), CancellationToken::new());
        let mut server = Box::pin(server.run(stop.clone()));
        tokio::select! {
            opened = journal.open(dir, config.journal, deps) => opened?,
            () = &mut server => unreachable!("nothing told it to stop"),
        }
        // Before anybody of this life writes.
        reconciler.look_back();
        let notifier = ground.notifier(&config.notify, &config.telemetry.sentry);
        let parts = (reconciler, gateway, notifier);
        let first_token = call_up(&parts, listen, &tokens, &*journal).await?;
        let (server, books) = (tokio::spawn(server), keep_books(parts.1.clone(), stop.child_token()));
        readiness.send_replace(Readiness::Serving);
        Ok(Self { first_token, address, grace, parts, readiness, stop, server, books, journal, telemetry })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses what is new, lets what runs finish within the grace period, cancels the rest, then stops every part in
    /// the reverse order of its start, each within its deadline.
    pub async fn stop(self) {
        let Self { grace, parts, readiness, stop, server, books, journal, telemetry, .. } = self;
        let (reconciler, gateway, notifier) = parts;
        gateway.refuse_new();
        readiness.send_replace(Readiness::Draining);
        // What is lost from here on is written once nothing runs any more.
        books.0.cancel();
        late("books", timeout(BOOKS_END, books.1).await);
        reconciler.quiet().await;
        gateway.drain(grace).await;
        reconciler.close().await;
        stop.cancel();
        late("server", timeout(SERVER_END, server).await);
        notifier.stop(NOTIFY_END).await;
        late("journal", timeout(JOURNAL_END, spawn_blocking(move || journal.close())).await);
        let last = spawn_blocking(|| telemetry.shutdown(TELEMETRY_END));
        late("telemetry", timeout(3 * TELEMETRY_END, last).await);
    }
}

/// Says which part did not end as it should; the others still get their turn.
fn late(part: &'static str, ended: Result<Result<(), JoinError>, tokio::time::error::Elapsed>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(part, %error, "a part panicked while it stopped"),
        Err(_) => tracing::error!(part, "a part did not stop in time and is cut"),
    }
}
