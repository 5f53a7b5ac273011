//! The state of a town: a fold over its events, and where to look in it.
//!
//! There is one way to change it, [`Town::apply`], which is total: it never panics, and an event that does not hold is
//! [`Rejected`] and changes nothing. Start there; what is kept of each thing stands in `agent` and `bead`.

mod agent;
mod apply;
mod bead;
mod index;
mod rejected;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::time::TownTime;
use super::words::{AgentStatus, BeadStatus, Entity, Role};
use crate::clock::Timestamp;
use crate::ids::{AgentId, BeadId, DispatchId, IdempotencyKey, Seq};
use crate::limits::TOWN_KEY_AGE_MAX;
use index::Indices;

pub use agent::{Agent, ContainerSeen, Ended, Hook, Said};
pub use bead::{Bead, ClosedBead, Hold, Looks, Progress, Tries, Waits, Work};
pub use rejected::Rejected;
pub use snapshot::{SNAPSHOT_VERSION, StateHash};

/// A town as its events made it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Town {
    facts: Facts,
    indices: Indices,
}

/// What a snapshot keeps. A fact that an earlier plimsoll did not write is as in a town that begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Facts {
    /// The last event taken in.
    seq: Seq,
    /// Its time.
    time: Timestamp,
    /// What the town's clock leaves out, in milliseconds.
    skipped_ms: u64,
    created: bool,
    #[serde(deserialize_with = "Policy::of_snapshot")]
    policy: Policy,
    agents: BTreeMap<AgentId, Agent>,
    /// Those that have not ended.
    beads: BTreeMap<BeadId, Bead>,
    closed: BTreeMap<BeadId, ClosedBead>,
    /// Of convoys that have not ended.
    convoys: BTreeMap<BeadId, Progress>,
    draining: Option<Hold>,
    breaker: Breaker,
    episodes: BTreeMap<Arc<str>, Episode>,
    keys: BTreeMap<Arc<str>, BTreeMap<IdempotencyKey, KeyUse>>,
    counts: Counts,
}

/// What stops dispatching when everything fails.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// If it is open, how it stands.
    pub open: Option<OpenBreaker>,
    /// When an attempt of a bead last failed; the latest ones, no more beads than open it.
    pub failures: BTreeMap<BeadId, TownTime>,
}

/// A breaker that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBreaker {
    /// Since when, or since when the last probe failed.
    pub since: TownTime,
    /// The dispatch that tries whether things go well again.
    pub probe: Option<DispatchId>,
    /// Whether one went well.
    pub probed_well: bool,
}

/// A violation that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// The number of the invariant.
    pub invariant: u8,
    /// Where it does not hold.
    pub entities: BTreeSet<Entity>,
    /// What is wrong.
    pub message: Arc<str>,
    /// Since when.
    pub since: TownTime,
    /// The event that opened it.
    pub seq: Seq,
}

/// A report that came in with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// The event that it became.
    pub seq: Seq,
    /// When, in journal time: whoever reports has no other.
    pub time: Timestamp,
    /// The SHA-256 of what was sent.
    pub body: Arc<str>,
    /// The bead that it made, if it made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<BeadId>,
}

/// What is only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Answers to a dispatch that is no longer the agent's.
    pub ignored: u64,
    /// Events that `event_rejected` tells of.
    pub rejected: u64,
    /// The last of those: what was rejected up to it was told.
    pub rejected_last: Seq,
}

