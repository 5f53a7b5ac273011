//! Agents that come and go while plimsoll serves.
//!
//! Made is durable before it serves; deleted is durable before it ends. Who asked may go away in the middle: what was
//! begun is done. Start at [`Gateway::create_agent`] and [`Gateway::delete_agent`].

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::control::DELETED;
use super::made::{self, Deleted};
use super::record::{AGENT_CHANGES, MADE_AGENT_BYTES, MADE_AGENTS};
use super::roster::Agents;
use super::service::{Gateway, Inner};
use super::templates::OfTemplate;
use super::{AgentConfig, AgentSummary, Rejection};
use crate::ids::{AgentId, TemplateId};
use crate::journal::{Actor, AppendError};
use crate::lifecycle::{Configured, Unkept};
use crate::limits::{
    AGENT_CHANGE_WAIT, AGENT_CHANGES_AT_ONCE_MAX, AGENT_END_WAIT, AGENT_LEAVE_WAIT, MADE_AGENT_BYTES_MAX,
    MADE_AGENTS_MAX,
};
use crate::provider::Provider;

/// Reads an entry of `agents:` as the configuration would.
pub type ReadEntry = Arc<dyn Fn(&AgentId, &str) -> Result<AgentConfig, Vec<BadKey>> + Send + Sync>;

/// What is wrong with an entry of `agents:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadKey {
    /// The key, from the entry on; empty for the entry as a whole.
    pub key: String,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.key.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", self.key, self.problem)
    }
}

/// Why an agent was not made, or not deleted. Nothing has changed then, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is one of this id.
    #[error("there is an agent {agent} already, made over the API: delete it first, or choose another id")]
    Exists {
        /// The id.
        agent: AgentId,
    },
    /// It stands in the configuration.
    #[error(
        "the agent {agent} stands in the configuration: change the key `agents.{agent}` there, and restart plimsoll"
    )]
    Configured {
        /// The id.
        agent: AgentId,
    },
    /// The instance of the last one of this id still ends.
    #[error(
        "the agent {agent} was deleted, and its instance still ends: try again once it has (the log says what keeps \
         it), or choose another id"
    )]
    Leaving {
        /// The id.
        agent: AgentId,
    },
    /// There is no such template.
    #[error("there is no template {template} in the configuration: {}", list_templates(.known))]
    UnknownTemplate {
        /// What was asked for.
        template: TemplateId,
        /// Those there are.
        known: Vec<TemplateId>,
    },
    /// There is none of this id.
    #[error("there is no agent {agent}: `plimsoll agents` names those there are")]
    Unknown {
        /// The id.
        agent: AgentId,
    },
    /// The entry is not what the configuration would take.
    #[error("{}", list(.0))]
    Invalid(Vec<BadKey>),
    /// The entry is longer than one may be.
    #[error(
        "the entry is longer than {MADE_AGENT_BYTES_MAX} bytes: shorten it, or put the agent into the configuration"
    )]
    TooLong,
    /// There are as many as may be made.
    #[error(
        "{MADE_AGENTS_MAX} agents were made over the API, which is as many as are kept: delete one, or put some into the configuration"
    )]
    TooMany,
    /// Others wait already.
    #[error(
        "{AGENT_CHANGES_AT_ONCE_MAX} agents are being made and deleted, which is as many as may be at once: nothing \
         was changed, try again later"
    )]
    Busy,
    /// The journal cannot write.
    #[error(
        "the journal cannot write now, and this must be in it first: nothing was changed, try again later"
    )]
    Journal,
    /// It takes longer than anybody waits.
    #[error(
        "this is not done yet, since the journal does not answer or another change comes first: it is done once it \
         can be, unless plimsoll ends before; look at `plimsoll agents` later"
    )]
    Late,
    /// plimsoll ends.
    #[error("plimsoll is shutting down: ask the next one")]
    ShuttingDown,
}

/// Whether an agent may be made that lives beside plimsoll, from where it could call it like anybody on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Callers from the network need a token.
    Allowed,
    /// They need none.
    Refused,
}

/// What a deletion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Requests that were cancelled.
    pub cancelled: usize,
}

/// What an agent is made of.
pub(super) enum Entry {
    /// An entry of `agents:`, in JSON.
    Text(String),
    /// A template of the configuration.
    Template(OfTemplate),
}

