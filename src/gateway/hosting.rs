//! The instance of an agent: what a request does until it is up.
//!
//! A request that waits for it holds its lane, so that its order stays, and no turn: others run meanwhile.

use std::time::Duration;

use tokio::sync::oneshot;

use super::active::{Active, RequestState};
use super::floor::Slot;
use super::service::{Agent, Inner};
use super::stop::Stop;
use super::{AgentEvent, Rejection};
use crate::ids::TraceId;
use crate::journal::Actor;
use crate::lifecycle::{Cause, Lease, StopReason, Unavailable};
use crate::provider::At;

/// A request whose turn has come.
pub(super) struct Wanting<'a> {
    pub(super) inner: &'a Inner,
    pub(super) active: &'a Active,
    pub(super) slot: &'a Slot,
    pub(super) turn: &'a mut oneshot::Receiver<()>,
    pub(super) actor: &'a Actor,
    pub(super) trace_id: TraceId,
    pub(super) span: &'a tracing::Span,
    pub(super) events: &'a tokio::sync::mpsc::Sender<AgentEvent>,
    /// How long it waited for the instance, turns not counted.
    pub(super) waited: Duration,
}

impl Wanting<'_> {
    /// Keeps the instance up, once it is. Its turn may be another then.
    pub(super) async fn hosted(&mut self) -> Result<Lease, Stop> {
        loop {
            if let Some(lease) = self.inner.instances.join(&self.active.agent) {
                return Ok(lease);
            }
            let lease = self.wait().await?;
            // It may have ended while others had their turns.
            if lease.is_current() {
                return Ok(lease);
            }
        }
    }

    async fn wait(&mut self) -> Result<Lease, Stop> {
        *self.turn = self.slot.park();
        self.active.progress().state = RequestState::Starting;
        // A reader that is slow is waited for; one that is gone is not.
        let _ = self.events.send(AgentEvent::Starting).await;
        let span = tracing::info_span!(parent: self.span, "instance.wait", agent = %self.active.agent);
        let cause = Cause { actor: self.actor.clone(), trace_id: Some(self.trace_id), span };
        let began = self.inner.clock.elapsed();
        let lease = self.inner.instances.acquire(&self.active.agent, cause).await;
        self.waited += self.inner.clock.elapsed().saturating_sub(began);
        let lease = lease.map_err(|unavailable| Stop::Refused(rejection(unavailable)))?;
        self.slot.release();
        // A turn is always given: the slot is ours.
        let _ = (&mut *self.turn).await;
        self.inner.ask_again(&self.active.agent).map_err(Stop::Refused)?;
        Ok(lease)
    }
}

/// Where the agent's instance answers.
pub(super) fn at(agent: &Agent, lease: Option<&Lease>) -> Option<At> {
    let address = lease?.address()?;
    let path = agent.config.instance.as_ref()?.path.clone();
    Some(At { host: address.ip().to_string(), port: address.port(), path })
}

/// What the caller hears.
fn rejection(unavailable: Unavailable) -> Rejection {
    match unavailable {
        Unavailable::Failed { instance: _, failure, retry_in } => Rejection::NotStarted {
            cause: format!(
                "the instance of this agent is not up ({}): its entry in `GET /agents` says more, and it is tried again \
                 with the next message after {:.0} s",
                failure.kind.as_str(),
                retry_in.as_secs_f64().ceil()
            ),
            reason: Some(failure.kind.as_str()),
            retry_after: Some(retry_in),
        },
        Unavailable::Full { .. } => Rejection::InstanceFull,
        Unavailable::Stopped { reason: StopReason::Shutdown, .. } => Rejection::ShuttingDown,
        Unavailable::Stopped { instance, reason: StopReason::Removed } | Unavailable::Unknown(instance) => {
            Rejection::UnknownAgent { agent: instance }
        }
        // Nobody who waits for it stops it.
        Unavailable::Kept { .. }
        | Unavailable::Stopped { reason: StopReason::Operator | StopReason::Idle, .. } => {
            Rejection::NotStarted {
                cause:
                    "the instance of this agent was stopped while the message waited for it: send it again"
                        .to_owned(),
                reason: Some("stopped"),
                retry_after: None,
            }
        }
    }
}
