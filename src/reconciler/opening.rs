//! What is done about a town before its first tick: what a restart cut is given back, and it is made what the
//! configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::cell::Cell;
use super::config::{MemberConfig, TownConfig};
use super::desk::{Pen, record};
use super::executor::Executor;
use crate::ids::{AgentId, DispatchId};
use crate::journal::{Actor, AppendError};
use crate::limits::{JOURNAL_APPEND_WAIT, JOURNAL_GROUP_RECORDS_MAX, TOWN_STOP_WAIT};
use crate::town::event::TownEvent;
use crate::town::state::Town;
use crate::town::words::{LostCause, Origin};

/// The events that make a town what its configuration says: pure. None where nothing differs.
pub(super) fn differences(town: &Town, config: &TownConfig) -> Vec<TownEvent> {
    let policy = &config.policy;
    let mut events = Vec::new();
    if !town.is_created() {
        events.push(TownEvent::TownCreated { policy: Box::new(policy.clone()) });
    } else if town.policy() != policy {
        events.push(TownEvent::PolicyChanged { policy: Box::new(policy.clone()) });
    }
    for (id, known) in town.agents() {
        let member = config.member(id);
        let gone = known.origin == Origin::Configured && member.is_none();
        let other = member.is_some_and(|member| !is(known, member));
        if gone || other {
            events.push(TownEvent::AgentRemoved { agent: id.clone() });
        }
    }
    for (id, member) in config.members() {
        if town.agents().get(id).is_none_or(|known| !is(known, member)) {
            events.push(registered(id, member, Origin::Configured));
        }
    }
    events
}

fn is(known: &crate::town::state::Agent, member: &MemberConfig) -> bool {
    known.origin == Origin::Configured && known.role == member.role && known.nudges == member.nudge.is_some()
}

/// That an agent joins as the configuration says.
fn registered(id: &AgentId, member: &MemberConfig, origin: Origin) -> TownEvent {
    let MemberConfig { role, nudge } = member;
    TownEvent::AgentRegistered { agent: id.clone(), role: *role, origin, nudges: nudge.is_some() }
}

/// What agents are told when nothing is heard of them.
pub(super) fn nudges(config: &TownConfig) -> BTreeMap<AgentId, String> {
    let of = |(id, member): (&AgentId, &MemberConfig)| Some((id.clone(), member.nudge.clone()?));
    config.members().filter_map(of).collect()
}

/// Gives back what an earlier plimsoll had handed to agents through its gateway: their requests ended with it. What hosts
/// such an agent and is still up is stopped before, so that nobody works on a bead that goes out again; where that cannot be
/// told in time, the bead stays with its agent until that counts as lost.
pub(super) async fn give_back(executor: &Arc<Executor>) {
    let held: Vec<_> = {
        let book = executor.cell.drained();
        let agents = book.town.agents().iter();
        let hooked = agents.filter_map(|(id, agent)| Some((id.clone(), agent.hook.as_ref()?)));
        let open = hooked.filter(|(_, hook)| hook.said.is_none() && hook.ended.is_none());
        open.map(|(id, hook)| (id, hook.dispatch_id.clone())).collect()
    };
    let ours = held.into_iter().filter(|(agent, _)| executor.gateway.has_agent(agent));
    join_all(ours.map(|(agent, dispatch_id)| give_one_back(executor, agent, dispatch_id))).await;
}

async fn give_one_back(executor: &Executor, agent: AgentId, dispatch_id: DispatchId) {
    let stopped = timeout(TOWN_STOP_WAIT, async {
        executor.gateway.instances().known(&agent).await;
        executor.stop_instance(&agent).await
    });
    let stopped = stopped.await.unwrap_or_else(|_| Err("it takes too long".to_owned()));
    match stopped {
        Ok(()) => {
            let lost = TownEvent::DispatchLost { dispatch_id, cause: LostCause::Restart };
            executor.tell(vec![lost]).await;
        }
        Err(error) => {
            tracing::warn!(source = "reconciler", town = %executor.cell.id, %agent, error, "what hosts an agent could not be stopped: it keeps its bead");
        }
    }
}

/// Appends what makes the town what its configuration says; nothing else writes to a town before it turns.
///
/// # Errors
/// The journal does not take it: what it took before stays.
pub(super) async fn apply(pen: &Pen, cell: &Arc<Cell>, config: &TownConfig) -> Result<(), AppendError> {
    let events = differences(&cell.drained().town, config);
    for some in events.chunks(JOURNAL_GROUP_RECORDS_MAX) {
        let records = some.iter().map(|event| record(event, Actor::System, None, None)).collect();
        let at = cell.drained().at;
        let appended = timeout(JOURNAL_APPEND_WAIT, pen.append(&cell.id, Some(at), records)).await;
        appended.unwrap_or(Err(AppendError::QueueFull))?;
    }
    cell.drain();
    Ok(())
}
