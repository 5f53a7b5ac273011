//! How a call ends badly: one JSON-RPC error object, from one exhaustive match.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::gateway::{BadKey, ChangeError, Rejection};
use crate::ids::RequestId;
use crate::journal::{AppendError, ReadError};

use super::super::auth::{ONLY_AGENTS_ARE_BOUND, TokenError};
use super::super::jsonrpc::{INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, Malformed};

pub(crate) const FORBIDDEN: i32 = -32008;
pub(crate) const SHUTTING_DOWN: i32 = -32009;
pub(crate) const GATEWAY_FULL: i32 = -32002;
pub(crate) const RATE_LIMITED: i32 = -32010;
pub(crate) const JOURNAL_UNAVAILABLE: i32 = -32012;
pub(crate) const NOT_FOUND: i32 = -32013;
pub(crate) const CONFLICT: i32 = -32014;

/// Every code with its word: `data.cause`, and in the documentation. A test compares it with the gateway's.
pub(crate) const CODES: [(i32, &str, &str); 19] = [
    (-32700, "-32700", "parse error"),
    (-32600, "-32600", "invalid request"),
    (-32601, "-32601", "method not found"),
    (-32602, "-32602", "invalid params"),
    (-32603, "-32603", "internal error"),
    (-32001, "-32001", "lane full"),
    (-32002, "-32002", "gateway full"),
    (-32003, "-32003", "unknown agent"),
    (-32004, "-32004", "deadline"),
    (-32005, "-32005", "cancelled"),
    (-32006, "-32006", "agent could not start"),
    (-32007, "-32007", "provider failed"),
    (-32008, "-32008", "forbidden"),
    (-32009, "-32009", "shutting down"),
    (-32010, "-32010", "rate or budget limit"),
    (-32011, "-32011", "paused"),
    (-32012, "-32012", "journal unavailable"),
    (-32013, "-32013", "not found"),
    (-32014, "-32014", "conflict"),
];

/// The label of a code; `other` for one that is not in the table, which a test rules out.
pub(crate) fn label(code: i32) -> &'static str {
    CODES.iter().find(|(known, ..)| *known == code).map_or("other", |(_, label, _)| label)
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RpcError {
    /// One of the list in the API documentation.
    pub(crate) code: i32,
    /// What happened and what to do.
    pub(crate) message: String,
    /// The same for a program.
    #[serde(skip_serializing_if = "ErrorData::is_empty")]
    pub(crate) data: Box<ErrorData>,
}

/// What a program may want to know of an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorData {
    /// The code in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<&'static str>,
    /// The parameter that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    /// The limit that was hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<&'static str>,
    /// The request it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<RequestId>,
    /// When to try again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
    /// What had been answered by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partial: Option<String>,
    /// What the provider said; it may quote the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider_said: Option<String>,
}

impl ErrorData {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl RpcError {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        let cause = CODES.iter().find(|(known, ..)| *known == code).map(|(.., words)| *words);
        Self { code, message: message.into(), data: Box::new(ErrorData { cause, ..ErrorData::default() }) }
    }

    pub(crate) fn internal() -> Self {
        Self::new(INTERNAL_ERROR, "this is a bug in plimsoll; its log says more")
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: &str) -> Self {
        let field = field.into();
        let mut error = Self::new(INVALID_PARAMS, format!("{field}: {problem}"));
        error.data.field = Some(field);
        error
    }

    pub(crate) fn unknown_method(name: &str) -> Self {
        let shown: String = name.chars().take(64).collect();
        Self::new(
            METHOD_NOT_FOUND,
            format!("there is no method `{shown}`: system.methods lists those there are"),
        )
    }

    pub(crate) fn forbidden(needs: &str) -> Self {
        Self::new(FORBIDDEN, format!("this needs a token with the role {needs}"))
    }

    pub(crate) fn limited(code: i32, limit: &'static str, retry_after: Duration, message: &str) -> Self {
        let mut error = Self::new(code, message);
        error.data.limit = Some(limit);
        error.data.retry_after_ms = Some(millis(retry_after));
        error
    }

    fn of_limit(code: i32, limit: &'static str, message: String) -> Self {
        let mut error = Self::new(code, message);
        error.data.limit = Some(limit);
        error
    }

    pub(crate) fn about(mut self, request_id: &RequestId) -> Self {
        self.data.request_id = Some(request_id.clone());
        self
    }

    /// The error object as JSON.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<Rejection> for RpcError {
    fn from(rejection: Rejection) -> Self {
        Self::from(&rejection)
    }
}

