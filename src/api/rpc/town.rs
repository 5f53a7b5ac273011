//! `town.*`: what [`towns`](super::super::towns) may be asked and told, by method.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::super::towns::{Caller, Operation};
use super::method::{Call, CallResult, json, now};

/// Does an operation.
pub(crate) fn run<O: Operation>(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let params = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let caller = Caller { state: call.state().clone(), identity: call.ctx.identity.clone() };
    async move { json(&O::run(caller, params).await?) }.boxed()
}
