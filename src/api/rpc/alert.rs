//! `alert.list`: what fires, and what is over.

use futures_util::future::BoxFuture;

use super::method::{Call, CallResult, NoParams, now};

/// Lists the alerts.
pub(crate) fn list(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| call.state().alerts.list()))
}
