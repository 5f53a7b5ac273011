//! The door of the gateway: what a message has to pass before it stands in its lane.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::active::Active;
use super::keys::{Claim, Claimed, Wanted};
use super::lane::LaneKey;
use super::record::{MESSAGE_BYTES, Outcome, SESSIONS};
use super::run::{self, Given, Job, Presence};
use super::service::{Agent, Inner};
use super::{Accepted, Caller, Channel, Config, Gateway, OnDisconnect, Rejection, SendRequest};
use crate::ids::{RequestId, SessionId, TraceId};
use crate::journal::Actor;
use crate::limits::{DEADLINE_MAX, REQUEST_EVENTS_MAX};
use crate::provider::{Hosting, Message, Refusal};
use crate::telemetry::{TraceContext, span};

/// What a message with a key comes to, and one without.
enum Turnout {
    /// It runs; its key is taken.
    Runs(Option<Claim>),
    /// It is under way or ran before: this tells how that ends.
    RanBefore(Accepted),
}

impl Gateway {
    /// Puts a message into its lane and answers at once; must be called on the runtime. What happens to it is told
    /// through [`Accepted`].
    ///
    /// # Errors
    /// [`Rejection`]: what was refused here left no trace but in the caller's answer.
    pub fn send(&self, caller: Caller, request: SendRequest) -> Result<Accepted, Rejection> {
        self.accept(caller, request).inspect_err(|rejection| self.inner.recorder.refused(rejection))
    }

    fn accept(&self, caller: Caller, request: SendRequest) -> Result<Accepted, Rejection> {
        let inner = &self.inner;
        let agent = inner.agent(&request.agent)?;
        self.check(&agent, &request)?;
        let Caller { actor, channel, trace } = caller;
        let message_bytes = request.bytes();
        let wanted = Wanted::of(&actor, &request);
        let SendRequest {
            agent: agent_id,
            message,
            session,
            request_id,
            idempotency_key: _,
            deadline,
            on_disconnect,
            system,
            history,
            answer_schema,
        } = request;
        let now = inner.clock.now();
        let id = request_id.unwrap_or_else(|| RequestId::generate(now, rand::random()));
        let active = Arc::new(Active {
            session: session.unwrap_or_else(|| usual_session(&actor, &id, history.as_deref())),
            id,
            agent: agent_id,
            channel,
            message_bytes,
            accepted_at: now,
            accepted: inner.clock.elapsed(),
            key: wanted.as_ref().map(|wanted| wanted.key),
            cancel: Default::default(),
            end: Default::default(),
            progress: Default::default(),
        });
        // From before the floor admits it: a drain that begins now waits for what was admitted and not spawned yet.
        let _under_way = inner.tasks.token();
        let claim = match self.claim(wanted, &active)? {
            Turnout::Runs(claim) => claim,
            Turnout::RanBefore(accepted) => return Ok(accepted),
        };
        let refuse = |rejection: &Rejection| active.refuse(rejection, now);
        let place = inner.ask(&active.agent).inspect_err(refuse)?;
        // One with a key takes no turn from others while the disk takes its time.
        let admitted = inner.floor.admit(&active, claim.is_some()).inspect_err(refuse)?;
        // Only now: who retires it cancels what stands on the floor by then.
        agent.still_there(&active.agent).inspect_err(refuse)?;
        place.keep();
        let presence = Presence::enter(inner, &agent, history.is_none().then(|| active.lane()));
        let (events_tx, events) = mpsc::channel(REQUEST_EVENTS_MAX);
        let (outcome_tx, outcome) = oneshot::channel();
        let accepted =
            Accepted { request_id: active.id.clone(), session: active.session.clone(), events, outcome };
        let (span, trace_id) = traced(&active, trace);
        let job = Job {
            inner: Arc::clone(inner),
            slot: admitted.slot,
            ahead: admitted.ahead,
            turn: admitted.turn,
            message: message.into(),
            given: Given { system, history, answer_schema },
            deadline: deadline.unwrap_or_else(|| self.usual_deadline(&agent)),
            on_disconnect,
            actor,
            trace_id,
            span,
            events: events_tx,
            outcome: outcome_tx,
            presence,
            claim,
            active,
            agent,
        };
        inner.tasks.spawn(run::run(job));
        Ok(accepted)
    }

    /// Whether the message runs, as far as its key says.
    fn claim(&self, wanted: Option<Wanted>, active: &Arc<Active>) -> Result<Turnout, Rejection> {
        let Some(wanted) = wanted else { return Ok(Turnout::Runs(None)) };
        Ok(match self.inner.keys.claim(wanted, active)? {
            Claimed::New(claim) => Turnout::Runs(Some(claim)),
            Claimed::UnderWay(first) => Turnout::RanBefore(self.attach(first)),
            Claimed::Ended(first, outcome) => Turnout::RanBefore(self.again(active, first, outcome)?),
        })
    }

    fn usual_deadline(&self, agent: &Agent) -> Duration {
        let Config { deadline, deadline_process, .. } = &self.inner.config;
        let usual = match agent.provider.hosting() {
            Hosting::Remote if agent.config.instance.is_none() => deadline,
            Hosting::Remote | Hosting::Process => deadline_process,
        };
        agent.config.deadline.unwrap_or(*usual).0
    }

