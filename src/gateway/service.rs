//! The gateway itself: what the API calls.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::active::ActiveRequest;
use super::agent_sessions::AgentSessions;
use super::answers::Answers;
use super::floor::Floor;
use super::keys::Keys;
use super::lane::{LaneKey, LaneLimits};
use super::leaving::Leaving;
use super::made::Made;
use super::meter::Meter;
use super::metrics::{AgentMetrics, Metrics};
use super::pauses::Pauses;
use super::record::Recorder;
use super::roster::{Agents, Roster};
use super::session::{SessionLimits, SessionSummary, Sessions};
use super::stop::SHUTTING_DOWN;
use super::templates::Templates;
use super::{AgentConfig, Config, ReadEntry, Rejection};
use crate::clock::Clock;
use crate::ids::{AgentId, RequestId, SessionId, TemplateId};
use crate::journal::{Actor, Fold, Journal};
use crate::lifecycle::Instances;
use crate::limits::{
    AGENT_CHANGES_AT_ONCE_MAX, AGENT_SESSIONS_MAX, IDEMPOTENCY_KEYS_MAX, JOURNAL_CATCH_UP_WAIT,
};
use crate::live::{Live, ModelCalls};
use crate::provider::{Hosting, Message, Provider};
use crate::telemetry::{Registry, Shared};
use crate::units::Bytes;

/// What a gateway is made of.
pub struct GatewayParts {
    /// `gateway:`.
    pub config: Config,
    /// `agents:`.
    pub agents: BTreeMap<AgentId, AgentConfig>,
    /// `templates:`.
    pub templates: BTreeMap<TemplateId, AgentConfig>,
    /// The providers that agents name.
    pub providers: BTreeMap<String, Arc<dyn Provider>>,
    /// What hosts agents that have a process or a container of their own.
    pub instances: Arc<Instances>,
    /// Reads the agents that are made over the API.
    pub read_entry: ReadEntry,
    /// Where the facts of the running process are recorded.
    pub live: Arc<Live>,
    /// Where finished requests are recorded.
    pub journal: Arc<dyn Journal>,
    /// Makes the metric handles.
    pub registry: Registry,
    /// The counters that belong to no one module.
    pub shared: Shared,
    /// Measures.
    pub clock: Clock,
}

/// Why a gateway cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agent {agent} names the provider `{provider}`, which is not configured")]
pub struct UnknownProvider {
    /// The agent.
    pub agent: AgentId,
    /// What it names.
    pub provider: String,
}

/// Takes messages in and gives answers out. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(super) inner: Arc<Inner>,
}

/// What all requests share.
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) agents: Roster,
    /// What towns make agents of.
    pub(super) templates: Templates,
    pub(super) instances: Arc<Instances>,
    pub(super) made: Arc<Made>,
    /// Held by who makes or deletes an agent.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// How many more may do so, or wait for it.
    pub(super) changers: Arc<Semaphore>,
    pub(super) leaving: Leaving,
    pub(super) providers: BTreeMap<String, Arc<dyn Provider>>,
    pub(super) read_entry: ReadEntry,
    pub(super) floor: Arc<Floor>,
    pub(super) meter: Arc<Meter>,
    pub(super) pauses: Arc<Pauses>,
    /// Counts the ends of pauses.
    pub(super) resumed: watch::Sender<u64>,
    pub(super) answers: Answers,
    pub(super) keys: Arc<Keys>,
    pub(super) agent_sessions: Arc<AgentSessions>,
    /// A std mutex suffices: every hold is a few map operations.
    sessions: Mutex<Sessions>,
    pub(super) tasks: TaskTracker,
    /// The tasks that make and delete agents: they may wait for a disk that hangs.
    pub(super) changes: TaskTracker,
    pub(super) metrics: Metrics,
    pub(super) recorder: Recorder,
    pub(super) clock: Clock,
}

/// An agent and what belongs to it.
pub(super) struct Agent {
    pub(super) config: AgentConfig,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) metrics: AgentMetrics,
    /// Whether it left the roster.
    pub(super) retired: AtomicBool,
}

/// The body of `system.metrics`; the API adds its connections.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Messages processed since start, however they ended.
    pub messages_processed: u64,
    /// Error events since start.
    pub errors: u64,
    /// Requests accepted and not ended.
    pub active_requests: usize,
    /// Seconds since start.
    pub uptime: f64,
    /// Requests that wait; running ones do not count.
    pub queue_depth: usize,
    /// The model calls.
    pub model_calls: ModelCalls,
    /// Sessions kept.
    pub sessions: usize,
    /// Lanes that hold a request.
    pub lanes: usize,
    /// Milliseconds that the oldest waiting request has waited; 0 if none waits.
    pub oldest_queued_ms: f64,
}

