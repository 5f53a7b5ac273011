//! A real collector: `rotel-agent` from PyPI's `rotel`, on the path or named by `PLIMSOLL_ROTEL`, which passes on what it
//! takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use plimsoll::telemetry::OtlpProtocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::certificates::{Certificates, Clients};
use super::receiver::Receiver;
use super::server::{free_port, until};
use super::tools::needs_tool;

/// A running collector; killed when dropped.
pub(crate) struct Rotel {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Rotel {
    /// Starts one that passes on to `receiver`, and waits until it listens; `None` where it is not installed.
    pub(crate) async fn start(receiver: &Receiver) -> Option<Self> {
        let program = needs_tool("rotel-agent", Some("PLIMSOLL_ROTEL"))?;
        let [grpc, http] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let child = Command::new(program)
            .args(["start", "--otlp-grpc-endpoint", &grpc.to_string()])
            .args(["--otlp-http-endpoint", &http.to_string()])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
            .args(["--otlp-exporter-endpoint", &receiver.endpoint()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let rotel = Self { child: child.expect("rotel starts"), grpc, http };
        for address in [grpc, http] {
            until("rotel listening", async || TcpStream::connect(address).await.ok()).await;
        }
        Some(rotel)
    }

    pub(crate) fn address(&self, protocol: OtlpProtocol) -> SocketAddr {
        match protocol {
            OtlpProtocol::Grpc => self.grpc,
            OtlpProtocol::HttpProtobuf => self.http,
        }
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends TLS before a server that speaks none; closed when dropped.
pub(crate) struct TlsGate {
    pub(crate) port: u16,
    task: JoinHandle<()>,
}

impl TlsGate {
    pub(crate) async fn before(server: SocketAddr, certificates: &Certificates) -> Self {
        let acceptor = certificates.acceptor(Clients::Any);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let task = tokio::spawn(async move {
            while let Ok((outside, _peer)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outside) = acceptor.accept(outside).await else { return };
                    let mut inside = TcpStream::connect(server).await.expect("the server listens");
                    // Either side may go first.
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self { port, task }
    }
}

impl Drop for TlsGate {
    fn drop(&mut self) {
        self.task.abort();
    }
}