    /// Waits beside whoever sent the same message before.
    fn attach(&self, first: Arc<Active>) -> Accepted {
        let (_, events) = mpsc::channel(1);
        let (mut outcome_tx, outcome) = oneshot::channel();
        let (request_id, session) = (first.id.clone(), first.session.clone());
        self.inner.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = first.end.wait() => ended,
                () = outcome_tx.closed() => return,
            };
            // Whoever went away does not want it.
            let _ = outcome_tx.send(ended.result.clone());
        });
        Accepted { request_id, session, events, outcome }
    }

    /// Gives the answer again, if it is still kept.
    fn again(&self, active: &Active, first: RequestId, outcome: Outcome) -> Result<Accepted, Rejection> {
        let kept = self.inner.answers.get(&first, self.inner.clock.elapsed());
        let Some(ended) = kept.filter(|ended| ended.key == active.key) else {
            let how = outcome.as_str();
            let problem = format!(
                "this message ran and ended ({how}), but its answer is no longer kept: its record in the journal \
                 says what it cost, and with a new key it runs again"
            );
            return Err(Rejection::Conflict { cause: "finished", problem, request_id: first });
        };
        let (_, events) = mpsc::channel(1);
        let (outcome_tx, outcome) = oneshot::channel();
        // The receiver is in our hand.
        let _ = outcome_tx.send(ended.result.clone());
        Ok(Accepted { request_id: first, session: ended.session.clone(), events, outcome })
    }

    fn check(&self, agent: &Agent, request: &SendRequest) -> Result<(), Rejection> {
        let invalid = |field, problem: String| Err(Rejection::Invalid { field, problem });
        let bytes_max = self.inner.config.message_bytes_max;
        if request.message.trim().is_empty() {
            return invalid("message", "is empty: say something".to_owned());
        }
        if request.message.len() as u64 > bytes_max.0 {
            self.inner.recorder.limit_hit(MESSAGE_BYTES);
            return invalid("message", format!("is longer than {bytes_max}"));
        }
        if let Some(Refusal { field, problem }) = agent.refuses(request) {
            return invalid(field, problem.to_owned());
        }
        if request.deadline.is_some_and(|deadline| deadline.is_zero() || deadline > DEADLINE_MAX) {
            let hours = DEADLINE_MAX.as_secs() / 3_600;
            return invalid("deadlineMs", format!("must lie between 1 ms and {hours} h"));
        }
        if request.idempotency_key.is_some() && request.on_disconnect == OnDisconnect::Cancel {
            let problem = "a message with an idempotencyKey runs to its end: leave out one of the two";
            return invalid("onDisconnect", problem.to_owned());
        }
        let said = request.history.as_ref().is_some_and(|history| !history.is_empty());
        if said && agent.provider.hosting() == Hosting::Process {
            let problem =
                "this agent keeps its conversations itself: name a session, or send one message only";
            return invalid("history", problem.to_owned());
        }
        Ok(())
    }
}

impl Agent {
    /// Why it cannot take a request. What is the operator's own was looked at with the configuration; both are sent as one.
    fn refuses(&self, request: &SendRequest) -> Option<Refusal> {
        let both =
            request.system.as_deref().map(|system| instructions(self.config.system.as_deref(), Some(system)));
        self.provider.refuses(&request.message, both.flatten().as_deref())
    }
}

/// What an agent is told before a conversation: by its operator, then by its caller.
pub(super) fn instructions(own: Option<&str>, given: Option<&str>) -> Option<String> {
    let all: Vec<&str> = [own, given].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("\n\n"))
}

impl Presence {
    fn enter(inner: &Arc<Inner>, agent: &Arc<Agent>, session: Option<LaneKey>) -> Self {
        agent.metrics.active.increment(1.0);
        if let Some(session) = &session {
            let evicted = inner.sessions().enter(session, inner.clock.elapsed());
            inner.recorder.evicted(SESSIONS, evicted);
        }
        Self { inner: Arc::clone(inner), agent: Arc::clone(agent), session, said: None }
    }
}

/// The session of a caller that names none: its own one with each agent, or, where it brings the conversation along,
/// one of this request alone.
fn usual_session(actor: &Actor, id: &RequestId, history: Option<&[Message]>) -> SessionId {
    match history {
        None => {
            SessionId::parse(&format!("default/{actor}")).expect("an actor's name is short and printable")
        }
        Some(_) => SessionId::parse(id.as_str()).expect("what is a request's id can be a session's"),
    }
}

/// The request's span, and the trace that it stands in.
fn traced(active: &Active, caller: Option<TraceContext>) -> (Span, TraceId) {
    let span = send_span(active);
    caller.iter().for_each(|caller| span::set_parent(&span, caller));
    let own = span::trace_id_of(&span).or(caller.map(|caller| caller.trace_id));
    (span, own.unwrap_or_else(random_trace_id))
}

fn random_trace_id() -> TraceId {
    TraceId::from_bits(rand::random::<u128>() | 1).expect("one bit is set")
}

fn send_span(active: &Active) -> Span {
    let (rpc, door) = match active.channel {
        Channel::Ws | Channel::Http => (true, false),
        Channel::OpenAi => (false, true),
        Channel::Town => (false, false),
    };
    tracing::info_span!(
        parent: None,
        "agent.send",
        otel.kind = "server",
        rpc.system.name = rpc.then_some("jsonrpc"),
        rpc.method = rpc.then_some("agent.send"),
        http.route = door.then_some("/v1/chat/completions"),
        request_id = %active.id,
        session_id = %active.session,
        agent = %active.agent,
        rpc.response.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    )
}
