//! Agents that an operator paused. A pause is a brake: it holds in memory at once, whatever the disk does, and over a
//! restart from its record on. Only the end of a pause waits for the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Rejection;
use super::made::{AGENT_DELETED, Deleted};
use crate::ids::AgentId;
use crate::journal::{Actor, Append, AppendError, Fold, Journal, NewRecord, Record, StreamId, StreamKind};
use crate::limits::JOURNAL_APPEND_WAIT;

/// The kind of the record that agents were paused.
pub const AGENT_PAUSED: &str = "agent_paused";
/// The kind of the record that agents were resumed.
pub const AGENT_RESUMED: &str = "agent_resumed";

/// The agents that take no new work.
#[derive(Default)]
pub(super) struct Pauses {
    /// A std mutex suffices: a hold is one look-up, or a copy of some names.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As the journal has it.
    written: Standing,
    /// Pauses that the journal has not answered for, or could not take, each with its number.
    held: BTreeMap<AgentId, u64>,
    last: u64,
    /// Ends of pauses that are on their way to the journal; one that nobody waited for stays counted.
    resuming: usize,
}

/// Who is paused: all, or nobody, but for these. So a pause of all holds for agents that come later too.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    all: bool,
    except: BTreeSet<AgentId>,
}

/// Whom a change is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whom<'a> {
    /// The agents there are, of those that are meant.
    pub(super) agents: &'a [AgentId],
    /// Whether those are meant too that come later.
    pub(super) all: bool,
}

/// A pause that holds in memory.
pub(super) struct Held {
    /// The agents that were not paused before.
    pub(super) changed: Vec<AgentId>,
    /// `None` where the journal has it already.
    number: Option<u64>,
}

/// The detail of both kinds.
#[derive(Debug, Serialize, Deserialize)]
struct Changed {
    agents: Vec<AgentId>,
    /// Whether it was for all, those that come later included.
    #[serde(default)]
    all: bool,
}

impl Standing {
    fn is_paused(&self, agent: &AgentId) -> bool {
        self.all != self.except.contains(agent)
    }

    fn set(&mut self, change: Changed, paused: bool) {
        let Changed { agents, all } = change;
        if all {
            *self = Self { all: paused, except: BTreeSet::new() };
            return;
        }
        for agent in agents {
            if paused == self.all {
                self.except.remove(&agent);
            } else {
                self.except.insert(agent);
            }
        }
    }
}

impl State {
    fn is_paused(&self, agent: &AgentId) -> bool {
        self.held.contains_key(agent) || self.written.is_paused(agent)
    }

    /// Whether the journal has this pause, and nothing on its way there could end it.
    fn has_written(&self, whom: Whom<'_>) -> bool {
        let Whom { agents, all } = whom;
        let paused = |agent: &AgentId| self.written.is_paused(agent) && !self.held.contains_key(agent);
        let later = self.written.all && self.written.except.is_empty();
        self.resuming == 0 && (!all || later) && agents.iter().all(paused)
    }
}

impl Pauses {
    pub(super) fn is_paused(&self, agent: &AgentId) -> bool {
        self.state().is_paused(agent)
    }

    /// # Errors
    /// [`Rejection::Paused`].
    pub(super) fn check(&self, agent: &AgentId) -> Result<(), Rejection> {
        if self.is_paused(agent) { Err(Rejection::Paused { agent: agent.clone() }) } else { Ok(()) }
    }

    /// Pauses agents now. Make it durable with [`Pauses::write`].
    pub(super) fn hold(&self, whom: Whom<'_>) -> Held {
        let mut state = self.state();
        if state.has_written(whom) {
            return Held { changed: Vec::new(), number: None };
        }
        let changed = whom.agents.iter().filter(|agent| !state.is_paused(agent)).cloned().collect();
        state.last += 1;
        let number = state.last;
        state.held.extend(whom.agents.iter().map(|agent| (agent.clone(), number)));
        Held { changed, number: Some(number) }
    }

