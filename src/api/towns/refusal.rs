//! How what is asked of a town or told it ends badly: one list for both roads. Every message says what to do.

use std::time::Duration;

use http::StatusCode;

use super::super::jsonrpc::INVALID_PARAMS;
use super::super::response::Problem;
use super::super::rpc::{CONFLICT, FORBIDDEN, JOURNAL_UNAVAILABLE, NOT_FOUND, RATE_LIMITED, RpcError};
use super::super::state::ApiState;
use crate::gateway::ChangeError;
use crate::ids::{BeadId, TownId};
use crate::limits::TOWN_QUESTION_WAIT;
use crate::reconciler::SubmitError;
use crate::town::event::OutOfBounds;
use crate::town::policy::PolicyProblem;
use crate::town::state::Rejected;
use crate::town::words::BeadKind;

/// The limits of what one town holds: agents, open beads, their text. As the metric names them.
const CONTENT: &str = "town_content";

/// The limit of towns, as the metric names it.
const TOWNS: &str = "towns";

/// The limit of events that wait for a town, as the metric names it.
const PENDING: &str = "town_pending_events";

/// The limit of questions that are answered at once, as the metric names it.
const QUESTIONS: &str = "town_questions";

/// When to send again what found a full or a busy town: it turns many times by then.
const LATER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Refusal {
    kind: Kind,
    /// A stable word.
    code: &'static str,
    message: String,
    /// The parameter that is wrong.
    field: Option<String>,
    /// The limit that was hit.
    limit: Option<&'static str>,
    /// When to come again.
    after: Option<Duration>,
}

/// What kind of refusal it is, as both roads number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Malformed,
    Invalid,
    Forbidden,
    Unknown,
    Gone,
    TooLarge,
    Conflict,
    Full,
    Busy,
    Aside,
    Unavailable,
}

impl Kind {
    const fn numbers(self) -> (StatusCode, i32) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, INVALID_PARAMS),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, INVALID_PARAMS),
            Self::Forbidden => (StatusCode::FORBIDDEN, FORBIDDEN),
            Self::Unknown => (StatusCode::NOT_FOUND, NOT_FOUND),
            Self::Gone => (StatusCode::GONE, NOT_FOUND),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID_PARAMS),
            Self::Conflict => (StatusCode::CONFLICT, CONFLICT),
            Self::Full => (StatusCode::TOO_MANY_REQUESTS, RATE_LIMITED),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, RATE_LIMITED),
            Self::Aside => (StatusCode::SERVICE_UNAVAILABLE, CONFLICT),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, JOURNAL_UNAVAILABLE),
        }
    }
}

