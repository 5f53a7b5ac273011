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

    /// An agent left its town: if it was made for it, it is deleted. Where that cannot be now, it is tried again.
    pub(super) async fn delete_with_town(&self, cell: &Cell, actor: &Actor, agent: &AgentId) {
        let _one_at_a_time = self.changing.lock().await;
        let back = cell.drained().town.agents().contains_key(agent);
        if back || !self.gateway.made_for(&cell.id).contains(agent) {
            return;
        }
        // It goes on when nobody waits for it any more.
        let deleted = timeout(AGENT_LEAVE_WAIT, self.delete_made(actor, agent)).await;
        if !deleted.unwrap_or(false) {
            self.mismatch.notify_one();
        }
    }

    /// Takes back what towns and the gateway do not both have, and has those leave that are no more; whether nothing is left
    /// of that.
    pub(super) async fn match_members(&self) -> bool {
        let mut matched = true;
        for cell in self.ledger.list() {
            let _one_at_a_time = self.changing.lock().await;
            let made = self.gateway.made_for(&cell.id);
            let (gone, left): (Vec<AgentId>, Vec<AgentId>) = {
                let book = cell.drained();
                let agents = book.town.agents();
                let is_gone = |(id, agent): &(&AgentId, &Agent)| match &agent.template {
                    Some(_) => !made.contains(*id),
                    None => agent.origin == Origin::Dynamic && !self.gateway.has_agent(id),
                };
                let gone = agents.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
                (gone, made.iter().filter(|id| !agents.contains_key(id)).cloned().collect())
            };
            for agent in gone {
                matched &= self.dismiss(&cell, &agent).await;
            }
            for agent in left {
                matched &= self.delete_made(&Actor::System, &agent).await;
            }
        }
        matched
    }

    /// Has them match from now on, until it is told to stop.
    pub(super) async fn keep_matched(&self) {
        loop {
            let matched = self.match_members().await;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.mismatch.notified() => {}
                () = sleep(RETRY_PAUSE), if !matched => {}
            }
        }
    }
}

/// Whether an agent left a town by this.
pub(super) fn is_departure(record: &Record) -> bool {
    record.stream.town_id().is_some() && matches!(record.kind.as_str(), "agent_removed" | "agent_collected")
}
