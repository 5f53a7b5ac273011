//! What the server under test is measured beside, each in a process of its own, as in life: a model server, and a relay
//! that only hands bytes on and so shows what a process between costs at the least.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::upstream::Upstream;

/// A child process that serves; killed when dropped.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    child: Child,
}

/// Serves as the peer of another bench: started by it.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// An OpenAI-compatible server.
    Model,
    /// Hands every connection on to this address.
    Relay {
        /// Where to.
        to: SocketAddr,
    },
}

impl Peer {
    pub(super) fn model() -> Result<Self, String> {
        Self::start(&["model"])
    }

    pub(super) fn relay(to: SocketAddr) -> Result<Self, String> {
        Self::start(&["relay", &to.to_string()])
    }

    fn start(part: &[&str]) -> Result<Self, String> {
        let failed = |error: io::Error| format!("no {}: {error}", part[0]);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("peer").args(part).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        let address = line.trim().parse().map_err(|error| format!("no {}: {error}", part[0]))?;
        Ok(Self { address, child })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints the address, and serves until killed.
pub(crate) fn serve(part: &Part) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    let served = runtime.block_on(async {
        match part {
            Part::Model => {
                let upstream = Upstream::model().await?;
                println!("{}", upstream.address);
                std::future::pending().await
            }
            Part::Relay { to } => relay(*to).await,
        }
    });
    served.map_err(|error| error.to_string())
}

async fn relay(to: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await?;
        connections.spawn(async move {
            let mut far = TcpStream::connect(to).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
    }
}