impl Town {
    /// The last event taken in; 0 before the first.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.facts.seq
    }

    /// The time of the last event taken in.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.facts.time
    }

    /// The town's clock at this moment of journal time.
    #[must_use]
    pub fn clock(&self, at: Timestamp) -> TownTime {
        let latest = at.max(self.facts.time);
        TownTime::from_millis(latest.as_millis().saturating_sub(self.facts.skipped_ms))
    }

    /// Whether there is a town at all.
    #[must_use]
    pub fn is_created(&self) -> bool {
        self.facts.created
    }

    /// What it decides by.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.facts.policy
    }

    /// Decides by another policy, to ask "what if". The state then follows from no events.
    pub fn suppose(&mut self, policy: Policy) {
        self.facts.policy = policy;
    }

    /// Every agent.
    #[must_use]
    pub fn agents(&self) -> &BTreeMap<AgentId, Agent> {
        &self.facts.agents
    }

    /// Every bead that has not ended.
    #[must_use]
    pub fn beads(&self) -> &BTreeMap<BeadId, Bead> {
        &self.facts.beads
    }

    /// Beads that ended, the latest ones.
    #[must_use]
    pub fn closed(&self) -> &BTreeMap<BeadId, ClosedBead> {
        &self.facts.closed
    }

    /// How many beads are so; of those that ended, the latest are counted.
    #[must_use]
    pub fn bead_count(&self, status: BeadStatus) -> usize {
        let open = self.indices.status.get(&status).map_or(0, BTreeSet::len);
        open + self.indices.ended.get(&status).copied().unwrap_or_default()
    }

    /// How many agents are so.
    #[must_use]
    pub fn agent_count(&self, status: AgentStatus) -> usize {
        let of_roles = self.indices.agents.iter().filter(|((of, _), _)| *of == status);
        of_roles.map(|(_, agents)| agents.len()).sum()
    }

    /// How far each convoy is that has not ended.
    #[must_use]
    pub fn convoys(&self) -> &BTreeMap<BeadId, Progress> {
        &self.facts.convoys
    }

    /// If nothing is to be dispatched, since when and why.
    #[must_use]
    pub fn draining(&self) -> Option<&Hold> {
        self.facts.draining.as_ref()
    }

    /// What stops dispatching when everything fails.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.facts.breaker
    }

    /// Violations that are open.
    pub fn episodes(&self) -> impl Iterator<Item = &Episode> {
        self.facts.episodes.values()
    }

    /// What is only counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.facts.counts
    }

    /// What became of a report with this key, if it came within the last 24 h and is among the latest 100,000.
    #[must_use]
    pub fn reported(&self, by: &str, key: &IdempotencyKey, now: Timestamp) -> Option<&KeyUse> {
        let used = self.facts.keys.get(by)?.get(key)?;
        (now.since(used.time) <= TOWN_KEY_AGE_MAX).then_some(used)
    }

    /// Beads for agents of this role that nothing but their back-off keeps waiting: the most urgent first, then the
    /// oldest.
    pub fn queue(&self, role: Role) -> impl Iterator<Item = (&BeadId, &Bead)> {
        let places = self.indices.queue.get(&role).into_iter().flatten();
        self.of(places.map(|(_, _, id)| id))
    }

    /// Beads of a status.
    pub fn beads_that_are(&self, status: BeadStatus) -> impl Iterator<Item = (&BeadId, &Bead)> {
        self.of(self.indices.status.get(&status).into_iter().flatten())
    }

    /// Beads that end once the agents that hold them are told to stop.
    pub fn cancelling(&self) -> impl Iterator<Item = (&BeadId, &Bead)> {
        self.of(self.indices.cancelling.iter())
    }

    /// Beads that waited for one that failed.
    pub fn doomed(&self) -> impl Iterator<Item = (&BeadId, &Bead)> {
        self.of(self.indices.doomed.iter())
    }

    /// Beads that wait for this one.
    pub fn blocked_by(&self, bead: &BeadId) -> impl Iterator<Item = (&BeadId, &Bead)> {
        self.of(self.indices.blocks.get(bead).into_iter().flatten())
    }

    /// Open beads that belong to this one: of a convoy its tasks, of a task its reviews, of both their escalations.
    pub fn children(&self, bead: &BeadId) -> impl Iterator<Item = (&BeadId, &Bead)> {
        self.of(self.indices.children.get(bead).into_iter().flatten())
    }

    /// Who is hooked to this bead.
    pub fn hooked_to(&self, bead: &BeadId) -> impl Iterator<Item = (&AgentId, &Agent)> {
        self.agents_of(self.indices.hooked.get(bead).into_iter().flatten())
    }

    /// Beads that somebody is hooked to, whether there are such or not.
    pub fn hooked(&self) -> impl Iterator<Item = &BeadId> {
        self.indices.hooked.keys()
    }

    /// Agents of a status and a role.
    pub fn agents_that_are(
        &self,
        status: AgentStatus,
        role: Role,
    ) -> impl Iterator<Item = (&AgentId, &Agent)> {
        self.agents_of(self.indices.agents.get(&(status, role)).into_iter().flatten())
    }

    /// Agents that joined while plimsoll ran and are idle, the longest idle first.
    pub fn collectable(&self) -> impl Iterator<Item = (&AgentId, &Agent)> {
        self.agents_of(self.indices.collectable.iter().map(|(_, id)| id))
    }

    /// The agent whose current dispatch this is.
    #[must_use]
    pub fn holder(&self, dispatch: &DispatchId) -> Option<(&AgentId, &Agent)> {
        let holds = |agent: &Agent| agent.hook.as_ref().is_some_and(|hook| hook.dispatch_id == *dispatch);
        self.hooked_to(dispatch.bead()).find(|(_, agent)| holds(agent))
    }

    fn of<'a>(
        &'a self,
        ids: impl Iterator<Item = &'a BeadId>,
    ) -> impl Iterator<Item = (&'a BeadId, &'a Bead)> {
        ids.filter_map(|id| self.facts.beads.get_key_value(id))
    }

    fn agents_of<'a>(
        &'a self,
        ids: impl Iterator<Item = &'a AgentId>,
    ) -> impl Iterator<Item = (&'a AgentId, &'a Agent)> {
        ids.filter_map(|id| self.facts.agents.get_key_value(id))
    }
}