impl Refusal {
    pub(super) fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        let after = matches!(kind, Kind::Unavailable | Kind::Busy).then_some(LATER);
        Self { kind, code, message: message.into(), field: None, limit: None, after }
    }

    /// A stable word for what is wrong.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// A parameter is none.
    pub(super) fn malformed(field: &str, problem: &str) -> Self {
        let message = format!("{field}: {problem}");
        Self { field: Some(field.to_owned()), ..Self::new(Kind::Malformed, "bad_request", message) }
    }

    /// A parameter cannot be.
    pub(super) fn invalid(field: impl Into<String>, problem: &str) -> Self {
        let field = field.into();
        let message = format!("{field}: {problem}");
        Self { field: Some(field), ..Self::new(Kind::Invalid, "invalid", message) }
    }

    pub(super) fn too_many_questions(state: &ApiState) -> Self {
        state.limit_hit(QUESTIONS);
        let message = "as many questions about the past and the next tick are being answered as may be at once: ask \
                       again later";
        let full = Self::new(Kind::Full, "too_many_questions", message);
        Self { limit: Some(QUESTIONS), after: Some(TOWN_QUESTION_WAIT), ..full }
    }

    /// There is nothing to be looked at in this town.
    pub(super) fn no_town(state: &ApiState, town: &TownId) -> Self {
        Self::of_submit(state, state.reconciler.absence(town))
    }

    pub(super) fn policy(problem: &PolicyProblem) -> Self {
        Self::invalid(format!("policy.{}", problem.key), &problem.rule)
    }

    /// An agent that was to join could not be made.
    fn not_made(error: &ChangeError) -> Self {
        let message = error.to_string();
        let new = |kind, code| Self::new(kind, code, message.clone());
        match error {
            ChangeError::Exists { .. } | ChangeError::Configured { .. } | ChangeError::Leaving { .. } => {
                new(Kind::Conflict, "agent_exists")
            }
            ChangeError::UnknownTemplate { .. } => new(Kind::Unknown, "unknown_template"),
            ChangeError::Unknown { .. } => new(Kind::Unknown, "unknown_agent"),
            ChangeError::Invalid(_) | ChangeError::TooLong => Self::invalid("template", &message),
            ChangeError::TooMany => {
                Self { limit: Some("made_agents"), ..new(Kind::Conflict, "too_many_agents") }
            }
            ChangeError::Busy => {
                let (limit, after) = (Some("agent_changes"), Some(LATER));
                Self { limit, after, ..new(Kind::Full, "too_many_changes") }
            }
            ChangeError::Journal => new(Kind::Unavailable, "journal_unavailable"),
            ChangeError::Late => Self { after: None, ..new(Kind::Unavailable, "journal_late") },
            ChangeError::ShuttingDown => new(Kind::Unavailable, "shutting_down"),
        }
    }

    /// A verdict on what is no review.
    pub(super) fn not_a_review(bead: &BeadId, kind: BeadKind) -> Self {
        let message = format!(
            "bead {bead} is a {kind}, and a verdict is of a review: report how the work ended with `agent_done`"
        );
        Self::new(Kind::Conflict, "wrong_kind", message)
    }

    pub(super) fn of_submit(state: &ApiState, error: SubmitError) -> Self {
        let message = error.to_string();
        let new = |kind, code| Self::new(kind, code, message);
        match error {
            SubmitError::UnknownTown(_) => new(Kind::Unknown, "unknown_town"),
            SubmitError::Rejected(rejected @ Rejected::Full { .. }) => {
                state.limit_hit(CONTENT);
                Self { limit: Some(CONTENT), ..Self::from(rejected) }
            }
            SubmitError::Rejected(rejected) => Self::from(rejected),
            SubmitError::Full => {
                state.limit_hit(PENDING);
                Self { limit: Some(PENDING), after: Some(LATER), ..new(Kind::Full, "town_full") }
            }
            SubmitError::Busy => new(Kind::Busy, "town_busy"),
            SubmitError::SetAside(_) => new(Kind::Aside, "town_set_aside"),
            SubmitError::Journal(_) => new(Kind::Unavailable, "journal_unavailable"),
            // It may be done yet: nobody is told to send it again.
            SubmitError::Late => Self { after: None, ..new(Kind::Unavailable, "journal_late") },
            SubmitError::TownExists(_) => new(Kind::Conflict, "town_exists"),
            SubmitError::Elsewhere { .. } => new(Kind::Conflict, "works_elsewhere"),
            SubmitError::NotMade(error) => Self::not_made(&error),
            SubmitError::TooManyTowns(_) => {
                state.limit_hit(TOWNS);
                Self { limit: Some(TOWNS), ..new(Kind::Conflict, "too_many_towns") }
            }
            SubmitError::TownIdTooLong(max) => Self::invalid("id", &format!("has at most {max} characters")),
        }
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        if let Rejected::OutOfBounds(bounds) = rejected {
            return Self::from(bounds);
        }
        if let Rejected::Policy(problem) = &rejected {
            return Self::policy(problem);
        }
        let unknown =
            matches!(rejected, Rejected::UnknownAgent(_) | Rejected::UnknownBead(_) | Rejected::NotCreated);
        let kind = if unknown { Kind::Unknown } else { Kind::Conflict };
        let message = match advice(&rejected) {
            "" => rejected.to_string(),
            advice => format!("{rejected}: {advice}"),
        };
        Self::new(kind, rejected.code(), message)
    }
}

impl From<OutOfBounds> for Refusal {
    fn from(bounds: OutOfBounds) -> Self {
        let OutOfBounds { field, size, min, max } = bounds;
        let unit = match field {
            "priority" => "",
            "blocked_by" | "beads" => " entries",
            _ => " bytes",
        };
        let field = match field {
            "bead" | "convoy" => "id",
            "blocked_by" => "blockedBy",
            "exit_reason" => "exitReason",
            field => field,
        };
        Self::invalid(field, &format!("expected {min} to {max}{unit}, and it is {size}"))
    }
}