/// Those there are.
fn list_templates(known: &[TemplateId]) -> String {
    if known.is_empty() {
        return "there is none under `templates:`".to_owned();
    }
    let names: Vec<_> = known.iter().take(20).map(TemplateId::as_str).collect();
    format!("`templates:` has {}", names.join(", "))
}

/// The first of them, as one sentence.
fn list(bad: &[BadKey]) -> String {
    bad.iter().take(10).map(BadKey::to_string).collect::<Vec<_>>().join("; ")
}

impl Gateway {
    /// Makes an agent of an entry as it would stand under `agents:`, in JSON.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn create_agent(
        &self,
        actor: Actor,
        id: AgentId,
        entry: String,
        beside: Beside,
    ) -> Result<AgentSummary, ChangeError> {
        if entry.len() > MADE_AGENT_BYTES_MAX {
            self.inner.recorder.limit_hit(MADE_AGENT_BYTES);
            return Err(ChangeError::TooLong);
        }
        let (inner, agent) = (Arc::clone(&self.inner), id.clone());
        self.change(async move { inner.create(&actor, &agent, Entry::Text(entry), beside).await }).await?;
        let made = self.agents().into_iter().find(|agent| agent.id == id);
        // Somebody may have deleted it right away.
        made.ok_or(ChangeError::Unknown { agent: id })
    }

    /// Deletes an agent that was made over the API: refuses what is new, cancels what is under way, and forgets it.
    /// Its instance is waited for a little, and ends by itself.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn delete_agent(&self, actor: Actor, id: AgentId) -> Result<Deletion, ChangeError> {
        let inner = Arc::clone(&self.inner);
        let (deletion, leaving) = self.change(async move { inner.delete(&actor, &id).await }).await?;
        if let Some(leaving) = leaving {
            // Over or not: who makes one of this id at once should seldom be refused.
            let _ = tokio::time::timeout(AGENT_LEAVE_WAIT, leaving).await;
        }
        Ok(deletion)
    }

    /// Brings back the agents that were made over the API; to be called once the journal is open, and before the
    /// instances are.
    pub async fn call_up(&self) {
        self.inner.call_up().await;
    }

    /// Begins with the instances of its agents; to be called once the journal is open and the agents are called up, and
    /// before anything is served.
    ///
    /// # Errors
    /// [`Unkept`] for an instance that cannot be hosted.
    pub async fn open_instances(&self) -> Result<(), Unkept> {
        let agents = self.inner.agents.all();
        let configured = agents.iter().filter_map(|(id, agent)| {
            let config = agent.config.instance.clone()?;
            Some((id.clone(), Configured { config, cwd: agent.config.cwd.clone() }))
        });
        // Those that do not fit the configuration now are not gone.
        let known = self.inner.made.unfit().into_iter().map(|(id, ..)| id).collect();
        self.inner.instances.open(configured, &known).await
    }

    fn place_among_changers(&self) -> Result<OwnedSemaphorePermit, ChangeError> {
        Arc::clone(&self.inner.changers).try_acquire_owned().map_err(|_| {
            self.inner.recorder.limit_hit(AGENT_CHANGES);
            ChangeError::Busy
        })
    }

    /// Owns the work: it goes on when nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let begun = self.begin_change(work)?;
        tokio::time::timeout(AGENT_CHANGE_WAIT, begun).await.unwrap_or(Err(ChangeError::Late))
    }

    /// The same, for who waits for its end.
    pub(super) fn begin_change<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
    ) -> Result<impl Future<Output = Result<T, ChangeError>>, ChangeError> {
        let place = self.place_among_changers()?;
        let task = self.inner.changes.spawn(async move {
            let _place = place;
            work.await
        });
        Ok(async {
            match task.await {
                Ok(done) => done,
                Err(lost) => match lost.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_cut) => Err(ChangeError::ShuttingDown),
                },
            }
        })
    }
}

