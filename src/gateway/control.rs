//! What an operator does with agents, and the two moments at which a request asks whether it may go on.

use tokio::sync::watch;

use super::meter::{Place, Spending};
use super::pauses::Whom;
use super::service::{Gateway, Inner};
use super::{Rejection, UsageQuery, UsageReport};
use crate::ids::AgentId;
use crate::journal::Actor;

/// Why what an agent had under way was cancelled when it was paused.
const PAUSED: &str = "its agent was paused";

/// The same when it was deleted.
pub(super) const DELETED: &str = "its agent was deleted";

/// The reasons of [`Rejection::Cancelled`] where the agent itself was taken away from its work.
pub const AGENT_WITHDRAWN: [&str; 2] = [PAUSED, DELETED];

/// What a pause or its end did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controlled {
    /// The agents for which it was a change.
    pub changed: Vec<AgentId>,
    /// Requests that were cancelled.
    pub cancelled: usize,
    /// Whether it is known to outlive a restart.
    pub durable: bool,
}

/// What becomes of the requests of an agent that is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// What runs may end; what waits is refused when its turn comes.
    Finish,
    /// They are cancelled, also those of an agent that was paused before.
    Cancel,
}

impl Inner {
    /// Whether a request may come in: its agent's pause, budgets and rates.
    pub(super) fn ask(&self, agent: &AgentId) -> Result<Place, Rejection> {
        self.pauses.check(agent)?;
        self.meter.arrive(agent)
    }

    /// Whether it may run, now that its turn has come.
    pub(super) fn ask_again(&self, agent: &AgentId) -> Result<(), Rejection> {
        self.pauses.check(agent)?;
        self.meter.take_turn(agent)
    }
}

impl Gateway {
    /// Stops new work of one agent, or of all, those included that come later. It holds from the call on, whatever the
    /// journal does; [`Controlled::durable`] tells whether that took it.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`].
    pub async fn pause(
        &self,
        actor: Actor,
        agent: Option<AgentId>,
        under_way: UnderWay,
    ) -> Result<Controlled, Rejection> {
        let all = agent.is_none();
        let agents = self.named(agent)?;
        let inner = &self.inner;
        let whom = Whom { agents: &agents, all };
        let held = inner.pauses.hold(whom);
        let cancelled = match under_way {
            UnderWay::Finish => 0,
            UnderWay::Cancel => inner.floor.cancel_of(&agents, PAUSED),
        };
        if !held.changed.is_empty() || cancelled > 0 {
            tracing::info!(source = "agent.pause", %actor, agents = %list(&agents), cancelled, "agents were paused");
        }
        let durable = inner.pauses.write(inner.recorder.journal(), &actor, whom, &held).await;
        Ok(Controlled { changed: held.changed, cancelled, durable })
    }

    /// Takes new work again, for one agent or for all that are paused. Durable before it takes effect.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`], or [`Rejection::JournalUnavailable`]: nothing has changed then.
    pub async fn resume(&self, actor: Actor, agent: Option<AgentId>) -> Result<Controlled, Rejection> {
        let all = agent.is_none();
        let agents = self.named(agent)?;
        let inner = &self.inner;
        let whom = Whom { agents: &agents, all };
        let changed = inner.pauses.resume(inner.recorder.journal(), &actor, whom).await?;
        inner.resumed.send_modify(|ends| *ends += 1);
        if !changed.is_empty() {
            tracing::info!(source = "agent.pause", %actor, agents = %list(&changed), "agents were resumed");
        }
        Ok(Controlled { changed, cancelled: 0, durable: true })
    }

    /// Changes when a pause ended and agents take work again.
    #[must_use]
    pub fn resumes(&self) -> watch::Receiver<u64> {
        self.inner.resumed.subscribe()
    }

    /// Why an agent takes no work now; `None` if it does. Nothing is counted as asked.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`].
    pub fn unusable(&self, agent: &AgentId) -> Result<Option<Rejection>, Rejection> {
        let inner = &self.inner;
        match inner.agent(agent) {
            Err(unknown @ Rejection::UnknownAgent { .. }) => Err(unknown),
            Err(unfit) => Ok(Some(unfit)),
            // A place that is not kept is given back.
            Ok(_) => Ok(inner.ask(agent).map(drop).err()),
        }
    }

    /// What agents used, as far as the journal holds it: who wants the last of it waits for the journal first.
    ///
    /// # Errors
    /// [`Rejection::UnknownAgent`], for one that is neither configured nor was ever used.
    pub fn usage(&self, query: &UsageQuery) -> Result<UsageReport, Rejection> {
        let inner = &self.inner;
        match &query.agent {
            Some(agent) if !inner.agents.contains(agent) && !inner.meter.knows(agent) => {
                Err(Rejection::UnknownAgent { agent: agent.clone() })
            }
            Some(_) | None => Ok(inner.meter.report(query)),
        }
    }

    fn named(&self, agent: Option<AgentId>) -> Result<Vec<AgentId>, Rejection> {
        let known = self.inner.agents.all();
        match agent {
            None => Ok(known.keys().cloned().collect()),
            Some(agent) if known.contains_key(&agent) => Ok(vec![agent]),
            Some(agent) => Err(Rejection::UnknownAgent { agent }),
        }
    }
}

impl Inner {
    /// Brings the gauges of spending and pauses up to date.
    pub(super) fn refresh_control_gauges(&self) {
        let agents = self.agents.all();
        let paused = agents.keys().filter(|agent| self.pauses.is_paused(agent)).count();
        self.metrics.paused.set(paused as f64);
        for (id, agent) in &*agents {
            let Spending { usd, budget } = self.meter.spending(id);
            agent.metrics.spend.iter().for_each(|gauge| gauge.set(usd));
            agent.metrics.budget.iter().zip(budget).for_each(|(gauge, budget)| gauge.set(budget));
        }
    }
}

fn list(agents: &[AgentId]) -> String {
    agents.iter().map(AgentId::as_str).collect::<Vec<_>>().join(", ")
}
