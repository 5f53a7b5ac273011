//! The OpenAI-compatible door: a model is an agent (<https://platform.openai.com/docs/api-reference/chat>).
//!
//! A request here is an `agent.send` in other words: the same lanes, limits, records and traces. It only translates:
//! `request` reads what a client asks, `answer` and `stream` write what it expects, `fault` says what went wrong in its
//! shape. It takes no part in conversations: without a session the client's own messages are the conversation. Start at
//! [`complete`].

mod answer;
mod fault;
mod models;
mod request;
mod stream;
mod tally;

pub(crate) use answer::ChatCompletion;
pub(crate) use fault::{CODES, Fault};
pub(crate) use models::{Model, ModelList, model, models};
pub(crate) use request::ChatRequest;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Readiness;
use super::guard;
use super::request::Request;
use super::response::{Outcome, Problem, Reply, reply};
use super::state::ApiState;
use crate::gateway::{Accepted, Caller, Channel, OnDisconnect, Rejection, SendRequest};
use crate::ids::{AgentId, IdempotencyKey, RequestId, SessionId};
use answer::Form;
use request::Asked;
use tally::Tally;

/// Names plimsoll's own session, which then keeps the conversation.
const SESSION: &str = "x-plimsoll-session";

/// `cancel` (the default) or `finish`: what becomes of the request when its client goes away.
const ON_DISCONNECT: &str = "x-plimsoll-on-disconnect";

/// How long the request may take, in milliseconds.
const DEADLINE: &str = "x-plimsoll-deadline-ms";

/// Runs the message once, however often it is sent with this key; the SDKs call it so.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The request's id, as the SDKs read it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a conversation, streamed or whole.
pub(crate) async fn complete(state: Arc<ApiState>, request: Request) -> Outcome {
    let tally = Tally::begin(&state);
    let (accepted, asked) = match accept(&state, request).await {
        Ok(begun) => begun,
        Err(fault) => return Ok(tally.failed(fault)),
    };
    let form = Form::new(&accepted.request_id, state.sources.clock.now(), asked.model);
    match asked.stream {
        Some(options) => Ok(stream::answer(accepted, form, options, tally).await),
        None => Ok(whole(accepted, &form, tally).await),
    }
}

/// What is answered needs: the request under way, and how its client wants to hear of it.
struct Wanted {
    model: AgentId,
    stream: Option<request::StreamOptions>,
}

async fn accept(state: &Arc<ApiState>, mut request: Request) -> Result<(Accepted, Wanted), Fault> {
    let identity = request.identity()?;
    let text = state.read_json(&mut request).await?;
    guard::recheck(state, &request.head, &identity)?;
    if state.readiness() == Readiness::Draining {
        return Err((&Rejection::ShuttingDown).into());
    }
    let Asked { model, message, system, history, stream } = request::read(&text)?;
    let agent = AgentId::parse(&model).map_err(|_| Fault::unknown_model(&model))?;
    let session = header::<SessionId>(&request.headers, SESSION)?;
    let idempotency_key = header::<IdempotencyKey>(&request.headers, IDEMPOTENCY_KEY)?;
    // What runs once runs to its end, so that whoever sends it again finds its answer.
    let usual = if idempotency_key.is_some() { OnDisconnect::Finish } else { OnDisconnect::Cancel };
    let send = SendRequest {
        idempotency_key,
        // A session remembers by itself what was said in it.
        history: session.is_none().then_some(history),
        session,
        system,
        deadline: header::<Millis>(&request.headers, DEADLINE)?.map(|Millis(deadline)| deadline),
        on_disconnect: header::<Leaving>(&request.headers, ON_DISCONNECT)?
            .map_or(usual, |Leaving(then)| then),
        ..SendRequest::new(agent.clone(), message)
    };
    let caller = Caller { actor: identity.actor, channel: Channel::OpenAi, trace: request.trace() };
    let accepted = state.gateway.send(caller, send).map_err(|rejection| Fault::from(&rejection))?;
    Ok((accepted, Wanted { model: agent, stream }))
}

/// The answer in one piece.
async fn whole(accepted: Accepted, form: &Form, mut tally: Tally) -> Reply {
    let Accepted { request_id, session: _, events, outcome } = accepted;
    // Nobody reads them: the provider need not wait.
    drop(events);
    let fault = match outcome.await {
        Ok(Ok(answer)) => {
            tally.ended("ok");
            let body = form.whole(&answer);
            return about(reply(StatusCode::OK, "application/json", body), &request_id);
        }
        Ok(Err(rejection)) => Fault::from(&*rejection),
        Err(_gone) => Fault::from(Problem::internal()),
    };
    tally.failed(fault.about(&request_id))
}

/// The answer with the id of its request.
fn about(mut reply: Reply, request_id: &RequestId) -> Reply {
    let id = HeaderValue::from_str(request_id.as_str()).expect("a request id is visible ASCII");
    reply.headers_mut().insert(REQUEST_ID, id);
    reply
}

/// What may stand in a header of ours.
trait FromHeader: Sized {
    /// # Errors
    /// Says what would be right.
    fn from_header(text: &str) -> Result<Self, String>;
}

/// Reads one of our headers, if it is there.
fn header<T: FromHeader>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let once = if values.next().is_some() { Err("expected once".to_owned()) } else { Ok(()) };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| "expected UTF-8".to_owned());
    once.and(text)
        .and_then(T::from_header)
        .map(Some)
        .map_err(|problem| Fault::invalid(name, format!("{name}: {problem}")))
}

impl FromHeader for SessionId {
    fn from_header(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }
}

impl FromHeader for IdempotencyKey {
    fn from_header(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }
}

struct Leaving(OnDisconnect);

impl FromHeader for Leaving {
    fn from_header(text: &str) -> Result<Self, String> {
        match text {
            "cancel" => Ok(Self(OnDisconnect::Cancel)),
            "finish" => Ok(Self(OnDisconnect::Finish)),
            _ => Err("expected `cancel` or `finish`".to_owned()),
        }
    }
}

struct Millis(Duration);

impl FromHeader for Millis {
    fn from_header(text: &str) -> Result<Self, String> {
        let millis = text.parse().map_err(|_| "expected a number of milliseconds".to_owned())?;
        Ok(Self(Duration::from_millis(millis)))
    }
}
