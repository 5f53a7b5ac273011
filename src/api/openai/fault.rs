//! What went wrong, in OpenAI's shape and with the status that its clients know
//! (<https://platform.openai.com/docs/guides/error-codes>).
//!
//! Those clients try 408, 409, 429 and 5xx again by themselves, unless `x-should-retry` says otherwise. So whatever may
//! have asked a model says no: nobody pays twice for what nobody asked for twice.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::super::response::{Problem, Reply};
use crate::gateway::Rejection;
use crate::ids::RequestId;
use crate::limits::QUOTED_BYTES_MAX;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Waits past which a client does better to give up: the SDKs take no longer one for serious either.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What takes over after a shutdown listens soon.
const AFTER_DRAIN: Duration = Duration::from_secs(1);

/// Every code that ends a request here, for its counter; what a request can be refused with before its handler is not
/// among them.
pub(crate) const CODES: &[&str] = &[
    "ok",
    "agent_not_started",
    "bad_request",
    "body_timeout",
    "body_too_large",
    "cancelled",
    "conflict",
    "deadline_exceeded",
    "gateway_full",
    "insufficient_quota",
    "internal",
    "invalid_api_key",
    "invalid_value",
    "journal_unavailable",
    "lane_full",
    "model_not_found",
    "paused",
    "provider_failed",
    "provider_overloaded",
    "provider_rate_limited",
    "rate_limit_exceeded",
    "shutting_down",
    "unknown_parameter",
    "unsupported_encoding",
    "unsupported_media_type",
    "unsupported_parameter",
];

/// One error.
#[derive(Debug)]
pub(crate) struct Fault {
    problem: Box<Problem>,
    kind: &'static str,
    param: Option<String>,
    again: Again,
    /// What had been answered by then.
    partial: Option<String>,
}

/// Whether a client may try again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// As it does with this status anyway.
    AsUsual,
    /// A model may have been asked, or it would be in vain.
    Never,
}

/// 499, as proxies call it: the client, or somebody for it, wanted no answer any more.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).expect("between 100 and 999")
}

impl Fault {
    fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Problem::new(status, code, message).into()
    }

    /// A parameter or a header that is not acceptable.
    pub(super) fn invalid(param: &str, message: String) -> Self {
        let fault = Self::new(StatusCode::BAD_REQUEST, "invalid_value", message);
        Self { param: Some(cut(param)), ..fault }
    }

    /// A parameter that this API does not have.
    pub(super) fn unknown_parameter(name: &str) -> Self {
        let name = cut(name);
        let message = format!("{name}: there is no such parameter");
        let fault = Self::new(StatusCode::BAD_REQUEST, "unknown_parameter", message);
        Self { param: Some(name), ..fault }
    }

    /// A parameter that plimsoll cannot honour.
    pub(super) fn unsupported(name: &str) -> Self {
        let message = format!("{name}: an agent cannot be asked for this; leave it out");
        let fault = Self::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message);
        Self { param: Some(name.to_owned()), ..fault }
    }

    /// A model that is no agent here.
    pub(super) fn unknown_model(model: &str) -> Self {
        let message = format!("no agent is called `{}`: GET /v1/models names those there are", cut(model));
        let fault = Self::new(StatusCode::NOT_FOUND, "model_not_found", message);
        Self { param: Some("model".to_owned()), ..fault }
    }

    /// Names the request.
    pub(super) fn about(self, request_id: &RequestId) -> Self {
        Self { problem: Box::new(self.problem.about(request_id)), ..self }
    }

    /// The code, for programs and for the counter.
    pub(super) fn code(&self) -> &'static str {
        self.problem.code
    }

    /// `{"error": {...}}`.
    pub(super) fn body(&self) -> Value {
        let Self { problem, kind, param, again: _, partial } = self;
        let mut body = json!({"error": {
            "message": problem.message(),
            "type": kind,
            "param": param,
            "code": problem.code,
        }});
        if let Some(partial) = partial {
            body["error"]["partial"] = json!(partial);
        }
        body
    }

    /// The answer.
    pub(crate) fn into_reply(self) -> Reply {
        let body = self.body();
        let Self { problem, again, .. } = self;
        let (wait, request_id) = (problem.retry_after, problem.request_id.clone());
        let mut reply = problem.with_body(&body);
        let headers = reply.headers_mut();
        if again == Again::Never {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(wait) = wait {
            // Both SDKs read it before `Retry-After`, which knows whole seconds only.
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis.max(1)));
        }
        match request_id {
            Some(id) => super::about(reply, &id),
            None => reply,
        }
    }

    fn retry_after(self, wait: Duration) -> Self {
        let again = if wait > WAIT_MAX { Again::Never } else { self.again };
        Self { problem: Box::new(self.problem.retry_after(wait)), again, ..self }
    }

    fn never_again(self) -> Self {
        Self { again: Again::Never, ..self }
    }

    /// Who says when to come again has done nothing.
    fn never_again_unless(self, wait: Option<Duration>) -> Self {
        if wait.is_some() { self } else { self.never_again() }
    }
}

