//! The life of one WebSocket connection, in one task: it reads, begins calls in the order in which they came, and
//! writes what they answer, as fast as the client takes it.
//!
//! A client that is silent, slow, speaks binary or loses its token is closed with a reason.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::super::auth::Identity;
use super::super::guard;
use super::super::jsonrpc::{self, Incoming};
use super::super::request::Head;
use super::super::rpc::{self, Begun, Context, GATEWAY_FULL, RpcError};
use super::super::state::ApiState;
use super::Link;
use super::gate::Gate;
use crate::gateway::Channel;
use crate::limits::{SERVER_STOP_SECS_MAX, WS_AUTH_SECS_MAX, WS_IN_FLIGHT_MAX, WS_OUTBOX_MESSAGES_MAX};
use crate::telemetry::TraceContext;

type Socket = WebSocketStream<Gate<TokioIo<Upgraded>>>;

/// How long a client has to answer our goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a connection begins with.
pub(super) struct Begin {
    pub(super) state: Arc<ApiState>,
    pub(super) head: Head,
    /// Who it is, if the header said so.
    pub(super) identity: Option<Identity>,
    pub(super) trace: Option<TraceContext>,
}

/// Why a connection ends.
enum End {
    /// The client went away, or said goodbye.
    Gone,
    /// We say goodbye, and why.
    Close(CloseCode, &'static str),
}

/// Serves one connection to its end.
pub(super) async fn run(begin: Begin, mut socket: Socket) {
    let Begin { state, head, identity, trace } = begin;
    let identity = match identity {
        Some(identity) => identity,
        None => match introduce(&state, &head, &mut socket).await {
            Ok(identity) => identity,
            Err(end) => return finish(socket, end).await,
        },
    };
    socket.get_mut().open();
    let ended = CancellationToken::new();
    let _at_the_end = ended.clone().drop_guard();
    let (outbox, waiting) = mpsc::channel(WS_OUTBOX_MESSAGES_MAX);
    let link = Arc::new(Link::new(outbox, ended));
    let revoked = identity.token.as_ref().map(|token| token.revoked.clone()).unwrap_or_default();
    let ctx = Context {
        state: Arc::clone(&state),
        identity,
        channel: Channel::Ws,
        trace,
        link: Some(Arc::clone(&link)),
    };
    let mut connection = Connection {
        heard: state.sources.clock.elapsed(),
        ctx: Arc::new(ctx),
        link,
        socket,
        waiting,
        calls: FuturesUnordered::new(),
        in_flight: 0,
    };
    let end = connection.live(&state, &revoked).await;
    // What is still running loses its reader here, and does then what it was told to do in this case.
    let Connection { socket, .. } = connection;
    finish(socket, end).await;
}

struct Connection {
    socket: Socket,
    ctx: Arc<Context>,
    link: Arc<Link>,
    waiting: mpsc::Receiver<String>,
    /// What was begun and is not answered; each gives back how many calls it was.
    calls: FuturesUnordered<BoxFuture<'static, usize>>,
    in_flight: usize,
    /// When the client was last heard, by the monotonic clock.
    heard: Duration,
}

impl Connection {
    async fn live(&mut self, state: &ApiState, revoked: &CancellationToken) -> End {
        let idle = state.config.idle_timeout.0;
        let mut tick = interval(idle / 3);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = state.sources.stop.cancelled().boxed();
        let mut stopping: Option<BoxFuture<'_, ()>> = None;
        loop {
            if stopping.is_some() && self.calls.is_empty() && self.waiting.is_empty() {
                return End::Close(CloseCode::Away, "plimsoll is shutting down");
            }
            let step = tokio::select! {
                () = revoked.cancelled() => Err(End::Close(CloseCode::Policy, "the token was revoked")),
                () = &mut stop, if stopping.is_none() => {
                    stopping = Some(tokio::time::sleep(Duration::from_secs(SERVER_STOP_SECS_MAX)).boxed());
                    Ok(())
                }
                () = async { stopping.as_mut().expect("the branch is guarded").await }, if stopping.is_some() => {
                    Err(End::Close(CloseCode::Away, "plimsoll is shutting down"))
                }
                Some(answered) = self.calls.next(), if !self.calls.is_empty() => {
                    self.in_flight -= answered;
                    Ok(())
                }
                Some(text) = self.waiting.recv() => self.write(state, text).await,
                message = self.socket.next() => self.read(state, message),
                _ = tick.tick() => self.check_idle(state, idle).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn read(&mut self, state: &ApiState, message: Option<Result<Message, Error>>) -> Result<(), End> {
        self.heard = state.sources.clock.elapsed();
        match message {
            Some(Ok(Message::Text(text))) => {
                self.begin(state, text.as_bytes());
                Ok(())
            }
            Some(Ok(Message::Binary(_))) => {
                Err(End::Close(CloseCode::Unsupported, "binary messages are not spoken here: send JSON text"))
            }
            // Pings are answered by the protocol layer; the answer to a goodbye too.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => Ok(()),
            Some(Err(error)) => Err(end_of(state, &error)),
            None => Err(End::Gone),
        }
    }

    fn begin(&mut self, state: &ApiState, text: &[u8]) {
        let link = Arc::clone(&self.link);
        if self.in_flight >= WS_IN_FLIGHT_MAX {
            state.limit_hit("ws_in_flight");
            let message = "too many unanswered calls on this connection: wait for answers";
            let error = RpcError::limited(GATEWAY_FULL, "ws_in_flight", Duration::from_millis(100), message);
            if let Some(text) = rpc::refuse_all(&self.ctx, text, &error) {
                let refusal = async move {
                    // A client that is gone needs no answer.
                    let _ = link.send(text).await;
                    1
                };
                self.in_flight += 1;
                self.calls.push(refusal.boxed());
            }
            return;
        }
        let Begun { calls, answer, ends } = rpc::begin(&self.ctx, text);
        self.in_flight += calls;
        let call = async move {
            if let Some(text) = answer.await.into_text() {
                // A client that is gone needs no answer.
                let _ = link.send(text).await;
            }
            drop(ends);
            link.note_answered();
            calls
        };
        self.calls.push(call.boxed());
    }

    /// Writes what waits, and flushes once.
    async fn write(&mut self, state: &ApiState, first: String) -> Result<(), End> {
        let mut next = Some(first);
        while let Some(text) = next {
            let fed = self.socket.feed(Message::text(text)).await;
            fed.map_err(|error| end_of(state, &error))?;
            next = self.waiting.try_recv().ok();
        }
        self.socket.flush().await.map_err(|error| end_of(state, &error))
    }

    /// Asks a silent client whether it is there, and gives it up when it does not answer.
    async fn check_idle(&mut self, state: &ApiState, idle: Duration) -> Result<(), End> {
        let silent = state.sources.clock.elapsed().saturating_sub(self.heard);
        if silent >= idle {
            state.limit_hit("idle_timeout");
            return Err(End::Close(CloseCode::Policy, "silent for too long: answer pings"));
        }
        if silent >= idle / 4 {
            let ping = self.socket.send(Message::Ping(bytes::Bytes::new())).await;
            ping.map_err(|error| end_of(state, &error))?;
        }
        Ok(())
    }
}

/// Waits for the first message, which must be `auth` with a token.
async fn introduce(state: &Arc<ApiState>, head: &Head, socket: &mut Socket) -> Result<Identity, End> {
    let first = timeout(Duration::from_secs(WS_AUTH_SECS_MAX), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    });
    let text = tokio::select! {
        () = state.sources.stop.cancelled() => return Err(End::Close(CloseCode::Away, "plimsoll is shutting down")),
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
    let (answer, result) = check_introduction(state, head, text.as_bytes());
    if socket.send(Message::text(answer)).await.is_err() {
        return Err(End::Gone);
    }
    result
}

fn check_introduction(state: &Arc<ApiState>, head: &Head, text: &[u8]) -> (String, Result<Identity, End>) {
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

/// What an error of the protocol layer means for the client.
fn end_of(state: &ApiState, error: &Error) -> End {
    match error {
        Error::Capacity(_) => {
            state.limit_hit("ws_message_bytes");
            End::Close(CloseCode::Size, "the message is too large")
        }
        Error::Io(error) if error.kind() == ErrorKind::FileTooLarge => {
            state.limit_hit("ws_stranger_bytes");
            End::Close(CloseCode::Size, "too much before a token: send auth {token} first")
        }
        Error::Utf8(_) => End::Close(CloseCode::Invalid, "a text message must be UTF-8"),
        Error::Protocol(_) => End::Close(CloseCode::Protocol, "that is not the WebSocket protocol"),
        Error::WriteBufferFull(_) => {
            state.limit_hit("ws_write_buffer_bytes");
            End::Gone
        }
        // A client that does not read is counted where its writes stall.
        _ => End::Gone,
    }
}

/// Says goodbye and waits a moment for the client's own, so that it sees the reason.
async fn finish(mut socket: Socket, end: End) {
    let End::Close(code, reason) = end else { return };
    let goodbye = async {
        let frame = CloseFrame { code, reason: reason.into() };
        if socket.close(Some(frame)).await.is_err() {
            return;
        }
        // Its last words are not kept, so there may be many.
        socket.get_mut().open();
        let mut rest = [0; 1_024];
        while socket.get_mut().read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    // In time or not, the connection ends here.
    let _ = timeout(GOODBYE, Box::pin(goodbye)).await;
}
