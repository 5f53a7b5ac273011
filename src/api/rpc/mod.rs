//! JSON-RPC methods: the list of them, and the way from a message to its answer.
//!
//! A new method is one function in the file of its group and one line in [`METHODS`]; role check, rate limit, metrics,
//! `system.methods`, the contract and the authorisation test follow from the line. Start at [`begin`].

mod agent;
mod agent_logs;
mod agent_roster;
mod alert;
mod audit;
mod control;
mod error;
mod events;
mod lifecycle;
mod method;
mod request;
mod session;
mod system;
mod token;
mod town;
mod usage;

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use schemars::JsonSchema;

use super::Readiness;
use super::access::Access;
use super::jsonrpc::{self, Incoming, Malformed};
use super::state::ApiState;
use super::towns::{self, Operation};
use crate::gateway::{Channel, Rejection};

pub(crate) use agent_roster::{AgentDeleted, NewAgent, read_id};
use error::GATEWAY_FULL;
pub(crate) use error::{
    CODES, CONFLICT, FORBIDDEN, JOURNAL_UNAVAILABLE, NOT_FOUND, RATE_LIMITED, RpcError, SHUTTING_DOWN,
};
use method::Held;
pub(crate) use method::{Call, CallResult, Context, Method, NoParams, SchemaOf, read_named};
pub(crate) use token::TokenList;

