//! Agents that were made over the API: kept in the journal, so that they are there again after a restart.
//!
//! A fold over `agent_created` and `agent_deleted`. What such an agent is to plimsoll besides stands in
//! [`changes`](super::changes).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ids::AgentId;
use crate::journal::{Actor, Append, AppendError, Fold, Journal, NewRecord, Record, StreamId, StreamKind};

/// The kind of the record that an agent was made.
pub const AGENT_CREATED: &str = "agent_created";
/// The member of its detail that holds what the agent was made with, instructions and commands included.
pub const AGENT_CREATED_CONFIG: &str = "config";
/// The kind of the record that one was deleted.
pub const AGENT_DELETED: &str = "agent_deleted";

/// The version of the details of both.
const VERSION: u16 = 1;

/// The detail of `agent_created`, version 1: the entry as it would stand under `agents:`, or the names of a template and of
/// a town.
#[derive(Serialize, Deserialize)]
struct Created<C> {
    agent: AgentId,
    config: C,
}

/// The detail of `agent_deleted`, version 1.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Deleted {
    pub(super) agent: AgentId,
    /// Whether it only gave way to one of the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) configured: bool,
}

/// See the module. A std mutex suffices: a hold is one look-up, or a copy of the entries.
#[derive(Default)]
pub(super) struct Made {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As they were written: one that this plimsoll cannot read is kept for one that can.
    entries: BTreeMap<AgentId, Value>,
    /// Why some do not serve.
    unfit: BTreeMap<AgentId, String>,
}

impl Made {
    pub(super) fn entries(&self) -> BTreeMap<AgentId, Value> {
        self.state().entries.clone()
    }

    pub(super) fn entry(&self, agent: &AgentId) -> Option<Value> {
        self.state().entries.get(agent).cloned()
    }

    pub(super) fn contains(&self, agent: &AgentId) -> bool {
        self.state().entries.contains_key(agent)
    }

    /// Whether it has an instance of its own.
    pub(super) fn is_hosted(&self, agent: &AgentId) -> bool {
        self.state().entries.get(agent).is_some_and(|entry| entry.get("instance").is_some())
    }

    pub(super) fn count(&self) -> usize {
        self.state().entries.len()
    }

    /// Those that do not serve, and why.
    pub(super) fn unfit(&self) -> Vec<(AgentId, Value, String)> {
        let state = self.state();
        let entry =
            |(id, why): (&AgentId, &String)| Some((id.clone(), state.entries.get(id)?.clone(), why.clone()));
        state.unfit.iter().filter_map(entry).collect()
    }

    /// Why this one does not serve.
    pub(super) fn why_unfit(&self, agent: &AgentId) -> Option<String> {
        self.state().unfit.get(agent).cloned()
    }

    pub(super) fn set_unfit(&self, agent: &AgentId, why: String) {
        self.state().unfit.insert(agent.clone(), why);
    }

