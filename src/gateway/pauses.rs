//! Agents that an operator paused. A pause is in the journal before it takes effect, and outlives a restart.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Rejection;
use crate::ids::AgentId;
use crate::journal::{Actor, Append, Fold, Journal, Log, NewRecord, Record, StreamId, StreamKind};

const PAUSED: &str = "agent_paused";
const RESUMED: &str = "agent_resumed";

/// The agents that take no new work.
#[derive(Default)]
pub(super) struct Pauses {
    /// A std mutex suffices: a hold is one look-up, or a copy of some names.
    paused: Mutex<BTreeSet<AgentId>>,
    /// Held over a change and its append, so that each looks at what the one before made.
    changing: tokio::sync::Mutex<()>,
}

/// What becomes of agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Pause,
    Resume,
}

/// The detail of both kinds.
#[derive(Debug, Serialize, Deserialize)]
struct Changed {
    agents: Vec<AgentId>,
}

impl Pauses {
    pub(super) fn is_paused(&self, agent: &AgentId) -> bool {
        self.paused().contains(agent)
    }

    /// # Errors
    /// [`Rejection::Paused`].
    pub(super) fn check(&self, agent: &AgentId) -> Result<(), Rejection> {
        if self.is_paused(agent) { Err(Rejection::Paused) } else { Ok(()) }
    }

    /// Pauses or resumes agents, durably; gives those for which that is a change.
    ///
    /// # Errors
    /// [`Rejection::JournalUnavailable`]; nothing has changed then.
    pub(super) async fn change(
        &self,
        journal: &dyn Journal,
        actor: &Actor,
        change: Change,
        agents: &[AgentId],
    ) -> Result<Vec<AgentId>, Rejection> {
        let _one_at_a_time = self.changing.lock().await;
        let is_news = |agent: &&AgentId| self.is_paused(agent) != (change == Change::Pause);
        let agents: Vec<_> = agents.iter().filter(is_news).cloned().collect();
        if agents.is_empty() {
            return Ok(agents);
        }
        let kind = match change {
            Change::Pause => PAUSED,
            Change::Resume => RESUMED,
        };
        let detail = json!(Changed { agents: agents.clone() });
        let record = NewRecord { kind, version: 1, actor: actor.clone(), trace_id: None, detail };
        let append = Append { stream: StreamId::operator(), expected_last_seq: None, records: vec![record] };
        journal.append(append).await.map_err(|error| {
            tracing::error!(source = "agent.pause", cause = %error, "agents could not be paused or resumed");
            Rejection::JournalUnavailable
        })?;
        Ok(agents)
    }

    fn paused(&self) -> MutexGuard<'_, BTreeSet<AgentId>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fold for Pauses {
    fn name(&self) -> &'static str {
        "pauses"
    }

    fn log(&self) -> Log {
        StreamKind::Operator.log()
    }

    fn wants(&self, stream: &StreamId) -> bool {
        stream.kind() == StreamKind::Operator
    }

    fn apply(&self, record: &Record) {
        let pauses = match record.kind.as_str() {
            PAUSED => true,
            RESUMED => false,
            _ => return,
        };
        let Ok(Changed { agents }) = Changed::deserialize(&record.detail) else {
            tracing::warn!(seq = record.seq.0, kind = record.kind, "a record cannot be read");
            return;
        };
        let mut paused = self.paused();
        for agent in agents {
            if pauses {
                paused.insert(agent);
            } else {
                paused.remove(&agent);
            }
        }
    }

    fn snapshot(&self) -> Value {
        json!({ "paused": *self.paused() })
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Stored {
            paused: BTreeSet<AgentId>,
        }
        let Stored { paused } = Stored::deserialize(snapshot).map_err(|e| e.to_string())?;
        *self.paused() = paused;
        Ok(())
    }

    /// Who was paused stays so; whether somebody else was cannot be told.
    fn records_lost(&self) {
        tracing::error!(
            source = "agent.pause",
            "the journal may lack pauses: pause again whom you want paused"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::journal::MemoryJournal;

    fn agents(ids: &[&str]) -> Vec<AgentId> {
        ids.iter().map(|id| AgentId::parse(id).expect("valid")).collect()
    }

    fn open() -> (Arc<Pauses>, MemoryJournal) {
        let pauses = Arc::new(Pauses::default());
        let journal = MemoryJournal::new(Clock::system(), vec![Arc::clone(&pauses) as Arc<dyn Fold>]);
        (pauses, journal)
    }

    #[tokio::test]
    async fn a_pause_holds_from_its_record_until_it_is_ended_and_is_written_once() {
        let (pauses, journal) = open();
        let both = agents(&["a", "b"]);
        let change = async |change, agents: &[AgentId]| {
            pauses.change(&journal, &Actor::Local, change, agents).await.expect("written")
        };
        assert_eq!(change(Change::Pause, &both[..1]).await, both[..1]);
        assert_eq!(pauses.check(&both[0]), Err(Rejection::Paused));
        assert_eq!(change(Change::Pause, &both).await, both[1..], "one of them was paused");
        assert_eq!(change(Change::Pause, &both).await, []);
        assert_eq!(change(Change::Resume, &both[..1]).await, both[..1]);
        assert_eq!((pauses.check(&both[0]), pauses.check(&both[1])), (Ok(()), Err(Rejection::Paused)));
        let query = crate::journal::Scan { limit: 10, ..Default::default() };
        let page = journal.scan(&query).expect("reads");
        let written: Vec<_> =
            page.records.iter().map(|r| (r.kind.as_str(), r.detail["agents"].clone())).collect();
        assert_eq!(
            written,
            [(PAUSED, json!(["a"])), (PAUSED, json!(["b"])), (RESUMED, json!(["a"]))],
            "{written:?}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_written_does_not_take_effect() {
        let (pauses, journal) = open();
        journal.close();
        let refused = pauses.change(&journal, &Actor::Local, Change::Pause, &agents(&["a"])).await;
        assert_eq!(refused, Err(Rejection::JournalUnavailable));
        assert!(!pauses.is_paused(&agents(&["a"])[0]));
    }

    #[tokio::test]
    async fn a_snapshot_restores_who_is_paused() {
        let (pauses, journal) = open();
        pauses.change(&journal, &Actor::Local, Change::Pause, &agents(&["a"])).await.expect("written");
        let other = Pauses::default();
        other.restore(&pauses.snapshot()).expect("its own snapshot");
        assert!(other.is_paused(&agents(&["a"])[0]));
        assert!(other.restore(&json!([])).is_err());
    }
}
