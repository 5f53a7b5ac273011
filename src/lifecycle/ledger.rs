//! What is known of each instance over restarts: what is counted, and the containers that were made for it. A fold of
//! its records.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::machine::FailureKind;
use super::metrics::Metrics;
use super::record::EventKind;
use crate::clock::Timestamp;
use crate::ids::AgentId;
use crate::journal::{Fold, Record, StreamKind};

/// What was counted of every instance that was not removed, and which containers are ours.
#[derive(Default)]
pub struct Ledger {
    /// A std mutex suffices: a hold is one step of a counter, or a copy of some.
    instances: Mutex<BTreeMap<AgentId, Entry>>,
    /// Steps with each record, once what was counted before stands there too.
    metrics: OnceLock<Metrics>,
}

/// What is known of one instance.
#[derive(Default, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    counts: InstanceCounts,
    /// How often each kind happened that its counters show.
    #[serde(default)]
    events: BTreeMap<EventKind, u64>,
    /// Whether it was up when the last record was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    up: bool,
    /// Whether it was told to start, and nobody knows what came of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    starting: bool,
    /// The container that somebody else made and that was told to start last; none since one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    /// The containers that were planned and may be there, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    containers: BTreeMap<String, Planned>,
    /// Its agent was deleted, and only its containers are remembered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

/// A container that is ours, if it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Where the engine listens that was to make it.
    pub engine: String,
    /// Since when it may be there.
    pub at: Timestamp,
}

/// What was counted of one instance since its agent was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct InstanceCounts {
    /// It was started.
    pub lazy_start: u64,
    /// It could not be started.
    pub lazy_start_failed: u64,
    /// It was stopped.
    pub lazy_stop: u64,
    /// It could not be stopped.
    pub lazy_stop_failed: u64,
    /// It ended by itself.
    pub exited: u64,
    /// What happened last; `null` if nothing did.
    pub last_event: Option<LastEvent>,
}

/// What happened last to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LastEvent {
    /// The kind of its record, such as `lazy_start`.
    pub r#type: String,
    /// When, in milliseconds since the epoch.
    pub ts: Timestamp,
    /// The detail of its record.
    pub detail: Value,
}

