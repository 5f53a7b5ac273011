//! One request on its way: its turn, its provider, its end. One task each.
//!
//! [`run`] is the only way out: whatever ends the request (its answer, a failure, a panic, its deadline, whoever cancels
//! it, its caller going away) comes back to it, is recorded once, frees the lane, and is answered.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::accept::instructions;
use super::active::{Active, RequestState, RunningTool};
use super::agent_sessions::{Change, TurnEnd};
use super::floor::Slot;
use super::hosting;
use super::keys::{Claim, Closed};
use super::lane::LaneKey;
use super::record::{AGENT_SESSIONS, Finished, Outcome, RequestFinished, SESSIONS_BYTES, UsedTool};
use super::service::{Agent, Inner};
use super::stop::{SHUTTING_DOWN, Stop, how};
use super::transcript::{ToolAtWork, Transcript};
use super::{AgentEvent, Ended, OnDisconnect, Rejection, ToolSummary, Usage};
use crate::ids::TraceId;
use crate::journal::Actor;
use crate::lifecycle::Lease;
use crate::limits::{ANSWER_BYTES_MAX, FINAL_EVENT_WAIT, JOURNAL_CATCH_UP_WAIT};
use crate::provider::{MayRetry, Message, ProviderError, ProviderEvent, Speaker, Turn};

/// A request that was admitted.
pub(super) struct Job {
    pub(super) inner: Arc<Inner>,
    pub(super) agent: Arc<Agent>,
    pub(super) active: Arc<Active>,
    pub(super) slot: Slot,
    pub(super) ahead: usize,
    pub(super) turn: oneshot::Receiver<()>,
    pub(super) message: Arc<str>,
    pub(super) given: Given,
    pub(super) deadline: Duration,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) actor: Actor,
    pub(super) trace_id: TraceId,
    pub(super) span: Span,
    pub(super) events: mpsc::Sender<AgentEvent>,
    pub(super) outcome: oneshot::Sender<Ended>,
    pub(super) presence: Presence,
    /// Its idempotency key, if it has one.
    pub(super) claim: Option<Claim>,
}

/// What the caller gives beside the message.
#[derive(Default)]
pub(super) struct Given {
    /// Instructions, after those of the agent.
    pub(super) system: Option<String>,
    /// The conversation so far; without one, the session's own.
    pub(super) history: Option<Vec<Message>>,
    /// What the whole answer shall be like.
    pub(super) answer_schema: Option<Arc<Value>>,
}

/// Counts a request as active and its session as in use, until it is dropped.
pub(super) struct Presence {
    pub(super) inner: Arc<Inner>,
    pub(super) agent: Arc<Agent>,
    /// The session that remembers it; none where the request stands alone.
    pub(super) session: Option<LaneKey>,
    /// What the conversation gains by the request.
    pub(super) said: Option<[Message; 2]>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.agent.metrics.active.decrement(1.0);
        let Some(session) = &self.session else { return };
        let now = self.inner.clock.elapsed();
        let evicted = self.inner.sessions().leave(session, self.said.take(), now);
        self.inner.recorder.evicted(SESSIONS_BYTES, evicted);
    }
}

/// Takes a request to its end.
pub(super) async fn run(mut job: Job) {
    let mut transcript = Transcript::default();
    let served = AssertUnwindSafe(until_stopped(&mut job, &mut transcript)).catch_unwind().await;
    let stopped = served.unwrap_or(Err(Stop::Panic));
    let Job {
        inner,
        agent,
        active,
        slot,
        deadline,
        actor,
        trace_id,
        span,
        events,
        outcome,
        mut presence,
        claim,
        ..
    } = job;
    let total = inner.clock.elapsed().saturating_sub(active.accepted);
    let change = remember(&inner, &agent, &active, &presence, transcript.turn_end(how(&stopped)));
    let text = std::mem::take(&mut transcript.text);
    let timings = transcript.timings(total);
    let ran = transcript.called.is_some() && stopped.as_ref().err().is_none_or(Stop::after_work);
    let ended = match stopped {
        Ok(()) => Ok(text),
        Err(Stop::Cancelled(SHUTTING_DOWN)) if !ran => Err(Rejection::ShuttingDown),
        Err(stop) => Err(stop.rejection(text, deadline)),
    };
    transcript.stop_tools(&inner, &active);
    let used = transcript.calls.used();
    let usage = Usage { input_tokens: used.input_tokens, output_tokens: used.output_tokens };
    let facts = RequestFinished {
        request_id: active.id.clone(),
        agent: active.agent.clone(),
        session: active.session.clone(),
        channel: active.channel,
        outcome: Outcome::of(ended.as_ref().map(drop)),
        code: ended.as_ref().err().map(Rejection::code),
        timings,
        tokens: usage,
        cost_usd: used.cost_usd,
        model_calls: used.calls,
        provider: agent.provider.kind(),
        models: transcript.calls.models(),
        tools: transcript.tool_counts,
        ran,
        key_hash: claim.as_ref().filter(|claim| claim.asked()).and(active.key),
    };
    let ended_so = facts.outcome;
    if let (Ok(text), Some(_)) = (&ended, &presence.session) {
        let message = Message { role: Speaker::User, text: job.message };
        presence.said = Some([message, Message { role: Speaker::Assistant, text: text.as_str().into() }]);
    }
    let rejection = ended.as_ref().err();
    // Before the lane is free: whoever is next is asked by what this one spent.
    let spent = inner.meter.ended(&facts);
    let caller = actor.clone();
    let finished = Finished { facts, actor, trace_id, span: &span, rejection, total };
    if !inner.recorder.finished(&agent.metrics, finished) {
        inner.meter.record_lost(&active.agent, &active.id, spent);
    }
    let result = ended.map(|text| transcript.answer(&active, text, timings)).map_err(Arc::new);
    keep(&inner, &active, &caller, result.clone());
    let closed = claim.map(|claim| claim.end(ended_so, ran));
    drop((presence, slot, span));
    settle(&inner, change, closed).await;
    answer(result, events, outcome).await;
}

