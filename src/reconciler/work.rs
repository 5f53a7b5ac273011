//! A bead in the hands of an agent that plimsoll reaches through the gateway: handed over, followed, and its ending told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::brief;
use super::desk::record;
use super::ending::{self, Ending};
use super::executor::{Executor, Undone, lost_by_shutdown, note, unanswered};
use super::runs::Running;
use crate::gateway::{AGENT_WITHDRAWN, Accepted, AgentEvent, Caller, Channel, Ended, Rejection, SendRequest};
use crate::ids::{AgentId, BeadId, DispatchId, RequestId, SessionId};
use crate::journal::{Actor, Append, StreamId};
use crate::limits::{TOWN_NUDGE_DEADLINE, TOWN_PROGRESS_EVERY};
use crate::telemetry::span;
use crate::town::event::TownEvent;
use crate::town::state::Hook;
use crate::town::words::{BeadKind, CompletionStatus, LostCause};

/// How long a gateway that is full is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(500);
/// How long a bead stays with an agent whose instance could not take it, before it goes back: starts take seconds.
const INSTANCE_FULL_PAUSE: Duration = Duration::from_secs(5);

impl Executor {
    /// Hands a bead to its agent, unless the agent holds it no more. An agent of a runtime elsewhere sees the event.
    pub(super) async fn dispatch(
        self: &Arc<Self>,
        agent: &AgentId,
        dispatch_id: &DispatchId,
        deadline: Duration,
    ) -> Result<(), Undone> {
        if !self.runs.leave(dispatch_id) || !self.holds(agent, dispatch_id) || !self.gateway.has_agent(agent)
        {
            return Ok(());
        }
        let message = brief::dispatch(&self.cell.drained().town, dispatch_id.bead());
        let request =
            SendRequest { deadline: Some(deadline), ..self.request(agent, dispatch_id, "", message)? };
        self.begin(agent, dispatch_id, request).await
    }

    /// Asks an agent once more how its work ended.
    pub(super) async fn ask_ending(
        self: &Arc<Self>,
        agent: &AgentId,
        dispatch_id: &DispatchId,
    ) -> Result<(), Undone> {
        if !self.holds(agent, dispatch_id) || !self.gateway.has_agent(agent) {
            return Ok(());
        }
        let (message, schema) = brief::ask_ending(&self.cell.drained().town, dispatch_id.bead()).unzip();
        let answer_schema = schema.map(Arc::new);
        let request = SendRequest { answer_schema, ..self.request(agent, dispatch_id, "/ending", message)? };
        self.begin(agent, dispatch_id, request).await
    }

    /// A message about a dispatch, in the conversation of its bead; there is none about a bead that is gone.
    fn request(
        &self,
        agent: &AgentId,
        dispatch_id: &DispatchId,
        suffix: &str,
        message: Option<String>,
    ) -> Result<SendRequest, Undone> {
        let message = message.ok_or_else(|| Undone::Failed("there is no such bead any more".to_owned()))?;
        let id = RequestId::parse(&format!("{}/{dispatch_id}{suffix}", self.cell.id));
        Ok(SendRequest {
            session: Some(session(dispatch_id.bead())),
            request_id: Some(id.map_err(|rule| Undone::Failed(rule.to_string()))?),
            ..SendRequest::new(agent.clone(), message)
        })
    }

    /// Says something to an agent of which nothing is heard, beside its work.
    pub(super) fn nudge(&self, agent: &AgentId, dispatch_id: &DispatchId) -> Result<(), Undone> {
        let Some(text) = self.nudges.get(agent).filter(|_| self.gateway.has_agent(agent)) else {
            return Ok(());
        };
        let bead = dispatch_id.bead();
        let request = SendRequest {
            session: SessionId::parse(&format!("nudge:{bead}")).ok(),
            deadline: Some(TOWN_NUDGE_DEADLINE),
            ..SendRequest::new(agent.clone(), format!("{text}\n\n(This is about {bead}.)"))
        };
        self.gateway
            .send(caller(), request)
            .map(drop)
            .map_err(|rejection| Undone::Failed(rejection.to_string()))
    }

    /// Whether the agent holds this dispatch and has not said how it ended.
    pub(super) fn holds(&self, agent: &AgentId, dispatch_id: &DispatchId) -> bool {
        self.has_hook(agent, dispatch_id, |hook| hook.said.is_none())
    }

    /// Whether the agent was asked how the work of this dispatch ended: that is all it is at now.
    fn asks(&self, agent: &AgentId, dispatch_id: &DispatchId) -> bool {
        self.has_hook(agent, dispatch_id, |hook| hook.asked > 0)
    }

