//! The names that agents give conversations which they keep themselves, so that the next turn goes on with them.
//!
//! One name per agent and session, over restarts: a fold over `agent_session_started` and `agent_session_forgotten`.
//! Memory is ahead of the journal: the next turn of a lane may begin before the record of the last is durable. Bounded;
//! the one used longest ago leaves first. Start at [`AgentSessions::after_turn`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lane::LaneKey;
use crate::ids::{AgentId, SessionId};
use crate::journal::{Actor, Append, AppendError, Fold, Journal, NewRecord, Record, StreamId, StreamKind};

/// The kind of the record that an agent named a conversation.
pub const AGENT_SESSION_STARTED: &str = "agent_session_started";

/// The kind of the record that the name is not to be used again.
pub const AGENT_SESSION_FORGOTTEN: &str = "agent_session_forgotten";

/// The version of the details of both.
const VERSION: u16 = 1;

/// Turns in a row that may fail without a sign that the agent knows the conversation, before its name is forgotten:
/// one may be bad luck, and without an end to it a session would be stuck for good.
const UNCONFIRMED_MAX: u8 = 2;

/// All names. Register it as a fold of the journal; a std mutex suffices, every hold is a few map operations,
/// or a copy of the names for a snapshot.
pub(super) struct AgentSessions {
    sessions_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    all: HashMap<LaneKey, Entry>,
    /// By use, the oldest first.
    order: BTreeMap<u64, LaneKey>,
    last_use: u64,
    /// Changes that the journal has not answered for yet: until then its records are older than what is here.
    pending: HashMap<LaneKey, usize>,
    /// Whether the journal failed and that was said.
    warned: bool,
}

struct Entry {
    name: String,
    provider: String,
    used: u64,
    unconfirmed: u8,
}

/// The detail of `agent_session_started`, version 1, and an entry of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    agent: AgentId,
    session: SessionId,
    /// The key under `providers:`: another program does not know the name.
    provider: String,
    agent_session: String,
}

/// The detail of `agent_session_forgotten`, version 1.
#[derive(Debug, Serialize, Deserialize)]
struct Forgotten {
    agent: AgentId,
    session: SessionId,
}

/// What a turn showed.
pub(super) struct TurnEnd {
    /// The name that the agent told.
    pub(super) told: Option<String>,
    /// Whether it was given one.
    pub(super) resumed: bool,
    /// Whether it said or did anything, so that there is a conversation.
    pub(super) spoke: bool,
    pub(super) how: How,
}

/// How a turn ended, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// With an answer.
    Answered,
    /// The agent said that it does not know the name.
    Unknown,
    /// It failed.
    Failed,
    /// It never began, or was stopped.
    Stopped,
}

impl AgentSessions {
    pub(super) fn new(sessions_max: usize) -> Self {
        Self { sessions_max, state: Mutex::default() }
    }

    /// The name to go on with.
    pub(super) fn resume(&self, lane: &LaneKey, provider: &str) -> Option<String> {
        let mut state = self.state();
        let name = state.all.get(lane).filter(|entry| entry.provider == provider)?.name.clone();
        state.touch(lane);
        Some(name)
    }

    /// Whether there is a name for this session, or one on its way to the journal.
    pub(super) fn knows(&self, lane: &LaneKey) -> bool {
        let state = self.state();
        state.all.contains_key(lane) || state.pending.contains_key(lane)
    }

    /// Takes in what a turn showed. Gives what has to be written, if anything changed, and how many names had to leave.
    pub(super) fn after_turn(
        self: &Arc<Self>,
        lane: &LaneKey,
        provider: &str,
        turn: TurnEnd,
    ) -> (Option<Change>, usize) {
        let TurnEnd { told, resumed, spoke, how } = turn;
        let mut state = self.state();
        let unconfirmed = resumed && !spoke && told.is_none();
        let forget = match how {
            How::Unknown => resumed,
            How::Failed if unconfirmed => state.unconfirmed(lane) >= UNCONFIRMED_MAX,
            How::Failed | How::Answered | How::Stopped => false,
        };
        if forget {
            state.remove(lane);
            return (Some(Change::new(self, &mut state, lane, None)), 0);
        }
        // What failed before a word was said may have left nothing to go on with.
        let Some(name) = told.filter(|_| how == How::Answered || spoke) else { return (None, 0) };
        let known = state.all.get_mut(lane).filter(|entry| entry.name == name && entry.provider == provider);
        if let Some(known) = known {
            known.unconfirmed = 0;
            return (None, 0);
        }
        let evicted = state.insert(lane, name.clone(), provider.to_owned(), self.sessions_max);
        let started = Started {
            agent: lane.agent.clone(),
            session: lane.session.clone(),
            provider: provider.to_owned(),
            agent_session: name,
        };
        (Some(Change::new(self, &mut state, lane, Some(started))), evicted)
    }

