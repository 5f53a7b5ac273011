//! Where to look: what follows from a town's facts and is kept beside them, so that planning costs what is open and not
//! what is closed. Never written down; rebuilt when a town is restored.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Facts;
use super::agent::Agent;
use super::bead::{Bead, ClosedBead};
use crate::ids::{AgentId, BeadId, IdempotencyKey, Seq};
use crate::town::time::TownTime;
use crate::town::words::{AgentStatus, BeadStatus, Origin, Role};

/// The place of a bead in the queue of its role: the most urgent first, then the oldest.
pub(super) type Place = (u8, Seq, BeadId);

/// See the module. A set that is empty is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Indices {
    /// Beads that nothing but their back-off keeps from being dispatched.
    pub(super) queue: BTreeMap<Role, BTreeSet<Place>>,
    pub(super) status: BTreeMap<BeadStatus, BTreeSet<BeadId>>,
    /// Who waits for a bead.
    pub(super) blocks: BTreeMap<BeadId, BTreeSet<BeadId>>,
    /// Open beads whose parent it is.
    pub(super) children: BTreeMap<BeadId, BTreeSet<BeadId>>,
    pub(super) cancelling: BTreeSet<BeadId>,
    /// Beads that waited for one that failed.
    pub(super) doomed: BTreeSet<BeadId>,
    pub(super) hooked: BTreeMap<BeadId, BTreeSet<AgentId>>,
    pub(super) agents: BTreeMap<(AgentStatus, Role), BTreeSet<AgentId>>,
    /// Agents that joined while plimsoll ran and are idle, by since when.
    pub(super) collectable: BTreeSet<(TownTime, AgentId)>,
    pub(super) closed: BTreeSet<(Seq, BeadId)>,
    /// How many of these ended so.
    pub(super) ended: BTreeMap<BeadStatus, usize>,
    pub(super) keys: BTreeMap<Seq, (Arc<str>, IdempotencyKey)>,
    pub(super) text_bytes: usize,
}

impl Indices {
    pub(super) fn of(facts: &Facts) -> Self {
        let mut indices = Self::default();
        facts.beads.iter().for_each(|(id, bead)| indices.add_bead(id, bead));
        facts.agents.iter().for_each(|(id, agent)| indices.add_agent(id, agent));
        facts.closed.iter().for_each(|(id, closed)| indices.add_closed(id, closed));
        for (by, keys) in &facts.keys {
            indices.keys.extend(keys.iter().map(|(key, used)| (used.seq, (Arc::clone(by), key.clone()))));
        }
        indices
    }

    pub(super) fn add_bead(&mut self, id: &BeadId, bead: &Bead) {
        if bead.obstacle().is_none() {
            let place = (bead.work.priority, bead.created, id.clone());
            self.queue.entry(bead.work.role).or_default().insert(place);
        }
        self.status.entry(bead.status).or_default().insert(id.clone());
        for blocker in &bead.waits.blocked_by {
            self.blocks.entry(blocker.clone()).or_default().insert(id.clone());
        }
        if let Some(parent) = &bead.parent {
            self.children.entry(parent.clone()).or_default().insert(id.clone());
        }
        if bead.waits.cancel.is_some() {
            self.cancelling.insert(id.clone());
        }
        if bead.waits.failed_blocker.is_some() {
            self.doomed.insert(id.clone());
        }
        self.text_bytes += bead.text_bytes();
    }

    pub(super) fn remove_bead(&mut self, id: &BeadId, bead: &Bead) {
        if bead.obstacle().is_none() {
            let place = (bead.work.priority, bead.created, id.clone());
            take(&mut self.queue, &bead.work.role, &place);
        }
        take(&mut self.status, &bead.status, id);
        for blocker in &bead.waits.blocked_by {
            take(&mut self.blocks, blocker, id);
        }
        if let Some(parent) = &bead.parent {
            take(&mut self.children, parent, id);
        }
        self.cancelling.remove(id);
        self.doomed.remove(id);
        self.text_bytes = self.text_bytes.saturating_sub(bead.text_bytes());
    }

    pub(super) fn add_agent(&mut self, id: &AgentId, agent: &Agent) {
        self.agents.entry((agent.status, agent.role)).or_default().insert(id.clone());
        if let Some(hook) = &agent.hook {
            self.hooked.entry(hook.bead.clone()).or_default().insert(id.clone());
        }
        if let Some(since) = collectable_since(agent) {
            self.collectable.insert((since, id.clone()));
        }
    }

    pub(super) fn remove_agent(&mut self, id: &AgentId, agent: &Agent) {
        take(&mut self.agents, &(agent.status, agent.role), id);
        if let Some(hook) = &agent.hook {
            take(&mut self.hooked, &hook.bead, id);
        }
        if let Some(since) = collectable_since(agent) {
            self.collectable.remove(&(since, id.clone()));
        }
    }

    pub(super) fn add_closed(&mut self, id: &BeadId, closed: &ClosedBead) {
        self.closed.insert((closed.seq, id.clone()));
        *self.ended.entry(closed.status).or_default() += 1;
    }

    pub(super) fn remove_closed(&mut self, id: &BeadId, closed: &ClosedBead) {
        self.closed.remove(&(closed.seq, id.clone()));
        if let Entry::Occupied(mut count) = self.ended.entry(closed.status) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// After the moments of agents were changed.
    pub(super) fn renew_moments(&mut self, agents: &BTreeMap<AgentId, Agent>) {
        let idle = agents.iter().filter_map(|(id, agent)| Some((collectable_since(agent)?, id.clone())));
        self.collectable = idle.collect();
    }
}

fn collectable_since(agent: &Agent) -> Option<TownTime> {
    let idle =
        agent.origin != Origin::Configured && agent.status == AgentStatus::Idle && agent.hook.is_none();
    idle.then_some(agent.since)
}

/// Takes an entry out of a set, and the set out of the map once it is empty.
fn take<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, entry: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(entry);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
