//! What answers as a container engine over a unix socket, in the words of a test.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::engine::Engine;

/// A status and a body.
pub(crate) struct Said(pub(crate) u16, pub(crate) Value);

/// Chooses what is said to a request, as in `GET /containers/x/json`.
type Choice = Arc<dyn Fn(&str) -> Said + Send + Sync>;

/// See the module; closed when dropped.
pub(crate) struct FakeEngine {
    dir: TempDir,
    _tasks: JoinSet<()>,
}

impl FakeEngine {
    /// It is of this version of the API, and nothing ever happens there; all else is `choose`'s.
    pub(crate) fn start(choose: impl Fn(&str) -> Said + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(dir.path().join("engine.sock")).expect("bound");
        let (mut tasks, choice): (_, Choice) = (JoinSet::new(), Arc::new(choose));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                connections.spawn(converse(stream, Arc::clone(&choice)));
            }
        });
        Self { dir, _tasks: tasks }
    }

    pub(crate) fn engine(&self) -> Engine {
        let address = format!("unix://{}", self.dir.path().join("engine.sock").display());
        Engine { address, network: "bridge".to_owned() }
    }
}

async fn converse(stream: UnixStream, choose: Choice) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream).await {
        let Said(status, body) = match request.split(['?', ' ']).nth(1) {
            Some("/version") => Said(200, json!({"ApiVersion": "1.41", "Version": "5.4.2"})),
            Some("/events") => return std::future::pending().await,
            _ => choose(&request),
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // A client may go away.
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    }
}

/// Method and target of the next request, without the version of the API.
async fn request(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let target = match target.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|slash| &rest[slash..]))
    {
        Some(rest) => rest,
        None => target,
    };
    Some(format!("{method} {target}"))
}
