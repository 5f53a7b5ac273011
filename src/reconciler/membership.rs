//! Agents that a town makes of a template when they join, and that are deleted again when they leave.
//!
//! The gateway keeps for which town it made an agent, and the town keeps of which template: what one of the two lacks,
//! because a kill came in between or the journal would not write, is taken back in the other. So it is both, or neither.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::cell::Cell;
use super::desk::{SubmitError, Submitted};
use super::service::{Inner, Reconciler};
use crate::gateway::{Beside, ChangeError, NewMember};
use crate::ids::{AgentId, TemplateId, TownId};
use crate::journal::{Actor, Record};
use crate::limits::AGENT_LEAVE_WAIT;
use crate::town::TownEvent;
use crate::town::state::Agent;
use crate::town::words::{Origin, Role};

/// How long after something could not be taken back it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// An agent that is to be made, and to join.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Its id.
    pub agent: AgentId,
    /// What it is there for.
    pub role: Role,
    /// What it is made of.
    pub template: TemplateId,
    /// Whether it may live beside plimsoll.
    pub beside: Beside,
}

impl Reconciler {
    /// Makes an agent of a template of the configuration, which works in this town until it leaves it.
    ///
    /// # Errors
    /// See [`SubmitError`]: nothing was changed then, but for [`SubmitError::Late`].
    pub async fn join(
        &self,
        town: &TownId,
        actor: &Actor,
        joining: Joining,
    ) -> Result<Submitted, SubmitError> {
        let (inner, actor, town) = (Arc::clone(&self.inner), actor.clone(), town.clone());
        self.to_its_end(async move { inner.join(&town, &actor, joining).await }).await
    }
}

impl Inner {
    async fn join(&self, town: &TownId, actor: &Actor, joining: Joining) -> Result<Submitted, SubmitError> {
        let cell = self.cell(town)?;
        let Joining { agent, role, template, beside } = joining;
        let _one_at_a_time = self.changing.lock().await;
        self.works_nowhere_else(&agent, town)?;
        let event = TownEvent::AgentRegistered {
            agent: agent.clone(),
            role,
            origin: Origin::Dynamic,
            nudges: false,
            template: Some(template.clone()),
        };
        let taken = cell.drained().town.check(self.pen.journal.now(), &event);
        taken?;
        let member = NewMember { agent: agent.clone(), town: town.clone(), template, beside };
        self.gateway.make_of_template(actor.clone(), member).await.map_err(SubmitError::NotMade)?;
        let submitted = self.pen.submit(&cell, actor, &event).await;
        if submitted.is_err() && !self.delete_made(actor, &agent).await {
            self.mismatch.notify_one();
        }
        submitted
    }

    /// Deletes an agent that was made for a town; whether it is gone.
    async fn delete_made(&self, actor: &Actor, agent: &AgentId) -> bool {
        match self.gateway.delete_agent(actor.clone(), agent.clone()).await {
            Ok(_) | Err(ChangeError::Unknown { .. } | ChangeError::Configured { .. }) => true,
            Err(error) => {
                tracing::warn!(source = "reconciler", %agent, %error, "an agent that left its town is not deleted yet");
                false
            }
        }
    }

    /// An agent left its town: if it was made for it, it is deleted. Whether nothing is left to do; where it cannot be deleted
    /// now, somebody has to try again.
    pub(super) async fn delete_with_town(&self, cell: &Cell, actor: &Actor, agent: &AgentId) -> bool {
        let _one_at_a_time = self.changing.lock().await;
        let back = cell.drained().town.agents().contains_key(agent);
        if back || !self.gateway.is_made_for(&cell.id, agent) {
            return true;
        }
        // It goes on when nobody waits for it any more.
        timeout(AGENT_LEAVE_WAIT, self.delete_made(actor, agent)).await.unwrap_or(false)
    }

    /// Has those leave that are no more; whether they did.
    pub(super) async fn dismiss_gone(&self) -> bool {
        let mut dismissed = true;
        for cell in self.ledger.list().into_iter().filter(|cell| !cell.is_broken()) {
            let _one_at_a_time = self.changing.lock().await;
            for agent in self.gone(&cell) {
                dismissed &= self.dismiss(&cell, &agent).await;
            }
        }
        dismissed
    }

    /// Agents of a town that the gateway has not, or has not for it.
    fn gone(&self, cell: &Cell) -> Vec<AgentId> {
        let book = cell.drained();
        let is_gone = |(id, agent): &(&AgentId, &Agent)| match &agent.template {
            Some(_) => !self.gateway.is_made_for(&cell.id, id),
            None => agent.origin == Origin::Dynamic && !self.gateway.has_agent(id),
        };
        book.town.agents().iter().filter(is_gone).map(|(id, _)| id.clone()).collect()
    }

    /// Deletes those that were made for a town and are not in it; whether they are gone.
    async fn delete_left(&self) -> bool {
        let mut deleted = true;
        for (town, agents) in self.gateway.made_for_towns() {
            let Some(cell) = self.ledger.get(&town).filter(|cell| !cell.is_broken()) else { continue };
            for agent in agents {
                deleted &= self.delete_with_town(&cell, &Actor::System, &agent).await;
            }
        }
        deleted
    }

    /// Takes back what towns and the gateway do not both have, from now on, until it is told to stop.
    pub(super) async fn keep_matched(&self) {
        loop {
            let matching = async { self.dismiss_gone().await & self.delete_left().await };
            let Some(matched) = self.stop.run_until_cancelled(matching).await else { return };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.mismatch.notified() => {}
                () = sleep(RETRY_PAUSE), if !matched => {}
            }
        }
    }

    /// Has an agent deleted that left its town by this record, if it was made for it.
    pub(super) fn follow_departure(&self, record: &Record) {
        let is_departure = matches!(record.kind.as_str(), "agent_removed" | "agent_collected");
        let Some(town) = record.stream.town_id().filter(|_| is_departure) else { return };
        let agent = record.detail["agent"].as_str().and_then(|id| AgentId::parse(id).ok());
        if agent.is_some_and(|agent| self.gateway.is_made_for(&town, &agent)) {
            self.mismatch.notify_one();
        }
    }
}