/// Every method, by name.
pub(crate) const METHODS: &[Method] = &[
    entry::<agent::CancelParams, agent::Cancelled>(
        "agent.cancel",
        Access::Operator,
        "Cancels a request, queued or running.",
        agent::cancel,
    ),
    entry::<NewAgent, crate::gateway::AgentSummary>(
        "agent.create",
        Access::Operator,
        "Makes an agent of an entry as it would stand under `agents:`; survives a restart.",
        agent_roster::create,
    ),
    entry::<agent_roster::DeleteParams, AgentDeleted>(
        "agent.delete",
        Access::Operator,
        "Deletes an agent that was made so, with what it has under way.",
        agent_roster::delete,
    ),
    entry::<NoParams, agent::AgentList>("agent.list", Access::Viewer, "Lists the agents.", agent::list),
    entry::<agent_logs::LogsParams, crate::live::OutputPage>(
        "agent.logs",
        Access::Operator,
        "Shows what an agent's program printed, as far as it is kept in memory.",
        agent_logs::logs,
    ),
    entry::<control::PauseParams, control::Paused>(
        "agent.pause",
        Access::Operator,
        "Stops new work of an agent, or of all; survives a restart.",
        control::pause,
    ),
    entry::<control::ResumeParams, control::Resumed>(
        "agent.resume",
        Access::Operator,
        "Takes new work again, for an agent or for all that are paused.",
        control::resume,
    ),
    entry::<agent::SendParams, agent::Sent>(
        "agent.send",
        Access::Operator,
        "Sends a message to an agent and waits for its answer, unless it is sent with async.",
        agent::send,
    ),
    entry::<NoParams, crate::alerts::AlertList>(
        "alert.list",
        Access::Viewer,
        "Lists the alerts that fire and the last that are over.",
        alert::list,
    ),
    entry::<NoParams, audit::Heads>(
        "audit.head",
        Access::Viewer,
        "Shows the ends of the journal's logs: keep them elsewhere, for audit.verify.",
        audit::head,
    ),
    entry::<audit::VerifyParams, audit::Verification>(
        "audit.verify",
        Access::Operator,
        "Checks every record of the journal, and that it contains heads kept elsewhere.",
        audit::verify,
    ),
    entry::<events::SubscribeParams, events::Subscribed>(
        "events.subscribe",
        Access::Viewer,
        "Follows events as notifications `event`; WebSocket only.",
        events::subscribe,
    ),
    entry::<events::UnsubscribeParams, events::Unsubscribed>(
        "events.unsubscribe",
        Access::Viewer,
        "Ends a subscription.",
        events::unsubscribe,
    ),
    entry::<lifecycle::InstanceParams, lifecycle::Ordered>(
        "lifecycle.start",
        Access::Operator,
        "Starts the instance of an agent; does not wait for it.",
        lifecycle::start,
    ),
    entry::<lifecycle::InstanceParams, lifecycle::Ordered>(
        "lifecycle.stop",
        Access::Operator,
        "Stops the instance of an agent; does not wait for it. The next message starts it again.",
        lifecycle::stop,
    ),
    entry::<request::GetParams, request::Status>(
        "request.get",
        Access::Operator,
        "Says how far a request is, or how it ended, as long as that is kept.",
        request::get,
    ),
    entry::<session::SessionParams, session::History>(
        "session.history",
        Access::Operator,
        "Shows what was said in a session, as far as it is kept in memory.",
        session::history,
    ),
    entry::<NoParams, session::SessionList>(
        "session.list",
        Access::Viewer,
        "Lists the sessions in memory.",
        session::list,
    ),
    entry::<session::SessionParams, session::ResetResult>(
        "session.reset",
        Access::Operator,
        "Forgets what was said in a session.",
        session::reset,
    ),
    entry::<NoParams, system::ActiveRequests>(
        "system.activeRequests",
        Access::Viewer,
        "Lists the requests that wait or run.",
        system::active_requests,
    ),
    entry::<system::EventsParams, system::Events>(
        "system.events",
        Access::Viewer,
        "Shows the last events, the newest first.",
        system::events,
    ),
    entry::<NoParams, super::rest::Health>(
        "system.health",
        Access::Viewer,
        "Says the same as GET /health.",
        system::health,
    ),
    entry::<NoParams, system::MethodList>(
        "system.methods",
        Access::Viewer,
        "Lists the methods with the schemas of their parameters.",
        system::methods,
    ),
    entry::<NoParams, system::SystemMetrics>(
        "system.metrics",
        Access::Viewer,
        "Shows counts and the last model calls.",
        system::metrics,
    ),
    entry::<token::CreateParams, token::Created>(
        "token.create",
        Access::Operator,
        "Makes a token and shows it once.",
        token::create,
    ),
    entry::<NoParams, token::TokenList>(
        "token.list",
        Access::Operator,
        "Lists the tokens, without their texts.",
        token::list,
    ),
    entry::<token::RevokeParams, token::Revoked>(
        "token.revoke",
        Access::Operator,
        "Ends a token and what is open with it.",
        token::revoke,
    ),
    of_town::<towns::AddAgent>("town.addAgent"),
    of_town::<towns::AddBead>("town.addBead"),
    of_town::<towns::AddDependency>("town.addDependency"),
    of_town::<towns::ShowDispatch>("town.agentDispatch"),
    of_town::<towns::ListAgents>("town.agents"),
    of_town::<towns::ShowBead>("town.bead"),
    of_town::<towns::ListBeads>("town.beads"),
    of_town::<towns::CancelBead>("town.cancelBead"),
    of_town::<towns::CreateTown>("town.create"),
    of_town::<towns::Drain>("town.drain"),
    of_town::<towns::TryNextTick>("town.dryRun"),
    of_town::<towns::HoldBead>("town.holdBead"),
    of_town::<towns::ListTowns>("town.list"),
    of_town::<towns::ChangePolicy>("town.policy"),
    of_town::<towns::ReleaseBead>("town.releaseBead"),
    of_town::<towns::RemoveAgent>("town.removeAgent"),
    of_town::<towns::ReplayPast>("town.replay"),
    of_town::<towns::Report>("town.report"),
    of_town::<towns::StartConvoy>("town.startConvoy"),
    of_town::<towns::ShowStatus>("town.status"),
    entry::<usage::QueryParams, crate::gateway::UsageReport>(
        "usage.query",
        Access::Viewer,
        "Tells what agents used: requests, tokens, cost.",
        usage::query,
    ),
];

const fn entry<P: JsonSchema, R: JsonSchema>(
    name: &'static str,
    access: Access,
    summary: &'static str,
    handler: method::Handler,
) -> Method {
    let (params, result): (SchemaOf, SchemaOf) = (|g| g.subschema_for::<P>(), |g| g.subschema_for::<R>());
    Method { name, access, summary, params, result, handler }
}

const fn of_town<O: Operation>(name: &'static str) -> Method {
    entry::<O::Params, O::Answer>(name, O::ACCESS, O::SUMMARY, town::run::<O>)
}

/// The label under which calls of methods that do not exist are counted.
const UNKNOWN: &str = "unknown";

