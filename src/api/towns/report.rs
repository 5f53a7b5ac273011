//! What a runtime elsewhere is told of its agents' work, and what it reports of it: once for each key, and for the
//! reporter's own dispatch only.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::access::Access;
use super::super::request::Request;
use super::super::response::{Outcome, Problem, reply};
use super::super::state::ApiState;
use super::agents::AgentParams;
use super::refusal::{Kind, Refusal};
use super::road::{check_places, only_key, read_body};
use super::{Caller, Operation};
use crate::ids::{AgentId, DispatchId, IdempotencyKey, Seq, TownId};
use crate::reconciler::{Assignment, Held, Reconciler, SubmitError, Submitted};
use crate::town::TownEvent;
use crate::town::event;
use crate::town::state::Rejected;
use crate::town::words::{CompletionStatus, ContainerStatus, Outcome as WorkOutcome, Verdict};

/// What happened to an agent elsewhere.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum ReportedEvent {
    /// It says how its work ended.
    AgentDone {
        /// Which agent.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
        /// How.
        outcome: WorkOutcome,
        /// In its words; for operators.
        summary: Option<String>,
    },
    /// Its run ended.
    AgentCompleted {
        /// Which agent.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
        /// How.
        status: CompletionStatus,
        /// Why, if it failed; for operators.
        reason: Option<String>,
    },
    /// Something moves.
    AgentProgress {
        /// Which agent.
        agent: AgentId,
        /// Of which dispatch.
        dispatch_id: DispatchId,
    },
    /// What hosts it is not as it was.
    ContainerStatus {
        /// Which agent.
        agent: AgentId,
        /// The dispatch that it was looked at for.
        dispatch_id: DispatchId,
        /// What was seen.
        status: ContainerStatus,
        /// How it ended, if it did.
        exit_reason: Option<String>,
    },
    /// What hosts it was thrown out by its host.
    ContainerEviction {
        /// Which agent.
        agent: AgentId,
        /// The dispatch that it was at.
        dispatch_id: DispatchId,
        /// Why; for operators.
        reason: Option<String>,
    },
    /// A reviewer says what it found.
    ReviewDone {
        /// Which reviewer.
        agent: AgentId,
        /// Of which dispatch: that of the review.
        dispatch_id: DispatchId,
        /// What.
        verdict: Verdict,
        /// In its words: with `changes`, what is to be done; for operators, and for who does it.
        notes: Option<String>,
    },
}

impl ReportedEvent {
    fn agent(&self) -> &AgentId {
        let (Self::AgentDone { agent, .. }
        | Self::AgentCompleted { agent, .. }
        | Self::AgentProgress { agent, .. }
        | Self::ContainerStatus { agent, .. }
        | Self::ContainerEviction { agent, .. }
        | Self::ReviewDone { agent, .. }) = self;
        agent
    }

    fn dispatch_id(&self) -> &DispatchId {
        let (Self::AgentDone { dispatch_id, .. }
        | Self::AgentCompleted { dispatch_id, .. }
        | Self::AgentProgress { dispatch_id, .. }
        | Self::ContainerStatus { dispatch_id, .. }
        | Self::ContainerEviction { dispatch_id, .. }
        | Self::ReviewDone { dispatch_id, .. }) = self;
        dispatch_id
    }

    fn into_event(self, report: Option<Box<event::Report>>) -> TownEvent {
        match self {
            Self::AgentDone { agent, dispatch_id, outcome, summary } => {
                TownEvent::AgentDone { agent, dispatch_id, outcome, summary: summary.map(Into::into), report }
            }
            Self::AgentCompleted { agent, dispatch_id, status, reason } => TownEvent::AgentCompleted {
                agent,
                dispatch_id,
                status,
                reason: reason.map(Into::into),
                report,
            },
            Self::AgentProgress { agent, dispatch_id } => {
                TownEvent::AgentProgress { agent, dispatch_id, report }
            }
            Self::ContainerStatus { agent, dispatch_id, status, exit_reason } => {
                let (dispatch_id, exit_reason) = (Some(dispatch_id), exit_reason.map(Into::into));
                TownEvent::ContainerStatus { agent, dispatch_id, status, exit_reason, report }
            }
            Self::ContainerEviction { agent, dispatch_id, reason } => {
                let reason = reason.map(Into::into);
                TownEvent::ContainerEviction { agent, dispatch_id, reason, report }
            }
            Self::ReviewDone { agent, dispatch_id, verdict, notes } => {
                let notes = notes.map(Into::into);
                TownEvent::ReviewDone { agent, dispatch_id, verdict, notes, report }
            }
        }
    }
}

/// A report.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ReportParams {
    /// The town.
    town: TownId,
    /// The reporter's own name for it: sent again within 24 h, it happens once.
    idempotency_key: IdempotencyKey,
    /// What happened.
    event: ReportedEvent,
}

/// Where a report stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Reported {
    /// The event that it became when it first came.
    seq: Seq,
    /// Whether it came before.
    repeated: bool,
    /// Whether it is progress that counts as the report of `seq`, which came shortly before: nothing was written.
    coalesced: bool,
}

pub(crate) struct Report;

impl Operation for Report {
    const ACCESS: Access = Access::Agent;
    const SUMMARY: &'static str = "Takes what a runtime elsewhere reports of an agent, once for each key.";
    type Params = ReportParams;
    type Answer = Reported;

