//! When an instance is ready: what it answers, or what it prints.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How one knows that an instance is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It answers `GET` of this path with a status of 200 to 299.
    Http(String),
    /// It takes connections.
    Tcp,
    /// It prints a line on standard output that holds this text.
    Line(String),
}

/// The first wait between two looks, and the longest: a start costs no more than the first beyond what it takes itself,
/// or a twentieth.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// How long one look may take: what accepts a connection and says nothing is not ready.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Looks at instances over HTTP and TCP.
pub(super) struct Looker(reqwest::Client);

impl Looker {
    /// # Errors
    /// Says why no HTTP client can be made.
    pub(super) fn new() -> Result<Self, String> {
        // It speaks plain HTTP: to read all certificates of the system takes 5 ms for each instance.
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy()
            .timeout(LOOK_MAX)
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        client.map(Self).map_err(|error| format!("no HTTP client can be made: {error}"))
    }

    /// Looks until it is ready, however long that takes. `said` becomes true with the line that is waited for.
    pub(super) async fn wait(
        &self,
        readiness: &Readiness,
        address: SocketAddr,
        mut said: watch::Receiver<bool>,
    ) {
        if let Readiness::Line(_) = readiness {
            if said.wait_for(|said| *said).await.is_err() {
                // It prints no more, and will not be ready.
                std::future::pending::<()>().await;
            }
            return;
        }
        let [mut pause, longest] = LOOK_AGAIN;
        let mut waited = Duration::ZERO;
        while !self.is_ready(readiness, address).await {
            sleep(pause).await;
            waited += pause;
            pause = (waited / 20).clamp(pause, longest);
        }
    }

    async fn is_ready(&self, readiness: &Readiness, address: SocketAddr) -> bool {
        match readiness {
            Readiness::Http(path) => {
                let answer = self.0.get(format!("http://{address}{path}")).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            }
            Readiness::Tcp => {
                matches!(timeout(LOOK_MAX, TcpStream::connect(address)).await, Ok(Ok(_)))
            }
            Readiness::Line(_) => false,
        }
    }
}
