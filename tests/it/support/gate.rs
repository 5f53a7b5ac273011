//! What may stand between a client and a server: it passes on, ends TLS, or cuts connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::certificates::{Certificates, Clients};

/// Passes on what comes; closed when dropped.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    cut: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// Passes on.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        Self::open(move |outside, _before| pass_on(outside, server)).await
    }

    /// Closes every connection there is, as a server does that dies.
    pub(crate) fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Ends TLS before a server that speaks none.
    pub(crate) async fn tls(server: SocketAddr, certificates: &Certificates) -> Self {
        let acceptor = certificates.acceptor(Clients::Any);
        Self::open(move |outside, _before| {
            let acceptor = acceptor.clone();
            async move {
                // A client that does not trust us goes away.
                if let Ok(outside) = acceptor.accept(outside).await {
                    pass_on(outside, server).await;
                }
            }
        })
        .await
    }

    /// Cuts the first connections after so many bytes of what their client says.
    pub(crate) async fn cutting(server: SocketAddr, connections: usize, bytes: usize) -> Self {
        Self::open(move |mut outside, before| async move {
            if before < connections {
                let _ = outside.read_exact(&mut vec![0; bytes]).await;
            } else {
                pass_on(outside, server).await;
            }
        })
        .await
    }

    /// Hands each connection to `pass`, with how many came before it.
    async fn open<F>(pass: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let cut = Arc::new(Notify::new());
        let (mut tasks, cuts) = (JoinSet::new(), Arc::clone(&cut));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((outside, _peer)) = listener.accept().await {
                let (passing, cuts) = (pass(outside, connections.len()), Arc::clone(&cuts));
                connections.spawn(async move {
                    tokio::select! {
                        () = passing => {}
                        () = cuts.notified() => {}
                    }
                });
            }
        });
        Self { address, cut, _tasks: tasks }
    }
}

async fn pass_on(mut outside: impl AsyncRead + AsyncWrite + Unpin, server: SocketAddr) {
    let mut inside = TcpStream::connect(server).await.expect("the server listens");
    // Either side may go first.
    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
}