/// What to do about it.
fn advice(rejected: &Rejected) -> &'static str {
    match rejected {
        Rejected::NotCreated => "`plimsoll town create` makes it",
        Rejected::UnknownAgent(_) => "the town's agents are those that joined it",
        Rejected::UnknownBead(_) => {
            "`plimsoll bead list` names those there are, and of those that ended the latest are known"
        }
        Rejected::AgentExists(_) => "remove it first to have it join as something else",
        Rejected::BeadExists(_) => "choose another id, or leave it out",
        Rejected::Ended { .. } => "it never changes again, add another one",
        Rejected::WrongKind { .. } => "choose a task",
        Rejected::Cycle { .. } => "leave this dependency out",
        Rejected::InConvoy { .. } => "a bead belongs to one convoy only, leave it out",
        Rejected::Full { .. } => "let some end first, or make another town",
        Rejected::KeyReused { .. } => "take a new key",
        Rejected::AgentHolds { .. } => "wait until it ended, or cancel it",
        Rejected::BeadStands { .. }
        | Rejected::NoSuchWay { .. }
        | Rejected::BeadWaits { .. }
        | Rejected::AgentStands { .. }
        | Rejected::AgentHoldsNot { .. }
        | Rejected::WrongRole { .. }
        | Rejected::WrongNumber { .. }
        | Rejected::Draining
        | Rejected::Breaker(_)
        | Rejected::Episode { .. }
        | Rejected::OutOfOrder { .. }
        | Rejected::AlreadyCreated => "look at it again, it may have changed",
        Rejected::OutOfBounds(_) | Rejected::Policy(_) | Rejected::Repeated { .. } => "",
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, code, message, field: _, limit: _, after } = refusal;
        let problem = Self::new(kind.numbers().0, code, message);
        match after {
            Some(after) => problem.retry_after(after),
            None => problem,
        }
    }
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, code, message, field, limit, after } = refusal;
        let mut error = Self::new(kind.numbers().1, message);
        error.data.cause = Some(code);
        error.data.field = field;
        error.data.limit = limit;
        error.data.retry_after_ms = after.map(|after| after.as_millis() as u64);
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_town_that_is_busy_asks_to_come_again_and_is_no_conflict() {
        let busy = Refusal::new(Kind::Busy, "town_busy", "busy");
        assert_eq!((busy.kind.numbers().0, busy.after), (StatusCode::SERVICE_UNAVAILABLE, Some(LATER)));
    }

    #[test]
    fn what_may_be_done_yet_is_not_asked_to_come_again() {
        let state = crate::api::fixture::state(crate::api::Config::default());
        let numbers = |refusal: Refusal| (refusal.code, refusal.kind.numbers().0, refusal.after);
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let late = ("journal_late", unavailable, None);
        assert_eq!(numbers(Refusal::of_submit(&state, SubmitError::Late)), late);
        assert_eq!(numbers(Refusal::of_submit(&state, SubmitError::NotMade(ChangeError::Late))), late);
        let refused = SubmitError::NotMade(ChangeError::Journal);
        let again = ("journal_unavailable", unavailable, Some(LATER));
        assert_eq!(numbers(Refusal::of_submit(&state, refused)), again);
    }

    #[test]
    fn what_a_town_or_plimsoll_cannot_hold_is_counted_and_named() {
        let state = crate::api::fixture::state(crate::api::Config::default());
        let full = SubmitError::Rejected(Rejected::Full { what: "agents", max: 1 });
        for (error, limit) in [(full, "town_content"), (SubmitError::TooManyTowns(1), "towns")] {
            let refusal = Refusal::of_submit(&state, error);
            assert_eq!((refusal.kind.numbers().0, refusal.limit), (StatusCode::CONFLICT, Some(limit)));
            let hit = format!("plimsoll_limit_hits_total{{limit=\"{limit}\"}} 1");
            assert!(state.registry.render().contains(&hit), "{hit}");
        }
    }

    #[test]
    fn a_town_that_was_put_aside_asks_nobody_to_come_again() {
        let aside = Refusal::new(Kind::Aside, "town_set_aside", "aside");
        assert_eq!((aside.kind.numbers().0, aside.after), (StatusCode::SERVICE_UNAVAILABLE, None));
    }
}
