//! The parts that work: how they are called up once the journal is open, and what keeps their books.

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::api::{Server, TokenBook};
use crate::gateway::Gateway;
use crate::journal::Journal;
use crate::notify::Notifier;
use crate::reconciler::Reconciler;
use crate::secret::Secret;

/// What works behind the server.
pub(super) type Parts = (Reconciler, Gateway, Notifier);

/// Brings back agents and instances, and closes the door behind them if any could call plimsoll; then the towns.
pub(super) async fn call_up(
    (reconciler, gateway, _): &Parts,
    listen: SocketAddr,
    tokens: &TokenBook,
    journal: &dyn Journal,
) -> Result<Option<Secret>, StartError> {
    gateway.call_up().await;
    gateway.open_instances().await?;
    let first_token = if gateway.has_processes() { tokens.shut(journal).await } else { None };
    Server::may_serve(listen, tokens)?;
    reconciler.open().await;
    Ok(first_token)
}

/// Keeps the books in a task of its own, until the token that it gives is cancelled.
pub(super) fn keep_books(gateway: Gateway, ends: CancellationToken) -> (CancellationToken, JoinHandle<()>) {
    (ends.clone(), tokio::spawn(async move { gateway.keep_books(ends).await }))
}
