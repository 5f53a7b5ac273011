//! What is done about a town before its first tick: what a restart cut is given back, and it is made what the
//! configuration says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cell::Cell;
use super::config::{MemberConfig, TownConfig};
use super::desk::{Pen, TRIES_MAX, record};
use super::executor::{Executor, unanswered};
use super::ledger::Towns;
use crate::ids::{AgentId, DispatchId, Seq, TownId};
use crate::journal::{Actor, AppendError};
use crate::limits::{JOURNAL_APPEND_WAIT, JOURNAL_GROUP_RECORDS_MAX, TOWN_STOP_WAIT};
use crate::town::event::TownEvent;
use crate::town::state::{Agent, Hook, Town};
use crate::town::words::{LostCause, Origin};

/// What is around a town: the other towns.
pub(super) struct Around {
    pub(super) towns: Arc<Towns>,
    pub(super) config: BTreeMap<TownId, TownConfig>,
    /// Held by who makes a town, lets an agent join one, or changes what one decides by.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
}

impl Around {
    /// Whether an agent that joined while plimsoll ran has to leave: the configuration has it work elsewhere.
    fn leaves(&self, town: &TownId, id: &AgentId) -> bool {
        let wanted = |(other, config): (&TownId, &TownConfig)| other != town && config.member(id).is_some();
        self.config.iter().any(wanted)
    }

    /// Which other town has the agent.
    pub(super) fn elsewhere(&self, town: &TownId, id: &AgentId) -> Option<TownId> {
        let others = self.towns.list().into_iter().filter(|cell| cell.id != *town);
        let mut having = others.filter(|cell| cell.drained().town.agents().contains_key(id));
        having.next().map(|cell| cell.id.clone())
    }
}

/// What makes a town what its configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Differences {
    /// None where nothing differs.
    pub(super) events: Vec<TownEvent>,
    /// Agents that may join once they have left another town.
    pub(super) awaited: Vec<AgentId>,
}

/// How a town differs from its configuration: pure. `leaves` tells who has to leave of those that joined while plimsoll
/// ran, `is_elsewhere` who cannot join yet.
pub(super) fn differences(
    town: &Town,
    config: &TownConfig,
    leaves: impl Fn(&AgentId) -> bool,
    is_elsewhere: impl Fn(&AgentId) -> bool,
) -> Differences {
    let policy = &config.policy;
    let (mut events, mut awaited) = (Vec::new(), Vec::new());
    if !town.is_created() {
        events.push(TownEvent::TownCreated { policy: Box::new(policy.clone()) });
    } else if town.policy() != policy {
        events.push(TownEvent::PolicyChanged { policy: Box::new(policy.clone()) });
    }
    for (id, known) in town.agents() {
        let goes = match config.member(id) {
            Some(member) => !is(known, member),
            None => known.origin == Origin::Configured || leaves(id),
        };
        if goes {
            events.push(TownEvent::AgentRemoved { agent: id.clone() });
        }
    }
    for (id, member) in config.members() {
        if town.agents().get(id).is_some_and(|known| is(known, member)) {
            continue;
        }
        if is_elsewhere(id) {
            awaited.push(id.clone());
        } else {
            events.push(registered(id, member));
        }
    }
    Differences { events, awaited }
}

fn is(known: &Agent, member: &MemberConfig) -> bool {
    known.origin == Origin::Configured && known.role == member.role && known.nudges == member.nudge.is_some()
}

/// That an agent joins as the configuration says.
fn registered(id: &AgentId, member: &MemberConfig) -> TownEvent {
    let MemberConfig { role, nudge } = member;
    let (agent, role, origin) = (id.clone(), *role, Origin::Configured);
    TownEvent::AgentRegistered { agent, role, origin, nudges: nudge.is_some(), template: None }
}

/// What agents are told when nothing is heard of them.
pub(super) fn nudges(config: &TownConfig) -> BTreeMap<AgentId, String> {
    let of = |(id, member): (&AgentId, &MemberConfig)| Some((id.clone(), member.nudge.clone()?));
    config.members().filter_map(of).collect()
}

/// A dispatch that may still be worked on in what hosts an agent, though its request ended with an earlier plimsoll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) agent: AgentId,
    pub(super) dispatch_id: DispatchId,
    /// What the town hears of it then, where the agent holds it and said nothing of how it ended: that it is given back.
    /// Of work that is done, and of which only the question how it ended was cut, that nobody answered.
    pub(super) told: Option<TownEvent>,
}

