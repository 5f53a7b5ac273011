//! JSON-RPC over a WebSocket: calls go out, answers and notifications come in, in any order.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::{Client, ClientError};

/// The JSON-RPC code of what a caller may not do.
const FORBIDDEN: i64 = -32008;

/// Something that came in.
#[derive(Debug)]
pub enum Incoming {
    /// The answer to a call.
    Answer {
        /// The number that [`Connection::call`] gave.
        id: u64,
        /// The result, or why there is none.
        outcome: Result<Value, ClientError>,
    },
    /// News without a question.
    Notification {
        /// What it is, such as `agent.event`.
        method: String,
        /// Its facts.
        params: Value,
    },
}

/// An open WebSocket.
pub struct Connection {
    stream: WebSocketStream<reqwest::Upgraded>,
    last_id: u64,
    /// Whether it was opened with a token; without one, a server that wants one says so in its first answer.
    shows_token: bool,
}

impl Connection {
    /// Opens `/ws` by HTTP upgrade (RFC 6455, section 4.1) over whichever road the client takes.
    pub(super) async fn open(client: &Client) -> Result<Self, ClientError> {
        let key = generate_key();
        let request = client
            .request(Method::GET, "/ws")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        let answer = client.send(request).await?;
        let accepted = answer.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
        if accepted != Some(derive_accept_key(key.as_bytes()).as_str()) {
            return Err(ClientError::Protocol("the WebSocket was not accepted".to_owned()));
        }
        let io = answer.upgrade().await.map_err(|error| ClientError::Lost(error.to_string()))?;
        let stream = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        Ok(Self { stream, last_id: 0, shows_token: client.shows_token() })
    }

    /// Sends a call and returns the number its answer will carry.
    ///
    /// # Errors
    /// [`ClientError::Lost`].
    pub async fn call(&mut self, method: &str, params: Value) -> Result<u64, ClientError> {
        self.last_id += 1;
        let call = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params});
        let sent = self.stream.send(Message::text(call.to_string())).await;
        sent.map_err(|error| ClientError::Lost(error.to_string()))?;
        Ok(self.last_id)
    }

    /// Waits for what comes next. Safe to drop while it waits.
    ///
    /// # Errors
    /// [`ClientError::Lost`] at the end of the connection, [`ClientError::Protocol`] for what is no JSON-RPC.
    pub async fn next(&mut self) -> Result<Incoming, ClientError> {
        loop {
            let message = match self.stream.next().await {
                None => return Err(ClientError::Lost("the server closed it".to_owned())),
                Some(Err(error)) => return Err(ClientError::Lost(error.to_string())),
                Some(Ok(message)) => message,
            };
            match message {
                Message::Text(text) => {
                    let value = serde_json::from_str(&text);
                    let read = read(value.map_err(|error| ClientError::Protocol(error.to_string()))?)?;
                    return Ok(self.explained(read));
                }
                Message::Close(frame) => {
                    let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    return Err(ClientError::Lost(format!("the server closed it: {reason}")));
                }
                Message::Binary(_) => return Err(ClientError::Protocol("a binary frame".to_owned())),
                // Pings are answered by the library; they need no action here.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn explained(&self, incoming: Incoming) -> Incoming {
        match incoming {
            Incoming::Answer { id, outcome: Err(ClientError::Rpc { code: FORBIDDEN, .. }) }
                if !self.shows_token =>
            {
                Incoming::Answer { id, outcome: Err(ClientError::TokenNeeded) }
            }
            other => other,
        }
    }

    /// Waits for the answer to one call; what comes in between goes to `on_notification`.
    ///
    /// # Errors
    /// See [`Connection::next`], and what the call itself was answered.
    pub async fn answer(
        &mut self,
        wanted: u64,
        mut on_notification: impl FnMut(&str, &Value),
    ) -> Result<Value, ClientError> {
        loop {
            match self.next().await? {
                Incoming::Answer { id, outcome } if id == wanted => return outcome,
                Incoming::Answer { .. } => {}
                Incoming::Notification { method, params } => on_notification(&method, &params),
            }
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        // The other side may be gone already; there is nobody to tell.
        let _ = self.stream.close(None).await;
    }
}

/// Reads one JSON-RPC answer or notification.
pub(super) fn read(mut message: Value) -> Result<Incoming, ClientError> {
    let id = message.get("id").and_then(Value::as_u64);
    if let Some(error) = message.get_mut("error").filter(|error| error.is_object()) {
        let outcome = Err(ClientError::Rpc {
            code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
            message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
            data: error.get_mut("data").map(Value::take).unwrap_or_default(),
        });
        return Ok(Incoming::Answer { id: id.unwrap_or_default(), outcome });
    }
    if let (Some(id), Some(result)) = (id, message.get_mut("result")) {
        return Ok(Incoming::Answer { id, outcome: Ok(result.take()) });
    }
    match message.get("method").and_then(Value::as_str).map(str::to_owned) {
        Some(method) => {
            let params = message.get_mut("params").map(Value::take).unwrap_or_default();
            Ok(Incoming::Notification { method, params })
        }
        None => Err(ClientError::Protocol("neither an answer nor a notification".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_errors_and_notifications_are_told_apart() {
        let of = |value| read(value).expect("it is JSON-RPC");
        let answer = of(json!({"jsonrpc": "2.0", "id": 7, "result": {"a": 1}}));
        assert!(matches!(answer, Incoming::Answer { id: 7, outcome: Ok(value) } if value == json!({"a": 1})));
        let error =
            of(json!({"id": 8, "error": {"code": -32001, "message": "full", "data": {"cause": "x"}}}));
        let Incoming::Answer { id: 8, outcome: Err(error) } = error else { panic!("{error:?}") };
        assert_eq!(error.to_string(), "full (code -32001, cause: x)");
        let news = of(json!({"method": "agent.event", "params": {"type": "delta"}}));
        assert!(matches!(news, Incoming::Notification { method, .. } if method == "agent.event"));
        assert!(read(json!({"hello": 1})).is_err());
    }
}
