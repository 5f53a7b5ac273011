//! What every handler may reach.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Failures, Identity, Limiter, Refusals, TokenBook};
use super::hosts::Hosts;
use super::metrics::{AuthFailure, Metrics};
use super::{Config, Readiness};
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::journal::Journal;
use crate::live::Live;
use crate::telemetry::{Registry, Shared};

/// What the server was built from, and what its connections share.
pub(crate) struct ApiState {
    pub(crate) config: Config,
    pub(crate) metrics_public: bool,
    pub(crate) hosts: Hosts,
    pub(crate) tokens: Arc<TokenBook>,
    pub(crate) failures: Failures,
    pub(crate) refusals: Refusals,
    /// The rate limit of callers without a token, together.
    pub(crate) local_limiter: Limiter,
    pub(crate) gateway: Gateway,
    pub(crate) live: Arc<Live>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shared: Shared,
    pub(crate) clock: Clock,
    pub(crate) readiness: watch::Receiver<Readiness>,
    /// Cancelled when the server stops: streams end then.
    pub(crate) stop: CancellationToken,
    /// Owns every task of a connection.
    pub(crate) tasks: TaskTracker,
    /// The contract, written once.
    pub(crate) contract: OnceLock<Bytes>,
}

impl ApiState {
    pub(crate) fn readiness(&self) -> Readiness {
        *self.readiness.borrow()
    }

    /// Takes one request from the caller's rate limit, or says how long to wait.
    pub(crate) fn allow(&self, identity: &Identity) -> Result<(), Duration> {
        let limiter = identity.token.as_ref().map_or(&self.local_limiter, |token| &token.limiter);
        let Some(limiter) = limiter else { return Ok(()) };
        limiter.check().map_err(|not_until| {
            self.limit_hit("requests_per_second");
            not_until.wait_time_from(governor::clock::Clock::now(&governor::clock::DefaultClock::default()))
        })
    }

    pub(crate) fn limit_hit(&self, limit: &'static str) {
        self.shared.limit_hit(limit);
    }

    pub(crate) fn dropped(&self, what: &'static str, reason: &'static str, count: u64) {
        self.shared.dropped(what, reason, count);
    }

    pub(crate) fn note_forbidden(&self) {
        self.metrics.auth_failure(AuthFailure::Forbidden);
    }
}