    fn has_hook(&self, agent: &AgentId, dispatch_id: &DispatchId, is_so: impl Fn(&Hook) -> bool) -> bool {
        let book = self.cell.drained();
        let hook = book.town.agents().get(agent).and_then(|agent| agent.hook.as_ref());
        hook.is_some_and(|hook| hook.dispatch_id == *dispatch_id && is_so(hook))
    }

    async fn begin(
        self: &Arc<Self>,
        agent: &AgentId,
        dispatch_id: &DispatchId,
        mut request: SendRequest,
    ) -> Result<(), Undone> {
        let accepted = loop {
            match self.gateway.send(caller(), request.clone()) {
                Ok(accepted) => break accepted,
                // It did begin.
                Err(Rejection::DuplicateRequest { .. }) if self.runs.running(dispatch_id).is_some() => {
                    return Ok(());
                }
                // Somebody else took the name.
                Err(Rejection::DuplicateRequest { .. }) => request.request_id = None,
                Err(rejection) => match passing(&rejection) {
                    Passing::Soon => sleep(FULL_PAUSE).await,
                    Passing::Later => return Err(Undone::Later(rejection.to_string())),
                    Passing::Never => return Err(Undone::Failed(rejection.to_string())),
                },
            }
            if !self.holds(agent, dispatch_id) {
                return Ok(());
            }
        };
        let over = CancellationToken::new();
        let running = Running { agent: agent.clone(), request: accepted.request_id.clone(), over };
        self.runs.run(dispatch_id.clone(), running);
        let (executor, agent, dispatch_id) = (Arc::clone(self), agent.clone(), dispatch_id.clone());
        self.tasks.spawn(async move {
            let request = accepted.request_id.clone();
            let followed = Followed { executor, dispatch_id, request };
            let Followed { executor, dispatch_id, .. } = &followed;
            let ended = executor.follow(&agent, dispatch_id, accepted).await;
            if matches!(&ended, Some(Err(rejection)) if passing(rejection) == Passing::Soon) {
                // Cut by the end of plimsoll: told of at once.
                let _ = executor.closing.run_until_cancelled(sleep(INSTANCE_FULL_PAUSE)).await;
            }
            if executor.holds(&agent, dispatch_id) {
                executor.tell(executor.told(agent, dispatch_id, ended)).await;
            }
        });
        Ok(())
    }

    /// Waits for the end, and has progress written now and then. A tool at work is progress.
    async fn follow(&self, agent: &AgentId, dispatch_id: &DispatchId, accepted: Accepted) -> Option<Ended> {
        let Accepted { request_id: _, session: _, mut events, mut outcome } = accepted;
        let (mut moved, mut tools, mut open) = (false, 0_u32, true);
        let every = self.cell.read().town.policy().stuck.nudge_after.0 / 3;
        let every = every.min(TOWN_PROGRESS_EVERY);
        let mut due = interval(every);
        loop {
            tokio::select! {
                biased;
                ended = &mut outcome => return ended.ok(),
                event = events.recv(), if open => match event {
                    None => open = false,
                    Some(AgentEvent::Tool { state, .. }) => {
                        moved = true;
                        tools = at_work(tools, state);
                    }
                    Some(AgentEvent::Start { .. } | AgentEvent::Delta { .. }) => moved = true,
                    Some(
                        AgentEvent::Queued { .. }
                        | AgentEvent::Starting
                        | AgentEvent::Retry { .. }
                        | AgentEvent::End
                        | AgentEvent::Error { .. },
                    ) => {}
                },
                _ = due.tick() => if std::mem::take(&mut moved) || tools > 0 {
                    self.note_progress(agent, dispatch_id);
                },
            }
        }
    }

    /// Nobody acts on it: what is lost of it comes again.
    fn note_progress(&self, agent: &AgentId, dispatch_id: &DispatchId) {
        let (agent, dispatch_id) = (agent.clone(), dispatch_id.clone());
        let progress = TownEvent::AgentProgress { agent, dispatch_id, report: None };
        let records = vec![record(&progress, Actor::System, None, None)];
        let append = Append { stream: StreamId::town(&self.cell.id), expected_last_seq: None, records };
        if let Err(error) = self.pen.journal.offer(append) {
            tracing::debug!(source = "reconciler", town = %self.cell.id, %error, "a sign of progress is not written");
        }
    }

    /// Whether that can be said of such a bead: a verdict is for a review only.
    fn fits(&self, dispatch_id: &DispatchId, ending: &Ending) -> bool {
        let kind = self.cell.drained().town.beads().get(dispatch_id.bead()).map(|bead| bead.kind);
        matches!(ending, Ending::Work { .. }) || kind == Some(BeadKind::Review)
    }

