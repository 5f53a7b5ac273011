//! A server that gives the same answer to every POST after a fixed time: a model server, or a collector of traces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long each answer takes.
pub(crate) const ANSWER_AFTER: Duration = Duration::from_millis(ANSWER_AFTER_MS);
pub(crate) const ANSWER_AFTER_MS: u64 = 100;

/// A port of this machine that is free.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What an upstream says.
#[derive(Clone, Copy)]
enum Says {
    /// A completion whose text is for how many microseconds it was held back: a timer wakes in whole milliseconds, so
    /// the client takes off what the upstream really waited.
    Held,
    /// An empty `ExportTraceServiceResponse`.
    Nothing,
}

impl Says {
    fn answer(self, held: Duration) -> String {
        let (content_type, body) = match self {
            Self::Held => (
                "application/json",
                format!(
                    r#"{{"id":"c","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}}}"#,
                    held.as_micros()
                ),
            ),
            Self::Nothing => ("application/x-protobuf", String::new()),
        };
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Serves until dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    answered: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// An OpenAI-compatible server.
    pub(crate) async fn model(listen: SocketAddr, after: Duration) -> io::Result<Self> {
        Self::start(listen, Says::Held, after).await
    }

    /// A collector that takes every batch over OTLP/HTTP.
    pub(crate) async fn collector() -> io::Result<Self> {
        Self::start(ANYWHERE, Says::Nothing, Duration::ZERO).await
    }

    /// Requests answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    async fn start(listen: SocketAddr, says: Says, after: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let answered = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&answered);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                // A client that goes away ends its connection; that is all there is to say.
                connections.spawn(async move { drop(serve(socket, says, after, &count).await) });
            }
        });
        Ok(Self { address, answered, _tasks: tasks })
    }
}

async fn serve(mut socket: TcpStream, says: Says, after: Duration, count: &AtomicU64) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let clock = Clock::system();
    let mut request = Vec::with_capacity(4_096);
    loop {
        request.clear();
        let whole = loop {
            if socket.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
            let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            break end + 4 + length.unwrap_or(0_usize);
        };
        while request.len() < whole {
            if socket.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let began = clock.elapsed();
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        socket.write_all(says.answer(clock.elapsed() - began).as_bytes()).await?;
        count.fetch_add(1, Ordering::Relaxed);
    }
}
