//! What comes from outside and is more than an event in line: towns that are made, agents that join and leave.
//!
//! Each is done to its end once it was begun, also when the caller goes away.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::Span;

use super::cell::Cell;
use super::desk::{SubmitError, Submitted};
use super::service::{Inner, Reconciler};
use crate::ids::{AgentId, Seq, TownId};
use crate::journal::{Actor, AppendError};
use crate::limits::{JOURNAL_APPEND_WAIT, TOWN_ID_BYTES_MAX, TOWNS_MAX};
use crate::town::event::TownEvent;
use crate::town::plan::Effect;
use crate::town::state::Rejected;
use crate::town::words::Origin;
use crate::town::{Policy, Town};

impl Reconciler {
    /// Makes a town; it turns at once.
    ///
    /// # Errors
    /// See [`SubmitError`]: nothing was changed then, but for [`SubmitError::Late`].
    pub async fn create_town(
        &self,
        actor: &Actor,
        town: TownId,
        policy: Policy,
    ) -> Result<Submitted, SubmitError> {
        let (inner, actor) = (Arc::clone(&self.inner), actor.clone());
        self.to_its_end(async move { inner.create_town(&actor, town, policy).await }).await
    }

    /// Takes one event of outside in: durable and in the town when this answers.
    ///
    /// # Panics
    /// If it is one of the reconciler's own.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(
        &self,
        town: &TownId,
        actor: &Actor,
        event: TownEvent,
    ) -> Result<Submitted, SubmitError> {
        assert!(event.from_outside(), "{} is the reconciler's own", event.kind());
        let (inner, actor, town) = (Arc::clone(&self.inner), actor.clone(), town.clone());
        self.to_its_end(async move { inner.submit(&town, &actor, event).await }).await
    }

    /// Makes another policy of a town's own; the place of the event, or nothing if it is the same.
    ///
    /// # Errors
    /// See [`SubmitError`]; inside, why `change` cannot be made. Nothing was changed then.
    pub async fn change_policy<E: Send + 'static>(
        &self,
        town: &TownId,
        actor: &Actor,
        change: impl FnOnce(&Policy) -> Result<Policy, E> + Send + 'static,
    ) -> Result<Result<(Policy, Option<Seq>), E>, SubmitError> {
        let (inner, actor, town) = (Arc::clone(&self.inner), actor.clone(), town.clone());
        self.to_its_end(async move { inner.change_policy(&town, &actor, change).await }).await
    }

    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, SubmitError>> + Send + 'static,
    ) -> Result<T, SubmitError> {
        let task = self.inner.tasks.spawn(work);
        match timeout(JOURNAL_APPEND_WAIT, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(lost)) => match lost.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cut) => Err(SubmitError::Journal(AppendError::Closed)),
            },
            Err(_) => Err(SubmitError::Late),
        }
    }
}

impl Inner {
    async fn create_town(
        self: &Arc<Self>,
        actor: &Actor,
        town: TownId,
        policy: Policy,
    ) -> Result<Submitted, SubmitError> {
        if town.as_str().len() > TOWN_ID_BYTES_MAX {
            return Err(SubmitError::TownIdTooLong(TOWN_ID_BYTES_MAX));
        }
        let _one_at_a_time = self.changing.lock().await;
        match self.ledger.get(&town) {
            Some(_) => return Err(SubmitError::TownExists(town)),
            None if self.ledger.list().len() >= TOWNS_MAX => {
                return Err(SubmitError::TooManyTowns(TOWNS_MAX));
            }
            None => {}
        }
        // The journal's fold makes the one that stays, once there is a town.
        let nothing_yet = Cell::new(town.clone());
        let created = TownEvent::TownCreated { policy: Box::new(policy) };
        let submitted = self.pen.submit(&nothing_yet, actor, &created).await?;
        if let Some(cell) = self.ledger.get(&town) {
            self.keep(&cell, self.pen.journal.now());
        }
        Ok(submitted)
    }

