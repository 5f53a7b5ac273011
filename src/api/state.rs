//! What every handler may reach.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::auth::{Failures, Identity, Rate, Refusals, TokenBook};
use super::body::{self, BodyLimits};
use super::hosts::Hosts;
use super::metrics::{AuthFailure, Metrics};
use super::request::Request;
use super::response::Problem;
use super::rpc::Method;
use super::stream::Sources;
use super::{Config, Readiness};
use crate::alerts::Alerts;
use crate::clock::Timestamp;
use crate::gateway::{Beside, Gateway, Rejection, UsageQuery, UsageReport};
use crate::ids::RequestId;
use crate::limits::JOURNAL_CATCH_UP_WAIT;
use crate::reconciler::Reconciler;
use crate::telemetry::Registry;

/// What the server was built from, and what its connections share.
pub(crate) struct ApiState {
    pub(crate) config: Config,
    pub(crate) doors: Doors,
    pub(crate) sources: Arc<Sources>,
    pub(crate) gateway: Gateway,
    pub(crate) reconciler: Reconciler,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: watch::Receiver<Readiness>,
    /// The JSON-RPC methods; tests bring their own.
    pub(crate) methods: &'static [Method],
    /// Owns every task of a connection.
    pub(crate) tasks: TaskTracker,
    /// One place: a check of the journal reads all of it.
    pub(crate) verifications: Arc<Semaphore>,
    /// A place for each dry run or replay that may be at work.
    pub(crate) questions: Arc<Semaphore>,
    /// When the server was made.
    pub(crate) started_at: Timestamp,
    /// The contract, written once.
    pub(crate) contract: OnceLock<Bytes>,
}

/// What decides who comes in.
pub(crate) struct Doors {
    pub(crate) metrics_public: bool,
    pub(crate) hosts: Hosts,
    pub(crate) tokens: Arc<TokenBook>,
    pub(crate) failures: Failures,
    pub(crate) refusals: Refusals,
    /// The rate limit of callers without a token, together.
    pub(crate) local_rate: Rate,
}

impl ApiState {
    pub(crate) fn readiness(&self) -> Readiness {
        *self.readiness.borrow()
    }

    /// Takes one request from the caller's rate limit, or says how long to wait.
    pub(crate) fn allow(&self, identity: &Identity) -> Result<(), Duration> {
        let rate = identity.token.as_ref().map_or(&self.doors.local_rate, |token| &token.rate);
        rate.take().inspect_err(|_wait| self.limit_hit("requests_per_second"))
    }

    /// A name for something that must not happen: the caller hears it, and it stands in the log.
    pub(crate) fn incident(&self) -> RequestId {
        RequestId::generate(self.sources.clock.now(), rand::random())
    }

    /// Reads a body of JSON within its limits.
    pub(crate) async fn read_json(&self, request: &mut Request) -> Result<Vec<u8>, Problem> {
        body::require_json(&request.headers)?;
        let limits =
            BodyLimits { bytes_max: self.config.body_bytes_max.0, timeout: self.config.body_timeout.0 };
        let incoming = std::mem::replace(&mut request.body, Box::pin(futures_util::stream::empty()));
        body::read(&request.headers, incoming, &limits).await.map_err(|error| {
            error.limit.into_iter().for_each(|limit| self.limit_hit(limit));
            error.problem
        })
    }

    /// Whether an agent may be made that could call plimsoll.
    pub(crate) fn beside(&self) -> Beside {
        if self.doors.tokens.required() { Beside::Allowed } else { Beside::Refused }
    }

    /// Waits a moment for what was offered to the journal: who sends a message and then asks shall find it.
    pub(crate) async fn catch_up(&self) {
        let _late = timeout(JOURNAL_CATCH_UP_WAIT, self.sources.journal.catch_up()).await;
    }

    /// What agents used. Summing up takes milliseconds: it runs off the runtime.
    pub(crate) async fn usage(&self, query: UsageQuery) -> Result<UsageReport, Rejection> {
        self.catch_up().await;
        let gateway = self.gateway.clone();
        let report = spawn_blocking(move || gateway.usage(&query)).await;
        report.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()))
    }

    pub(crate) fn limit_hit(&self, limit: &'static str) {
        self.sources.shared.limit_hit(limit);
    }

    pub(crate) fn dropped(&self, what: &'static str, reason: &'static str, count: u64) {
        self.sources.shared.dropped(what, reason, count);
    }

    pub(crate) fn note_forbidden(&self) {
        self.metrics.auth_failure(AuthFailure::Forbidden);
    }
}
