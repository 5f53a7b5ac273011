//! Agents that come and go while the journal hangs or refuses, and while plimsoll ends.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::Clock;
use crate::gateway::{self, AGENT_CREATED, Caller, Channel, GatewayParts, SendRequest};
use crate::ids::Seq;
use crate::journal::{Journal, MemoryJournal, Scan};
use crate::lifecycle::{Cause, Instances, InstancesParts, State};
use crate::live::{self, Live};
use crate::process::Processes;
use crate::provider::{self, EchoConfig, Mask, ProviderDeps};
use crate::telemetry::Shared;

/// One life of plimsoll over a journal that outlives it.
struct House {
    gateway: Gateway,
    journal: Arc<MemoryJournal>,
}

impl House {
    async fn new() -> Self {
        Self::over(&Arc::new(MemoryJournal::new(Clock::system(), Vec::new()))).await
    }

    async fn over(journal: &Arc<MemoryJournal>) -> Self {
        let (clock, registry) = (Clock::system(), crate::catalogue::registry());
        let live = Live::new(&live::Config::default(), &registry, clock.clone());
        let deps = ProviderDeps {
            prices: Arc::default(),
            live: Arc::clone(&live),
            clock: clock.clone(),
            mask: Mask::default(),
            processes: Processes::default(),
        };
        let echo = provider::Config::Echo(EchoConfig::default());
        let provider = provider::build("p", &echo, &deps).expect("echo needs nothing");
        let writes = || Arc::clone(journal) as Arc<dyn Journal>;
        let instances = Instances::new(InstancesParts::bare(Arc::default(), writes(), &registry, &clock));
        let parts = GatewayParts {
            config: gateway::Config::default(),
            templates: BTreeMap::new(),
            agents: BTreeMap::new(),
            providers: BTreeMap::from([("p".to_owned(), provider)]),
            instances: Arc::new(instances),
            read_entry: Arc::new(|_, entry| Ok(serde_json::from_str(entry).expect("an entry"))),
            live,
            journal: writes(),
            shared: Shared::new(&registry),
            registry,
            clock,
        };
        let gateway = Gateway::new(parts).expect("the provider is there");
        journal.reopen(Seq(0), gateway.folds());
        gateway.call_up().await;
        gateway.open_instances().await.expect("they fit");
        Self { gateway, journal: Arc::clone(journal) }
    }

    async fn create(&self, id: &str, entry: &Value) -> Result<AgentSummary, ChangeError> {
        self.gateway.create_agent(Actor::Local, agent(id), entry.to_string(), Beside::Refused).await
    }

    /// The same, begun and not waited for.
    async fn creates(&self, id: &str, entry: &Value) -> JoinHandle<Result<AgentSummary, ChangeError>> {
        let (gateway, id, entry) = (self.gateway.clone(), agent(id), entry.to_string());
        let begun =
            tokio::spawn(async move { gateway.create_agent(Actor::Local, id, entry, Beside::Refused).await });
        settle().await;
        begun
    }

    async fn delete(&self, id: &str) -> Result<Deletion, ChangeError> {
        self.gateway.delete_agent(Actor::Local, agent(id)).await
    }

    fn ids(&self) -> Vec<String> {
        self.gateway.agents().iter().map(|agent| agent.id.to_string()).collect()
    }

    /// How many records there are of a kind.
    fn records(&self, kind: &str) -> usize {
        let query = Scan { kind: Some(kind.to_owned()), limit: 1_000, ..Scan::default() };
        self.journal.scan(&query).expect("readable").records.len()
    }

    fn starts(&self, id: &str) -> Option<u64> {
        let found = self.gateway.agents().into_iter().find(|shown| shown.id == agent(id))?;
        Some(found.instance?.counts.lazy_start)
    }
}

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).expect("valid")
}

fn plain() -> Value {
    json!({"provider": "p"})
}

fn hosted(start: &str) -> Value {
    json!({"provider": "p", "instance": {"port": 0, "start": start, "scripted": {}}})
}

/// Lets everybody do what they can do now.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waits = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(30), waits).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn one_whose_instance_cannot_be_kept_after_all_is_shown_as_unfit_until_it_fits_or_is_deleted() {
    let house = House::new().await;
    let (inner, id) = (&house.gateway.inner, agent("made"));
    let config: AgentConfig = serde_json::from_value(hosted("lazy")).expect("an entry");
    // What was checked, and then is no longer so.
    let mut broken = Configured { config: config.instance.clone().expect("one"), cwd: None };
    broken.config.scripted = None;
    made::write_created(&*house.journal, &Actor::Local, &id, &json!(config)).await.expect("written");
    inner.begin(&id, config, Arc::clone(&inner.providers["p"]), Some(broken));
    let [told] = &house.gateway.agents()[..] else { panic!("not one") };
    assert!(told.made && told.unfit.as_deref().is_some_and(|why| why.contains("give it one of")), "{told:?}");
    let caller = Caller { actor: Actor::Local, channel: Channel::Ws, trace: None };
    let refused = house.gateway.send(caller, SendRequest::new(id.clone(), "hello".to_owned())).err();
    assert!(matches!(refused, Some(Rejection::NotStarted { reason: Some("unfit"), .. })), "{refused:?}");
    assert!(matches!(house.create("made", &plain()).await, Err(ChangeError::Exists { .. })));

    let next = House::over(&house.journal).await;
    assert_eq!((next.ids(), next.starts("made")), (vec!["made".to_owned()], Some(0)), "it fits again");
    next.delete("made").await.expect("deleted");
    assert_eq!(House::over(&house.journal).await.ids(), [""; 0]);
}