/// Waits a little for what the journal shall know before the caller hears the answer.
async fn settle(inner: &Inner, change: Option<Change>, closed: Option<Closed>) {
    let journal = inner.recorder.journal();
    let written = async {
        if let Some(change) = change {
            change.write(journal, &Actor::System).await;
        }
        if let Some(Closed) = closed {
            // Who heard an answer shall not hear later that it was interrupted.
            journal.catch_up().await;
        }
    };
    // A disk that hangs holds up nobody for long.
    let _ = tokio::time::timeout(JOURNAL_CATCH_UP_WAIT, written).await;
}

/// Remembers the name that the agent gave the conversation, or forgets one that it does not know.
fn remember(
    inner: &Inner,
    agent: &Agent,
    active: &Active,
    presence: &Presence,
    turn: TurnEnd,
) -> Option<Change> {
    let lane = presence.session.as_ref()?;
    if active.progress().session_reset {
        return None;
    }
    let (change, evicted) = inner.agent_sessions.after_turn(lane, &agent.config.provider, turn);
    inner.recorder.evicted(AGENT_SESSIONS, evicted);
    change
}

/// Tells who else waits how it ended, and keeps that for who asks later.
fn keep(inner: &Inner, active: &Active, caller: &Actor, result: Ended) {
    let ended = active.end(result, inner.clock.now());
    let evicted = inner.answers.keep(caller, &active.id, &ended, inner.clock.elapsed());
    inner.recorder.answers_evicted(evicted);
}

/// The last event, then the result. The lane is free already; a reader that is slow is waited for a little.
async fn answer(result: Ended, events: mpsc::Sender<AgentEvent>, outcome: oneshot::Sender<Ended>) {
    let last = match &result {
        Ok(_) => AgentEvent::End,
        Err(rejection) => AgentEvent::Error { code: rejection.code(), message: rejection.to_string() },
    };
    if events.try_send(last.clone()).is_err() && !events.is_closed() {
        // What is too slow even for this finds out by the end of the events and by the result.
        let _ = tokio::time::timeout(FINAL_EVENT_WAIT, events.send(last)).await;
    }
    drop(events);
    // Whoever went away does not want the result.
    let _ = outcome.send(result);
}

/// Serves the request until it ends by itself or is stopped. Dropping what serves it stops the provider.
async fn until_stopped(job: &mut Job, transcript: &mut Transcript) -> Result<(), Stop> {
    let active = Arc::clone(&job.active);
    let calls = transcript.calls.clone();
    let limit = job.deadline;
    let deadline = async {
        tokio::time::sleep(limit).await;
        calls.stop("deadline".into());
    };
    let gone = caller_gone(&mut job.outcome, job.on_disconnect);
    let serving = Serving {
        inner: &job.inner,
        agent: &job.agent,
        active: &job.active,
        message: &job.message,
        given: &mut job.given,
        deadline: job.deadline,
        trace_id: job.trace_id,
        span: &job.span,
        events: &job.events,
        slot: &job.slot,
        actor: &job.actor,
        lease: None,
        transcript,
    };
    let (claim, slot) = (&mut job.claim, &job.slot);
    let (journal, actor, trace_id) = (job.inner.recorder.journal(), &job.actor, job.trace_id);
    let served = async {
        if let Some(claim) = claim {
            claim.accept(journal, actor, trace_id).await.map_err(|_| Stop::Journal)?;
            slot.release();
        }
        serving.serve(job.ahead, &mut job.turn).await
    };
    tokio::select! {
        biased;
        reason = active.cancel.raised() => Err(Stop::Cancelled(reason)),
        () = gone => Err(Stop::Cancelled("the caller went away")),
        () = deadline => Err(Stop::Deadline),
        served = served => served,
    }
}