impl InstanceCounts {
    fn step(&mut self, kind: EventKind, record: &Record) {
        let counter = match kind {
            EventKind::LazyStart => Some(&mut self.lazy_start),
            EventKind::LazyStartFailed => Some(&mut self.lazy_start_failed),
            EventKind::LazyStop => Some(&mut self.lazy_stop),
            EventKind::LazyStopFailed => Some(&mut self.lazy_stop_failed),
            EventKind::Exited => Some(&mut self.exited),
            EventKind::CrashLoop
            | EventKind::Adopted
            | EventKind::Lost
            | EventKind::ContainerPlanned
            | EventKind::ContainerStarting
            | EventKind::ContainerRemoved
            | EventKind::Removed => None,
        };
        if let Some(counter) = counter {
            *counter = counter.saturating_add(1);
        }
        let (r#type, ts, detail) = (kind.as_str().to_owned(), record.time, record.detail.clone());
        self.last_event = Some(LastEvent { r#type, ts, detail });
    }
}

impl Entry {
    fn step(&mut self, kind: EventKind, record: &Record) {
        let text = |key: &str| record.detail[key].as_str().unwrap_or_default();
        match kind {
            // What is only meant to happen, or happened to what is no longer used, did not happen to the instance.
            EventKind::ContainerPlanned => {
                self.removed = false;
                self.started = None;
                let planned = Planned { engine: text("engine").to_owned(), at: record.time };
                self.containers.insert(text("name").to_owned(), planned);
            }
            EventKind::ContainerStarting => {
                self.removed = false;
                self.starting = true;
                self.started = Some(text("name").to_owned());
            }
            EventKind::ContainerRemoved => {
                self.containers.remove(text("name"));
            }
            EventKind::Removed => {
                let containers = std::mem::take(&mut self.containers);
                *self = Self { containers, removed: true, ..Self::default() };
            }
            EventKind::LazyStart
            | EventKind::LazyStartFailed
            | EventKind::LazyStop
            | EventKind::LazyStopFailed
            | EventKind::Exited
            | EventKind::CrashLoop
            | EventKind::Adopted
            | EventKind::Lost => {
                self.removed = false;
                self.counts.step(kind, record);
                *self.events.entry(kind).or_default() += 1;
                let untold = kind == EventKind::LazyStartFailed
                    && record.detail["kind"] == FailureKind::Engine.as_str();
                self.starting &= untold || kind == EventKind::CrashLoop;
                self.up = match kind {
                    EventKind::LazyStart | EventKind::Adopted => true,
                    EventKind::LazyStop | EventKind::Exited | EventKind::Lost => false,
                    // It may be up still, or the record says nothing of that. A start that fails of one that was up is of one
                    // whose end nobody saw.
                    EventKind::LazyStartFailed
                    | EventKind::LazyStopFailed
                    | EventKind::CrashLoop
                    | EventKind::ContainerPlanned
                    | EventKind::ContainerStarting
                    | EventKind::ContainerRemoved
                    | EventKind::Removed => self.up,
                };
            }
        }
    }
}

impl Ledger {
    /// What was counted of this instance; zeros if nothing happened to it.
    #[must_use]
    pub fn of(&self, instance: &AgentId) -> InstanceCounts {
        self.instances().get(instance).map(|entry| entry.counts.clone()).unwrap_or_default()
    }

    /// Every instance that something happened to and that was not removed.
    #[must_use]
    pub fn known(&self) -> Vec<AgentId> {
        let instances = self.instances();
        let kept = instances.iter().filter(|(_, entry)| !entry.removed);
        kept.map(|(id, _)| id.clone()).collect()
    }

    /// Whether it was up when the last record of it was written.
    #[must_use]
    pub fn was_up(&self, instance: &AgentId) -> bool {
        self.instances().get(instance).is_some_and(|entry| entry.up)
    }

    /// The container that somebody else made and that was told to start last, unless one was made since.
    #[must_use]
    pub fn started(&self, instance: &AgentId) -> Option<String> {
        self.instances().get(instance)?.started.clone()
    }

    /// Whether it may run because plimsoll started it: it was up, or was told to start and nobody knows what came of that.
    #[must_use]
    pub fn may_be_up(&self, instance: &AgentId) -> bool {
        self.instances().get(instance).is_some_and(|entry| entry.up || entry.starting)
    }

    /// Makes these counters stand at what was counted before, and step from now on. To be called once, when the journal
    /// is open.
    pub(super) fn publish(&self, metrics: &Metrics) {
        // Under the lock: no record comes between what was counted and the next step.
        let instances = self.instances();
        for (id, entry) in instances.iter().filter(|(_, entry)| !entry.removed) {
            metrics.expect(id);
            for (kind, count) in &entry.events {
                metrics.happened(id, kind.as_str(), *count);
            }
        }
        let first = self.metrics.set(metrics.clone());
        assert!(first.is_ok(), "what was counted is published once");
    }

    /// The containers that were planned for this instance and not seen gone since: these are ours, whatever others look
    /// like.
    #[must_use]
    pub fn containers(&self, instance: &AgentId) -> BTreeMap<String, Planned> {
        self.instances().get(instance).map(|entry| entry.containers.clone()).unwrap_or_default()
    }

    /// Every instance with such containers, of removed agents too.
    #[must_use]
    pub fn with_containers(&self) -> Vec<AgentId> {
        let instances = self.instances();
        let having = instances.iter().filter(|(_, entry)| !entry.containers.is_empty());
        having.map(|(id, _)| id.clone()).collect()
    }

    fn instances(&self) -> MutexGuard<'_, BTreeMap<AgentId, Entry>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fold for Ledger {
    fn name(&self) -> &'static str {
        "instances"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Instance
    }

    /// A kind of a later plimsoll is passed over: no counter here is about it.
    fn apply(&self, record: &Record) {
        let Some(kind) = EventKind::parse(&record.kind) else { return };
        let Some(instance) = record.stream.instance_id() else { return };
        let mut instances = self.instances();
        let entry = match kind {
            // Told twice, it makes nobody known again.
            EventKind::ContainerRemoved => match instances.get_mut(&instance) {
                Some(entry) => entry,
                None => return,
            },
            _ => instances.entry(instance.clone()).or_default(),
        };
        entry.step(kind, record);
        if let Some(metrics) = self.metrics.get() {
            metrics.step(&instance, kind, &record.detail);
        }
        if entry.removed && entry.containers.is_empty() {
            instances.remove(&instance);
        }
    }

    fn snapshot(&self) -> Value {
        json!(*self.instances())
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        *self.instances() = BTreeMap::deserialize(snapshot).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// What was counted stays; what is missing cannot be told.
    fn records_lost(&self) {
        tracing::error!(source = "lifecycle", "the journal is damaged: instances may be counted too low");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::machine::{Exit, Fact, Failure, FailureKind, StopReason};
    use super::*;
    use crate::clock::Clock;
    use crate::journal::{Actor, Append, Journal as _, MemoryJournal, NewRecord, Scan, StreamId};

    const ENGINE: &str = "unix:///run/docker.sock";

    fn id(name: &str) -> AgentId {
        AgentId::parse(name).expect("valid")
    }

    /// A fact of each kind; after them, that the agent was deleted.
    fn record(choice: usize) -> NewRecord {
        let failure = Failure { kind: FailureKind::Exited, error: "it ended".into() };
        let facts = [
            Fact::Started { latency: Duration::from_millis(9), start: Duration::from_millis(1) },
            Fact::StartFailed { failure, attempt: 1, retry_in: Duration::from_secs(1) },
            Fact::Stopped { idle: Duration::from_secs(60), reason: StopReason::Idle },
            Fact::StopFailed { error: "it hangs".into() },
            Fact::Exited(Exit { code: Some(1), ..Exit::default() }),
            Fact::CrashLoop { failures: 5 },
            Fact::ContainerPlanned {
                name: "plimsoll-one-1".into(),
                image: "acme/agent:1".into(),
                engine: ENGINE.into(),
            },
            Fact::ContainerRemoved { name: "plimsoll-one-1".into() },
            Fact::Adopted { container: "plimsoll-one-1".into() },
            Fact::ContainerStarting { name: "acme-agent".into() },
        ];
        match facts.get(choice) {
            Some(fact) => fact.record(Actor::System, None),
            None => NewRecord {
                kind: EventKind::Removed.as_str(),
                version: 1,
                actor: Actor::Local,
                trace_id: None,
                detail: json!({}),
            },
        }
    }

    fn journal(ledger: &Arc<Ledger>) -> MemoryJournal {
        MemoryJournal::new(Clock::system(), vec![Arc::clone(ledger) as Arc<dyn Fold>])
    }

    async fn append(journal: &MemoryJournal, instance: &str, record: NewRecord) {
        let stream = StreamId::instance(&id(instance));
        let append = Append { stream, expected_last_seq: None, records: vec![record] };
        journal.append(append).await.expect("appended");
    }

    #[tokio::test]
    async fn each_instance_has_its_own_counts_and_its_own_last_event() {
        let ledger = Arc::new(Ledger::default());
        let journal = journal(&ledger);
        for choice in [0, 2, 0, 5] {
            append(&journal, "one", record(choice)).await;
        }
        append(&journal, "two", record(1)).await;
        let one = ledger.of(&id("one"));
        assert_eq!((one.lazy_start, one.lazy_stop, one.lazy_start_failed), (2, 1, 0));
        let last = one.last_event.expect("there was one");
        assert_eq!((last.r#type.as_str(), &last.detail), ("crash_loop", &json!({"failures": 5})));
        assert!(last.ts > Timestamp::from_millis(0));
        assert_eq!(ledger.of(&id("two")).lazy_start_failed, 1);
        assert_eq!(ledger.of(&id("three")), InstanceCounts::default());
        append(&journal, "one", record(10)).await;
        assert_eq!(ledger.of(&id("one")), InstanceCounts::default(), "deleted");
        append(&journal, "one", record(0)).await;
        assert_eq!(ledger.of(&id("one")).lazy_start, 1, "made again, it begins again");
        assert_eq!(ledger.known(), [id("one"), id("two")]);
    }

    #[tokio::test]
    async fn a_container_is_ours_from_its_plan_until_it_is_gone_even_if_its_agent_is_deleted() {
        let ledger = Arc::new(Ledger::default());
        let journal = journal(&ledger);
        append(&journal, "one", record(0)).await;
        append(&journal, "one", record(6)).await;
        let planned = ledger.containers(&id("one"));
        assert_eq!(planned.keys().collect::<Vec<_>>(), ["plimsoll-one-1"]);
        assert_eq!(planned["plimsoll-one-1"].engine, ENGINE);
        assert_eq!(ledger.of(&id("one")).last_event.expect("there was one").r#type, "lazy_start");
        append(&journal, "one", record(10)).await;
        assert_eq!((ledger.known(), ledger.of(&id("one"))), (vec![], InstanceCounts::default()));
        assert_eq!((ledger.with_containers(), ledger.containers(&id("one"))), (vec![id("one")], planned));
        append(&journal, "one", record(7)).await;
        assert_eq!((ledger.with_containers(), ledger.snapshot()), (vec![], json!({})));
    }

    #[tokio::test]
    async fn what_was_told_to_start_may_be_up_until_somebody_knows_better() {
        let ledger = Arc::new(Ledger::default());
        let journal = journal(&ledger);
        let untold = || {
            let failure = Failure { kind: FailureKind::Engine, error: "it does not answer".into() };
            Fact::StartFailed { failure, attempt: 1, retry_in: Duration::ZERO }.record(Actor::System, None)
        };
        for (row, up, may_be) in [
            (untold(), false, false),
            (record(9), false, true),
            (untold(), false, true),
            (record(0), true, true),
            (untold(), true, true),
            (record(1), true, true),
            (record(2), false, false),
            (record(9), false, true),
            (record(1), false, false),
        ] {
            append(&journal, "one", row).await;
            assert_eq!((ledger.was_up(&id("one")), ledger.may_be_up(&id("one"))), (up, may_be));
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_and_what_came_after_it_are_what_all_records_are(
            facts in prop::collection::vec((0_usize..2, 0_usize..11), 0..40),
            cut in 0_usize..40,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (whole, resumed) = (Arc::new(Ledger::default()), Arc::new(Ledger::default()));
                let all = journal(&whole);
                for (index, (instance, choice)) in facts.iter().enumerate() {
                    append(&all, ["one", "two"][*instance], record(*choice)).await;
                    if index == cut {
                        resumed.restore(&whole.snapshot()).expect("its own snapshot");
                    } else if index > cut {
                        let last = all.status().last;
                        let found = all.scan(&Scan { from: last, limit: 1, ..Scan::default() });
                        resumed.apply(&found.expect("there").records[0]);
                    }
                }
                if facts.len() > cut {
                    assert_eq!(whole.snapshot(), resumed.snapshot());
                }
            });
        }
    }
}