impl Inner {
    pub(super) async fn create(
        &self,
        actor: &Actor,
        id: &AgentId,
        entry: Entry,
        beside: Beside,
    ) -> Result<(), ChangeError> {
        let _one_at_a_time = self.changing.lock().await;
        self.may_create(id)?;
        let (config, kept) = match entry {
            Entry::Text(entry) => {
                let config = (self.read_entry)(id, &entry).map_err(ChangeError::Invalid)?;
                let kept = json!(config);
                (config, kept)
            }
            Entry::Template(of) => {
                let config = self.template(&of.template)?;
                self.check_port(&config)?;
                (config, json!(of))
            }
        };
        let provider = self.providers.get(&config.provider).map(Arc::clone).ok_or_else(|| {
            let problem = "no such key under `providers:`".to_owned();
            ChangeError::Invalid(vec![BadKey { key: "provider".to_owned(), problem }])
        })?;
        if beside == Beside::Refused && config.is_beside() {
            let problem = "it could call plimsoll like anybody on this machine: make a token first (`plimsoll token \
                           new`), so that callers from the network need one";
            let bad = BadKey { key: "instance".to_owned(), problem: problem.to_owned() };
            return Err(ChangeError::Invalid(vec![bad]));
        }
        let hosted = hosted(&config).map_err(|bad| ChangeError::Invalid(vec![bad]))?;
        if self.instances.remembers(id) {
            // What was counted of an earlier one is not its own.
            self.instances.erase(id, actor.clone()).await.map_err(not_written)?;
        }
        made::write_created(self.recorder.journal(), actor, id, &kept).await.map_err(not_written)?;
        self.begin(id, config, provider, hosted);
        tracing::info!(source = "agent.roster", %actor, agent = %id, "an agent was made");
        Ok(())
    }

    /// Has it serve, now that it is durable.
    fn begin(
        &self,
        id: &AgentId,
        config: AgentConfig,
        provider: Arc<dyn Provider>,
        hosted: Option<Configured>,
    ) {
        // Meanwhile plimsoll may have begun to end: no instance starts behind the last stop.
        let hosted = hosted.filter(|_| self.floor.is_open());
        if let Some(Err(error)) = hosted.map(|hosted| self.instances.add(id, &hosted)) {
            self.set_aside(id, error.problem);
            return;
        }
        self.metrics.show(id, config.usd_per_day);
        let agent = self.make(id, config, provider);
        self.agents.add(Agents::from([(id.clone(), agent)]));
    }

    fn may_create(&self, id: &AgentId) -> Result<(), ChangeError> {
        if !self.floor.is_open() {
            return Err(ChangeError::ShuttingDown);
        }
        if self.made.contains(id) {
            return Err(ChangeError::Exists { agent: id.clone() });
        }
        if self.agents.contains(id) {
            return Err(ChangeError::Configured { agent: id.clone() });
        }
        if self.leaving.contains(id) {
            return Err(ChangeError::Leaving { agent: id.clone() });
        }
        if self.made.count() + self.leaving.count() >= MADE_AGENTS_MAX {
            self.recorder.limit_hit(MADE_AGENTS);
            return Err(ChangeError::TooMany);
        }
        Ok(())
    }

    async fn delete(
        self: &Arc<Self>,
        actor: &Actor,
        id: &AgentId,
    ) -> Result<(Deletion, Option<JoinHandle<()>>), ChangeError> {
        let _one_at_a_time = self.changing.lock().await;
        if !self.floor.is_open() {
            return Err(ChangeError::ShuttingDown);
        }
        if !self.made.contains(id) {
            let agent = id.clone();
            let configured = self.agents.contains(id);
            return Err(if configured {
                ChangeError::Configured { agent }
            } else {
                ChangeError::Unknown { agent }
            });
        }
        let has_instance = self.agents.get(id).is_some_and(|agent| agent.config.instance.is_some());
        let hosted = has_instance || self.made.is_hosted(id) || self.instances.remembers(id);
        let deleted = Deleted { agent: id.clone(), configured: false };
        made::write_deleted(self.recorder.journal(), actor, &deleted).await.map_err(not_written)?;
        let cancelled = self.retire(id).await;
        let leaving = hosted.then(|| self.see_off(actor.clone(), id.clone()));
        self.forget(id);
        tracing::info!(source = "agent.roster", %actor, agent = %id, cancelled, "an agent was deleted");
        Ok((Deletion { cancelled }, leaving))
    }

