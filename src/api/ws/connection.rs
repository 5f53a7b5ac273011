//! The life of one WebSocket connection, in one task: it reads, begins calls in the order in which they came, and
//! writes what they answer, as fast as the client takes it.
//!
//! A client that is silent, slow, speaks binary or loses its token is closed with a reason.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::super::auth::Identity;
use super::super::request::Head;
use super::super::rpc::{self, Begun, Context};
use super::super::state::ApiState;
use super::Link;
use super::gate::Gate;
use super::introduction::introduce;
use crate::gateway::Channel;
use crate::limits::{SERVER_STOP_SECS_MAX, WS_IN_FLIGHT_MAX, WS_OUTBOX_MESSAGES_MAX, WS_PART_BYTES_MAX};
use crate::telemetry::TraceContext;

/// The protocol over any line: tests bring one of their own.
pub(super) type Socket<S> = WebSocketStream<Gate<S>>;

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
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The client went away, or said goodbye.
    Gone,
    /// We say goodbye, and why.
    Close(CloseCode, &'static str),
}

pub(super) const SHUTTING_DOWN: End = End::Close(CloseCode::Away, "plimsoll is shutting down");

/// Serves one connection to its end.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(begin: Begin, mut socket: Socket<S>) {
    let Begin { state, head, identity, trace } = begin;
    let identity = match identity {
        Some(identity) => identity,
        None => match introduce(&state, &head, &mut socket).await {
            Ok(identity) => identity,
            Err(end) => return finish(socket, end).await,
        },
    };
    socket.get_mut().open();
    // What is still running loses its reader when this is over, and does then what it was told to do in this case.
    let (socket, end) = serve(state, identity, trace, socket).await;
    finish(socket, end).await;
}

/// Serves one connection until it is to end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    state: Arc<ApiState>,
    identity: Identity,
    trace: Option<TraceContext>,
    socket: Socket<S>,
) -> (Socket<S>, End) {
    let ended = CancellationToken::new();
    let _at_the_end = ended.clone().drop_guard();
    let (outbox, waiting) = mpsc::channel(WS_OUTBOX_MESSAGES_MAX);
    let link = Arc::new(Link::new(outbox, ended));
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
    let end = connection.live(&state).await;
    (connection.socket, end)
}

