//! HTTP and WebSocket as bytes, so that tests can also send what no proper client would.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::server::{PATIENCE, Server};

/// Awaits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = dechunk(&answer.body);
        }
        Some(answer)
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && bytes.len() >= end + 2 + size) else { break };
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    body
}

/// A request to be sent.
#[derive(Clone)]
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Ask {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), host: None, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn method(method: &'static str, path: &str) -> Self {
        Self { method, ..Self::get(path) }
    }

    /// A POST of this text.
    pub(crate) fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::method("POST", path) }
    }

    /// A call of `POST /rpc`, with this text as its body.
    pub(crate) fn rpc(body: impl Into<Vec<u8>>) -> Self {
        Self::post("/rpc", body).header("content-type", "application/json")
    }

    /// A call of one method.
    pub(crate) fn call(method: &str, params: Value) -> Self {
        Self::rpc(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string())
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn token(self, token: Option<&str>) -> Self {
        match token {
            Some(token) => self.header("authorization", &format!("Bearer {token}")),
            None => self,
        }
    }

    fn bytes(&self, address: SocketAddr) -> Vec<u8> {
        let host = self.host.clone().unwrap_or_else(|| address.to_string());
        let mut head =
            format!("{} {} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n", self.method, self.path);
        if !self.body.is_empty() || self.method == "POST" {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it and reads the answer until the server closes.
    pub(crate) async fn send(&self, address: SocketAddr) -> Answer {
        let bytes = raw(address, &self.bytes(address)).await;
        Answer::parse(&bytes).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)))
    }

    /// Sends it and reads the answer as far as it has come when `enough` is found in it.
    pub(crate) async fn open(&self, address: SocketAddr) -> Flow {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(&self.bytes(address)).await.expect("the request is sent");
        Flow { stream, seen: String::new() }
    }
}

/// An answer that goes on and on.
pub(crate) struct Flow {
    stream: TcpStream,
    seen: String,
}

impl Flow {
    /// Reads on until this text came.
    pub(crate) async fn until(&mut self, text: &str) -> &str {
        soon(text, async {
            while !self.seen.contains(text) {
                assert!(self.read().await > 0, "{text:?} is not in {:?}", self.seen);
            }
        })
        .await;
        &self.seen
    }

    /// Reads on until the server ends it.
    pub(crate) async fn end(mut self) -> String {
        soon("the end", async { while self.read().await > 0 {} }).await;
        self.seen
    }

    /// What came so far.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    async fn read(&mut self) -> usize {
        let mut buffer = [0; 4_096];
        let read = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.seen += &String::from_utf8_lossy(&buffer[..read]);
        read
    }
}

/// Sends bytes and reads until the server closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    soon("an answer", async {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        // A server that has heard enough closes while we still write: its answer counts.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4_096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
        }
        answer
    })
    .await
}

/// A WebSocket to the server.
pub(crate) struct Ws {
    socket: WebSocketStream<TcpStream>,
    last: u64,
}

impl Ws {
    pub(crate) async fn open(server: &Server, token: Option<&str>) -> Self {
        Self::try_open(server, token).await.expect("the upgrade is answered")
    }

    pub(crate) async fn try_open(server: &Server, token: Option<&str>) -> Result<Self, Error> {
        let address = server.address();
        let stream = TcpStream::connect(address).await.expect("the server listens");
        let mut request = format!("ws://{address}/ws").into_client_request().expect("a request");
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.headers_mut().insert("authorization", value);
        }
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Self { socket, last: 0 })
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the message is sent");
    }

    /// Begins a call and gives its id.
    pub(crate) async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let call = json!({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params});
        self.send_text(call.to_string()).await;
        self.last
    }

    /// The next message as JSON.
    pub(crate) async fn next(&mut self) -> Value {
        soon("a message", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return serde_json::from_str(&text).expect("the server speaks JSON");
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("expected a message, got {other:?}"),
                }
            }
        })
        .await
    }

    /// Calls and waits for the answer; notifications on the way are passed over.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        loop {
            let message = self.next().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// Reads until the server closes; its code and its reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        soon("the end of the connection", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return (frame.code.into(), frame.reason.to_string());
                    }
                    Some(Ok(_)) => {}
                    other => panic!("expected a goodbye, got {other:?}"),
                }
            }
        })
        .await
    }

    /// The connection below.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.socket.into_inner()
    }
}

/// How long a `Duration` in JSON configuration is written.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
