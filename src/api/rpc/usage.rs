//! `usage.query`: what agents used, by agent, model, session or day.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::RpcError;
use super::method::{Call, CallResult, json, now};
use crate::clock::Timestamp;
use crate::gateway::{UsageBy, UsageQuery, parse_since};
use crate::ids::AgentId;
use crate::limits::USAGE_SINCE_DEFAULT;

/// Parameters of `usage.query`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryParams {
    /// What the rows are.
    by: UsageBy,
    /// Since when: a length of time such as `7d` (the default), an RFC 3339 time, or epoch milliseconds.
    since: Option<Since>,
    /// Only this agent.
    agent: Option<AgentId>,
}

/// A moment, as people and programs say it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Since {
    /// Epoch milliseconds.
    Millis(u64),
    /// A length of time before now, or an RFC 3339 time.
    Text(String),
}

impl QueryParams {
    fn read(self, at: Timestamp) -> Result<UsageQuery, RpcError> {
        let Self { by, since, agent } = self;
        let since = match since {
            None => parse_since(USAGE_SINCE_DEFAULT, at),
            Some(Since::Millis(millis)) => Ok(Timestamp::from_millis(millis)),
            Some(Since::Text(text)) => parse_since(&text, at),
        };
        let since = since.map_err(|problem| RpcError::invalid("since", &problem))?;
        Ok(UsageQuery { by, since, agent })
    }
}

/// Tells what was used.
pub(crate) fn query(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let state = call.state().clone();
    let query = call.params().and_then(|params: QueryParams| params.read(state.sources.clock.now()));
    let query = match query {
        Ok(query) => query,
        Err(error) => return now(Err::<(), _>(error)),
    };
    async move { json(&state.usage(query).await?) }.boxed()
}