struct Connection<S> {
    socket: Socket<S>,
    ctx: Arc<Context>,
    link: Arc<Link>,
    waiting: mpsc::Receiver<String>,
    /// What is not answered; each gives back how many calls of it had begun.
    calls: FuturesUnordered<BoxFuture<'static, usize>>,
    in_flight: usize,
    /// When the client was last heard, by the monotonic clock.
    heard: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn live(&mut self, state: &ApiState) -> End {
        let ctx = Arc::clone(&self.ctx);
        let mut overdue = Box::pin(overdue(state, &ctx.identity));
        let mut tick = interval(state.config.idle_timeout.0 / 3);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                biased;
                end = &mut overdue => Err(end),
                step = self.step(state, &mut tick) => step,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Does one thing of all that can be done. Which one is chance, so that none starves the others.
    async fn step(&mut self, state: &ApiState, tick: &mut Interval) -> Result<(), End> {
        let ctx = Arc::clone(&self.ctx);
        let leaving = leaving(state, &ctx.identity);
        if let Some(end) = leaving.as_ref().filter(|_| self.calls.is_empty()) {
            // What was answered last still waits.
            if let Ok(text) = self.waiting.try_recv() {
                self.write(state, text).await?;
            }
            return Err(*end);
        }
        let stays = leaving.is_none();
        // Refusals take no room of calls: a client that does not read them is not read either.
        let reads = stays && self.calls.len() < WS_IN_FLIGHT_MAX + WS_OUTBOX_MESSAGES_MAX;
        tokio::select! {
            () = state.sources.stop.cancelled(), if stays => Ok(()),
            () = ctx.identity.void.cancelled(), if stays => Ok(()),
            Some(answered) = self.calls.next() => {
                self.in_flight -= answered;
                Ok(())
            }
            Some(text) = self.waiting.recv() => self.write(state, text).await,
            message = self.socket.next(), if reads => self.read(state, message),
            _ = tick.tick() => self.check_idle(state).await,
        }
    }

    fn read(&mut self, state: &ApiState, message: Option<Result<Message, Error>>) -> Result<(), End> {
        self.heard = state.sources.clock.elapsed();
        match message {
            Some(Ok(Message::Text(text))) => {
                self.begin(text.as_bytes());
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

    fn begin(&mut self, text: &[u8]) {
        let link = Arc::clone(&self.link);
        let room = WS_IN_FLIGHT_MAX - self.in_flight;
        let Begun { calls, answer, held } = rpc::begin(&self.ctx, text, room);
        self.in_flight += calls;
        let call = async move {
            if let Some(text) = answer.await.into_text() {
                // A client that is gone needs no answer.
                let _ = link.send(text).await;
            }
            drop(held);
            calls
        };
        self.calls.push(call.boxed());
    }

    /// Writes what waits by now, and flushes once.
    async fn write(&mut self, state: &ApiState, first: String) -> Result<(), End> {
        self.feed(state, first).await?;
        // No more than that: others fill it again meanwhile.
        for _ in 0..self.waiting.len() {
            let Ok(text) = self.waiting.try_recv() else { break };
            self.feed(state, text).await?;
        }
        self.socket.flush().await.map_err(|error| end_of(state, &error))
    }

    /// Writes one message, a long one in parts (RFC 6455, section 5.4): the write buffer keeps the size it once had.
    async fn feed(&mut self, state: &ApiState, text: String) -> Result<(), End> {
        let (mut rest, mut kind) = (Bytes::from(text), Data::Text);
        loop {
            let part = rest.split_to(rest.len().min(WS_PART_BYTES_MAX));
            let frame = Frame::message(part, OpCode::Data(kind), rest.is_empty());
            self.socket.feed(Message::Frame(frame)).await.map_err(|error| end_of(state, &error))?;
            if rest.is_empty() {
                return Ok(());
            }
            kind = Data::Continue;
        }
    }

    /// Asks a silent client whether it is there, and gives it up when it does not answer.
    async fn check_idle(&mut self, state: &ApiState) -> Result<(), End> {
        let idle = state.config.idle_timeout.0;
        let silent = state.sources.clock.elapsed().saturating_sub(self.heard);
        if silent >= idle {
            state.limit_hit("idle_timeout");
            return Err(End::Close(CloseCode::Policy, "silent for too long: answer pings"));
        }
        if silent >= idle / 4 {
            let ping = self.socket.send(Message::Ping(Bytes::new())).await;
            ping.map_err(|error| end_of(state, &error))?;
        }
        Ok(())
    }
}

/// Why a connection ends as soon as what it asked is answered; it is not read any more.
fn leaving(state: &ApiState, identity: &Identity) -> Option<End> {
    let void = identity.void.is_cancelled().then(|| voided(identity));
    void.or_else(|| state.sources.stop.is_cancelled().then_some(SHUTTING_DOWN))
}

/// Resolves when a connection ends whatever it is doing: at once if its token was revoked, after a moment for its last
/// answers if it needed none until now or the server stops.
async fn overdue(state: &ApiState, identity: &Identity) -> End {
    let moment = || tokio::time::sleep(Duration::from_secs(SERVER_STOP_SECS_MAX));
    let void = async {
        identity.void.cancelled().await;
        if identity.token.is_none() {
            moment().await;
        }
        voided(identity)
    };
    let stopped = async {
        state.sources.stop.cancelled().await;
        moment().await;
        SHUTTING_DOWN
    };
    tokio::select! {
        biased;
        end = void => end,
        end = stopped => end,
    }
}

fn voided(identity: &Identity) -> End {
    let reason = match identity.token {
        Some(_) => "the token was revoked",
        None => "a token is needed from now on",
    };
    End::Close(CloseCode::Policy, reason)
}

/// What an error of the protocol layer means for the client.
pub(super) fn end_of(state: &ApiState, error: &Error) -> End {
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
        // A client that does not read is counted where its writes stall.
        _ => End::Gone,
    }
}

/// Says goodbye and waits a moment for the client's own, so that it sees the reason.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, end: End) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::access::Access;
    use crate::api::fixture;
    use crate::api::rpc::Method;
    use crate::live::{Envelope, Level};
    use std::borrow::Cow;
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// How long anything may take, on a busy machine too.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A client of a connection over a line that holds `line` bytes, which ends with `void`.
    async fn client_of(
        state: &Arc<ApiState>,
        line: usize,
        void: CancellationToken,
    ) -> WebSocketStream<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(line);
        let token = Arc::new(crate::api::auth::Token::for_tests(void));
        let identity = Some(Identity::of_token(token));
        let begin = Begin { head: fixture::head(state), identity, trace: None, state: Arc::clone(state) };
        let config = Some(super::super::config(state));
        let socket = WebSocketStream::from_raw_socket(Gate::new(ours), Role::Server, config).await;
        tokio::spawn(run(begin, socket));
        WebSocketStream::from_raw_socket(theirs, Role::Client, None).await
    }

    async fn subscribe(client: &mut WebSocketStream<DuplexStream>) {
        let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"events.subscribe"}"#;
        client.send(Message::text(subscribe)).await.expect("sent");
        assert!(next(client).await.contains("subscription"));
    }

