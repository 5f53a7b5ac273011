//! `events.*`: following what happens, as notifications `event`.

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::stream::Filter;
use super::error::RpcError;
use super::method::{Call, CallResult, now};
use crate::ids::{AgentId, Seq, TownId};
use crate::limits::{STREAM_FILTER_VALUES_MAX, WS_SUBSCRIPTIONS_MAX};
use crate::live::Level;

/// Parameters of `events.subscribe`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SubscribeParams {
    /// Only these types; all without them.
    #[serde(default)]
    types: Vec<String>,
    /// Only of this instance.
    instance: Option<AgentId>,
    /// Only of this town.
    town: Option<TownId>,
    /// Exactly this level.
    level: Option<Level>,
    /// Journaled events after this seq first; without it, only what happens from now on.
    after_seq: Option<Seq>,
}

/// A subscription.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Subscribed {
    /// Its name on this connection: it stands in every notification.
    subscription: u64,
}

/// Begins a subscription.
pub(crate) fn subscribe(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let params: SubscribeParams = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let Some(link) = call.ctx.link.clone() else {
        let problem = "only a WebSocket can be notified: connect to /ws, or read GET /events";
        return now(Err::<(), _>(RpcError::new(super::super::jsonrpc::INVALID_PARAMS, problem)));
    };
    if params.types.len() > STREAM_FILTER_VALUES_MAX {
        let problem = format!("at most {STREAM_FILTER_VALUES_MAX} types");
        return now(Err::<(), _>(RpcError::invalid("types", &problem)));
    }
    let SubscribeParams { types, instance, town, level, after_seq } = params;
    let filter = Filter { types, instance, town, level };
    now(match link.subscribe(call.state(), filter, after_seq) {
        Some((subscription, answering)) => {
            call.held.borrow_mut().notifications = Some(answering);
            Ok(Subscribed { subscription })
        }
        None => {
            call.state().limit_hit("ws_subscriptions");
            let message = format!("at most {WS_SUBSCRIPTIONS_MAX} subscriptions on one connection");
            Err(RpcError::new(super::RATE_LIMITED, message))
        }
    })
}

/// Parameters of `events.unsubscribe`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnsubscribeParams {
    /// The name that `events.subscribe` gave.
    subscription: u64,
}

/// Whether there was such a subscription.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Unsubscribed {
    /// False if there was none.
    unsubscribed: bool,
}

/// Ends a subscription.
pub(crate) fn unsubscribe(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|UnsubscribeParams { subscription }| {
        let link = call.ctx.link.as_ref();
        Unsubscribed { unsubscribed: link.is_some_and(|link| link.unsubscribe(subscription)) }
    }))
}
