//! What the server under test is measured beside, each in a process of its own, as in life: a model server, and a relay
//! that only hands bytes on and so shows what a process between costs at the least.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::app::App;
use plimsoll::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::upstream::{ANSWER_AFTER_MS, Upstream};
use crate::child::Running;

/// A child process that serves.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    _child: Running,
}

/// Serves as the peer of another bench: started by it.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// An OpenAI-compatible server.
    Model {
        /// How long each answer takes, in milliseconds.
        #[arg(long, default_value_t = ANSWER_AFTER_MS)]
        after_ms: u64,
        /// Where.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Hands every connection on to this address.
    Relay {
        /// Where to.
        to: SocketAddr,
    },
    /// plimsoll itself, as `serve`, with or without recording.
    Serve {
        /// Metrics, rings and live events.
        #[arg(long)]
        silent: bool,
        #[arg(long)]
        config: PathBuf,
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Writes rows of instances.
    Fill {
        #[arg(long)]
        rows: u64,
        #[arg(long)]
        data_dir: PathBuf,
    },
}

impl Peer {
    pub(crate) fn model() -> Result<Self, String> {
        Self::start(&["model"])
    }

    /// One that answers at once.
    pub(crate) fn fast_model() -> Result<Self, String> {
        Self::start(&["model", "--after-ms", "0"])
    }

    pub(crate) fn relay(to: SocketAddr) -> Result<Self, String> {
        Self::start(&["relay", &to.to_string()])
    }

    fn start(part: &[&str]) -> Result<Self, String> {
        let failed = |error: io::Error| format!("no {}: {error}", part[0]);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("peer").args(part).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Running(command.spawn().map_err(failed)?);
        let mut line = String::new();
        if let Some(stdout) = child.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        let address = line.trim().parse().map_err(|error| format!("no {}: {error}", part[0]))?;
        Ok(Self { address, _child: child })
    }
}

/// Prints the address, and serves until killed.
pub(crate) fn serve(part: &Part) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    let served = runtime.block_on(async {
        match part {
            Part::Model { after_ms, listen } => {
                let upstream = Upstream::model(*listen, Duration::from_millis(*after_ms)).await?;
                println!("{}", upstream.address);
                std::future::pending().await
            }
            Part::Relay { to } => relay(*to).await,
            Part::Serve { silent, config, data_dir } => plimsoll(*silent, config, data_dir).await,
            Part::Fill { rows, data_dir } => {
                crate::lifecycle::fill(data_dir, *rows).await.map_err(io::Error::other)
            }
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

async fn plimsoll(silent: bool, config: &Path, data_dir: &Path) -> io::Result<()> {
    let config = plimsoll::config::load_text(&fs::read(config)?, &|_| None);
    let config = config.map_err(|problems| io::Error::other(format!("{problems:?}")))?;
    let registry = plimsoll::catalogue::registry();
    let registry = if silent { registry.silent() } else { registry };
    let app = App::start(config, data_dir.to_owned(), Clock::system(), registry).await;
    let _app = app.map_err(io::Error::other)?;
    std::future::pending().await
}
