//! An OpenAI-compatible server that answers after a fixed time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long each answer takes.
pub(super) const ANSWER_AFTER: Duration = Duration::from_millis(100);

const ANSWER: &str = r#"{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"fine, thank you"},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}"#;

/// Serves until dropped.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                // A client that goes away ends its connection; that is all there is to say.
                connections.spawn(async move { drop(serve(socket).await) });
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
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
        tokio::time::sleep(ANSWER_AFTER).await;
        socket.write_all(answer.as_bytes()).await?;
    }
}
