//! The configuration key `towns:`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, TownId};
use crate::town::Policy;
use crate::town::words::Role;

/// One entry of `towns:`, keyed by the town's id.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TownConfig {
    /// Who works there; each works in one town only. One town may leave it out: there all work whom no other town names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<BTreeMap<AgentId, MemberConfig>>,
    /// What the planner decides by.
    pub policy: Policy,
}

impl TownConfig {
    /// Who works there, as far as that was said or [settled](settle).
    pub fn members(&self) -> impl Iterator<Item = (&AgentId, &MemberConfig)> {
        self.agents.iter().flatten()
    }

    /// One of them.
    #[must_use]
    pub fn member(&self, agent: &AgentId) -> Option<&MemberConfig> {
        self.agents.as_ref()?.get(agent)
    }
}

/// Lets the one town that does not say who works there have whom no other town names. Where more than one leaves it out,
/// nothing changes.
pub fn settle<'a>(towns: &mut BTreeMap<TownId, TownConfig>, agents: impl Iterator<Item = &'a AgentId>) {
    let taken: BTreeSet<AgentId> =
        towns.values().flat_map(TownConfig::members).map(|(id, _)| id.clone()).collect();
    let mut open: Vec<_> = towns.values_mut().filter(|town| town.agents.is_none()).collect();
    if let [town] = open.as_mut_slice() {
        let rest = agents.filter(|id| !taken.contains(id));
        town.agents = Some(rest.map(|id| (id.clone(), MemberConfig::default())).collect());
    }
}

/// An agent in a town.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemberConfig {
    /// What it is there for; a worker if nothing is said.
    pub role: Role,
    /// What it is told when nothing is heard of it for long, in a session of its own; without it nobody nudges it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nudge: Option<String>,
}
