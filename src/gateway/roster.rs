//! The agents there are: read by every request, changed by an operator now and then.
//!
//! Who reads takes the list as it stands and waits for nobody. Who holds an agent may go on with it after it left:
//! [`Agent::still_there`] tells. Start at [`Roster`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;

use super::service::{Agent, Inner};
use super::{AgentConfig, Rejection};
use crate::ids::AgentId;
use crate::provider::{Hosting, Provider};

/// All agents at one moment, by id.
pub(super) type Agents = BTreeMap<AgentId, Arc<Agent>>;

/// See the module.
#[derive(Default)]
pub(super) struct Roster {
    agents: ArcSwap<Agents>,
}

impl Roster {
    pub(super) fn get(&self, agent: &AgentId) -> Option<Arc<Agent>> {
        self.agents.load().get(agent).cloned()
    }

    pub(super) fn contains(&self, agent: &AgentId) -> bool {
        self.agents.load().contains_key(agent)
    }

    /// All of them, as they are now.
    pub(super) fn all(&self) -> Arc<Agents> {
        self.agents.load_full()
    }

    /// Adds agents; one of the same id is replaced.
    pub(super) fn add(&self, more: Agents) {
        self.agents.rcu(|agents| {
            let mut agents = Agents::clone(agents);
            agents.extend(more.iter().map(|(id, agent)| (id.clone(), Arc::clone(agent))));
            agents
        });
    }

    /// Takes one off; `None` if it is not there (any more).
    pub(super) fn remove(&self, agent: &AgentId) -> Option<Arc<Agent>> {
        let before = self.agents.rcu(|agents| {
            let mut agents = Agents::clone(agents);
            agents.remove(agent);
            agents
        });
        before.get(agent).cloned()
    }
}

impl Agent {
    /// Asked by who looked it up before.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`] once it left.
    pub(super) fn still_there(&self, own: &AgentId) -> Result<(), Rejection> {
        if self.retired.load(Ordering::SeqCst) {
            return Err(Rejection::UnknownAgent { agent: own.clone() });
        }
        Ok(())
    }
}

impl Inner {
    /// The agent to send to.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`], or [`Rejection::NotStarted`] for one that does not fit the configuration.
    pub(super) fn agent(&self, id: &AgentId) -> Result<Arc<Agent>, Rejection> {
        self.agents.get(id).ok_or_else(|| self.nobody(id))
    }

    /// Makes an agent, with all that is kept by agent. It serves once it is on the roster.
    pub(super) fn make(&self, id: &AgentId, config: AgentConfig, provider: Arc<dyn Provider>) -> Arc<Agent> {
        let alone = (provider.hosting() == Hosting::Process).then_some(1);
        self.floor.cap_agent(id, config.max_concurrent.or(alone));
        self.meter.limit(id, &config);
        let asked = provider.asks(config.model.as_deref());
        self.recorder.live().expect_agent(id, asked.provider, asked.model, &config.tools);
        let metrics = self.metrics.of_agent(id, config.usd_per_day);
        Arc::new(Agent { config, provider, metrics, retired: false.into() })
    }
}
