//! What `towns:` may be, and what must fit together.

use std::collections::BTreeMap;

use super::problem::{KeyPath, nearest};
use super::validate::Checks;
use crate::gateway::AgentConfig;
use crate::ids::{AgentId, TownId};
use crate::limits::{TOWN_ID_BYTES_MAX, TOWN_NOTE_BYTES_MAX, TOWNS_MAX};
use crate::reconciler::{MemberConfig, TownConfig};

impl Checks<'_> {
    pub(super) fn towns(
        &mut self,
        towns: &BTreeMap<TownId, TownConfig>,
        agents: &BTreeMap<AgentId, AgentConfig>,
    ) {
        let root = KeyPath::of(&["towns"]);
        if towns.len() > TOWNS_MAX {
            self.wrong(&root, format!("expected at most {TOWNS_MAX} towns"));
        }
        let mut taken: BTreeMap<&AgentId, &TownId> = BTreeMap::new();
        for (town, config) in towns {
            let path = root.key(town.as_str());
            if town.as_str().len() > TOWN_ID_BYTES_MAX {
                self.wrong(&path, format!("a town's id has at most {TOWN_ID_BYTES_MAX} characters"));
            }
            let TownConfig { agents: members, policy } = config;
            if members.is_none() {
                self.wrong(
                    &path,
                    "another town has no key `agents` either: only one may leave it out, and has all others",
                );
            }
            for (agent, member) in config.members() {
                let path = path.key("agents").key(agent.as_str());
                self.member(&path, agent, member, agents);
                if let Some(other) = taken.insert(agent, town) {
                    self.wrong(
                        &path,
                        format!("it works in the town {other} already, and an agent works in one town only"),
                    );
                }
            }
            for problem in policy.problems() {
                let place = problem.key.split('.').fold(path.key("policy"), |path, key| path.key(key));
                self.wrong(&place, problem.rule);
            }
        }
    }

    fn member(
        &mut self,
        path: &KeyPath,
        id: &AgentId,
        member: &MemberConfig,
        agents: &BTreeMap<AgentId, AgentConfig>,
    ) {
        let MemberConfig { role: _, nudge } = member;
        // Also those that do not fit: one mistake is told once.
        let there = self.root.get(&KeyPath::of(&["agents", id.as_str()]).0).is_some();
        if !there && !agents.contains_key(id) {
            let near = nearest(id.as_str(), agents.keys().map(AgentId::as_str));
            let near = near.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
            self.wrong(path, format!("no such key under `agents:`{near}"));
        }
        if nudge.as_ref().is_some_and(|text| text.trim().is_empty() || text.len() > TOWN_NOTE_BYTES_MAX) {
            self.wrong(&path.key("nudge"), format!("expected 1 to {TOWN_NOTE_BYTES_MAX} bytes"));
        }
    }
}