    /// A client of a connection whose outbox is never empty: one event is larger than the write buffer and than what
    /// the line holds, so that every write waits, and meanwhile the outbox fills again.
    async fn flooded(void: CancellationToken) -> WebSocketStream<DuplexStream> {
        let state = Arc::new(fixture::state(crate::api::Config::default()));
        let mut client = client_of(&state, 64, void).await;
        subscribe(&mut client).await;
        tokio::spawn(async move {
            loop {
                state.sources.live.publish(event());
                tokio::task::yield_now().await;
            }
        });
        // More than the outbox holds: by now it is filled faster than it is written.
        for _ in 0..2 * WS_OUTBOX_MESSAGES_MAX {
            assert!(next(&mut client).await.contains(r#""method":"event""#));
        }
        client
    }

    fn event() -> Envelope {
        Envelope {
            r#type: Cow::Borrowed("live.test"),
            ts: crate::clock::Timestamp::default(),
            level: Level::Info,
            source: Cow::Borrowed("test"),
            instance: None,
            town: None,
            summary: "x".repeat(crate::limits::WS_READ_BUFFER_BYTES),
            detail: serde_json::Value::Null,
            trace_id: None,
            seq: None,
        }
    }

    async fn next(client: &mut WebSocketStream<DuplexStream>) -> String {
        let message = client.next().await.expect("the connection stands").expect("good frames");
        message.to_text().expect("text").to_owned()
    }

    #[tokio::test]
    async fn a_call_is_answered_while_events_flow() {
        let mut client = flooded(CancellationToken::new()).await;
        let call = r#"{"jsonrpc":"2.0","id":2,"method":"agent.list"}"#;
        client.send(Message::text(call)).await.expect("sent");
        let answer = async { while !next(&mut client).await.contains("\"id\":2") {} };
        timeout(PATIENCE, answer).await.expect("an answer among the events");
    }

    #[tokio::test]
    async fn a_revoked_token_ends_a_connection_while_events_flow() {
        let void = CancellationToken::new();
        let mut client = flooded(void.clone()).await;
        void.cancel();
        let goodbye = async {
            loop {
                if let Message::Close(frame) = client.next().await.expect("a goodbye").expect("good frames") {
                    return frame.expect("a reason").reason.to_string();
                }
            }
        };
        assert_eq!(timeout(PATIENCE, goodbye).await.as_deref(), Ok("the token was revoked"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_connection_began_does_not_wait_for_its_goodbye() {
        let state = Arc::new(fixture::state(crate::api::Config::default()));
        let void = CancellationToken::new();
        let mut client = client_of(&state, 1 << 16, void.clone()).await;
        subscribe(&mut client).await;
        let gone = || state.registry.render().contains(r#"plimsoll_stream_clients{transport="ws"} 0"#);
        assert!(!gone());
        void.cancel();
        // The client keeps silent and time stands still, so the connection waits for its goodbye.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(gone(), "{}", state.registry.render());
    }

    /// More than one frame holds; a part ends within a sign of two bytes.
    const LONG_CHARS: usize = 10 << 20;

    static LONG: &[Method] = &[Method {
        name: "test.long",
        access: Access::Viewer,
        summary: "Says much.",
        params: |_| schemars::Schema::default(),
        result: |_| schemars::Schema::default(),
        handler: |_call| {
            let text = format!("\"{}\"", "ü".repeat(LONG_CHARS));
            std::future::ready(Ok(text)).boxed()
        },
    }];

    #[tokio::test]
    async fn a_long_answer_goes_in_parts_and_ends_nothing() {
        let mut state = fixture::state(crate::api::Config::default());
        state.methods = LONG;
        let mut client = client_of(&Arc::new(state), 1 << 20, CancellationToken::new()).await;
        for _ in 0..2 {
            let call = r#"{"jsonrpc":"2.0","id":1,"method":"test.long"}"#;
            client.send(Message::text(call)).await.expect("sent");
            let answer = next(&mut client).await;
            assert_eq!(answer.matches('ü').count(), LONG_CHARS);
        }
    }
}
