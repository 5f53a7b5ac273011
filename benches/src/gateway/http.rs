//! The smallest HTTP client that keeps its connection: the load must not cost more than what it measures.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One kept connection.
pub(crate) struct Connection {
    socket: TcpStream,
    host: SocketAddr,
    /// Header lines of every POST, each with its end.
    headers: String,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(host: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(host).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, host, headers: String::new(), buffer: Vec::with_capacity(4_096) })
    }

    /// Sends these with every POST.
    pub(crate) fn with_headers(mut self, headers: &[(&str, String)]) -> Self {
        self.headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self
    }

    /// Posts JSON and gives the body of the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> io::Result<String> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n{body}",
            self.host,
            body.len(),
            self.headers
        );
        self.socket.write_all(request.as_bytes()).await?;
        self.answer().await.map(|(_, body)| body)
    }

    async fn answer(&mut self) -> io::Result<(u16, String)> {
        self.buffer.clear();
        loop {
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let chunked = head.contains("transfer-encoding: chunked");
            let whole = end + 4 + length.unwrap_or(0);
            // The bodies here hold no such text themselves.
            while self.buffer.len() < whole || (chunked && !self.buffer.ends_with(b"\r\n0\r\n\r\n")) {
                if self.socket.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            return Ok((status, String::from_utf8_lossy(&self.buffer[end + 4..]).into_owned()));
        }
    }
}

/// Status and body of one GET.
pub(crate) async fn get(host: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut connection = Connection::open(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    connection.socket.write_all(request.as_bytes()).await?;
    connection.answer().await
}

/// An `agent.send` as JSON-RPC; `message` and `session` need no escaping.
pub(crate) fn send(id: usize, agent: &str, session: &str, message: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"agent.send","params":{{"agent":"{agent}","session":"{session}","message":"{message}"}}}}"#
    )
}
