//! A reconciler with everything it stands on, in memory; its agents do what a test says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::clock::{Clock, ManualTime, Timestamp};
use crate::gateway::{self, AgentConfig, Gateway, GatewayParts};
use crate::ids::{AgentId, BeadId, Seq, TemplateId, TownId};
use crate::journal::{Actor, Append, Journal, MemoryJournal, NewRecord, Record, Scan, StreamId};
use crate::lifecycle::{InstanceConfig, Instances, InstancesParts, Kept, ScriptedHost, ScriptedRunner};
use crate::live::{self, Live};
use crate::provider::{Asked, Provider, ProviderError, ProviderEvent, Turn};
use crate::reconciler::{MemberConfig, Reconciler, ReconcilerParts, TownConfig};
use crate::telemetry::{Registry, Shared};
use crate::town::event::{TownEvent, VERSION};
use crate::town::words::{BeadStatus, Origin, Role};
use crate::town::{Policy, Town};
use crate::units::Period;

pub(super) fn town() -> TownId {
    TownId::parse("main").expect("an id")
}

pub(super) fn agent(id: &str) -> AgentId {
    AgentId::parse(id).expect("an id")
}

pub(super) fn template(id: &str) -> TemplateId {
    TemplateId::parse(id).expect("an id")
}

pub(super) fn bead(id: &str) -> BeadId {
    BeadId::parse(id).expect("an id")
}

/// An agent joins a town: one of plimsoll's own if there is one of that name, else one of a runtime elsewhere.
pub(super) fn joins(id: &str, role: Role) -> TownEvent {
    let origin = Origin::Dynamic;
    TownEvent::AgentRegistered { agent: agent(id), role, origin, nudges: false, template: None }
}

/// What an agent does with its next message.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Answers with this text.
    Say(&'static str),
    /// Fails.
    Fail,
    /// Works until it is told to go on, and answers with this text then.
    Work(Arc<Notify>, &'static str),
}

/// Agents that do one act after the other, and the last one again and again; what they were told is kept.
pub(super) struct Cast {
    acts: Mutex<VecDeque<Act>>,
    told: watch::Sender<Vec<String>>,
}

impl Cast {
    pub(super) fn of(acts: impl IntoIterator<Item = Act>) -> Arc<Self> {
        Arc::new(Self { acts: Mutex::new(acts.into_iter().collect()), told: watch::channel(Vec::new()).0 })
    }

    /// What agents were told, once they were told this often.
    pub(super) async fn told(&self, times: usize) -> Vec<String> {
        let mut told = self.told.subscribe();
        told.wait_for(|told| told.len() >= times).await.expect("it is there").clone()
    }

    fn next(&self) -> Act {
        let mut acts = self.acts.lock().unwrap_or_else(PoisonError::into_inner);
        if acts.len() > 1 { acts.pop_front().expect("there is one") } else { acts[0].clone() }
    }
}

struct Stage(Arc<Cast>);

impl Provider for Stage {
    fn kind(&self) -> &'static str {
        "played"
    }

    fn asks<'a>(&'a self, _model: Option<&'a str>) -> Asked<'a> {
        Asked { provider: "played", model: "played", server: None }
    }

    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent> {
        self.0.told.send_modify(|told| told.push(turn.message.to_string()));
        let act = self.0.next();
        let play = async move {
            match act {
                Act::Say(text) => said(text),
                Act::Fail => vec![ProviderEvent::End(Err(ProviderError::Simulated))],
                Act::Work(go_on, text) => {
                    go_on.notified().await;
                    said(text)
                }
            }
        };
        stream::once(play).flat_map(stream::iter).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(std::future::ready(Ok("plays".to_owned())))
    }
}

fn said(text: &str) -> Vec<ProviderEvent> {
    vec![ProviderEvent::Delta(text.to_owned()), ProviderEvent::End(Ok(()))]
}

/// The journal and the agents of a life that begins.
pub(super) struct Cradle<'a> {
    pub(super) journal: &'a Arc<MemoryJournal>,
    /// What the towns were at the end of the journal, if they are not folded anew.
    pub(super) snapshot: Option<&'a Value>,
    pub(super) workers: &'a [&'a str],
    pub(super) entry: AgentConfig,
    pub(super) gateway: gateway::Config,
    pub(super) clock: Clock,
    /// What hosts some of the agents.
    pub(super) hosts: Vec<(&'a str, Arc<ScriptedRunner>)>,
    /// Agents that the configuration has work in no town.
    pub(super) spare: &'a [&'a str],
}

