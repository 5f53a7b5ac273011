//! The server: where it listens, how connections get in, how it stops.
//!
//! The accept loops are ours and not warp's, because warp's have no timeouts and no limit of connections.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Failures, Rate, Refusals, TokenBook};
use super::filters::{self, Routes};
use super::hosts::Hosts;
use super::metrics::{LIMITS, Metrics, Transport};
use super::request::Peer;
use super::routes::ROUTES;
use super::rpc::METHODS;
use super::state::{ApiState, Doors};
use super::stream::Sources;
use super::tls::{self, TlsError};
use super::{AuthConfig, Config, MetricsConfig, Readiness, connection, descriptors};
use crate::alerts::Alerts;
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::journal::Journal;
use crate::limits::{
    CONTROL_CONNECTIONS_MAX, REFUSALS_AT_ONCE_MAX, SERVER_STOP_SECS_MAX, TOWN_QUESTIONS_MAX,
};
use crate::live::Live;
use crate::reconciler::Reconciler;
use crate::telemetry::{Registry, Shared};

/// How often refusals without a token are summed up in the journal.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);

/// How long accepting rests after an error such as too many open files: long enough for some to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server is built from.
pub struct ServerParts {
    /// `server:`.
    pub config: Config,
    /// `auth:`.
    pub auth: AuthConfig,
    /// `metrics:`.
    pub metrics: MetricsConfig,
    /// The tokens; the same object that the journal was given as a fold.
    pub tokens: Arc<TokenBook>,
    /// Answers messages.
    pub gateway: Gateway,
    /// Keeps towns.
    pub reconciler: Reconciler,
    /// Takes alerts in; the same object that the journal was given as a fold.
    pub alerts: Arc<Alerts>,
    /// Rings and live events.
    pub live: Arc<Live>,
    /// The audit and what streams resume from.
    pub journal: Arc<dyn Journal>,
    /// Where metrics are made and rendered.
    pub registry: Registry,
    /// Counters that all modules share.
    pub shared: Shared,
    /// Time.
    pub clock: Clock,
    /// Holds `address` and `control.sock`.
    pub data_dir: PathBuf,
    /// Whether plimsoll recovers, serves or drains.
    pub readiness: watch::Receiver<Readiness>,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Beyond loopback without a token.
    #[error(
        "{0} is reachable from other machines, and no token exists: make one with `plimsoll token new`, or listen on 127.0.0.1"
    )]
    NoTokens(SocketAddr),
    /// Beyond loopback without TLS.
    #[error(
        "{0} is reachable from other machines without TLS: set server.tls, or say server.insecure_plaintext: true behind a proxy"
    )]
    Plaintext(SocketAddr),
    /// The address is taken or not ours.
    #[error("{address} cannot be listened on: {error}{}", advice(error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// TLS cannot be served.
    #[error("server.tls: {0}")]
    Tls(#[from] TlsError),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop the program that holds it, or set `server.listen` to another",
        _ => "; set `server.listen` to an address of this machine and a port of 1024 or more",
    }
}

/// A server that listens, and serves once it is run.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    control: Option<UnixListener>,
    signs: Signs,
    state: Arc<ApiState>,
}

/// The files by which a running server is found; gone with it, however it ends.
struct Signs(Vec<PathBuf>);

impl Drop for Signs {
    fn drop(&mut self) {
        for file in &self.0 {
            if let Err(error) = std::fs::remove_file(file) {
                tracing::debug!(%error, file = %file.display(), "a file of the last run stays");
            }
        }
    }
}

impl Server {
    /// Listens. Connections wait in the system's queue until [`Server::run`].
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(parts: ServerParts) -> Result<Self, BindError> {
        let (config, data_dir) = (&parts.config, parts.data_dir.clone());
        if !config.listen.ip().is_loopback() && config.tls.is_none() && !config.insecure_plaintext {
            return Err(BindError::Plaintext(config.listen));
        }
        descriptors::allow_for(config.connections_max);
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let listen = |error| BindError::Listen { address: config.listen, error };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let file = data_dir.join("address");
        if let Err(error) = write_whole(&file, &format!("{address}\n")) {
            tracing::warn!(%error, path = %file.display(), "the address stands in the log only");
        }
        let socket = data_dir.join("control.sock");
        let control = listen_on_socket(&socket);
        let signs = Signs([file].into_iter().chain(control.is_some().then_some(socket)).collect());
        Ok(Self { listener, address, tls, control, signs, state: Arc::new(state_of(parts, address)) })
    }

    /// Whether this address can be listened on now: to be asked before a data directory is made, so that who cannot
    /// leaves none behind. One that is there is opened first, because whoever uses it says more than a port.
    ///
    /// # Errors
    /// [`BindError::Listen`].
    pub async fn may_listen(address: SocketAddr, data_dir: &Path) -> Result<(), BindError> {
        if data_dir.exists() {
            return Ok(());
        }
        TcpListener::bind(address).await.map(drop).map_err(|error| BindError::Listen { address, error })
    }