    /// Makes a pause durable, and says whether it is: a disk that hangs is waited for a little only. A pause that
    /// changes nothing is written too while something is on its way to the journal, so that it comes after that.
    pub(super) async fn write(
        &self,
        journal: &dyn Journal,
        actor: &Actor,
        whom: Whom<'_>,
        held: &Held,
    ) -> bool {
        let Some(number) = held.number else { return true };
        let appended = append(journal, actor, AGENT_PAUSED, whom);
        let cause = match tokio::time::timeout(JOURNAL_APPEND_WAIT, appended).await {
            Ok(Ok(())) => {
                self.state().held.retain(|_, held| *held != number);
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the journal did not answer in time".to_owned(),
        };
        tracing::error!(source = "agent.pause", cause, "a pause holds, but a restart may end it");
        false
    }

    /// Resumes agents, durably; gives those for which that is a change.
    ///
    /// # Errors
    /// [`Rejection::JournalUnavailable`]; nothing has changed then.
    pub(super) async fn resume(
        &self,
        journal: &dyn Journal,
        actor: &Actor,
        whom: Whom<'_>,
    ) -> Result<Vec<AgentId>, Rejection> {
        let (changed, last) = {
            let mut state = self.state();
            let paused = whom.agents.iter().filter(|agent| state.is_paused(agent));
            let changed: Vec<_> = paused.cloned().collect();
            if changed.is_empty() && !(whom.all && state.written != Standing::default()) {
                return Ok(changed);
            }
            state.resuming += 1;
            (changed, state.last)
        };
        let appended = append(journal, actor, AGENT_RESUMED, Whom { agents: &changed, ..whom }).await;
        self.state().resuming -= 1;
        appended.map_err(|error| {
            tracing::error!(source = "agent.pause", cause = %error, "agents could not be resumed");
            Rejection::JournalUnavailable { subject: "the end of a pause" }
        })?;
        // What was paused meanwhile stays so.
        self.state().held.retain(|agent, number| *number > last || !changed.contains(agent));
        Ok(changed)
    }

    /// One that is made again is not paused, unless all are. A pause of one that gave way to the configuration stays.
    fn forget(&self, record: &Record) {
        if let Ok(Deleted { agent, configured: false }) = Deleted::deserialize(&record.detail) {
            let mut state = self.state();
            state.written.except.remove(&agent);
            state.held.remove(&agent);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn append(
    journal: &dyn Journal,
    actor: &Actor,
    kind: &'static str,
    whom: Whom<'_>,
) -> Result<(), AppendError> {
    let Whom { agents, all } = whom;
    let detail = json!(Changed { agents: agents.to_vec(), all });
    let record = NewRecord { kind, version: 1, actor: actor.clone(), trace_id: None, detail };
    let append = Append { stream: StreamId::operator(), expected_last_seq: None, records: vec![record] };
    journal.append(append).await.map(drop)
}

impl Fold for Pauses {
    fn name(&self) -> &'static str {
        "pauses"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Operator
    }

    fn apply(&self, record: &Record) {
        let pauses = match record.kind.as_str() {
            AGENT_PAUSED => true,
            AGENT_RESUMED => false,
            AGENT_DELETED => return self.forget(record),
            _ => return,
        };
        match Changed::deserialize(&record.detail) {
            Ok(change) => self.state().written.set(change, pauses),
            Err(_) => tracing::warn!(seq = record.seq.0, kind = record.kind, "a record cannot be read"),
        }
    }

    fn snapshot(&self) -> Value {
        json!(self.state().written)
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        self.state().written = Standing::deserialize(snapshot).map_err(|error| error.to_string())?;
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
    use crate::journal::{MemoryJournal, Scan};

    fn agents(ids: &[&str]) -> Vec<AgentId> {
        ids.iter().map(|id| AgentId::parse(id).expect("valid")).collect()
    }

    fn open() -> (Arc<Pauses>, Arc<MemoryJournal>) {
        let pauses = Arc::new(Pauses::default());
        let journal = MemoryJournal::new(Clock::system(), vec![Arc::clone(&pauses) as Arc<dyn Fold>]);
        (pauses, Arc::new(journal))
    }

    fn named(agents: &[AgentId]) -> Whom<'_> {
        Whom { agents, all: false }
    }

    async fn pause(pauses: &Pauses, journal: &MemoryJournal, whom: Whom<'_>) -> (Vec<AgentId>, bool) {
        let held = pauses.hold(whom);
        let durable = pauses.write(journal, &Actor::Local, whom, &held).await;
        (held.changed, durable)
    }

    async fn resume(pauses: &Pauses, journal: &MemoryJournal, whom: Whom<'_>) -> Vec<AgentId> {
        pauses.resume(journal, &Actor::Local, whom).await.expect("written")
    }

    fn refused(agent: &AgentId) -> Rejection {
        Rejection::Paused { agent: agent.clone() }
    }

    /// As the next process finds it.
    fn restarted(pauses: &Pauses) -> Pauses {
        let next = Pauses::default();
        next.restore(&pauses.snapshot()).expect("its own snapshot");
        next
    }

    fn paused(pauses: &Pauses, agents: &[AgentId]) -> Vec<bool> {
        agents.iter().map(|agent| pauses.is_paused(agent)).collect()
    }

    #[tokio::test]
    async fn a_pause_holds_until_it_is_ended_also_over_a_restart() {
        let (pauses, journal) = open();
        let both = agents(&["a", "b"]);
        assert_eq!(pause(&pauses, &journal, named(&both[..1])).await, (both[..1].to_vec(), true));
        assert_eq!(pauses.check(&both[0]), Err(refused(&both[0])));
        assert_eq!(pause(&pauses, &journal, named(&both)).await, (both[1..].to_vec(), true));
        assert_eq!(resume(&pauses, &journal, named(&both[..1])).await, both[..1]);
        assert_eq!(resume(&pauses, &journal, named(&both[..1])).await, []);
        assert_eq!((pauses.check(&both[0]), pauses.check(&both[1])), (Ok(()), Err(refused(&both[1]))));
        assert_eq!(paused(&restarted(&pauses), &both), [false, true]);
        assert!(pauses.restore(&json!([])).is_err());
    }

    #[tokio::test]
    async fn a_deleted_agents_pause_ends_with_it_and_one_that_gave_way_stays_paused() {
        let (pauses, journal) = open();
        let both = agents(&["deleted", "configured"]);
        pause(&pauses, &journal, named(&both)).await;
        for (agent, configured) in both.iter().zip([false, true]) {
            let deleted = Deleted { agent: agent.clone(), configured };
            crate::gateway::made::write_deleted(&*journal, &Actor::Local, &deleted).await.expect("written");
        }
        assert_eq!(paused(&pauses, &both), [false, true]);
        assert_eq!(paused(&restarted(&pauses), &both), [false, true]);
    }

    #[tokio::test]
    async fn a_pause_that_changes_nothing_leaves_no_record() {
        let (pauses, journal) = open();
        let both = agents(&["a", "b"]);
        let all = Whom { agents: &both, all: true };
        let records = || journal.scan(&Scan { limit: 10, ..Scan::default() }).expect("read").records.len();
        for (whom, changed) in [(named(&both), both.to_vec()), (all, vec![])] {
            assert_eq!(pause(&pauses, &journal, whom).await, (changed, true));
            let before = records();
            assert_eq!(pause(&pauses, &journal, whom).await, (vec![], true));
            assert_eq!(records(), before);
        }
        assert_eq!(pause(&pauses, &journal, named(&both[..1])).await, (vec![], true), "all are paused");
        assert_eq!(records(), 2);
    }

    #[tokio::test]
    async fn a_pause_of_all_holds_for_who_comes_later_until_all_are_resumed() {
        let (pauses, journal) = open();
        let (both, later) = (agents(&["a", "b"]), agents(&["later"]));
        let all = Whom { agents: &both, all: true };
        pause(&pauses, &journal, all).await;
        assert_eq!(resume(&pauses, &journal, named(&both[..1])).await, both[..1]);
        let next = restarted(&pauses);
        assert_eq!((paused(&next, &both), paused(&next, &later)), (vec![false, true], vec![true]));
        assert_eq!(resume(&pauses, &journal, all).await, both[1..]);
        let next = restarted(&pauses);
        assert_eq!((paused(&next, &both), paused(&next, &later)), (vec![false, false], vec![false]));
    }

    #[tokio::test]
    async fn a_pause_that_cannot_be_written_holds_and_says_that_a_restart_ends_it() {
        let (pauses, journal) = open();
        let one = agents(&["a"]);
        journal.close();
        assert_eq!(pause(&pauses, &journal, named(&one)).await, (one.clone(), false));
        assert!(pauses.is_paused(&one[0]) && !restarted(&pauses).is_paused(&one[0]));
        let refused = pauses.resume(&*journal, &Actor::Local, named(&one)).await;
        assert!(matches!(refused, Err(Rejection::JournalUnavailable { .. })), "{refused:?}");
        assert!(pauses.is_paused(&one[0]), "only what is in the journal ends a pause");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_up_no_pause_and_what_came_last_counts() {
        let (pauses, journal) = open();
        let one = agents(&["a"]);
        journal.hang();
        let held = pauses.hold(named(&one));
        assert!(pauses.is_paused(&one[0]), "before anything is written");
        assert!(!pauses.write(&*journal, &Actor::Local, named(&one), &held).await);
        let resuming = {
            let (pauses, journal, one) = (Arc::clone(&pauses), Arc::clone(&journal), one.clone());
            tokio::spawn(async move { resume(&pauses, &journal, named(&one)).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(pause(&pauses, &journal, named(&one)).await, (vec![], false));
        journal.go_on();
        assert_eq!(resuming.await.expect("no panic"), one);
        assert!(pauses.is_paused(&one[0]), "it was paused again after the resume was asked for");
        assert!(restarted(&pauses).is_paused(&one[0]), "and the journal has them in this order");
        assert_eq!(resume(&pauses, &journal, named(&one)).await, one);
        assert!(!pauses.is_paused(&one[0]));
    }
}