impl<'a> Cradle<'a> {
    pub(super) fn of(journal: &'a Arc<MemoryJournal>, workers: &'a [&'a str]) -> Self {
        let (clock, gateway) = (Clock::system(), gateway::Config::default());
        let entry = AgentConfig::of_provider("p");
        let (hosts, spare) = (Vec::new(), [].as_slice());
        Self { journal, snapshot: None, workers, entry, gateway, clock, hosts, spare }
    }
}

/// One life of plimsoll over a journal that outlives it.
pub(super) struct World {
    pub(super) reconciler: Reconciler,
    pub(super) gateway: Gateway,
    pub(super) journal: Arc<MemoryJournal>,
    pub(super) registry: Registry,
}

impl World {
    /// A town with these workers, who play this.
    pub(super) async fn new(workers: &[&str], cast: &Arc<Cast>, policy: Policy) -> Self {
        let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
        Self::over(&journal, workers, cast, policy).await
    }

    /// The next life, with everything that is in the journal.
    pub(super) async fn over(
        journal: &Arc<MemoryJournal>,
        workers: &[&str],
        cast: &Arc<Cast>,
        policy: Policy,
    ) -> Self {
        Self::begin(Cradle::of(journal, workers), cast, policy).await
    }

    /// The next life, in which an agent takes one request a minute.
    pub(super) async fn limited(
        journal: &Arc<MemoryJournal>,
        workers: &[&str],
        cast: &Arc<Cast>,
        policy: Policy,
    ) -> Self {
        let entry = AgentConfig { requests_per_min: Some(1), ..AgentConfig::of_provider("p") };
        Self::begin(Cradle { entry, ..Cradle::of(journal, workers) }, cast, policy).await
    }

    /// A town whose clocks stand until this hand moves them.
    pub(super) async fn timed(workers: &[&str], cast: &Arc<Cast>, policy: Policy) -> (Self, Arc<ManualTime>) {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let journal = Arc::new(MemoryJournal::new(clock.clone(), Vec::new()));
        let cradle = Cradle { clock, ..Cradle::of(&journal, workers) };
        (Self::begin(cradle, cast, policy).await, hand)
    }

    /// The next life, from a snapshot of the towns at the end of the journal.
    pub(super) async fn from(
        journal: &Arc<MemoryJournal>,
        snapshot: Option<&Value>,
        workers: &[&str],
        cast: &Arc<Cast>,
        policy: Policy,
    ) -> Self {
        Self::begin(Cradle { snapshot, ..Cradle::of(journal, workers) }, cast, policy).await
    }

    pub(super) async fn begin(cradle: Cradle<'_>, cast: &Arc<Cast>, policy: Policy) -> Self {
        let Cradle { journal, snapshot, workers, entry, gateway, clock, hosts, spare } = cradle;
        let registry = crate::catalogue::registry();
        let writes = || Arc::clone(journal) as Arc<dyn Journal>;
        let agents = workers.iter().chain(spare).map(|id| (agent(id), entry.clone()));
        let bare = InstancesParts::bare(Arc::default(), writes(), &registry, &clock);
        let instances = Arc::new(Instances::new(bare));
        let gateway = Gateway::new(GatewayParts {
            config: gateway,
            templates: BTreeMap::from([(template("coder"), AgentConfig::of_provider("p"))]),
            agents: agents.collect(),
            providers: BTreeMap::from([(
                "p".to_owned(),
                Arc::new(Stage(Arc::clone(cast))) as Arc<dyn Provider>,
            )]),
            instances: Arc::clone(&instances),
            read_entry: Arc::new(|_, _| Err(Vec::new())),
            live: Live::new(&live::Config::default(), &registry, clock.clone()),
            journal: writes(),
            shared: Shared::new(&registry),
            registry: registry.clone(),
            clock: clock.clone(),
        })
        .expect("the provider is there");
        let members = workers.iter().map(|id| {
            let role = if id.starts_with("reviewer") { Role::Reviewer } else { Role::Worker };
            (agent(id), MemberConfig { role, nudge: None })
        });
        let config = TownConfig { agents: Some(members.collect()), policy };
        let towns = BTreeMap::from([(town(), config)]);
        let parts = ReconcilerParts {
            towns,
            gateway: gateway.clone(),
            journal: writes(),
            registry: registry.clone(),
            clock,
        };
        let reconciler = Reconciler::new(parts);
        let after = match snapshot {
            None => Seq(0),
            Some(snapshot) => {
                reconciler.fold().restore(snapshot).expect("a snapshot");
                journal.status().last
            }
        };
        journal.reopen(after, gateway.folds().into_iter().chain([reconciler.fold()]).collect());
        for (id, runner) in hosts {
            let hosted =
                InstanceConfig::scripted(Period(Duration::from_secs(3_600)), ScriptedHost::default());
            instances.keep(agent(id), Kept { policy: hosted.policy(), runner });
        }
        reconciler.look_back();
        gateway.call_up().await;
        reconciler.open().await;
        Self { reconciler, gateway, journal: Arc::clone(journal), registry }
    }