    /// Whether this address may be served with these tokens: to be asked once the journal has told them all. Where
    /// nobody can have one, the log says so.
    ///
    /// # Errors
    /// [`BindError::NoTokens`].
    pub fn may_serve(listen: SocketAddr, tokens: &TokenBook) -> Result<(), BindError> {
        tokens.warn_of_a_shut_door();
        if listen.ip().is_loopback() || tokens.required() { Ok(()) } else { Err(BindError::NoTokens(listen)) }
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then ends streams and gives requests a moment; everything it began has ended when this
    /// returns. While plimsoll recovers, only the probes are answered.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, address: _, tls, control, signs, state } = self;
        let _however_it_ends = state.sources.stop.clone().drop_guard();
        let routes = filters::service(&state, ROUTES);
        tokio::join!(
            accept_network(&state, &routes, &listener, tls.as_ref(), &shutdown),
            accept_control(&state, &routes, control.as_ref(), &shutdown),
            summarise(&state, &shutdown),
        );
        drop((listener, control, signs));
        state.sources.stop.cancel();
        state.tasks.close();
        let cap = Duration::from_secs(SERVER_STOP_SECS_MAX + 3);
        if timeout(cap, state.tasks.wait()).await.is_err() {
            let left = state.tasks.len();
            tracing::warn!(left, "connections did not end in time and are cut");
        }
    }
}

pub(super) fn state_of(parts: ServerParts, address: SocketAddr) -> ApiState {
    let ServerParts {
        config,
        auth,
        metrics,
        tokens,
        gateway,
        reconciler,
        alerts,
        live,
        journal,
        registry,
        shared,
        clock,
        data_dir: _,
        readiness,
    } = parts;
    LIMITS.iter().for_each(|limit| shared.expect_limit(limit));
    shared.expect_dropped("live_event", "slow_client");
    shared.expect_dropped("access_refused", "journal");
    let doors = Doors {
        metrics_public: metrics.public,
        hosts: Hosts::new(address, &config.allowed_hosts),
        tokens,
        failures: Failures::new(auth.failures_per_minute),
        refusals: Refusals::default(),
        local_rate: Rate::new(config.requests_per_second, &clock),
    };
    ApiState {
        doors,
        started_at: clock.now(),
        sources: Arc::new(Sources { journal, live, shared, clock, stop: CancellationToken::new() }),
        gateway,
        reconciler,
        alerts,
        metrics: Metrics::new(&registry),
        registry,
        readiness,
        methods: METHODS,
        tasks: TaskTracker::new(),
        verifications: Arc::new(Semaphore::new(1)),
        questions: Arc::new(Semaphore::new(TOWN_QUESTIONS_MAX)),
        contract: OnceLock::new(),
        config,
    }
}

/// Writes a file so that a reader finds the old text or the new one, never a part.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, text)?;
    std::fs::rename(&part, path)
}

/// Listens on the control socket, for this user only. What the last run left there is removed: the lock on the data
/// directory says that nobody else uses it. Without it the server still serves, and the CLI needs a token.
fn listen_on_socket(path: &Path) -> Option<UnixListener> {
    let listen = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen()
        .inspect_err(|error| {
            tracing::warn!(%error, path = %path.display(), "there is no control socket: commands need a token");
        })
        .ok()
}

/// Lets connections from the network in, up to the limit; those past it are told.
async fn accept_network(
    state: &Arc<ApiState>,
    routes: &Routes,
    listener: &TcpListener,
    tls: Option<&TlsAcceptor>,
    shutdown: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(state.config.connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE_MAX));
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                rest(state, &error).await;
                continue;
            }
        };
        // A socket option that cannot be set costs latency, nothing else.
        let _ = stream.set_nodelay(true);
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            state.limit_hit("connections");
            if let (None, Ok(turn)) = (tls, Arc::clone(&refusals).try_acquire_owned()) {
                state.tasks.spawn(async move {
                    connection::refuse(stream).await;
                    drop(turn);
                });
            }
            continue;
        };
        let local = stream.local_addr().map_or(state.config.listen.ip(), |address| address.ip());
        let open = state.metrics.connection(Transport::Http);
        let peer = Peer::new(Some(remote.ip()), Some(local), (open, place));
        let (state, routes) = (Arc::clone(state), routes.clone());
        match tls.cloned() {
            Some(tls) => {
                let serve = connection::serve_tls(Arc::clone(&state), routes, peer, (tls, stream));
                state.tasks.spawn(serve);
            }
            None => {
                let serve = connection::serve(Arc::clone(&state), routes, peer, stream);
                state.tasks.spawn(serve);
            }
        }
    }
}

/// Lets this user's own commands in, whatever happens on the network.
async fn accept_control(
    state: &Arc<ApiState>,
    routes: &Routes,
    listener: Option<&UnixListener>,
    shutdown: &CancellationToken,
) {
    let Some(listener) = listener else { return };
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match (accepted, Arc::clone(&places).try_acquire_owned()) {
            (Ok((stream, _)), Ok(place)) => serve_control(state, routes, stream, place),
            (Ok(_), Err(_)) => state.limit_hit("control_connections"),
            (Err(error), _) => rest(state, &error).await,
        }
    }
}

fn serve_control(state: &Arc<ApiState>, routes: &Routes, stream: UnixStream, place: OwnedSemaphorePermit) {
    let peer = Peer::new(None, None, (state.metrics.connection(Transport::Socket), place));
    state.tasks.spawn(connection::serve(Arc::clone(state), routes.clone(), peer, stream));
}

async fn rest(state: &ApiState, error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    state.limit_hit("accept");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Tells the journal of refusals, at most once a minute.
async fn summarise(state: &ApiState, shutdown: &CancellationToken) {
    let tell = || {
        let Some(append) = state.doors.refusals.summary() else { return };
        if let Err(error) = state.sources.journal.offer(append) {
            state.dropped("access_refused", "journal", 1);
            tracing::warn!(%error, "refused requests could not be journaled");
        }
    };
    while shutdown.run_until_cancelled(tokio::time::sleep(SUMMARY_EVERY)).await.is_some() {
        tell();
    }
    tell();
}
