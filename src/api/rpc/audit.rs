//! `audit.*`: the ends of the journal's logs, and whether they are whole.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::error::{CONFLICT, JOURNAL_UNAVAILABLE, RpcError};
use super::method::{Call, CallResult, NoParams, json, now};
use crate::journal::{Head, Journal, Log, Verdict, VerifyError};
use crate::limits::AUDIT_HEADS_MAX;

/// The limit of one check at a time, as the metric names it.
const ONE_AT_A_TIME: &str = "audit_verifications";

/// When to ask again for a check while another one runs: a million records take some ten seconds.
const ANOTHER_WAIT: Duration = Duration::from_secs(5);

/// The ends of the logs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Heads {
    /// One for each log.
    heads: Vec<Head>,
}

/// Shows the ends of the logs.
pub(crate) fn head(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    if let Err(error) = call.params::<NoParams>() {
        return now(Err::<(), _>(error));
    }
    let journal = Arc::clone(&call.state().sources.journal);
    let read = async move {
        let heads = spawn_blocking(move || Log::ALL.iter().map(|log| journal.head(*log)).collect()).await;
        let heads: Result<Vec<Head>, _> = heads.map_err(|_panic| RpcError::internal())?;
        json(&Heads {
            heads: heads.inspect_err(|error| tracing::warn!(%error, "the journal cannot be read"))?,
        })
    };
    read.boxed()
}

/// Parameters of `audit.verify`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyParams {
    /// Heads that `audit.head` showed earlier, and that the logs must contain; at most 104.
    #[serde(default)]
    heads: Vec<Head>,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Verification {
    /// Whether everything is well.
    ok: bool,
    /// Each log.
    logs: Vec<Verdict>,
    /// What is damaged so that it could not be read at all, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

/// Reads every record of both logs. One check runs at a time; it ends with its caller, and with the server.
pub(crate) fn verify(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let heads = match call.params() {
        Ok(VerifyParams { heads }) if heads.len() <= AUDIT_HEADS_MAX => heads,
        Ok(_) => {
            let problem = format!("at most {AUDIT_HEADS_MAX}");
            return now(Err::<(), _>(RpcError::invalid("heads", &problem)));
        }
        Err(error) => return now(Err::<(), _>(error)),
    };
    let state = call.state();
    let Ok(turn) = Arc::clone(&state.verifications).try_acquire_owned() else {
        state.limit_hit(ONE_AT_A_TIME);
        let message = "the journal is being checked for somebody else: try again when that is done";
        return now(Err::<(), _>(RpcError::limited(CONFLICT, ONE_AT_A_TIME, ANOTHER_WAIT, message)));
    };
    let (journal, stop) = (Arc::clone(&state.sources.journal), state.sources.stop.child_token());
    let check = async move {
        let _or_with_the_caller = stop.clone().drop_guard();
        let work = spawn_blocking(move || {
            let _turn = turn;
            check_all(&*journal, &heads, &|| !stop.is_cancelled())
        });
        json(&work.await.map_err(|_panic| RpcError::internal())??)
    };
    check.boxed()
}

fn check_all(
    journal: &dyn Journal,
    heads: &[Head],
    go_on: &dyn Fn() -> bool,
) -> Result<Verification, RpcError> {
    let mut logs = Vec::new();
    for log in Log::ALL {
        let found = journal.verify_while(log, heads, go_on);
        if let Err(error @ (VerifyError::Unavailable(_) | VerifyError::Stopped)) = &found {
            tracing::warn!(%error, "the journal could not be checked");
            return Err(RpcError::new(
                JOURNAL_UNAVAILABLE,
                "the journal could not be read to its end: try again",
            ));
        }
        logs.push(Verdict::new(log, found));
    }
    let status = journal.status();
    let damage = status.degraded.filter(|_| status.damaged);
    let ok = damage.is_none() && logs.iter().all(|verdict| verdict.ok);
    Ok(Verification { ok, logs, damage })
}
