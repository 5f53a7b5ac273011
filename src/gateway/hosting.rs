//! The instance of an agent: what a request does until it is up.
//!
//! A request that waits for it holds its lane, so that its order stays, and no turn: others run meanwhile.

use std::time::Duration;

use tokio::sync::oneshot;

use super::active::RequestState;
use super::run::Serving;
use super::service::Agent;
use super::stop::Stop;
use super::{AgentEvent, Rejection};
use crate::lifecycle::{Cause, Lease, StopReason, Unavailable};
use crate::provider::At;

impl Serving<'_> {
    /// Keeps the agent's instance up, once it is; `None` where it has none. The turn may be another then.
    pub(super) async fn hosted(&mut self, turn: &mut oneshot::Receiver<()>) -> Result<Option<Lease>, Stop> {
        if self.agent.config.instance.is_none() {
            return Ok(None);
        }
        self.transcript.start = Some(Duration::ZERO);
        loop {
            if let Some(lease) = self.inner.instances.join(&self.active.agent) {
                return Ok(Some(lease));
            }
            let lease = self.wait(turn).await?;
            // It may have ended while others had their turns.
            if lease.is_current() {
                return Ok(Some(lease));
            }
        }
    }

    async fn wait(&mut self, turn: &mut oneshot::Receiver<()>) -> Result<Lease, Stop> {
        *turn = self.slot.park();
        self.active.progress().state = RequestState::Starting;
        // A reader that is slow is waited for; one that is gone is not.
        let _ = self.events.send(AgentEvent::Starting).await;
        let span = tracing::info_span!(parent: self.span, "instance.wait", agent = %self.active.agent);
        let cause = Cause { actor: self.actor.clone(), trace_id: Some(self.trace_id), span };
        let began = self.inner.clock.elapsed();
        let lease = self.inner.instances.acquire(&self.active.agent, cause).await;
        // Turns are not counted: they are waits for others.
        let waited = self.inner.clock.elapsed().saturating_sub(began);
        self.transcript.start = Some(self.transcript.start.unwrap_or_default() + waited);
        let lease = lease.map_err(|unavailable| Stop::Refused(rejection(unavailable)))?;
        self.slot.release();
        // A turn is always given: the slot is ours.
        let _ = turn.await;
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
