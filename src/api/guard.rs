//! The door: who is it, may it do this, not too often.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::auth::Identity;
use super::metrics::AuthFailure;
use super::request::{Credentials, Head, basic_password, credentials};
use super::response::Problem;
use super::state::ApiState;

/// What the door says.
pub(crate) enum Admission {
    /// Come in, as this one; nobody in particular on a public route.
    As(Option<Identity>),
    /// The token may still come in the first message.
    Later,
}

/// Decides on one request.
///
/// # Errors
/// The refusal, already counted.
pub(crate) fn admit(
    state: &Arc<ApiState>,
    access: Access,
    head: &Head,
    headers: &HeaderMap,
) -> Result<Admission, Problem> {
    let open = access == Access::Public || (access == Access::Scrape && state.doors.metrics_public);
    if open {
        return Ok(Admission::As(None));
    }
    // Who may send a token in two ways is told of both.
    let told = |problem: Problem| if access == Access::Ingest { problem.or_basic() } else { problem };
    let tokens = &state.doors.tokens;
    let identity = match credentials(headers) {
        // The socket's file mode let this one in; a token it sends along must still be good.
        Credentials::None if head.client.is_none() => Identity::local(CancellationToken::new()),
        Credentials::None if !tokens.required() => Identity::local(tokens.first_made()),
        Credentials::None if access == Access::FirstMessage => return Ok(Admission::Later),
        Credentials::None => return Err(told(missing(state))),
        Credentials::Bearer(token) => by_token(state, head, token).map_err(told)?,
        Credentials::Basic(pair) if access == Access::Ingest => match basic_password(pair) {
            Some(token) => by_token(state, head, &token).map_err(told)?,
            None => return Err(told(wrong(state, head))),
        },
        Credentials::Basic(_) | Credentials::Unusable => return Err(told(wrong(state, head))),
    };
    // Calls are counted one by one where they are read; what is not a call counts here.
    if access != Access::Token {
        count(state, &identity)?;
    }
    if !access.admits(identity.role) {
        state.note_forbidden();
        let message = format!("this needs a token with the role {}", access.as_str());
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    Ok(Admission::As(Some(identity)))
}

/// Counts a request against its caller's rate.
///
/// # Errors
/// The refusal, already counted.
pub(crate) fn count(state: &ApiState, identity: &Identity) -> Result<(), Problem> {
    state.allow(identity).map_err(|wait| {
        let message = "too many requests for this token: slow down";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).retry_after(wait)
    })
}

/// Who holds this token. One that is right passes whatever came from its address before: behind a proxy or a NAT,
/// others fail there too.
///
/// # Errors
/// The refusal, already counted.
pub(crate) fn by_token(state: &ApiState, head: &Head, token: &str) -> Result<Identity, Problem> {
    state.doors.tokens.find(token).map(Identity::of_token).ok_or_else(|| wrong(state, head))
}

/// Asks once more, where a body came in between, whether what the caller passed the door with still holds.
///
/// # Errors
/// The refusal, already counted.
pub(crate) fn recheck(state: &ApiState, head: &Head, identity: &Identity) -> Result<(), Problem> {
    match &identity.token {
        _ if !identity.void.is_cancelled() => Ok(()),
        Some(_revoked) => Err(wrong(state, head)),
        None => Err(missing(state)),
    }
}

/// Counts a request that brought no token.
pub(crate) fn note_missing(state: &ApiState) {
    state.metrics.auth_failure(AuthFailure::Missing);
    state.doors.refusals.note_missing();
}

fn missing(state: &ApiState) -> Problem {
    note_missing(state);
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "send a token as Authorization: Bearer")
}

fn wrong(state: &ApiState, head: &Head) -> Problem {
    let now = state.sources.clock.elapsed();
    if let Some(wait) = head.client.and_then(|address| state.doors.failures.wait(address, now)) {
        state.metrics.auth_failure(AuthFailure::Limited);
        state.limit_hit("auth_failures_per_minute");
        state.doors.refusals.note_limited();
        let message = "this token is not valid here, and too many were not: wait";
        return Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message).retry_after(wait);
    }
    state.metrics.auth_failure(AuthFailure::Wrong);
    state.doors.refusals.note_wrong();
    if let Some(address) = head.client {
        state.doors.failures.note(address, now);
    }
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "this token is not valid here")
}
