//! A model server that does exactly as it is told, well or badly: raw bytes over a real socket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What it does with one request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Sends these parts, each by itself, and closes the connection.
    Parts(Vec<Vec<u8>>),
    /// Sends these bytes, pauses, sends the others, and closes the connection.
    Pause(Vec<u8>, Duration, Vec<u8>),
    /// Sends the first bytes, once it is told to the others, and keeps the connection for the next request.
    Stay(Vec<u8>, Arc<Notify>, Vec<u8>),
    /// Sends the first bytes, and then the others again and again, without closing.
    Chatter(Vec<u8>, Vec<u8>),
    /// Sends these bytes and then nothing more, without closing.
    Hang(Vec<u8>),
}

/// A request that it got.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Request line and header fields, in lower case.
    pub(crate) head: String,
    /// What is no JSON is text.
    pub(crate) body: Value,
}

/// Chooses the reply to a request.
type Choice = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A running server; ends when dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// Answers with these replies, one after the other; the last one again and again.
    pub(crate) async fn start(replies: Vec<Reply>) -> Self {
        Self::listen(any_port().await, one_after_the_other(replies), None)
    }

    /// Answers with what `choose` says, on this listener.
    pub(crate) fn choosing(
        listener: TcpListener,
        choose: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(listener, Arc::new(choose), None)
    }

    /// As [`start`](Self::start) over TLS, with a certificate whose authority is written to `ca_file`.
    pub(crate) async fn start_tls(replies: Vec<Reply>, ca_file: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(ca_file, made.cert.pem()).expect("the file is written");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks them")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("key and certificate fit");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::listen(any_port().await, one_after_the_other(replies), Some(acceptor))
    }

    fn listen(listener: TcpListener, choice: Choice, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().expect("bound");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                socket.set_nodelay(true).expect("a socket");
                let (seen, choice, tls) = (Arc::clone(&seen), Arc::clone(&choice), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => converse(socket, &seen, &choice).await,
                        // A client that does not trust us goes away.
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                converse(socket, &seen, &choice).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, scheme, requests, connections, _tasks: tasks }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it. Nobody answers at its address any more, and nobody else gets it as long as the socket is kept.
    pub(crate) async fn closed(self) -> TcpSocket {
        let address = self.address;
        drop(self);
        super::server::until("the port", async || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("an option");
            socket.bind(address).ok().map(|()| socket)
        })
        .await
    }

    pub(crate) fn base_url(&self) -> String {
        format!("{}://{}/v1", self.scheme, self.address)
    }

    /// Connections that were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic under it").clone()
    }
}

async fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port is free")
}

fn one_after_the_other(replies: Vec<Reply>) -> Choice {
    let replies = Mutex::new(replies.into_iter().peekable());
    Arc::new(move |_| {
        let mut replies = replies.lock().expect("no panic under it");
        let reply = replies.next().expect("there is always a last reply");
        if replies.peek().is_none() {
            *replies = vec![reply.clone()].into_iter().peekable();
        }
        reply
    })
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    seen: &Mutex<Vec<Request>>,
    choice: &Choice,
) {
    while let Some(request) = read_request(&mut socket).await {
        let reply = choice(&request);
        seen.lock().expect("no panic under it").push(request);
        let Reply::Stay(first, told, then) = reply else { return perform(socket, reply).await };
        if socket.write_all(&first).await.is_err() {
            return;
        }
        told.notified().await;
        if socket.write_all(&then).await.is_err() {
            return;
        }
    }
}

async fn perform(mut socket: impl AsyncRead + AsyncWrite + Unpin, reply: Reply) {
    match reply {
        Reply::Stay(..) => unreachable!("the connection stays with its loop"),
        Reply::Parts(parts) => {
            for part in parts {
                if socket.write_all(&part).await.is_err() || socket.flush().await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = socket.shutdown().await;
        }
        Reply::Pause(before, pause, after) => {
            let _ = socket.write_all(&before).await;
            tokio::time::sleep(pause).await;
            let _ = socket.write_all(&after).await;
            let _ = socket.shutdown().await;
        }
        Reply::Chatter(first, then) => {
            let _ = socket.write_all(&first).await;
            // Ends when the client closes.
            while socket.write_all(&then).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Reply::Hang(bytes) => {
            let _ = socket.write_all(&bytes).await;
            // Ends when the client closes.
            let _ = socket.read(&mut [0; 16]).await;
        }
    }
}

async fn read_request(socket: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            let body = &bytes[end + 4..];
            let text = || Value::String(String::from_utf8_lossy(body).into_owned());
            let body = serde_json::from_slice(body).unwrap_or_else(|_| text());
            return Some(Request { head, body });
        }
    }
}

fn head(status: &str, kind: &str, more: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n{more}\r\n")
}

/// An error status with a body.
pub(crate) fn refusal(status: &str, more: &str, body: &str) -> Reply {
    Reply::Parts(vec![format!("{}{body}", head(status, "application/json", more)).into_bytes()])
}

/// A whole answer.
pub(crate) fn whole(body: &str) -> Reply {
    let length = format!("content-length: {}\r\n", body.len());
    Reply::Parts(vec![format!("{}{body}", head("200 OK", "application/json", &length)).into_bytes()])
}

/// The head of a streamed answer.
pub(crate) fn stream_head() -> Vec<u8> {
    head("200 OK", "text/event-stream; charset=utf-8", "").into_bytes()
}

/// A streamed answer of these events.
pub(crate) fn stream(events: &[&str]) -> Reply {
    let events = events.iter().map(|event| format!("data: {event}\n\n").into_bytes());
    Reply::Parts(std::iter::once(stream_head()).chain(events).collect())
}

/// A piece of a streamed answer.
pub(crate) fn delta(text: &str) -> String {
    serde_json::json!({"id": "c1", "model": "m-2", "choices": [{"index": 0, "delta": {"content": text}}]})
        .to_string()
}

/// The last piece: why it stopped.
pub(crate) const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

/// Tokens, in a piece without choices.
pub(crate) const USAGE: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#;