    /// Makes it durable that a name is not to be used again, and forgets it then.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing has changed then.
    pub(super) async fn forget(
        self: &Arc<Self>,
        lane: &LaneKey,
        journal: &dyn Journal,
        actor: &Actor,
    ) -> Result<(), AppendError> {
        let change = Change::new(self, &mut self.state(), lane, None);
        change.append(journal, actor).await?;
        self.state().remove(lane);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn touch(&mut self, lane: &LaneKey) {
        self.last_use += 1;
        let Some(entry) = self.all.get_mut(lane) else { return };
        let before = std::mem::replace(&mut entry.used, self.last_use);
        self.order.remove(&before);
        self.order.insert(self.last_use, lane.clone());
    }

    fn insert(&mut self, lane: &LaneKey, name: String, provider: String, sessions_max: usize) -> usize {
        self.remove(lane);
        let mut evicted = 0;
        while self.all.len() >= sessions_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.all.remove(&oldest);
            evicted += 1;
        }
        self.all.insert(lane.clone(), Entry { name, provider, used: 0, unconfirmed: 0 });
        self.touch(lane);
        evicted
    }

    fn remove(&mut self, lane: &LaneKey) {
        if let Some(entry) = self.all.remove(lane) {
            self.order.remove(&entry.used);
        }
    }

    fn unconfirmed(&mut self, lane: &LaneKey) -> u8 {
        let Some(entry) = self.all.get_mut(lane) else { return 0 };
        entry.unconfirmed += 1;
        entry.unconfirmed
    }
}

impl Fold for AgentSessions {
    fn name(&self) -> &'static str {
        "agent_sessions"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Request
    }

    fn apply(&self, record: &Record) {
        let unreadable = || {
            tracing::warn!(
                seq = record.seq.0,
                kind = record.kind,
                "a record of an agent's session cannot be read"
            );
        };
        match record.kind.as_str() {
            AGENT_SESSION_STARTED => match Started::deserialize(&record.detail) {
                Ok(Started { agent, session, provider, agent_session }) => {
                    let (mut state, lane) = (self.state(), LaneKey { agent, session });
                    if !state.pending.contains_key(&lane) {
                        state.insert(&lane, agent_session, provider, self.sessions_max);
                    }
                }
                Err(_) => unreadable(),
            },
            AGENT_SESSION_FORGOTTEN => match Forgotten::deserialize(&record.detail) {
                Ok(Forgotten { agent, session }) => {
                    let (mut state, lane) = (self.state(), LaneKey { agent, session });
                    if !state.pending.contains_key(&lane) {
                        state.remove(&lane);
                    }
                }
                Err(_) => unreadable(),
            },
            _ => {}
        }
    }

    fn snapshot(&self) -> Value {
        let state = self.state();
        let show = |lane: &LaneKey| {
            let Entry { name, provider, .. } = &state.all[lane];
            let (agent, session) = (lane.agent.clone(), lane.session.clone());
            Started { agent, session, provider: provider.clone(), agent_session: name.clone() }
        };
        let all: Vec<_> = state.order.values().map(show).collect();
        drop(state);
        serde_json::to_value(all).expect("ids and names are JSON")
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let all = Vec::<Started>::deserialize(snapshot).map_err(|error| error.to_string())?;
        let mut state = self.state();
        *state = State::default();
        for Started { agent, session, provider, agent_session } in all {
            state.insert(&LaneKey { agent, session }, agent_session, provider, self.sessions_max);
        }
        Ok(())
    }

    /// A name that is out of date is told to be unknown by its agent, and forgotten then.
    fn records_lost(&self) {
        tracing::warn!(source = "gateway", "the journal may lack agents' sessions: some may begin anew");
    }
}

/// A change that the journal has to hear of.
pub(super) struct Change {
    sessions: Arc<AgentSessions>,
    lane: LaneKey,
    /// `None`: it is forgotten.
    started: Option<Started>,
}

impl Change {
    fn new(
        sessions: &Arc<AgentSessions>,
        state: &mut State,
        lane: &LaneKey,
        started: Option<Started>,
    ) -> Self {
        *state.pending.entry(lane.clone()).or_default() += 1;
        Self { sessions: Arc::clone(sessions), lane: lane.clone(), started }
    }

    /// Makes it durable. Where that fails it holds in memory, which is said once until it works again.
    pub(super) async fn write(self, journal: &dyn Journal, actor: &Actor) {
        let sessions = Arc::clone(&self.sessions);
        let written = self.append(journal, actor).await;
        let warned = std::mem::replace(&mut sessions.state().warned, written.is_err());
        if let Err(error) = written
            && !warned
        {
            tracing::warn!(
                source = "gateway",
                cause = %error,
                "agents' sessions cannot be journaled: after a restart they begin anew"
            );
        }
    }

    async fn append(&self, journal: &dyn Journal, actor: &Actor) -> Result<(), AppendError> {
        let (kind, detail) = match &self.started {
            Some(started) => (AGENT_SESSION_STARTED, serde_json::to_value(started)),
            None => {
                let LaneKey { agent, session } = self.lane.clone();
                (AGENT_SESSION_FORGOTTEN, serde_json::to_value(Forgotten { agent, session }))
            }
        };
        let detail = detail.expect("ids and names are JSON");
        let record = NewRecord { kind, version: VERSION, actor: actor.clone(), trace_id: None, detail };
        let append = Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record] };
        journal.append(append).await.map(drop)
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut state = self.sessions.state();
        if let Some(pending) = state.pending.get_mut(&self.lane) {
            *pending -= 1;
            if *pending == 0 {
                state.pending.remove(&self.lane);
            }
        }
    }
}

#[cfg(test)]
mod tests;
