//! What stands between plimsoll and a real engine, over TCP: it passes on, and somebody hears what is asked before the
//! engine does.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinSet, block_in_place};

use super::engine::Engine;

/// Hears the head of each request, and may take its time; whether it is passed on. One that is not is never answered.
type Hear = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// See the module; closed when dropped. Needs a runtime of several threads.
pub(crate) struct EngineGate {
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl EngineGate {
    /// On every address of this machine.
    pub(crate) async fn before(engine: &Engine, hear: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let socket = engine.address.strip_prefix("unix://").expect("a socket of this machine").to_owned();
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (mut tasks, hear): (_, Hear) = (JoinSet::new(), Arc::new(hear));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((outside, _peer)) = listener.accept().await {
                let inside = UnixStream::connect(&socket).await.expect("the engine listens");
                connections.spawn(pass_on(outside, inside, Arc::clone(&hear)));
            }
        });
        Self { port, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

async fn pass_on(outside: TcpStream, inside: UnixStream, hear: Hear) {
    let ((mut from, mut back), (mut answers, mut to)) = (outside.into_split(), inside.into_split());
    let asks = async {
        let mut buffer = vec![0; 64 << 10];
        // A client sends the head of a request in one piece.
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if !block_in_place(|| hear(&String::from_utf8_lossy(&buffer[..read]))) {
                return std::future::pending().await;
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    // Either side may go first.
    tokio::select! {
        () = asks => {}
        _ = tokio::io::copy(&mut answers, &mut back) => {}
    }
}

/// The name of the container that a request is to make.
pub(crate) fn made_by(request: &str) -> Option<&str> {
    let (_, rest) = request.split_once("/containers/create?name=")?;
    rest.split(['&', ' ']).next()
}