    async fn submit(
        &self,
        town: &TownId,
        actor: &Actor,
        mut event: TownEvent,
    ) -> Result<Submitted, SubmitError> {
        let cell = self.cell(town)?;
        if let TownEvent::AgentRegistered { agent, origin, .. } = &mut event {
            let _one_at_a_time = self.changing.lock().await;
            // The town keeps whose it is: one of plimsoll's own leaves with the agent.
            *origin = if self.gateway.has_agent(agent) { Origin::Dynamic } else { Origin::External };
            self.works_nowhere_else(agent, town)?;
            return self.pen.submit(&cell, actor, &event).await;
        }
        if let TownEvent::AgentRemoved { agent } = &event {
            let submitted = self.remove_agent(&cell, actor, agent).await?;
            if !self.delete_with_town(&cell, actor, agent).await {
                self.mismatch.notify_one();
            }
            return Ok(submitted);
        }
        let now = self.pen.journal.now();
        if let Some(known) =
            event.report().map(|report| cell.coalescing.known(report, now)).transpose()?.flatten()
        {
            return Ok(known);
        }
        self.take_in(&cell, actor, &event).await
    }

    /// One change after the other: none is made from a policy that another one replaces meanwhile.
    async fn change_policy<E>(
        &self,
        town: &TownId,
        actor: &Actor,
        change: impl FnOnce(&Policy) -> Result<Policy, E>,
    ) -> Result<Result<(Policy, Option<Seq>), E>, SubmitError> {
        let cell = self.cell(town)?;
        let _one_at_a_time = self.changing.lock().await;
        let now = cell.drained().town.policy().clone();
        let policy = match change(&now) {
            Ok(policy) if policy == now => return Ok(Ok((now, None))),
            Ok(policy) => policy,
            Err(error) => return Ok(Err(error)),
        };
        let changed = TownEvent::PolicyChanged { policy: Box::new(policy.clone()) };
        let submitted = self.pen.submit(&cell, actor, &changed).await?;
        Ok(Ok((policy, Some(submitted.seq))))
    }

    /// An agent that leaves stops first what it does, also what it was given a moment before: its bead goes to nobody else
    /// before.
    async fn remove_agent(
        &self,
        cell: &Cell,
        actor: &Actor,
        agent: &AgentId,
    ) -> Result<Submitted, SubmitError> {
        let removed = TownEvent::AgentRemoved { agent: agent.clone() };
        let executor = self.executor(&cell.id);
        let reserve = |town: &Town| {
            let dispatch_id = town.agents().get(agent)?.hook.as_ref()?.dispatch_id.clone();
            let executor = executor.as_ref()?;
            Some((executor.reserve(agent, &dispatch_id), executor, dispatch_id))
        };
        let (submitted, reserved) = self.pen.submit_with(cell, actor, &removed, reserve).await?;
        if let Some((place, executor, dispatch_id)) = reserved {
            let stop = Effect::Stop { agent: agent.clone(), dispatch_id };
            executor.carry_out_in(place, stop, &Span::none());
        }
        Ok(submitted)
    }

    /// An agent that was deleted leaves its town.
    pub(super) async fn forget_agent(&self, agent: &AgentId) {
        for cell in self.ledger.list() {
            let _one_at_a_time = self.changing.lock().await;
            let of_template = match cell.drained().town.agents().get(agent) {
                Some(known) => known.template.is_some(),
                None => continue,
            };
            // Its name was free before it was made: what was deleted is an earlier one.
            if of_template && self.gateway.is_made_for(&cell.id, agent) {
                continue;
            }
            self.dismiss(&cell, agent).await;
        }
    }

    /// Has an agent leave that is no more; whether it did.
    pub(super) async fn dismiss(&self, cell: &Cell, agent: &AgentId) -> bool {
        match self.remove_agent(cell, &Actor::System, agent).await {
            // Somebody else was quicker.
            Ok(_) | Err(SubmitError::Rejected(Rejected::UnknownAgent(_))) => true,
            Err(error) => {
                tracing::warn!(source = "reconciler", town = %cell.id, %agent, %error, "a deleted agent stays in its town");
                false
            }
        }
    }
}