impl From<&Rejection> for RpcError {
    fn from(rejection: &Rejection) -> Self {
        let mut error = Self::new(rejection.code(), rejection.to_string());
        error.data.retry_after_ms = rejection.retry_after().map(millis);
        error.data.partial = rejection.partial().filter(|text| !text.is_empty()).map(str::to_owned);
        error.data.provider_said = rejection.quoted().map(str::to_owned);
        if let Rejection::Invalid { field, .. } = rejection {
            error.data.field = Some((*field).to_owned());
        }
        if let Rejection::GatewayFull { limit, .. } | Rejection::Limited { limit, .. } = rejection {
            error.data.limit = Some(*limit);
        }
        if matches!(rejection, Rejection::KeysFull { .. }) {
            error.data.limit = Some("idempotency_keys");
        }
        if matches!(rejection, Rejection::InstanceFull) {
            error.data.limit = Some("waiting_max");
        }
        if let Rejection::NotStarted { reason: Some(reason), .. } = rejection {
            error.data.cause = Some(*reason);
        }
        if let Rejection::Conflict { cause, request_id, .. } = rejection {
            error.data.cause = Some(*cause);
            error.data.field = Some("idempotencyKey".to_owned());
            error.data.request_id = Some(request_id.clone());
        }
        if let Rejection::DuplicateRequest { request_id } = rejection {
            error.data.field = Some("requestId".to_owned());
            error.data.request_id = Some(request_id.clone());
        }
        error
    }
}

impl From<ChangeError> for RpcError {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::Exists { .. } | ChangeError::Configured { .. } | ChangeError::Leaving { .. } => {
                Self::new(CONFLICT, message)
            }
            ChangeError::Unknown { .. } | ChangeError::UnknownTemplate { .. } => {
                Self::new(NOT_FOUND, message)
            }
            ChangeError::Invalid(bad) => {
                let mut error = Self::new(INVALID_PARAMS, message);
                error.data.field = bad.first().map(|BadKey { key, .. }| key.clone());
                error
            }
            ChangeError::TooLong => Self::of_limit(INVALID_PARAMS, "made_agent_bytes", message),
            ChangeError::TooMany => Self::of_limit(CONFLICT, "made_agents", message),
            ChangeError::Busy => Self::of_limit(GATEWAY_FULL, "agent_changes", message),
            ChangeError::Journal | ChangeError::Late => Self::new(JOURNAL_UNAVAILABLE, message),
            ChangeError::ShuttingDown => Self::new(SHUTTING_DOWN, message),
        }
    }
}

impl From<&Malformed> for RpcError {
    fn from(malformed: &Malformed) -> Self {
        Self::new(malformed.code, malformed.problem.clone())
    }
}

impl From<AppendError> for RpcError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict { .. } => Self::new(CONFLICT, error.to_string()),
            AppendError::Invalid(_) => Self::new(INVALID_PARAMS, error.to_string()),
            // What exactly the disk said is for the log, not for a stranger.
            AppendError::QueueFull | AppendError::Unavailable(_) | AppendError::Closed => {
                Self::new(JOURNAL_UNAVAILABLE, "the journal cannot write now: nothing was changed")
            }
        }
    }
}

impl From<ReadError> for RpcError {
    fn from(_: ReadError) -> Self {
        Self::new(JOURNAL_UNAVAILABLE, "the journal cannot be read now: the log says why")
    }
}

impl From<TokenError> for RpcError {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Exists(_) | TokenError::Configured(_) | TokenError::TooMany => CONFLICT,
            TokenError::Unknown(_) => NOT_FOUND,
            TokenError::Bound(field) => return Self::invalid(field, ONLY_AGENTS_ARE_BOUND),
            TokenError::Journal(append) => return append.into(),
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_labels_print_them() {
        for (i, (code, label, words)) in CODES.iter().enumerate() {
            assert_eq!(code.to_string(), *label);
            assert!(!words.is_empty());
            assert!(CODES[i + 1..].iter().all(|(other, ..)| other != code), "{code} twice");
        }
    }

    #[test]
    fn a_rejection_keeps_its_code_and_its_hints() {
        let error = RpcError::from(Rejection::LaneFull { depth: 3, retry_after: Duration::from_millis(250) });
        let json: serde_json::Value = serde_json::from_str(&error.to_json()).expect("JSON");
        assert_eq!(json["code"], -32001);
        assert_eq!(json["data"]["retryAfterMs"], 250);
        assert_eq!(json["data"]["cause"], "lane full");
    }
}
