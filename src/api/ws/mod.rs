//! JSON-RPC over WebSocket (RFC 6455): the upgrade, and what calls of one connection share.
//!
//! The upgrade is ours and not warp's, because warp's hides the read buffer: 4 KiB instead of 128 KiB is what makes ten
//! thousand idle connections cheap. Start at [`upgrade`]; one connection's life is in `connection.rs`.

mod connection;
mod gate;
mod introduction;
mod link;
mod turn;

pub(crate) use link::{Answering, Link};
pub(crate) use turn::{TurnEnd, TurnStart};

use std::sync::Arc;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::request::Request;
use super::response::{Content, Outcome, Problem};
use super::state::ApiState;
use crate::limits::WS_READ_BUFFER_BYTES;
use bytes::Bytes;

/// Answers the handshake and leaves the rest to a task of its own.
pub(crate) async fn upgrade(state: Arc<ApiState>, request: Request) -> Outcome {
    let accept = handshake(&request.headers)?;
    let on_upgrade = request.head.upgrade.clone().ok_or_else(not_a_handshake)?;
    let trace = request.trace();
    let Request { head, identity, .. } = request;
    let begin = connection::Begin { state: Arc::clone(&state), head, identity, trace };
    state.tasks.spawn(async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        begin.head.peer.upgraded();
        let config = config(&begin.state);
        let io = gate::Gate::new(TokioIo::new(upgraded));
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Box::pin(connection::run(begin, socket)).await;
    });
    let mut response = Response::new(Content::Whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn config(state: &ApiState) -> WebSocketConfig {
    let message_max = usize::try_from(state.config.body_bytes_max.0).unwrap_or(usize::MAX);
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = WS_READ_BUFFER_BYTES;
    config.write_buffer_size = WS_READ_BUFFER_BYTES;
    config.max_message_size = Some(message_max);
    config.max_frame_size = Some(message_max);
    config
}

/// Checks a client's handshake (RFC 6455, section 4.2.1) and derives what proves that it was understood.
fn handshake(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let names = |header: &http::HeaderName, token: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !names(&CONNECTION, "upgrade") || !names(&UPGRADE, "websocket") {
        return Err(not_a_handshake());
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Problem::bad_request("only version 13 of the WebSocket protocol is spoken here"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24).ok_or_else(not_a_handshake)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| Problem::internal())
}

fn not_a_handshake() -> Problem {
    let message = "this path speaks WebSocket: connect with a WebSocket client, or POST to /rpc";
    Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_answered_as_in_the_standard() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        // The example of RFC 6455, section 1.3.
        assert_eq!(handshake(&headers).expect("good"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for broken in [CONNECTION, UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY] {
            let mut headers = headers.clone();
            headers.remove(&broken);
            assert!(handshake(&headers).is_err(), "{broken}");
        }
    }
}