    /// Adds a task.
    pub(super) async fn add(&self, id: &str, blocked_by: &[&str]) {
        let created = TownEvent::BeadCreated {
            bead: bead(id),
            title: "do it".into(),
            instructions: "with care".into(),
            role: Role::Worker,
            priority: 2,
            convoy: None,
            blocked_by: blocked_by.iter().map(|id| bead(id)).collect(),
            report: None,
        };
        self.submit(created).await;
    }

    /// A bead as operators see it.
    pub(super) fn shown(&self, id: &str) -> Value {
        let detail = self.reconciler.bead(&town(), &bead(id)).flatten().expect("there is such a bead");
        serde_json::to_value(detail).expect("it can be written")
    }

    pub(super) async fn submit(&self, event: TownEvent) {
        self.reconciler.submit(&town(), &Actor::Local, event).await.expect("it is taken");
    }

    /// Writes an event behind the reconciler's back, as an earlier plimsoll or a fault may.
    pub(super) async fn write(&self, event: &TownEvent) {
        let (kind, version, actor, detail) = (event.kind(), VERSION, Actor::Planner, event.detail());
        self.write_record(NewRecord { kind, version, actor, trace_id: None, detail }).await;
    }

    pub(super) async fn write_record(&self, record: NewRecord) {
        let append =
            Append { stream: StreamId::town(&town()), expected_last_seq: None, records: vec![record] };
        self.journal.append(append).await.expect("appended");
    }

    /// Has the town tick, by no event, and waits until it did.
    pub(super) async fn ticks(&self) {
        let ticks = || self.scraped("plimsoll_reconciler_tick_duration_seconds_count{town=\"main\"}");
        let before = ticks();
        self.reconciler.cell(&town()).expect("there is a town").wake();
        self.until("a tick", |_| ticks() > before).await;
    }

    /// The number behind this series, as `/metrics` shows it; 0 if there is none.
    pub(super) fn scraped(&self, series: &str) -> u64 {
        self.reconciler.refresh_gauges();
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |number| number.parse().expect("a whole number"))
    }

    /// Waits until the town is as this says.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Town) -> bool) {
        let looks = || self.reconciler.look(&town(), |town, _| is_so(town)).expect("there is a town");
        self.holds(what, looks).await;
    }

    /// Waits until this holds.
    pub(super) async fn holds(&self, what: &str, is_so: impl Fn() -> bool) {
        let waits = async {
            while !is_so() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let kinds = || self.kinds();
        timeout(Duration::from_secs(30), waits).await.unwrap_or_else(|_| panic!("{what}: {:#?}", kinds()));
    }

    /// Waits for a tick that begins now or later, by a clock that is moved by hand: of two that end after this, the second.
    pub(super) async fn ticks_at(&self, hand: &ManualTime) {
        for _ in 0..2 {
            hand.advance(Duration::from_millis(1));
            self.ticks().await;
        }
    }

    /// Waits until a bead ended so.
    pub(super) async fn ends(&self, id: &str, status: BeadStatus) {
        let ended = |town: &Town| town.closed().get(&bead(id)).is_some_and(|closed| closed.status == status);
        self.until(id, ended).await;
    }

    /// Every event of the town, in short.
    pub(super) fn kinds(&self) -> Vec<String> {
        self.records().iter().map(|record| format!("{} {}", record.kind, record.detail)).collect()
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let query = Scan { stream: Some(StreamId::town(&town())), limit: 100_000, ..Scan::default() };
        self.journal.scan(&query).expect("readable").records
    }

    /// How many records of a kind there are.
    pub(super) fn count(&self, kind: &str) -> usize {
        self.records().iter().filter(|record| record.kind == kind).count()
    }

    /// Ends in order.
    pub(super) async fn stop(&self) {
        self.reconciler.quiet().await;
        self.gateway.drain(Duration::ZERO).await;
        self.reconciler.close().await;
    }
}

/// A policy whose waits are short.
pub(super) fn swift() -> Policy {
    let mut policy = Policy::default();
    policy.dispatch.backoff = vec![Period::from_millis(1)];
    policy.stuck.ending_grace = Period::from_millis(0);
    policy
}
