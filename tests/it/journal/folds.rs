//! What the gateway knows by its folds outlives the records that it knows it from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use plimsoll::alerts::Alerts;
use plimsoll::clock::Clock;
use plimsoll::gateway::{
    self, AGENT_SESSION_STARTED, AgentConfig, Answer, Caller, Channel, Gateway, GatewayParts,
    REQUEST_ACCEPTED, REQUEST_FINISHED, Rejection, SendRequest, UsageBy, UsageQuery, UsageRow,
};
use plimsoll::ids::{AgentId, IdempotencyKey, SessionId};
use plimsoll::journal::{
    Actor, Config, DataDir, Journal as _, JournalDeps, LateJournal, Log, Retention, StreamId,
};
use plimsoll::lifecycle::{Instances, InstancesParts};
use plimsoll::live::{self, Live};
use plimsoll::process::Processes;
use plimsoll::provider::{
    self, Asked, EchoConfig, Mask, Price, Provider, ProviderDeps, ProviderError, ProviderEvent, Turn,
};
use plimsoll::telemetry::{Registry, Shared};
use plimsoll::units::{Bytes, Period};

use super::disk::{partitions, remove_closing_snapshots};
use super::fixture::{a_time, all, append};
use crate::support::server::until;

/// An agent that keeps its conversations itself, and notes which of them it is to go on with.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<Option<String>>>>);

impl Provider for Keeper {
    fn kind(&self) -> &'static str {
        "keeper"
    }

    fn asks<'a>(&'a self, _model: Option<&'a str>) -> Asked<'a> {
        Asked { provider: "keeper", model: "", server: None }
    }

    fn send(&self, turn: Turn) -> BoxStream<'static, ProviderEvent> {
        self.0.lock().expect("no panic").push(turn.agent_session);
        let session = ProviderEvent::AgentSession("c1".to_owned());
        let events = [session, ProviderEvent::Delta("ok".to_owned()), ProviderEvent::End(Ok(()))];
        stream::iter(events).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(std::future::ready(Ok(String::new())))
    }
}

struct House {
    gateway: Gateway,
    journal: Arc<LateJournal>,
    keeper: Keeper,
}

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).expect("valid")
}

/// A gateway over the journal in this folder, whose partitions are small and soon old.
async fn open(dir: &Path, clock: &Clock) -> House {
    let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
    let live = Live::new(&live::Config::default(), &registry, clock.clone());
    let price = Price { input: 1.0, output: 1.0, cache_read: None, cache_write: None };
    let deps = ProviderDeps {
        prices: Arc::new(BTreeMap::from([("echo".to_owned(), price)])),
        live: Arc::clone(&live),
        clock: clock.clone(),
        mask: Mask::default(),
        processes: Processes::default(),
    };
    let echo =
        provider::build("echo", &provider::Config::Echo(EchoConfig::default()), &deps).expect("it is built");
    let (keeper, journal) = (Keeper::default(), Arc::new(LateJournal::default()));
    let spender = AgentConfig { usd_per_day: Some(1e-6), ..AgentConfig::of_provider("echo") };
    let gateway = Gateway::new(GatewayParts {
        config: gateway::Config::default(),
        templates: BTreeMap::new(),
        agents: BTreeMap::from([
            (agent("keeper"), AgentConfig::of_provider("keeper")),
            (agent("spender"), spender),
        ]),
        read_entry: Arc::new(|_, _| Err(Vec::new())),
        providers: BTreeMap::from([
            ("keeper".to_owned(), Arc::new(keeper.clone()) as Arc<dyn Provider>),
            ("echo".to_owned(), echo),
        ]),
        instances: Arc::new(Instances::new(InstancesParts::bare(
            Arc::default(),
            Arc::clone(&journal) as _,
            &registry,
            clock,
        ))),
        live,
        journal: Arc::clone(&journal) as _,
        registry: registry.clone(),
        shared: Shared::new(&registry),
        clock: clock.clone(),
    });
    let gateway = gateway.expect("the providers are there");
    let hour = Retention { age_max: Period::from_secs(3_600), bytes_max: Bytes(1 << 30) };
    let config = Config { partition_records_max: 100, work: hour, ..Config::default() };
    let deps = JournalDeps { clock: clock.clone(), registry, folds: gateway.folds() };
    journal.open(DataDir::open(dir).expect("nobody else has it"), config, deps).await.expect("opens");
    House { gateway, journal, keeper }
}

async fn ask(house: &House, to: &str, key: Option<&str>) -> Result<Answer, Rejection> {
    let caller = Caller { actor: Actor::Local, channel: Channel::Ws, trace: None };
    let mut accepted = house.gateway.send(
        caller,
        SendRequest {
            session: SessionId::parse("s").ok(),
            idempotency_key: key.and_then(|key| IdempotencyKey::parse(key).ok()),
            ..SendRequest::new(agent(to), "hello".to_owned())
        },
    )?;
    while accepted.events.recv().await.is_some() {}
    accepted.outcome.await.expect("an outcome").map(Arc::unwrap_or_clone).map_err(Arc::unwrap_or_clone)
}

