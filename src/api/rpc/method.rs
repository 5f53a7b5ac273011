//! What a method is: an entry of the list, the call it gets, and how it reads its parameters.

use std::cell::RefCell;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::access::Access;
use super::super::auth::Identity;
use super::super::jsonrpc::INVALID_PARAMS;
use super::super::state::ApiState;
use super::super::ws::{Answering, Link, TurnEnd};
use super::error::RpcError;
use crate::gateway::Channel;
use crate::limits::QUOTED_BYTES_MAX;
use crate::telemetry::TraceContext;

/// How a call ends: the result as JSON text, or an error.
pub(crate) type CallResult = Result<String, RpcError>;

/// One method: a line in [`METHODS`](super::METHODS).
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) access: Access,
    pub(crate) summary: &'static str,
    pub(crate) params: SchemaOf,
    pub(crate) result: SchemaOf,
    pub(crate) handler: Handler,
}

/// Does its first part at once, so that calls of one connection begin in the order in which they were read: the
/// future is only what has to be waited for.
pub(crate) type Handler = fn(Call<'_>) -> BoxFuture<'static, CallResult>;

/// Makes the schema of a type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Where calls come from: one request, or one WebSocket.
pub(crate) struct Context {
    pub(crate) state: Arc<ApiState>,
    pub(crate) identity: Identity,
    pub(crate) channel: Channel,
    pub(crate) trace: Option<TraceContext>,
    /// The way back for notifications; only a WebSocket has one.
    pub(crate) link: Option<Arc<Link>>,
}

/// One call of a method.
pub(crate) struct Call<'a> {
    pub(crate) ctx: &'a Arc<Context>,
    pub(crate) params: Option<&'a RawValue>,
    /// What it holds back until it is answered.
    pub(crate) held: &'a RefCell<Held>,
}

/// What a call holds back until it is answered, by being there.
#[derive(Default)]
pub(crate) struct Held {
    /// Later answers of the conversation, until its own is known.
    pub(crate) turn: Option<TurnEnd>,
    /// Notifications that name it, until its own answer is on its way.
    pub(crate) notifications: Option<Answering>,
}

impl Call<'_> {
    pub(crate) fn state(&self) -> &Arc<ApiState> {
        &self.ctx.state
    }

    /// Reads the parameters by name; none at all reads as an empty object. Errors name the parameter.
    pub(crate) fn params<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        let text = self.params.map_or("{}", RawValue::get);
        if text.starts_with('[') {
            return Err(RpcError::new(INVALID_PARAMS, "params: expected an object, parameters go by name"));
        }
        read_named(&mut serde_json::Deserializer::from_str(text)).map_err(|(field, problem)| {
            let field = if field.is_empty() { "params".to_owned() } else { field };
            RpcError::invalid(field, &problem)
        })
    }
}

/// Reads a value; an error is the path to what is wrong, empty where it is the whole, and why.
pub(crate) fn read_named<'de, T: Deserialize<'de>>(
    reader: &mut serde_json::Deserializer<impl serde_json::de::Read<'de>>,
) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(reader).map_err(|e| {
        let (path, problem) = (e.path().to_string(), reason(e.inner()));
        let field = if path == "." { named(&problem).unwrap_or_default().to_owned() } else { path };
        (field, problem)
    })
}

/// What serde says, without the place in a text that the caller did not write as such, and cut to size.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before);
    let mut end = text.len().min(QUOTED_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The parameter that serde names in "unknown field `x`" or "missing field `x`".
fn named(problem: &str) -> Option<&str> {
    let field = problem.strip_prefix("missing field ").or_else(|| problem.strip_prefix("unknown field "));
    field.or_else(|| problem.strip_prefix("duplicate field "))?.split('`').nth(1)
}

/// An answer that is known at once.
pub(crate) fn now(result: Result<impl Serialize, RpcError>) -> BoxFuture<'static, CallResult> {
    std::future::ready(result.and_then(|value| json(&value))).boxed()
}

/// A result as JSON.
pub(crate) fn json(value: &impl Serialize) -> CallResult {
    serde_json::to_string(value).map_err(|_| RpcError::internal())
}

/// The parameters of a method that takes none.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParams {}