    /// Takes an agent off the roster and ends what it has under way; how many requests that was.
    async fn retire(&self, id: &AgentId) -> usize {
        let Some(agent) = self.agents.remove(id) else { return 0 };
        // Who looked it up before and stands on the floor only after this is refused there.
        agent.retired.store(true, Ordering::SeqCst);
        let cancelled = self.floor.cancel_of(std::slice::from_ref(id), DELETED);
        if tokio::time::timeout(AGENT_END_WAIT, self.floor.emptied(id)).await.is_err() {
            tracing::warn!(source = "agent.roster", agent = %id, "a deleted agent's requests take their time to end");
        }
        cancelled
    }

    /// Forgets what is kept by agent. What it spent stays: a budget is not got around by making it again, and what was
    /// sent with an idempotency key does not run twice.
    fn forget(&self, id: &AgentId) {
        self.made.forget(id);
        self.floor.forget_agent(id);
        self.sessions().forget_agent(id);
        self.meter.retire(id, |other| self.agents.contains(other));
        self.recorder.live().forget_agent(id);
        self.metrics.hide(id);
    }

    async fn call_up(&self) {
        let _one_at_a_time = self.changing.lock().await;
        let mut back = Agents::new();
        for (id, entry) in self.made.entries() {
            if self.agents.contains(&id) {
                self.give_way(&id).await;
                continue;
            }
            let read = match OfTemplate::of(&entry) {
                Some(of) => self.template(&of.template).map_err(|unknown| unknown.to_string()),
                None => (self.read_entry)(&id, &entry.to_string()).map_err(|bad| list(&bad)),
            };
            let fits = read.and_then(|config| match hosted(&config) {
                Ok(_) => Ok(config),
                Err(bad) => Err(bad.to_string()),
            });
            match fits.map(|config| (self.providers.get(&config.provider).map(Arc::clone), config)) {
                Ok((Some(provider), config)) => {
                    let agent = self.make(&id, config, provider);
                    back.insert(id, agent);
                }
                Ok((None, _)) => self.set_aside(&id, "provider: no such key under `providers:`".to_owned()),
                Err(why) => self.set_aside(&id, why),
            }
        }
        self.agents.add(back);
    }

    fn set_aside(&self, id: &AgentId, why: String) {
        tracing::warn!(
            source = "agent.roster",
            agent = %id,
            cause = why,
            "an agent that was made over the API does not fit the configuration and takes no messages"
        );
        self.made.set_unfit(id, why);
    }

    /// The configuration has an agent of this id: the one that was made is no more.
    async fn give_way(&self, id: &AgentId) {
        tracing::warn!(
            source = "agent.roster",
            agent = %id,
            "the configuration has an agent of this id, so the one that was made over the API is forgotten"
        );
        let deleted = Deleted { agent: id.clone(), configured: true };
        let written = made::write_deleted(self.recorder.journal(), &Actor::System, &deleted);
        // Where it cannot be written, the next start says the same again.
        let _ = tokio::time::timeout(AGENT_CHANGE_WAIT, written).await;
        self.made.forget(id);
    }

    /// Why there is nobody of this id to send to.
    pub(super) fn nobody(&self, id: &AgentId) -> Rejection {
        match self.made.why_unfit(id) {
            None => Rejection::UnknownAgent { agent: id.clone() },
            Some(why) => {
                let cause = format!(
                    "the agent {id} was made over the API and does not fit the configuration ({why}): put that right \
                     and restart plimsoll, or delete the agent"
                );
                Rejection::NotStarted { cause, reason: Some("unfit"), retry_after: None }
            }
        }
    }
}

/// What hosts an agent, checked.
fn hosted(config: &AgentConfig) -> Result<Option<Configured>, BadKey> {
    let Some(instance) = config.instance.clone() else { return Ok(None) };
    let configured = Configured { config: instance, cwd: config.cwd.clone() };
    configured.check().map_err(|problem| BadKey { key: "instance".to_owned(), problem })?;
    Ok(Some(configured))
}

fn not_written(error: AppendError) -> ChangeError {
    match error {
        AppendError::Invalid(problem) => {
            ChangeError::Invalid(vec![BadKey { key: String::new(), problem: problem.to_string() }])
        }
        AppendError::QueueFull
        | AppendError::Unavailable(_)
        | AppendError::Closed
        | AppendError::Conflict { .. } => ChangeError::Journal,
    }
}