/// Method and code of every outcome that can be foreseen: their counters start at 0.
pub(crate) fn outcomes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_gateway = |code: i32| (-32007..=-32001).contains(&code) && code != GATEWAY_FULL;
    let of_method = move |method: &'static Method| {
        let codes = CODES.iter().filter(move |(code, ..)| method.name == "agent.send" || !of_gateway(*code));
        let codes = codes.filter(|(code, ..)| ![-32700, -32600, -32601].contains(code));
        codes.map(|(_, label, _)| *label).chain(["ok"]).map(move |code| (method.name, code))
    };
    let unknown = [-32700, -32600, -32601, GATEWAY_FULL, RATE_LIMITED, SHUTTING_DOWN]
        .map(|code| (UNKNOWN, error::label(code)));
    METHODS.iter().flat_map(of_method).chain(unknown)
}

/// What became of a message.
pub(crate) enum Answered {
    /// One call, or none at all; `None` for a notification.
    Single(Option<Result<String, (RpcError, String)>>),
    /// A batch; `None` if all were notifications.
    Batch(Option<String>),
}

impl Answered {
    /// What goes back, if anything does.
    pub(crate) fn into_text(self) -> Option<String> {
        match self {
            Self::Single(None) => None,
            Self::Single(Some(Ok(text) | Err((_, text)))) => Some(text),
            Self::Batch(text) => text,
        }
    }
}

/// A message whose calls have begun.
pub(crate) struct Begun {
    /// How many calls had room.
    pub(crate) calls: usize,
    /// What is left to wait for.
    pub(crate) answer: BoxFuture<'static, Answered>,
    /// To be dropped once the answer is on its way.
    pub(crate) held: Vec<Held>,
}

impl Begun {
    fn refused(ctx: &Context, malformed: &Malformed) -> Self {
        let answer = Answered::Single(Some(Err(refuse(ctx, malformed))));
        Self { calls: 0, answer: std::future::ready(answer).boxed(), held: Vec::new() }
    }
}

/// Begins the calls of a message, in order, as far as there is `room`; those past it are refused.
pub(crate) fn begin(ctx: &Arc<Context>, text: &[u8], room: usize) -> Begun {
    match jsonrpc::read(text, ctx.state.config.batch_max) {
        Err(malformed) => Begun::refused(ctx, &malformed),
        Ok(Incoming::Single(Err(malformed))) => Begun::refused(ctx, &malformed),
        Ok(Incoming::Single(Ok(call))) => {
            let id = call.id.clone();
            let (result, held) = begin_call(ctx, &call, room);
            let answer = async move {
                let result = result.await;
                Answered::Single(id.map(|id| match result {
                    Ok(json) => Ok(jsonrpc::result_text(&id, &json)),
                    Err(error) => {
                        let text = jsonrpc::error_text(Some(&id), &error.to_json());
                        Err((error, text))
                    }
                }))
            };
            Begun { calls: room.min(1), answer: answer.boxed(), held: vec![held] }
        }
        Ok(Incoming::Batch(calls)) => {
            let rooms = (0..=room).rev().chain(std::iter::repeat(0));
            let begun = calls.iter().zip(rooms).map(|(call, room)| begin_part(ctx, call, room));
            let (parts, held): (Vec<_>, _) = begun.unzip();
            let answer = async move {
                let texts: Vec<String> = join_all(parts).await.into_iter().flatten().collect();
                Answered::Batch((!texts.is_empty()).then(|| format!("[{}]", texts.join(","))))
            };
            Begun { calls: room.min(calls.len()), answer: answer.boxed(), held }
        }
    }
}

fn begin_part(
    ctx: &Arc<Context>,
    call: &Result<jsonrpc::Call<'_>, Malformed>,
    room: usize,
) -> (BoxFuture<'static, Option<String>>, Held) {
    match call {
        Err(malformed) => {
            let (_, text) = refuse(ctx, malformed);
            (std::future::ready(Some(text)).boxed(), Held::default())
        }
        Ok(call) => {
            let id = call.id.clone();
            let (result, Held { turn, notifications }) = begin_call(ctx, call, room);
            let part = async move {
                let result = result.await;
                // The batch keeps its own order; one part may not wait for the answer of all.
                drop(turn);
                id.map(|id| match result {
                    Ok(json) => jsonrpc::result_text(&id, &json),
                    Err(error) => jsonrpc::error_text(Some(&id), &error.to_json()),
                })
            };
            (part.boxed(), Held { turn: None, notifications })
        }
    }
}

