//! Agents that towns make of the templates of the configuration.
//!
//! What such an agent is stands in the configuration: of it are kept only the names of its template and of its town, so that
//! the journal holds no variables and no commands, and the next start reads them anew. Start at
//! [`Gateway::make_of_template`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::changes::Entry;
use super::service::{Gateway, Inner};
use super::{AgentConfig, BadKey, Beside, ChangeError};
use crate::ids::{AgentId, TemplateId, TownId};
use crate::journal::Actor;
use crate::lifecycle::InstanceConfig;

/// `templates:`.
pub(super) type Templates = BTreeMap<TemplateId, AgentConfig>;

/// What is kept of an agent in the place of an entry, which never has these two keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OfTemplate {
    pub(super) template: TemplateId,
    /// The town that made it.
    pub(super) town: TownId,
}

impl OfTemplate {
    /// What is kept, if that is of a template.
    pub(super) fn of(kept: &Value) -> Option<Self> {
        Self::deserialize(kept).ok()
    }
}

/// An agent for a town.
#[derive(Debug, Clone)]
pub struct NewMember {
    /// Its id.
    pub agent: AgentId,
    /// The town that makes it.
    pub town: TownId,
    /// What it is made of.
    pub template: TemplateId,
    /// Whether it may live beside plimsoll.
    pub beside: Beside,
}

impl Gateway {
    /// Makes an agent of a template of the configuration, for a town: durable once this returns. Waits for as long as it
    /// takes.
    ///
    /// # Errors
    /// See [`ChangeError`]: never [`ChangeError::Late`].
    pub async fn make_of_template(&self, actor: Actor, member: NewMember) -> Result<(), ChangeError> {
        let NewMember { agent, town, template, beside } = member;
        let inner = Arc::clone(&self.inner);
        let entry = Entry::Template(OfTemplate { template, town });
        self.begin_change(async move { inner.create(&actor, &agent, entry, beside).await })?.await
    }

    /// Whether this agent was made for this town and is not deleted.
    #[must_use]
    pub fn is_made_for(&self, town: &TownId, agent: &AgentId) -> bool {
        self.inner.made.entry(agent).and_then(|kept| OfTemplate::of(&kept)).is_some_and(|of| of.town == *town)
    }

    /// The agents that were made for towns and are not deleted.
    #[must_use]
    pub fn made_for_towns(&self) -> BTreeMap<TownId, BTreeSet<AgentId>> {
        let mut towns = BTreeMap::<TownId, BTreeSet<AgentId>>::new();
        for (agent, kept) in self.inner.made.entries() {
            if let Some(OfTemplate { town, .. }) = OfTemplate::of(&kept) {
                towns.entry(town).or_default().insert(agent);
            }
        }
        towns
    }
}

impl Inner {
    /// What an agent of a template is.
    pub(super) fn template(&self, id: &TemplateId) -> Result<AgentConfig, ChangeError> {
        let found = self.templates.get(id).cloned();
        found.ok_or_else(|| ChangeError::UnknownTemplate {
            template: id.clone(),
            known: self.templates.keys().cloned().collect(),
        })
    }

    /// Two processes cannot answer on one port: a template with a process is for one agent at a time.
    pub(super) fn check_port(&self, config: &AgentConfig) -> Result<(), ChangeError> {
        let port_of = |config: &AgentConfig| match &config.instance {
            Some(InstanceConfig { port, process: Some(_), .. }) => Some(*port),
            Some(_) | None => None,
        };
        let Some(port) = port_of(config) else { return Ok(()) };
        let agents = self.agents.all();
        match agents.iter().find(|(_, other)| port_of(&other.config) == Some(port)) {
            None => Ok(()),
            Some((other, _)) => {
                let problem = format!(
                    "the process of agent {other} answers on port {port} already: remove that agent, or give the \
                     template a container"
                );
                Err(ChangeError::Invalid(vec![BadKey { key: String::new(), problem }]))
            }
        }
    }
}
