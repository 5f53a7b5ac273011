//! The API with nothing behind it, for tests: a journal in memory, no agents, time as it is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::auth::TokenBook;
use super::metrics::Transport;
use super::request::{Head, Peer};
use super::server::{ServerParts, state_of};
use super::state::ApiState;
use super::{AuthConfig, Config, MetricsConfig, Readiness};
use crate::alerts::Alerts;
use crate::clock::Clock;
use crate::gateway::{self, Gateway, GatewayParts};
use crate::journal::{Fold, MemoryJournal};
use crate::lifecycle::{Instances, InstancesParts};
use crate::live::{self, Live};
use crate::reconciler::{Reconciler, ReconcilerParts};
use crate::telemetry::{Registry, Shared};

/// What every handler may reach, with this configuration of the server.
pub(super) fn state(config: Config) -> ApiState {
    state_at(config, Clock::system())
}

/// The same with a clock of the test's.
pub(super) fn state_at(config: Config, clock: Clock) -> ApiState {
    let registry = Registry::new(&[]).expect("no histograms");
    let shared = Shared::new(&registry);
    let live = Live::new(&live::Config::default(), &registry, clock.clone());
    let tokens = Arc::new(
        TokenBook::new(&[], config.requests_per_second, clock.clone()).expect("no tokens are good tokens"),
    );
    let alerts = Arc::new(Alerts::new(&registry, &shared, clock.clone()));
    let folds = vec![Arc::clone(&tokens) as Arc<dyn Fold>, Arc::clone(&alerts) as _];
    let journal = Arc::new(MemoryJournal::new(clock.clone(), folds));
    let gateway = Gateway::new(GatewayParts {
        config: gateway::Config::default(),
        templates: BTreeMap::new(),
        agents: BTreeMap::new(),
        providers: BTreeMap::new(),
        instances: Arc::new(Instances::new(InstancesParts::bare(
            Arc::default(),
            Arc::clone(&journal) as _,
            &registry,
            &clock,
        ))),
        read_entry: Arc::new(|_, _| Err(Vec::new())),
        live: Arc::clone(&live),
        journal: Arc::clone(&journal) as _,
        registry: registry.clone(),
        shared: shared.clone(),
        clock: clock.clone(),
    })
    .expect("no agent names a provider");
    let reconciler = Reconciler::new(ReconcilerParts {
        towns: BTreeMap::new(),
        gateway: gateway.clone(),
        journal: Arc::clone(&journal) as _,
        registry: registry.clone(),
        clock: clock.clone(),
    });
    let parts = ServerParts {
        config,
        auth: AuthConfig::default(),
        metrics: MetricsConfig::default(),
        tokens,
        gateway,
        reconciler,
        alerts,
        live,
        journal,
        registry,
        shared,
        clock,
        data_dir: PathBuf::new(),
        readiness: watch::channel(Readiness::Serving).1,
    };
    state_of(parts, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
}

/// A connection from this machine.
pub(super) fn peer(state: &ApiState) -> Arc<Peer> {
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one place");
    let here = Some(Ipv4Addr::LOCALHOST.into());
    Peer::new(here, here, (state.metrics.connection(Transport::Http), place))
}

/// A request on such a connection.
pub(super) fn head(state: &ApiState) -> Head {
    let peer = peer(state);
    Head { client: peer.address, peer, query: "".into(), upgrade: None }
}