fn refuse(ctx: &Context, malformed: &Malformed) -> (RpcError, String) {
    let error = count(ctx).err().unwrap_or_else(|| RpcError::from(malformed));
    ctx.state.metrics.rpc_call(UNKNOWN, error::label(error.code), Duration::ZERO);
    let text = jsonrpc::error_text(malformed.id.as_ref(), &error.to_json());
    (error, text)
}

/// Asks rate and room, looks the method up, asks its role, and begins it; counts it when it is done.
fn begin_call(
    ctx: &Arc<Context>,
    call: &jsonrpc::Call<'_>,
    room: usize,
) -> (BoxFuture<'static, CallResult>, Held) {
    let state = Arc::clone(&ctx.state);
    let began = state.sources.clock.elapsed();
    let method = state.methods.iter().find(|method| method.name == call.method);
    let label = method.map_or(UNKNOWN, |method| method.name);
    let admitted = admit(ctx, room).and_then(|()| {
        let method = method.ok_or_else(|| RpcError::unknown_method(&call.method))?;
        permit(ctx, method).map(|()| method.handler)
    });
    let held = RefCell::new(Held::default());
    let call = Call { ctx, params: call.params, held: &held };
    let work = match admitted {
        Err(error) => std::future::ready(Err(error)).boxed(),
        Ok(handler) => std::panic::catch_unwind(AssertUnwindSafe(|| handler(call)))
            .unwrap_or_else(|_panic| std::future::ready(Err(bug(&state, label))).boxed()),
    };
    let counted = async move {
        let result = AssertUnwindSafe(work).catch_unwind().await;
        let result = result.unwrap_or_else(|_panic| Err(bug(&state, label)));
        let code = result.as_ref().map_or_else(|e| error::label(e.code), |_| "ok");
        state.metrics.rpc_call(label, code, state.sources.clock.elapsed().saturating_sub(began));
        result
    };
    (counted.boxed(), held.into_inner())
}

/// Whether a call may begin now, whatever it asks.
fn admit(ctx: &Context, room: usize) -> Result<(), RpcError> {
    count(ctx)?;
    // Over HTTP nothing waits for the end; a WebSocket still sees to what it began.
    if ctx.channel == Channel::Http && ctx.state.readiness() == Readiness::Draining {
        return Err(Rejection::ShuttingDown.into());
    }
    if room == 0 {
        ctx.state.limit_hit("ws_in_flight");
        let message = "too many unanswered calls on this connection: wait for answers";
        return Err(RpcError::limited(GATEWAY_FULL, "ws_in_flight", Duration::from_millis(100), message));
    }
    Ok(())
}

/// Counts a call against its caller's rate, also one that is malformed, unknown or forbidden.
fn count(ctx: &Context) -> Result<(), RpcError> {
    let message = "too many requests for this token: slow down";
    let limited = |wait| RpcError::limited(RATE_LIMITED, "requests_per_second", wait, message);
    ctx.state.allow(&ctx.identity).map_err(limited)
}

fn permit(ctx: &Context, method: &Method) -> Result<(), RpcError> {
    if method.access.admits(ctx.identity.role) {
        return Ok(());
    }
    ctx.state.note_forbidden();
    Err(RpcError::forbidden(method.access.as_str()))
}

/// What the caller hears of a panic: by its id the panic is found in the log.
fn bug(state: &ApiState, method: &'static str) -> RpcError {
    let id = state.incident();
    tracing::error!(source = "api", method, request_id = %id, "a method panicked");
    RpcError::internal().about(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_sorted_unique_and_described() {
        assert!(METHODS.windows(2).all(|pair| pair[0].name < pair[1].name), "sort them by name");
        assert!(METHODS.iter().all(|method| method.summary.ends_with('.')));
    }

    #[test]
    fn every_method_asks_for_a_role() {
        let open = METHODS.iter().filter(|m| !matches!(m.access, Access::Viewer | Access::Operator));
        let open: Vec<_> = open.map(|m| (m.name, m.access)).collect();
        assert_eq!(open, [("town.agentDispatch", Access::Agent), ("town.report", Access::Agent)]);
    }
}
