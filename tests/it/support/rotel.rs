//! A real collector: `rotel-agent` from PyPI's `rotel`, on the path or named by `PLIMSOLL_ROTEL`, which passes on what it
//! takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use plimsoll::telemetry::OtlpProtocol;
use tokio::net::TcpStream;

use super::child::Running;
use super::receiver::Receiver;
use super::server::{free_port, until};
use super::tools::needs_tool;

/// A running collector.
pub(crate) struct Rotel {
    _child: Running,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Rotel {
    /// Starts one that passes on to `receiver`, and waits until it listens; `None` where it is not installed.
    pub(crate) async fn start(receiver: &Receiver) -> Option<Self> {
        let program = needs_tool("rotel-agent", Some("PLIMSOLL_ROTEL"))?;
        let [grpc, http] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let mut command = Command::new(program);
        command
            .args(["start", "--otlp-grpc-endpoint", &grpc.to_string()])
            .args(["--otlp-http-endpoint", &http.to_string()])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
            .args(["--otlp-exporter-endpoint", &receiver.endpoint()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let rotel = Self { _child: Running::start(&mut command), grpc, http };
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