#[tokio::test]
async fn none_is_made_while_what_was_counted_of_the_last_of_its_name_cannot_be_put_away() {
    let house = House::new().await;
    house.create("made", &hosted("lazy")).await.expect("made");
    house.gateway.instances().start(&agent("made"), Cause::system()).expect("known");
    until("a start", || house.starts("made") == Some(1)).await;
    house.journal.refuse(Some("removed"));
    house.delete("made").await.expect("that is written");
    until("its end", || !house.gateway.inner.leaving.contains(&agent("made"))).await;
    for house in [&house, &House::over(&house.journal).await] {
        assert_eq!(house.create("made", &hosted("lazy")).await.err(), Some(ChangeError::Journal));
        assert_eq!((house.ids(), house.records(AGENT_CREATED)), (vec![], 1), "nothing was made");
        assert!(house.gateway.instances().remembers(&agent("made")), "nor forgotten");
    }
    house.journal.refuse(None);
    let next = House::over(&house.journal).await;
    assert_eq!(next.records("removed"), 1);
    next.create("made", &hosted("lazy")).await.expect("made");
    assert_eq!(next.starts("made"), Some(0), "it begins anew");
}

#[tokio::test(start_paused = true)]
async fn as_many_changes_as_may_be_at_once_are_answered_while_the_journal_hangs_and_done_whole() {
    let house = House::new().await;
    house.create("old", &plain()).await.expect("made");
    house.journal.hang();
    let mut changes = Vec::new();
    for n in 1..AGENT_CHANGES_AT_ONCE_MAX {
        let entry = if n % 2 == 0 { plain() } else { hosted("lazy") };
        changes.push(house.creates(&format!("made-{n:02}"), &entry).await);
    }
    let gateway = house.gateway.clone();
    let deletes = tokio::spawn(async move { gateway.delete_agent(Actor::Local, agent("old")).await });
    settle().await;
    let more = house.create("more", &plain()).now_or_never().expect("who is one too many is told at once");
    assert_eq!(more.err(), Some(ChangeError::Busy));
    let answers = async {
        for change in changes {
            assert_eq!(change.await.expect("no panic").err(), Some(ChangeError::Late));
        }
        assert_eq!(deletes.await.expect("no panic"), Err(ChangeError::Late));
    };
    timeout(AGENT_CHANGE_WAIT + Duration::from_secs(1), answers).await.expect("all are answered in time");
    assert_eq!(
        (house.ids(), house.records(AGENT_CREATED)),
        (vec!["old".to_owned()], 1),
        "nothing is half made"
    );
    assert_eq!(house.delete("old").await, Err(ChangeError::Busy), "they still wait");

    house.journal.go_on();
    let all: Vec<_> = (1..AGENT_CHANGES_AT_ONCE_MAX).map(|n| format!("made-{n:02}")).collect();
    until("all is done", || house.ids() == all).await;
    let nobody = Err(ChangeError::Unknown { agent: agent("nobody") });
    assert_eq!(house.delete("nobody").await, nobody, "there is room again");
    assert!(house.starts("made-01").is_some() && house.starts("made-02").is_none(), "with its instance");
    let next = House::over(&house.journal).await;
    assert_eq!((next.ids(), next.records(AGENT_CREATED)), (all, AGENT_CHANGES_AT_ONCE_MAX));
}

#[tokio::test(start_paused = true)]
async fn the_end_in_the_middle_of_a_change_finds_it_whole_or_refuses_it() {
    let house = House::new().await;
    house.journal.hang();
    let first = house.creates("first", &hosted("hot")).await;
    let second = house.creates("second", &hosted("hot")).await;
    let gateway = house.gateway.clone();
    let ends = tokio::spawn(async move { gateway.drain(Duration::ZERO).await });
    settle().await;
    house.journal.go_on();
    assert!(first.await.expect("no panic").is_ok(), "it was begun");
    assert_eq!(second.await.expect("no panic").err(), Some(ChangeError::ShuttingDown));
    assert_eq!(house.create("third", &plain()).await.err(), Some(ChangeError::ShuttingDown));
    assert_eq!(house.delete("first").await.err(), Some(ChangeError::ShuttingDown));
    ends.await.expect("no panic");
    assert_eq!((house.ids(), house.records(AGENT_CREATED)), (vec!["first".to_owned()], 1));
    settle().await;
    assert_eq!(house.records("lazy_start"), 0, "nothing starts behind the last stop");
    assert!(house.gateway.instances().state(&agent("first")).is_err());

    let next = House::over(&house.journal).await;
    assert_eq!(next.ids(), ["first"]);
    until("its start", || next.gateway.instances().state(&agent("first")) == Ok(State::Idle)).await;
}
