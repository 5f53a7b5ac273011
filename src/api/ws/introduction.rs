//! The first message of a WebSocket that brought no token in its header: it must be `auth` with one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::auth::Identity;
use super::super::guard;
use super::super::jsonrpc::{self, Incoming};
use super::super::request::Head;
use super::super::rpc::RpcError;
use super::super::state::ApiState;
use super::connection::{End, SHUTTING_DOWN, Socket, end_of};
use crate::limits::WS_AUTH_SECS_MAX;

/// Waits for the first message, answers it, and says who it is.
pub(super) async fn introduce<S: AsyncRead + AsyncWrite + Unpin>(
    state: &Arc<ApiState>,
    head: &Head,
    socket: &mut Socket<S>,
) -> Result<Identity, End> {
    let first = timeout(Duration::from_secs(WS_AUTH_SECS_MAX), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    });
    let text = tokio::select! {
        () = state.sources.stop.cancelled() => return Err(SHUTTING_DOWN),
        first = first => match first {
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Err(error))) => return Err(end_of(state, &error)),
            Ok(Some(Ok(_))) => return Err(End::Close(CloseCode::Policy, "the first message must be auth")),
            Ok(None) => return Err(End::Gone),
            Err(_elapsed) => {
                state.limit_hit("ws_auth_timeout");
                return Err(End::Close(CloseCode::Policy, "no token came in time"));
            }
        },
    };
    let (answer, result) = check(state, head, text.as_bytes());
    if socket.send(Message::text(answer)).await.is_err() {
        return Err(End::Gone);
    }
    result
}

fn check(state: &Arc<ApiState>, head: &Head, text: &[u8]) -> (String, Result<Identity, End>) {
    /// Parameters of the first message.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Auth {
        token: String,
    }
    let refuse = |id: Option<&jsonrpc::Id>, message: &str, reason: &'static str| {
        let error = RpcError::new(-32008, message);
        (jsonrpc::error_text(id, &error.to_json()), Err(End::Close(CloseCode::Policy, reason)))
    };
    let call = match jsonrpc::read(text, 1) {
        Ok(Incoming::Single(Ok(call))) if call.method == "auth" => call,
        Ok(Incoming::Single(Ok(call))) => {
            guard::note_missing(state);
            return refuse(call.id.as_ref(), "send auth {token} first", "the first message must be auth");
        }
        Ok(_) | Err(_) => {
            guard::note_missing(state);
            return refuse(None, "send auth {token} first", "the first message must be auth");
        }
    };
    let id = call.id.as_ref();
    let Some(Ok(Auth { token })) = call.params.map(|params| serde_json::from_str(params.get())) else {
        return refuse(id, "auth takes {token}", "auth takes a token");
    };
    match guard::by_token(state, head, &token) {
        Err(problem) => refuse(id, problem.message(), "this token is not valid here"),
        Ok(identity) => {
            let role = serde_json::to_string(&identity.role).unwrap_or_else(|_| "null".to_owned());
            let result = format!(r#"{{"name":"{}","role":{role}}}"#, identity.actor);
            let null = jsonrpc::Id::null();
            (jsonrpc::result_text(id.unwrap_or(&null), &result), Ok(identity))
        }
    }
}