    async fn run(caller: Caller, params: ReportParams) -> Result<Reported, Refusal> {
        let ReportParams { town, idempotency_key, event } = params;
        check_own(&caller, &town, &event)?;
        let Caller { state, identity } = &caller;
        // Over both roads, and however it is written, the same is the same.
        let plain = event.clone().into_event(None);
        let body = format!("{}{}", plain.kind(), plain.detail());
        let mark = Reconciler::report(&identity.actor, idempotency_key, body.as_bytes());
        let event = event.into_event(Some(Box::new(mark)));
        let submitted = state.reconciler.submit(&town, &identity.actor, event).await;
        let submitted = submitted.map_err(|error| match error {
            SubmitError::Rejected(Rejected::WrongKind { bead, kind }) => Refusal::not_a_review(&bead, kind),
            error => Refusal::of_submit(state, error),
        })?;
        let Submitted { seq, repeated, coalesced } = submitted;
        Ok(Reported { seq, repeated, coalesced })
    }
}

/// Whether who reports may do so: an agent for itself, and anybody for the agent whose dispatch it is. A dispatch that is
/// nobody's any more is no secret and changes nothing.
fn check_own(caller: &Caller, town: &TownId, event: &ReportedEvent) -> Result<(), Refusal> {
    let agent = event.agent();
    check_bounds_of_token(caller, town, agent)?;
    let dispatch = event.dispatch_id();
    let holder =
        caller.state.reconciler.look(town, |town, _| town.holder(dispatch).map(|(id, _)| id.clone()));
    match holder.ok_or_else(|| Refusal::no_town(&caller.state, town))? {
        Some(holder) if holder != *agent => {
            let message = format!(
                "the dispatch {dispatch} is not of the agent {agent}: an agent reports for its own only"
            );
            Err(forbidden(caller, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the token of an agent that comes here is bound to none else.
fn check_bounds_of_token(caller: &Caller, town: &TownId, agent: &AgentId) -> Result<(), Refusal> {
    let bound = caller.agent_token();
    if let Some(other) = bound.and_then(|token| token.town.as_ref()).filter(|bound| *bound != town) {
        return Err(forbidden(caller, format!("this token is for the town {other} only")));
    }
    if let Some(other) = bound.and_then(|token| token.agent.as_ref()).filter(|bound| *bound != agent) {
        return Err(forbidden(caller, format!("this token is for the agent {other} only")));
    }
    Ok(())
}

fn forbidden(caller: &Caller, message: String) -> Refusal {
    caller.state.note_forbidden();
    Refusal::new(Kind::Forbidden, "forbidden", message)
}

/// What an agent has to do.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AgentWork {
    /// The dispatch that waits for its report; null while there is none.
    dispatch: Option<Assignment>,
}

pub(crate) struct ShowDispatch;

impl Operation for ShowDispatch {
    const ACCESS: Access = Access::Agent;
    const SUMMARY: &'static str =
        "Shows an agent what it has to do: to the token that is bound to this agent, and to operators.";
    type Params = AgentParams;
    type Answer = AgentWork;

    async fn run(caller: Caller, AgentParams { town, agent }: AgentParams) -> Result<AgentWork, Refusal> {
        check_bounds_of_token(&caller, &town, &agent)?;
        if caller.agent_token().is_some_and(|token| token.agent.is_none()) {
            let message = format!(
                "what an agent is told is for that agent, and this token is bound to none: make one with `plimsoll \
                 token new NAME --role agent --agent {agent}`"
            );
            return Err(forbidden(&caller, message));
        }
        match caller.state.reconciler.held(&town, &agent) {
            None => Err(Refusal::no_town(&caller.state, &town)),
            Some(Held::UnknownAgent) => Err(Refusal::from(Rejected::UnknownAgent(agent))),
            Some(Held::Nothing) => Ok(AgentWork { dispatch: None }),
            Some(Held::Work(work)) => Ok(AgentWork { dispatch: Some(*work) }),
        }
    }
}

/// `POST /api/towns/{town}/events`: 201 when a report comes first, 200 when it came before or says nothing new.
pub(crate) async fn report(state: Arc<ApiState>, mut request: Request) -> Outcome {
    check_places(&request.params)?;
    let caller = Caller { state: Arc::clone(&state), identity: request.identity()? };
    let town = request.param("town").and_then(|town| TownId::parse(town).ok());
    let town = town.ok_or_else(Problem::internal)?;
    let idempotency_key = key(&request)?;
    request.params.clear();
    let event = read_body(&state, &mut request).await?;
    let reported = Report::run(caller, ReportParams { town, idempotency_key, event }).await?;
    let status = if reported.repeated || reported.coalesced { StatusCode::OK } else { StatusCode::CREATED };
    let body = serde_json::to_vec(&reported).map_err(|_| Problem::internal())?;
    Ok(reply(status, "application/json", body))
}

fn key(request: &Request) -> Result<IdempotencyKey, Problem> {
    match only_key(request)? {
        Some(key) => IdempotencyKey::parse(key)
            .map_err(|rule| Problem::bad_request(format!("Idempotency-Key: {rule}"))),
        None => Err(Problem::bad_request(
            "Idempotency-Key: send one, of 1 to 128 visible characters, so that a report that is sent again happens once",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A status without one could be that of the container before, told late.
    #[test]
    fn every_report_names_its_dispatch() {
        for mut event in [
            json!({"type": "agent_done", "outcome": "done"}),
            json!({"type": "agent_completed", "status": "completed"}),
            json!({"type": "agent_progress"}),
            json!({"type": "container_status", "status": "exited"}),
            json!({"type": "container_eviction"}),
            json!({"type": "review_done", "verdict": "approved"}),
        ] {
            event["agent"] = json!("ext");
            let none = serde_json::from_value::<ReportedEvent>(event.clone());
            assert!(none.is_err_and(|error| error.to_string().contains("dispatchId")), "{event}");
            event["dispatchId"] = json!("fix.1");
            assert!(serde_json::from_value::<ReportedEvent>(event.clone()).is_ok(), "{event}");
        }
    }
}