/// The counts that `/health` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCounts {
    /// Sessions kept.
    pub sessions: usize,
    /// Distinct tools that agents are known to have or have used.
    pub tools: usize,
}

impl Inner {
    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// A gateway that is open at once.
    ///
    /// # Errors
    /// [`UnknownProvider`] when an agent names a provider that is not among the parts.
    pub fn new(parts: GatewayParts) -> Result<Self, UnknownProvider> {
        let GatewayParts {
            config,
            agents,
            templates,
            providers,
            instances,
            read_entry,
            live,
            journal,
            registry,
            shared,
            clock,
        } = parts;
        let limits = LaneLimits {
            running_max: config.running_max,
            queued_max: config.queued_max,
            lane_depth_max: config.lane_depth_max,
        };
        let inner = Inner {
            meter: Meter::new(clock.clone(), &config.time_zone),
            pauses: Arc::default(),
            resumed: watch::channel(0).0,
            agents: Roster::default(),
            templates,
            instances,
            made: Arc::default(),
            changing: tokio::sync::Mutex::default(),
            changers: Arc::new(Semaphore::new(AGENT_CHANGES_AT_ONCE_MAX)),
            leaving: Leaving::default(),
            providers,
            read_entry,
            floor: Floor::new(limits, bytes(config.active_bytes_max), clock.clone()),
            answers: Answers::new(&config),
            keys: Arc::new(Keys::new(IDEMPOTENCY_KEYS_MAX, clock.clone())),
            agent_sessions: Arc::new(AgentSessions::new(AGENT_SESSIONS_MAX)),
            sessions: Mutex::new(Sessions::new(session_limits(&config))),
            tasks: TaskTracker::new(),
            changes: TaskTracker::new(),
            metrics: Metrics::new(&registry),
            recorder: Recorder::new(live, journal, shared),
            clock,
            config,
        };
        let mut made = Agents::new();
        for (id, agent) in agents {
            let unknown = || UnknownProvider { agent: id.clone(), provider: agent.provider.clone() };
            let provider = Arc::clone(inner.providers.get(&agent.provider).ok_or_else(unknown)?);
            let agent = inner.make(&id, agent, provider);
            made.insert(id, agent);
        }
        inner.agents.add(made);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What of its state survives a restart: to be registered when the journal is opened.
    #[must_use]
    pub fn folds(&self) -> Vec<Arc<dyn Fold>> {
        let Inner { agent_sessions, instances, keys, made, meter, pauses, .. } = &*self.inner;
        vec![
            Arc::clone(instances.ledger()) as _,
            Arc::clone(agent_sessions) as _,
            Arc::clone(keys) as _,
            Arc::clone(made) as _,
            Arc::clone(meter) as _,
            Arc::clone(pauses) as _,
        ]
    }

    /// Cancels a request; whether it was under way.
    pub fn cancel(&self, request: &RequestId, reason: &'static str) -> bool {
        let found = self.inner.floor.find(request);
        found.iter().for_each(|active| active.cancel.raise(reason));
        found.is_some()
    }

    /// Whether there is an agent of this id.
    #[must_use]
    pub fn has_agent(&self, agent: &AgentId) -> bool {
        self.inner.agents.contains(agent) || self.inner.made.contains(agent)
    }

    /// Whether an agent is, or may become one of a template that is, a process or a container beside plimsoll, which could
    /// call it like anybody on this machine.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        let beside = |agent: &Agent| agent.provider.hosting() == Hosting::Process || agent.config.is_beside();
        let Inner { agents, templates, providers, .. } = &*self.inner;
        let is_program = |provider: &Arc<dyn Provider>| provider.hosting() == Hosting::Process;
        let may_be = |config: &AgentConfig| {
            config.is_beside() || providers.get(&config.provider).is_some_and(is_program)
        };
        agents.all().values().any(|agent| beside(agent)) || templates.values().any(may_be)
    }