/// What a client sent, as far as it stands in an answer to it.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(QUOTED_BYTES_MAX)].to_owned()
}

impl From<Problem> for Fault {
    fn from(mut problem: Problem) -> Self {
        let kind = match problem.status.as_u16() {
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        problem.code = match problem.code {
            "unauthorized" => "invalid_api_key",
            "rate_limited" => "rate_limit_exceeded",
            code => code,
        };
        Self { problem: Box::new(problem), kind, param: None, again: Again::AsUsual, partial: None }
    }
}

impl From<&Rejection> for Fault {
    fn from(rejection: &Rejection) -> Self {
        let message = match rejection.quoted() {
            Some(quoted) => format!("{rejection}: {quoted}"),
            None => rejection.to_string(),
        };
        let partial = rejection.partial().filter(|text| !text.is_empty()).map(str::to_owned);
        let wait = rejection.retry_after();
        let fail = |status, code| {
            let fault = Self::new(status, code, message.clone());
            let fault = wait.into_iter().fold(fault, Self::retry_after);
            Self { partial: partial.clone(), ..fault }
        };
        match rejection {
            Rejection::Invalid { field, problem } => {
                let param = parameter(field);
                Self::invalid(param, format!("{param}: {problem}"))
            }
            Rejection::LaneFull { .. } => fail(StatusCode::TOO_MANY_REQUESTS, "lane_full"),
            Rejection::GatewayFull { .. } | Rejection::KeysFull { .. } | Rejection::InstanceFull => {
                fail(StatusCode::TOO_MANY_REQUESTS, "gateway_full")
            }
            Rejection::Limited { limit: "usd_per_day", .. } => {
                let fault = fail(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota").never_again();
                Self { kind: "insufficient_quota", ..fault }
            }
            Rejection::Limited { .. } => fail(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            Rejection::UnknownAgent { agent } => Self::unknown_model(agent.as_str()),
            Rejection::Deadline { .. } => {
                fail(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded").never_again()
            }
            Rejection::Cancelled { .. } => fail(client_closed_request(), "cancelled").never_again(),
            Rejection::Provider { status, .. } => {
                let (status, code) = of_provider(*status);
                fail(status, code).never_again_unless(wait)
            }
            Rejection::NotStarted { .. } => {
                fail(StatusCode::BAD_GATEWAY, "agent_not_started").never_again_unless(wait)
            }
            Rejection::Paused { .. } => fail(StatusCode::SERVICE_UNAVAILABLE, "paused").never_again(),
            Rejection::JournalUnavailable { .. } => {
                fail(StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable")
            }
            Rejection::ShuttingDown => {
                fail(StatusCode::SERVICE_UNAVAILABLE, "shutting_down").retry_after(AFTER_DRAIN)
            }
            Rejection::Bug { .. } => fail(StatusCode::INTERNAL_SERVER_ERROR, "internal").never_again(),
            Rejection::Conflict { .. } | Rejection::DuplicateRequest { .. } => {
                fail(StatusCode::CONFLICT, "conflict").never_again()
            }
            Rejection::NotFound { .. } => fail(StatusCode::NOT_FOUND, "not_found"),
        }
    }
}

/// What the status of a provider is here. Its own limits have other codes than plimsoll's.
fn of_provider(status: Option<u16>) -> (StatusCode, &'static str) {
    match status {
        Some(429) => (StatusCode::TOO_MANY_REQUESTS, "provider_rate_limited"),
        // 529 is Anthropic's word for it.
        Some(503 | 529) => (StatusCode::SERVICE_UNAVAILABLE, "provider_overloaded"),
        _ => (StatusCode::BAD_GATEWAY, "provider_failed"),
    }
}

/// What a field of `agent.send` is called here.
fn parameter(field: &'static str) -> &'static str {
    match field {
        "message" | "history" | "system" => "messages",
        "deadlineMs" => super::DEADLINE,
        "onDisconnect" => super::ON_DISCONNECT,
        "session" => super::SESSION,
        field => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AgentId;

    fn every_rejection() -> Vec<(Rejection, u16, &'static str, Again)> {
        let (wait, partial) = (Duration::from_millis(1_500), String::new());
        let id = || RequestId::parse("r").expect("valid");
        let limited = |limit, retry_after| Rejection::Limited { limit, advice: String::new(), retry_after };
        let provider = |status, retry_after| Rejection::Provider {
            cause: String::new(),
            status,
            quoted: String::new(),
            partial: String::new(),
            retry_after,
        };
        let conflict = Rejection::Conflict { cause: "interrupted", problem: String::new(), request_id: id() };
        let (usual, never) = (Again::AsUsual, Again::Never);
        vec![
            (Rejection::Invalid { field: "message", problem: String::new() }, 400, "invalid_value", usual),
            (Rejection::LaneFull { depth: 1, retry_after: wait }, 429, "lane_full", usual),
            (Rejection::GatewayFull { limit: "x", queued: 1, retry_after: wait }, 429, "gateway_full", usual),
            (Rejection::KeysFull { retry_after: wait }, 429, "gateway_full", usual),
            (limited("requests_per_min", wait), 429, "rate_limit_exceeded", usual),
            (limited("requests_per_min", WAIT_MAX + wait), 429, "rate_limit_exceeded", never),
            (limited("usd_per_day", wait), 429, "insufficient_quota", never),
            (
                Rejection::UnknownAgent { agent: AgentId::parse("a").expect("valid") },
                404,
                "model_not_found",
                usual,
            ),
            (
                Rejection::Deadline { deadline_ms: 1, partial: partial.clone() },
                504,
                "deadline_exceeded",
                never,
            ),
            (Rejection::Cancelled { reason: "x", partial: partial.clone() }, 499, "cancelled", never),
            (provider(None, None), 502, "provider_failed", never),
            (provider(Some(401), None), 502, "provider_failed", never),
            (provider(Some(429), None), 429, "provider_rate_limited", never),
            (provider(Some(429), Some(wait)), 429, "provider_rate_limited", usual),
            (provider(Some(429), Some(WAIT_MAX + wait)), 429, "provider_rate_limited", never),
            (provider(Some(503), Some(wait)), 503, "provider_overloaded", usual),
            (provider(Some(529), None), 503, "provider_overloaded", never),
            (
                Rejection::NotStarted { cause: String::new(), reason: None, retry_after: None },
                502,
                "agent_not_started",
                never,
            ),
            (
                Rejection::NotStarted { cause: String::new(), reason: None, retry_after: Some(wait) },
                502,
                "agent_not_started",
                usual,
            ),
            (Rejection::Paused { agent: AgentId::parse("a").expect("valid") }, 503, "paused", never),
            (Rejection::JournalUnavailable { subject: "it" }, 503, "journal_unavailable", usual),
            (Rejection::ShuttingDown, 503, "shutting_down", usual),
            (Rejection::Bug { partial }, 500, "internal", never),
            (conflict, 409, "conflict", never),
            (Rejection::DuplicateRequest { request_id: id() }, 409, "conflict", never),
        ]
    }

    #[test]
    fn each_rejection_has_a_status_a_code_that_is_counted_and_a_word_on_trying_again() {
        for (rejection, status, code, again) in every_rejection() {
            let fault = Fault::from(&rejection);
            assert_eq!((fault.problem.status.as_u16(), fault.code(), fault.again), (status, code, again));
            assert!(CODES.contains(&code), "{code}");
            let reply = fault.into_reply();
            let never = reply.headers().get(SHOULD_RETRY).is_some_and(|value| value == "false");
            assert_eq!(never, again == Again::Never, "{code}");
            let waits = rejection.retry_after().is_some() || code == "shutting_down";
            assert_eq!(reply.headers().contains_key(http::header::RETRY_AFTER), waits, "{code}");
            assert_eq!(reply.headers().contains_key(RETRY_AFTER_MS), waits, "{code}");
        }
    }

    #[test]
    fn what_a_client_names_is_cut() {
        let fault = Fault::unknown_parameter(&"é".repeat(10_000));
        assert!(fault.body().to_string().len() < 5 * QUOTED_BYTES_MAX);
    }
}