    /// The events that an end means.
    fn told(&self, agent: AgentId, dispatch_id: &DispatchId, ended: Option<Ended>) -> Vec<TownEvent> {
        let completed = |agent, status, reason| {
            let dispatch_id = dispatch_id.clone();
            TownEvent::AgentCompleted { agent, dispatch_id, status, reason, report: None }
        };
        match ended {
            Some(Ok(answer)) => {
                let ending = ending::read(&answer.text).filter(|ending| self.fits(dispatch_id, ending));
                let said = ending.map(|ending| said(&agent, dispatch_id, ending));
                said.into_iter().chain([completed(agent, CompletionStatus::Completed, None)]).collect()
            }
            Some(Err(rejection)) if self.asks(&agent, dispatch_id) => {
                vec![unanswered(agent, dispatch_id.clone(), &rejection.to_string())]
            }
            None if self.asks(&agent, dispatch_id) => {
                vec![unanswered(agent, dispatch_id.clone(), "nobody heard how that ended")]
            }
            _ if self.closing.is_cancelled() => vec![lost_by_shutdown(dispatch_id.clone())],
            Some(Err(rejection)) if passing(&rejection) != Passing::Never => {
                vec![TownEvent::DispatchLost { dispatch_id: dispatch_id.clone(), cause: LostCause::Refused }]
            }
            Some(Err(rejection)) => {
                vec![completed(agent, CompletionStatus::Failed, Some(note(&rejection.to_string())))]
            }
            None => vec![completed(agent, CompletionStatus::Failed, None)],
        }
    }
}

/// How many tools are at work after one of them came to this state. One that is only asked for runs elsewhere, if at all.
fn at_work(tools: u32, state: &str) -> u32 {
    match state {
        "running" => tools.saturating_add(1),
        "done" | "failed" => tools.saturating_sub(1),
        _requested => tools,
    }
}

/// Nobody works on it any more once this is dropped, however that came.
struct Followed {
    executor: Arc<Executor>,
    dispatch_id: DispatchId,
    request: RequestId,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.executor.runs.over(&self.dispatch_id, &self.request);
    }
}

/// Whether a refusal passes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    /// Within moments: the same is asked again.
    Soon,
    /// Within a while, in which the agent can be given nothing.
    Later,
    /// Not by itself.
    Never,
}

fn passing(rejection: &Rejection) -> Passing {
    match rejection {
        Rejection::LaneFull { .. }
        | Rejection::GatewayFull { .. }
        | Rejection::InstanceFull
        | Rejection::JournalUnavailable { .. } => Passing::Soon,
        Rejection::Limited { .. } | Rejection::Paused { .. } | Rejection::ShuttingDown => Passing::Later,
        Rejection::Cancelled { reason, .. } if AGENT_WITHDRAWN.contains(reason) => Passing::Later,
        Rejection::Invalid { .. }
        | Rejection::UnknownAgent { .. }
        | Rejection::Deadline { .. }
        | Rejection::Cancelled { .. }
        | Rejection::Provider { .. }
        | Rejection::NotStarted { .. }
        | Rejection::KeysFull { .. }
        | Rejection::Conflict { .. }
        | Rejection::Bug { .. }
        | Rejection::NotFound { .. }
        | Rejection::DuplicateRequest { .. } => Passing::Never,
    }
}

fn said(agent: &AgentId, dispatch_id: &DispatchId, ending: Ending) -> TownEvent {
    let (agent, dispatch_id) = (agent.clone(), dispatch_id.clone());
    match ending {
        Ending::Work { outcome, summary } => {
            let summary = summary.map(String::into);
            TownEvent::AgentDone { agent, dispatch_id, outcome, summary, report: None }
        }
        Ending::Review { verdict, notes } => {
            let notes = notes.map(String::into);
            TownEvent::ReviewDone { agent, dispatch_id, verdict, notes, report: None }
        }
    }
}

/// All that is said about a bead is one conversation.
fn session(bead: &BeadId) -> SessionId {
    SessionId::parse(&format!("bead:{bead}")).expect("a bead's id is short and printable")
}

fn caller() -> Caller {
    Caller {
        actor: Actor::Planner,
        channel: Channel::Town,
        trace: span::traceparent_of(&tracing::Span::current()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_only_asked_for_ends_none_that_runs() {
        let after = |states: &[&str]| states.iter().fold(0, |tools, state| at_work(tools, state));
        assert_eq!(after(&["running", "requested"]), 1);
        assert_eq!(after(&["running", "running", "done"]), 1);
        assert_eq!(after(&["running", "failed", "done"]), 0);
    }
}
