//! What may stand between a client and a server: one that ends TLS, and one that cuts connections.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::certificates::{Certificates, Clients};

/// Passes on what comes; closed when dropped.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Gate {
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
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((outside, _peer)) = listener.accept().await {
                let before = connections.len();
                connections.spawn(pass(outside, before));
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn pass_on(mut outside: impl AsyncRead + AsyncWrite + Unpin, server: SocketAddr) {
    let mut inside = TcpStream::connect(server).await.expect("the server listens");
    // Either side may go first.
    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
}
