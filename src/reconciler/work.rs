//! A bead in the hands of an agent that plimsoll reaches through the gateway: handed over, followed, and its ending told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::brief;
use super::desk::record;
use super::ending::{self, Ending};
use super::executor::{Executor, lost_by_shutdown, note};
use super::runs::Running;
use crate::gateway::{Accepted, AgentEvent, Caller, Channel, Ended, Rejection, SendRequest};
use crate::ids::{AgentId, BeadId, DispatchId, RequestId, SessionId};
use crate::journal::{Actor, Append, StreamId};
use crate::limits::{TOWN_NUDGE_DEADLINE, TOWN_PROGRESS_EVERY};
use crate::telemetry::span;
use crate::town::event::TownEvent;
use crate::town::words::{BeadKind, CompletionStatus};

impl Executor {
    /// Hands a bead to its agent, unless the agent holds it no more. An agent of a runtime elsewhere sees the event.
    pub(super) fn dispatch(
        self: &Arc<Self>,
        agent: &AgentId,
        dispatch_id: &DispatchId,
        deadline: Duration,
    ) -> Result<(), String> {
        if !self.runs.begin(dispatch_id) || !self.holds(agent, dispatch_id) || !self.gateway.has_agent(agent)
        {
            return Ok(());
        }
        let message = brief::dispatch(&self.cell.drained().town, dispatch_id.bead());
        let message = message.ok_or("there is no such bead any more")?;
        let request = RequestId::parse(&format!("{}/{dispatch_id}", self.cell.id));
        let request = SendRequest {
            session: Some(session(dispatch_id.bead())),
            request_id: Some(request.map_err(|rule| rule.to_string())?),
            deadline: Some(deadline),
            ..SendRequest::new(agent.clone(), message)
        };
        self.begin(agent, dispatch_id, request)
    }

    /// Asks an agent once more how its work ended.
    pub(super) fn ask_ending(
        self: &Arc<Self>,
        agent: &AgentId,
        dispatch_id: &DispatchId,
    ) -> Result<(), String> {
        if !self.holds(agent, dispatch_id) || !self.gateway.has_agent(agent) {
            return Ok(());
        }
        let message = brief::ask_ending(&self.cell.drained().town, dispatch_id.bead());
        let message = message.ok_or("there is no such bead any more")?;
        let request = RequestId::parse(&format!("{}/{dispatch_id}/ending", self.cell.id));
        let request = SendRequest {
            session: Some(session(dispatch_id.bead())),
            request_id: Some(request.map_err(|rule| rule.to_string())?),
            ..SendRequest::new(agent.clone(), message)
        };
        self.begin(agent, dispatch_id, request)
    }

    /// Says something to an agent of which nothing is heard, beside its work.
    pub(super) fn nudge(&self, agent: &AgentId, dispatch_id: &DispatchId) -> Result<(), String> {
        let Some(text) = self.nudges.get(agent).filter(|_| self.gateway.has_agent(agent)) else {
            return Ok(());
        };
        let bead = dispatch_id.bead();
        let request = SendRequest {
            session: SessionId::parse(&format!("nudge:{bead}")).ok(),
            deadline: Some(TOWN_NUDGE_DEADLINE),
            ..SendRequest::new(agent.clone(), format!("{text}\n\n(This is about {bead}.)"))
        };
        self.gateway.send(caller(), request).map(drop).map_err(|rejection| rejection.to_string())
    }

    /// Whether the agent holds this dispatch and has not said how it ended.
    fn holds(&self, agent: &AgentId, dispatch_id: &DispatchId) -> bool {
        let book = self.cell.drained();
        let hook = book.town.agents().get(agent).and_then(|agent| agent.hook.as_ref());
        hook.is_some_and(|hook| hook.dispatch_id == *dispatch_id && hook.said.is_none())
    }

    fn begin(
        self: &Arc<Self>,
        agent: &AgentId,
        dispatch_id: &DispatchId,
        request: SendRequest,
    ) -> Result<(), String> {
        let accepted = match self.gateway.send(caller(), request) {
            Ok(accepted) => accepted,
            // It did begin.
            Err(Rejection::DuplicateRequest { .. }) if self.runs.running(dispatch_id).is_some() => {
                return Ok(());
            }
            Err(rejection) => return Err(rejection.to_string()),
        };
        let over = CancellationToken::new();
        let running = Running { agent: agent.clone(), request: accepted.request_id.clone(), over };
        self.runs.run(dispatch_id.clone(), running);
        let (executor, agent, dispatch_id) = (Arc::clone(self), agent.clone(), dispatch_id.clone());
        self.tasks.spawn(async move {
            let ended = executor.follow(&agent, &dispatch_id, accepted).await;
            if executor.holds(&agent, &dispatch_id) {
                executor.tell(executor.told(agent, &dispatch_id, ended)).await;
            }
            executor.runs.over(&dispatch_id);
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
                        tools = if state == "running" { tools.saturating_add(1) } else { tools.saturating_sub(1) };
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
            _ if self.closing.is_cancelled() => vec![lost_by_shutdown(dispatch_id.clone())],
            Some(Err(rejection)) => {
                vec![completed(agent, CompletionStatus::Failed, Some(note(&rejection.to_string())))]
            }
            None => vec![completed(agent, CompletionStatus::Failed, None)],
        }
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
            TownEvent::ReviewDone { agent, dispatch_id, verdict, notes: notes.map(String::into) }
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