/// Of every agent of the town the dispatch that it held last, if nobody heard its run end: pure.
pub(super) fn left_at_work(town: &Town) -> Vec<Left> {
    let of = |(id, agent): (&AgentId, &Agent)| {
        let (dispatch_id, told) = match &agent.hook {
            Some(hook) if hook.ended.is_some() => return None,
            Some(hook) => (hook.dispatch_id.clone(), hook.said.is_none().then(|| cut(id, hook))),
            None => (agent.unended.clone()?, None),
        };
        Some(Left { agent: id.clone(), dispatch_id, told })
    };
    town.agents().iter().filter_map(of).collect()
}

fn cut(agent: &AgentId, hook: &Hook) -> TownEvent {
    let dispatch_id = hook.dispatch_id.clone();
    if hook.asked > 0 {
        return unanswered(agent.clone(), dispatch_id, "plimsoll ended meanwhile");
    }
    TownEvent::DispatchLost { dispatch_id, cause: LostCause::Restart }
}

/// Stops what an earlier plimsoll left at work of the agents that its gateway hosted, and gives back the beads that they
/// hold: their requests ended with it. Neither the agent nor the bead is in anybody's hands before that. Where it takes
/// longer than the town can wait for, it goes on beside its ticks.
pub(super) async fn give_back(executor: &Arc<Executor>) {
    let left = left_at_work(&executor.cell.drained().town);
    let ours = left.into_iter().filter(|left| executor.gateway.has_agent(&left.agent));
    let all: Vec<_> = ours.map(|left| give_one_back(executor, left)).collect();
    if timeout(TOWN_STOP_WAIT, join_all(all)).await.is_err() {
        tracing::warn!(source = "reconciler", town = %executor.cell.id, "what hosts some agents is not stopped yet: their beads wait for that");
    }
}

fn give_one_back(executor: &Arc<Executor>, left: Left) -> JoinHandle<()> {
    let place = executor.reserve(&left.agent, &left.dispatch_id);
    let executor = Arc::clone(executor);
    executor.tasks.clone().spawn(async move {
        let Left { agent, dispatch_id, told } = left;
        for before in &place.before {
            before.cancelled().await;
        }
        let stopped = executor.closing.run_until_cancelled(executor.stop_left(&agent)).await;
        let held = stopped.is_some() && executor.holds(&agent, &dispatch_id);
        if let Some(told) = told.filter(|_| held) {
            executor.tell(vec![told]).await;
        }
        drop(place);
    })
}

/// Appends what makes the town what its configuration says, and tells for whom it waits. If somebody writes to the town
/// meanwhile, that is looked at first.
///
/// # Errors
/// The journal does not take it: what it took before stays.
pub(super) async fn apply(
    pen: &Pen,
    cell: &Cell,
    config: &TownConfig,
    around: &Around,
) -> Result<Vec<AgentId>, AppendError> {
    for _ in 1..TRIES_MAX {
        match try_apply(pen, cell, config, around).await {
            Err(AppendError::Conflict { .. }) => {}
            done => return done,
        }
    }
    try_apply(pen, cell, config, around).await
}

async fn try_apply(
    pen: &Pen,
    cell: &Cell,
    config: &TownConfig,
    around: &Around,
) -> Result<Vec<AgentId>, AppendError> {
    // Nobody joins another town meanwhile.
    let _one_at_a_time = around.changing.lock().await;
    let missing: Vec<AgentId> = {
        let book = cell.drained();
        let known = |id: &AgentId, member: &MemberConfig| {
            book.town.agents().get(id).is_some_and(|known| is(known, member))
        };
        config.members().filter(|(id, member)| !known(id, member)).map(|(id, _)| id.clone()).collect()
    };
    // Other towns are asked while this one is nobody's: each may be asking the other.
    let elsewhere = |id: &AgentId| around.elsewhere(&cell.id, id).is_some();
    let elsewhere: BTreeSet<AgentId> = missing.into_iter().filter(elsewhere).collect();
    let (Differences { events, awaited }, mut at) = {
        let book = cell.drained();
        let leaves = |id: &AgentId| around.leaves(&cell.id, id);
        (differences(&book.town, config, leaves, |id| elsewhere.contains(id)), book.at)
    };
    for some in events.chunks(JOURNAL_GROUP_RECORDS_MAX) {
        let records = some.iter().map(|event| record(event, Actor::System, None, None)).collect();
        let appended = timeout(JOURNAL_APPEND_WAIT, pen.append(&cell.id, Some(at), records)).await;
        let first = appended.unwrap_or(Err(AppendError::QueueFull))?;
        at = Seq(first.0 + u64::try_from(some.len()).unwrap_or(u64::MAX) - 1);
    }
    cell.drain();
    Ok(awaited)
}