async fn caller_gone(outcome: &mut oneshot::Sender<Ended>, on_disconnect: OnDisconnect) {
    match on_disconnect {
        OnDisconnect::Cancel => outcome.closed().await,
        OnDisconnect::Finish => std::future::pending().await,
    }
}

/// What serving borrows from the job.
pub(super) struct Serving<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) agent: &'a Arc<Agent>,
    pub(super) active: &'a Arc<Active>,
    message: &'a Arc<str>,
    given: &'a mut Given,
    deadline: Duration,
    pub(super) trace_id: TraceId,
    pub(super) span: &'a Span,
    pub(super) events: &'a mpsc::Sender<AgentEvent>,
    pub(super) slot: &'a Slot,
    pub(super) actor: &'a Actor,
    /// Keeps its instance up.
    lease: Option<Arc<Lease>>,
    pub(super) transcript: &'a mut Transcript,
}

impl Serving<'_> {
    async fn serve(mut self, ahead: usize, turn: &mut oneshot::Receiver<()>) -> Result<(), Stop> {
        self.emit(AgentEvent::Queued { ahead }).await;
        let wait = tracing::info_span!(parent: self.span, "lane.wait");
        // A turn is always given: the floor drops a waker only after the slot, and the slot is ours.
        let _ = (&mut *turn).await;
        drop(wait);
        self.transcript.queued = Some(self.since_accepted());
        self.inner.metrics.lane_wait.record(self.since_accepted().as_secs_f64());
        self.inner.ask_again(&self.active.agent).map_err(Stop::Refused)?;
        // Held to the end: while anybody asks it, the instance is not stopped for being idle.
        self.lease = self.hosted(turn).await?.map(Arc::new);
        self.active.progress().state = RequestState::Running;
        self.emit(AgentEvent::Start { timestamp: self.inner.clock.now() }).await;
        let asked = self.agent.provider.asks(self.agent.config.model.as_deref());
        let invoke = tracing::info_span!(
            parent: self.span,
            "invoke_agent",
            otel.name = %format_args!("invoke_agent {}", self.active.agent),
            otel.kind = "internal",
            gen_ai.operation.name = "invoke_agent",
            gen_ai.provider.name = asked.provider,
            gen_ai.request.model = asked.model,
            gen_ai.agent.name = %self.active.agent,
            gen_ai.conversation.id = %self.active.session,
            error.type = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let answered = self.converse(&invoke).await;
        if let Err(error) = &answered {
            invoke.record("error.type", &*error.error_type());
            invoke.record("otel.status_code", "ERROR");
        }
        answered.map_err(Stop::Provider)
    }

    /// Asks the provider and takes what it tells, to its end.
    async fn converse(&mut self, invoke: &Span) -> Result<(), ProviderError> {
        self.transcript.called = Some(self.inner.clock.elapsed());
        let turn = self.turn(invoke);
        let mut stream = self.agent.provider.send(turn);
        while let Some(event) = stream.next().await {
            if let ProviderEvent::End(result) = event {
                return result;
            }
            if let Err(error) = self.take(event, invoke).await {
                // The call is still under way: this is what ends it.
                self.transcript.calls.stop(error.error_type());
                return Err(error);
            }
        }
        Err(ProviderError::Cut)
    }

    fn turn(&mut self, invoke: &Span) -> Turn {
        let key = self.active.lane();
        let Given { system, history, answer_schema } = std::mem::take(self.given);
        let system = instructions(self.agent.config.system.as_deref(), system.as_deref());
        self.active.progress().session_reset = false;
        let own = || self.inner.agent_sessions.resume(&key, &self.agent.config.provider);
        let remembered = history.is_none();
        let agent_session = if remembered { own() } else { None };
        self.transcript.resumed = agent_session.is_some();
        Turn {
            agent: self.active.agent.clone(),
            session: self.active.session.clone(),
            request_id: self.active.id.clone(),
            trace_id: self.trace_id,
            span: invoke.clone(),
            model: self.agent.config.model.clone(),
            system,
            history: history.or_else(|| self.inner.sessions().history(&key)).unwrap_or_default(),
            agent_session,
            remembered,
            cwd: self.agent.config.cwd.clone(),
            message: Arc::clone(self.message),
            answer_schema,
            remaining: self.deadline.saturating_sub(self.since_accepted()),
            calls: self.transcript.calls.clone(),
            retry: self.retry(),
            at: hosting::at(self.agent, self.lease.as_deref()),
        }
    }

    /// A limit that others reach while this request waits to be tried again holds for the try too. Where its instance
    /// was, another may answer by then.
    fn retry(&self) -> MayRetry {
        let (meter, agent) = (Arc::clone(&self.inner.meter), self.active.agent.clone());
        let lease = self.lease.clone();
        MayRetry::new(move || {
            lease.as_deref().is_none_or(Lease::is_current) && meter.take_turn(&agent).is_ok()
        })
    }

    async fn take(&mut self, event: ProviderEvent, invoke: &Span) -> Result<(), ProviderError> {
        match event {
            ProviderEvent::Delta(text) => self.take_text(text).await?,
            ProviderEvent::ToolStart { id, name } => self.tool_started(id, name, invoke).await,
            ProviderEvent::ToolEnd { id, name, error } => self.tool_ended(&id, name, error).await,
            ProviderEvent::ToolRequested { name } => {
                self.transcript.list_tool(ToolSummary { name: name.clone(), ok: None });
                self.emit(AgentEvent::Tool { name, state: "requested" }).await;
            }
            ProviderEvent::Retry { attempt, after, cause } => {
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                self.emit(AgentEvent::Retry { attempt, after_ms, cause }).await;
            }
            ProviderEvent::AgentSession(name) => self.transcript.agent_session = Some(name),
            ProviderEvent::End(_) => {}
        }
        Ok(())
    }

    async fn take_text(&mut self, text: String) -> Result<(), ProviderError> {
        if self.transcript.first_token.is_none() {
            let called = self.transcript.called.unwrap_or_default();
            self.transcript.first_token = Some(self.inner.clock.elapsed().saturating_sub(called));
        }
        if self.transcript.text.len() + text.len() > ANSWER_BYTES_MAX {
            return Err(ProviderError::TooLarge { bytes_max: ANSWER_BYTES_MAX });
        }
        self.transcript.text.push_str(&text);
        self.emit(AgentEvent::Delta { text }).await;
        Ok(())
    }

    async fn tool_started(&mut self, id: String, name: String, invoke: &Span) {
        let span = tracing::info_span!(
            parent: invoke,
            "execute_tool",
            otel.name = %format_args!("execute_tool {name}"),
            otel.kind = "internal",
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = %name,
            gen_ai.tool.call.id = %id,
            error.type = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let started = self.inner.clock.elapsed();
        let tool = RunningTool { name: name.clone(), started_at: self.inner.clock.now() };
        self.active.progress().tools.running.push(tool);
        self.transcript.running.push(ToolAtWork { id, name: name.clone(), started, span });
        self.emit(AgentEvent::Tool { name, state: "running" }).await;
    }

    async fn tool_ended(&mut self, id: &str, name: String, error: Option<String>) {
        let at_work = self.transcript.running.iter().position(|tool| tool.id == id);
        let at_work = at_work.map(|index| self.transcript.running.swap_remove(index));
        let took = at_work.as_ref().map(|tool| self.inner.clock.elapsed().saturating_sub(tool.started));
        let span = at_work.as_ref().map_or(self.span, |tool| &tool.span);
        let used = UsedTool { name: &name, error: error.as_deref(), took };
        self.inner.recorder.tool(self.active, span, &used);
        {
            let mut progress = self.active.progress();
            if let Some(index) = progress.tools.running.iter().position(|tool| tool.name == name) {
                progress.tools.running.remove(index);
            }
            match error {
                None => progress.tools.done += 1,
                Some(_) => progress.tools.failed += 1,
            }
        }
        let counts = &mut self.transcript.tool_counts;
        match error {
            None => counts.done += 1,
            Some(_) => counts.failed += 1,
        }
        self.transcript.list_tool(ToolSummary { name: name.clone(), ok: Some(error.is_none()) });
        let state = if error.is_none() { "done" } else { "failed" };
        self.emit(AgentEvent::Tool { name, state }).await;
    }

    /// Passes an event on. A reader that is slow is waited for, up to the deadline; one that is gone is not.
    async fn emit(&self, event: AgentEvent) {
        let _ = self.events.send(event).await;
    }

    fn since_accepted(&self) -> Duration {
        self.inner.clock.elapsed().saturating_sub(self.active.accepted)
    }
}