fn used(house: &House) -> Vec<UsageRow> {
    let query = UsageQuery { by: UsageBy::Agent, since: a_time(), agent: None };
    house.gateway.usage(&query).expect("a good query").rows
}

/// How many records of these kinds there are.
fn of_kinds(house: &House, kinds: &[&str]) -> usize {
    all(&*house.journal).iter().filter(|record| kinds.contains(&record.kind.as_str())).count()
}

#[tokio::test]
async fn keys_budgets_usage_and_sessions_stand_by_their_snapshots() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (clock, hand) = Clock::manual(a_time());
    let house = open(dir.path(), &clock).await;
    ask(&house, "keeper", Some("k")).await.expect("answered");
    ask(&house, "spender", None).await.expect("answered");
    let kinds = [AGENT_SESSION_STARTED, REQUEST_ACCEPTED, REQUEST_FINISHED];
    until("all are in the journal", async || (of_kinds(&house, &kinds) == 4).then_some(())).await;
    let before = used(&house);
    assert_eq!(before.len(), 2, "{before:?}");
    for start in 0..2 {
        let filling = append(&StreamId::request(), start * 100..start * 100 + 100);
        house.journal.append(filling).await.expect("appended");
        until("it rolled", async || (partitions(dir.path(), "work") as u64 == start + 2).then_some(())).await;
    }
    // Past what is kept, and the same day for budgets and keys.
    hand.advance(Duration::from_secs(7_200));
    until("their partitions are gone", async || (of_kinds(&house, &kinds) == 0).then_some(())).await;
    drop(house);
    // As after a kill: those that let the partitions go are all there is.
    remove_closing_snapshots(&dir.path().join("journal"));

    let house = open(dir.path(), &clock).await;
    for log in Log::ALL {
        house.journal.verify(log, None).expect("a cut by retention is no damage");
    }
    let again = ask(&house, "keeper", Some("k")).await;
    assert!(matches!(again, Err(Rejection::Conflict { cause: "finished", .. })), "{again:?}");
    ask(&house, "keeper", None).await.expect("answered");
    assert_eq!(*house.keeper.0.lock().expect("no panic"), [Some("c1".to_owned())]);
    let spent = ask(&house, "spender", None).await;
    assert!(matches!(spent, Err(Rejection::Limited { limit: "usd_per_day", .. })), "{spent:?}");
    let spender = |rows: &[UsageRow]| rows.iter().find(|row| row.agent == Some(agent("spender"))).cloned();
    assert_eq!(spender(&used(&house)), spender(&before));
}

/// Alerts over the journal in this folder, whose partitions are small and soon old.
async fn open_alerts(dir: &Path, clock: &Clock) -> (Arc<Alerts>, LateJournal) {
    let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
    let alerts = Arc::new(Alerts::new(&registry, &Shared::new(&registry), clock.clone()));
    let hour = Retention { age_max: Period::from_secs(3_600), bytes_max: Bytes(1 << 30) };
    let config = Config { partition_records_max: 100, audit: hour, ..Config::default() };
    let deps = JournalDeps { clock: clock.clone(), registry, folds: vec![Arc::clone(&alerts) as _] };
    let journal = LateJournal::default();
    journal.open(DataDir::open(dir).expect("nobody else has it"), config, deps).await.expect("opens");
    (alerts, journal)
}

#[tokio::test]
async fn alerts_that_fire_stand_by_their_snapshot_and_are_written_on() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (clock, hand) = Clock::manual(a_time());
    let body = |status: &str| {
        let alert = serde_json::json!({"status": status, "labels": {"alertname": "A"}});
        serde_json::json!({"version": "4", "alerts": [alert]}).to_string()
    };
    let (alerts, journal) = open_alerts(dir.path(), &clock).await;
    let taken = alerts.receive(&journal, &Actor::Local, body("firing").as_bytes()).await.expect("taken");
    assert_eq!(taken.fired, 1);
    for start in 0..2 {
        let filling = append(&StreamId::operator(), start * 100..start * 100 + 100);
        journal.append(filling).await.expect("appended");
        until("it rolled", async || (partitions(dir.path(), "audit") as u64 >= start + 2).then_some(()))
            .await;
    }
    hand.advance(Duration::from_secs(7_200));
    let fired = || all(&journal).iter().any(|record| record.kind == "alert_fired");
    until("its partition is gone", async || (!fired()).then_some(())).await;
    drop((alerts, journal));
    remove_closing_snapshots(&dir.path().join("journal"));

    let (alerts, journal) = open_alerts(dir.path(), &clock).await;
    assert_eq!(alerts.list().firing, 1);
    let again = alerts.receive(&journal, &Actor::Local, body("firing").as_bytes()).await.expect("taken");
    assert_eq!(again.repeated, 1);
    let over = alerts.receive(&journal, &Actor::Local, body("resolved").as_bytes()).await.expect("taken");
    assert_eq!((over.resolved, alerts.list().firing), (1, 0));
}
