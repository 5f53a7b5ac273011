//! WebSocket clients: each holds some sessions and keeps so many messages of each under way.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use plimsoll::clock::Clock;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{field, http};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What one client does.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) address: SocketAddr,
    pub(super) agent: &'static str,
    /// Distinguishes its sessions from those of other clients.
    pub(super) client: usize,
    pub(super) sessions: usize,
    /// Messages of one session under way at once.
    pub(super) depth: usize,
    pub(super) lasting: Duration,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: usize,
    pub(super) answered: usize,
    /// Answers that came before one that was sent earlier in the same session.
    pub(super) disordered: usize,
    /// Answers that were errors.
    pub(super) refused: usize,
    /// Milliseconds in the lane, as the answers say.
    pub(super) waits: Vec<f64>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.disordered += other.disordered;
        self.refused += other.refused;
        self.waits.extend(other.waits);
    }
}

pub(super) async fn connect(address: SocketAddr) -> Result<Socket, String> {
    let connected = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await;
    connected.map(|(socket, _)| socket).map_err(|error| format!("no WebSocket: {error}"))
}

/// Keeps its sessions busy for as long as planned, then waits for what is under way.
pub(super) async fn client(plan: Plan) -> Result<Tally, String> {
    let clock = Clock::system();
    let mut socket = connect(plan.address).await?;
    let mut tally = Tally::default();
    let mut next = vec![0_usize; plan.sessions];
    let mut expected = vec![0_usize; plan.sessions];
    let names: Vec<_> = (0..plan.sessions).map(|session| format!("c{}s{session}", plan.client)).collect();
    let broken = |error| format!("the connection broke: {error}");
    for session in 0..plan.sessions {
        for _ in 0..plan.depth {
            let text = http::send(session, plan.agent, &names[session], &next[session].to_string());
            socket.feed(Message::text(text)).await.map_err(broken)?;
            next[session] += 1;
            tally.sent += 1;
        }
    }
    socket.flush().await.map_err(broken)?;
    while tally.answered < tally.sent {
        let message = socket.next().await.ok_or("the connection ended")?.map_err(broken)?;
        let Message::Text(text) = message else { continue };
        let session: usize =
            field(&text, "id").and_then(|id| id.parse().ok()).ok_or("an answer without id")?;
        tally.answered += 1;
        match field(&text, "text") {
            None => tally.refused += 1,
            Some(said) => {
                tally.disordered += usize::from(said != expected[session].to_string());
                expected[session] += 1;
                tally.waits.extend(field(&text, "queuedMs").and_then(|ms| ms.parse::<f64>().ok()));
            }
        }
        if clock.elapsed() < plan.lasting {
            let text = http::send(session, plan.agent, &names[session], &next[session].to_string());
            socket.send(Message::text(text)).await.map_err(broken)?;
            next[session] += 1;
            tally.sent += 1;
        }
    }
    Ok(tally)
}