    pub(super) fn forget(&self, agent: &AgentId) {
        let mut state = self.state();
        state.entries.remove(agent);
        state.unfit.remove(agent);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes it durable that an agent was made.
pub(super) async fn write_created(
    journal: &dyn Journal,
    actor: &Actor,
    agent: &AgentId,
    kept: &Value,
) -> Result<(), AppendError> {
    let detail = json!(Created { agent: agent.clone(), config: kept });
    append(journal, AGENT_CREATED, actor, detail).await
}

/// Makes it durable that an agent is no more.
pub(super) async fn write_deleted(
    journal: &dyn Journal,
    actor: &Actor,
    deleted: &Deleted,
) -> Result<(), AppendError> {
    append(journal, AGENT_DELETED, actor, json!(deleted)).await
}

async fn append(
    journal: &dyn Journal,
    kind: &'static str,
    actor: &Actor,
    detail: Value,
) -> Result<(), AppendError> {
    let record = NewRecord { kind, version: VERSION, actor: actor.clone(), trace_id: None, detail };
    let append = Append { stream: StreamId::operator(), expected_last_seq: None, records: vec![record] };
    journal.append(append).await.map(drop)
}

impl Fold for Made {
    fn name(&self) -> &'static str {
        "agents"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Operator
    }

    fn apply(&self, record: &Record) {
        let applied = match record.kind.as_str() {
            AGENT_CREATED => {
                Created::deserialize(&record.detail).map(|Created::<Value> { agent, config }| {
                    self.state().entries.insert(agent, config);
                })
            }
            AGENT_DELETED => Deleted::deserialize(&record.detail).map(|deleted| self.forget(&deleted.agent)),
            _ => return,
        };
        if applied.is_err() {
            tracing::warn!(seq = record.seq.0, kind = record.kind, "a record of an agent cannot be read");
        }
    }

    fn snapshot(&self) -> Value {
        json!(self.state().entries)
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let entries: BTreeMap<String, Value> =
            BTreeMap::deserialize(snapshot).map_err(|error| error.to_string())?;
        let read = |(id, entry): (String, Value)| match AgentId::parse(&id) {
            Ok(id) => Some((id, entry)),
            Err(error) => {
                tracing::error!(source = "agent.roster", %error, "an agent in the snapshot has no readable id");
                None
            }
        };
        self.state().entries = entries.into_iter().filter_map(read).collect();
        Ok(())
    }

    fn records_lost(&self) {
        tracing::error!(
            source = "agent.roster",
            "the journal may lack agents that were made or deleted over the API: look at `plimsoll agents`"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::gateway::AgentConfig;
    use crate::journal::MemoryJournal;

    fn agent(id: &str) -> AgentId {
        AgentId::parse(id).expect("valid")
    }

    fn config(more: Value) -> AgentConfig {
        let mut entry = json!({"provider": "p"});
        entry.as_object_mut().expect("keys").extend(more.as_object().cloned().unwrap_or_default());
        serde_json::from_value(entry).expect("an entry")
    }

    fn open() -> (Arc<Made>, MemoryJournal) {
        let made = Arc::new(Made::default());
        let journal = MemoryJournal::new(Clock::system(), vec![Arc::clone(&made) as Arc<dyn Fold>]);
        (made, journal)
    }

    fn ids(made: &Made) -> Vec<String> {
        made.entries().keys().map(ToString::to_string).collect()
    }

    /// As the next process finds it.
    fn restarted(made: &Made) -> Made {
        let next = Made::default();
        next.restore(&made.snapshot()).expect("its own snapshot");
        next
    }

    async fn delete(journal: &MemoryJournal, id: &str, configured: bool) {
        let deleted = Deleted { agent: agent(id), configured };
        write_deleted(journal, &Actor::Local, &deleted).await.expect("written");
    }

    #[tokio::test]
    async fn what_was_made_is_there_again_with_every_key_until_it_is_deleted() {
        let (made, journal) = open();
        let hosted = config(json!({
            "model": "m", "system": "be brief", "deadline": "90s", "usd_per_day": 2.5, "tools": ["pen"],
            "instance": {"port": 80, "container": {"image": "acme/agent:1", "memory_max": "64 MiB"}},
        }));
        for (id, config) in [("hosted", &hosted), ("plain", &config(json!({})))] {
            write_created(&journal, &Actor::Local, &agent(id), &json!(config)).await.expect("written");
        }
        let next = restarted(&made);
        assert_eq!(ids(&next), ["hosted", "plain"]);
        assert_eq!(json!(next.entries()), json!(made.entries()));
        assert_eq!(json!(next.entries()[&agent("hosted")]), json!(hosted));
        made.set_unfit(&agent("plain"), "why".to_owned());
        delete(&journal, "plain", false).await;
        delete(&journal, "hosted", true).await;
        assert_eq!((made.count(), made.why_unfit(&agent("plain"))), (0, None));
        assert_eq!(restarted(&made).count(), 0);
        assert!(made.restore(&json!([])).is_err());
    }

    #[tokio::test]
    async fn what_a_later_plimsoll_made_is_kept_as_it_was_written() {
        let (made, journal) = open();
        let later = json!({"provider": "p", "colour": "red", "instance": {"moon": {}}});
        let detail = json!({"agent": "later", "config": later, "mood": "good"});
        append(&journal, AGENT_CREATED, &Actor::Local, detail).await.expect("written");
        let next = restarted(&made);
        assert_eq!((&next.entries()[&agent("later")], next.is_hosted(&agent("later"))), (&later, true));
        made.restore(&json!({"good": {"provider": "p"}, "odd": 7, "No Slug": {}})).expect("what it can");
        assert_eq!(
            (ids(&made), made.is_hosted(&agent("odd"))),
            (vec!["good".to_owned(), "odd".to_owned()], false)
        );
    }
}