    /// Every session that is kept.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionSummary> {
        self.inner.sessions().list(self.inner.clock.elapsed())
    }

    /// What was said in a session, oldest first.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`], or [`Rejection::NotFound`] for a session that is not kept (any more).
    pub fn history(&self, agent: &AgentId, session: &SessionId) -> Result<Vec<Message>, Rejection> {
        let key = self.session_key(agent, session)?;
        self.inner.sessions().history(&key).ok_or(Rejection::NotFound { what: "session" })
    }

    /// Forgets what was said in a session, and durably that the agent keeps it under a name of its own.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`], [`Rejection::NotFound`] for a session that is not kept (any more), or
    /// [`Rejection::JournalUnavailable`]: nothing was forgotten then, but a turn under way is not remembered.
    pub async fn reset(&self, actor: &Actor, agent: &AgentId, session: &SessionId) -> Result<(), Rejection> {
        let key = self.session_key(agent, session)?;
        let Inner { agent_sessions, recorder, floor, .. } = &*self.inner;
        // Neither a turn that ends while the journal writes brings the name back, nor one that begins then.
        floor.forget_sessions(&key);
        let named = agent_sessions.knows(&key);
        if named {
            let forgotten = agent_sessions.forget(&key, recorder.journal(), actor).await;
            let subject = "that an agent's own conversation is forgotten";
            forgotten.map_err(|_| Rejection::JournalUnavailable { subject })?;
            floor.forget_sessions(&key);
        }
        let known = self.inner.sessions().reset(&key);
        if known || named { Ok(()) } else { Err(Rejection::NotFound { what: "session" }) }
    }

    /// What is under way, the oldest first.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveRequest> {
        self.inner.floor.list()
    }

    /// The body of `system.metrics`, as far as the gateway knows it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let load = self.inner.floor.load();
        let live = self.inner.recorder.live();
        let now = self.inner.clock.elapsed();
        Snapshot {
            messages_processed: live.messages_processed(),
            errors: live.errors(),
            active_requests: load.active,
            uptime: now.as_secs_f64(),
            queue_depth: load.queued,
            model_calls: live.model_calls(),
            sessions: self.inner.sessions().count(now),
            lanes: load.lanes,
            oldest_queued_ms: load.oldest.as_secs_f64() * 1e3,
        }
    }

    /// The counts that `/health` shows.
    #[must_use]
    pub fn health(&self) -> HealthCounts {
        let sessions = self.inner.sessions().count(self.inner.clock.elapsed());
        let agents = self.inner.agents.all();
        let listed = agents.values().flat_map(|agent| &agent.config.tools).map(String::as_str);
        HealthCounts { sessions, tools: self.inner.recorder.tools(listed) }
    }

    /// What hosts agents.
    #[must_use]
    pub fn instances(&self) -> &Arc<Instances> {
        &self.inner.instances
    }

    /// Brings the gauges up to date; to be called before metrics are rendered.
    pub fn refresh_gauges(&self) {
        self.inner.instances.refresh_gauges();
        let Inner { floor, metrics, clock, .. } = &*self.inner;
        let load = floor.load();
        metrics.queue_depth.set(load.queued as f64);
        metrics.lanes.set(load.lanes as f64);
        metrics.oldest_age.set(load.oldest.as_secs_f64());
        metrics.sessions.set(self.inner.sessions().count(clock.elapsed()) as f64);
        self.inner.refresh_control_gauges();
    }

    /// Writes to the journal what was spent while it could not be written to, once it can be; until it is told to stop.
    pub async fn keep_books(&self, stop: CancellationToken) {
        self.inner.meter.keep_books(self.inner.recorder.journal(), &stop).await;
    }

    /// Refuses what is new from here on; what is under way goes on.
    pub fn refuse_new(&self) {
        self.inner.floor.close();
        self.inner.tasks.close();
        self.inner.changes.close();
    }

    /// [Refuses what is new](Self::refuse_new), lets what is under way finish for `grace`, cancels the rest, and waits
    /// for that.
    pub async fn drain(&self, grace: Duration) {
        self.refuse_new();
        if tokio::time::timeout(grace, self.inner.tasks.wait()).await.is_err() {
            self.inner.floor.cancel_all(SHUTTING_DOWN);
            self.inner.tasks.wait().await;
        }
        let Inner { meter, recorder, changes, .. } = &*self.inner;
        let books = async {
            recorder.journal().catch_up().await;
            meter.write_lost(recorder.journal()).await
        };
        // A disk that hangs holds up nobody for long, and a change that waits takes no time from the books.
        let books = tokio::time::timeout(JOURNAL_CATCH_UP_WAIT, books);
        let changes = tokio::time::timeout(JOURNAL_CATCH_UP_WAIT, changes.wait());
        let _ = tokio::join!(books, changes);
        let agents = self.inner.agents.all();
        let closing = join_all(agents.values().map(|agent| agent.provider.close()));
        tokio::join!(closing, self.inner.instances.shut_down());
        self.inner.leaving.ended().await;
    }

    fn session_key(&self, agent: &AgentId, session: &SessionId) -> Result<LaneKey, Rejection> {
        if !self.has_agent(agent) {
            return Err(Rejection::UnknownAgent { agent: agent.clone() });
        }
        Ok(LaneKey { agent: agent.clone(), session: session.clone() })
    }
}

fn session_limits(config: &Config) -> SessionLimits {
    SessionLimits {
        sessions_max: config.sessions_max,
        idle_max: config.session_idle.0,
        messages_max: config.history_messages_max,
        bytes_max: bytes(config.history_bytes_max),
        all_bytes_max: bytes(config.sessions_bytes_max),
    }
}

fn bytes(configured: Bytes) -> usize {
    usize::try_from(configured.0).unwrap_or(usize::MAX)
}
