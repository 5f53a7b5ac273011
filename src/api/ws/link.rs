//! The way back to one WebSocket client: what is waiting to be written, and its subscriptions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::super::jsonrpc::notification_text;
use super::super::state::ApiState;
use super::super::stream::{Filter, Follower};
use super::turn::Turns;
use crate::ids::Seq;
use crate::limits::WS_SUBSCRIPTIONS_MAX;
use crate::live::Envelope;

/// The connection is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Holds a subscription back until the client knows its name: to be dropped then.
pub(crate) struct Answering(#[expect(dead_code, reason = "its end is the message")] oneshot::Sender<()>);

/// What calls of one connection may do to it. The outbox is bounded: whoever fills it waits until the client reads.
pub(crate) struct Link {
    outbox: mpsc::Sender<String>,
    /// Cancelled when the connection ends.
    ended: CancellationToken,
    subscriptions: Mutex<Subscriptions>,
    /// Keeps answers of one conversation in order.
    pub(crate) turns: Arc<Turns>,
}

#[derive(Default)]
struct Subscriptions {
    last: u64,
    open: BTreeMap<u64, CancellationToken>,
}

/// The parameters of a notification `event`.
#[derive(Serialize)]
struct Notified<'a> {
    subscription: u64,
    #[serde(flatten)]
    event: &'a Envelope,
}

impl Link {
    pub(crate) fn new(outbox: mpsc::Sender<String>, ended: CancellationToken) -> Self {
        Self { outbox, ended, subscriptions: Mutex::default(), turns: Arc::default() }
    }

    /// Sends an answer, after everything that was sent before it.
    pub(crate) async fn send(&self, text: String) -> Result<(), Gone> {
        self.outbox.send(text).await.map_err(|_| Gone)
    }

    /// Sends a notification.
    pub(crate) async fn notify(&self, method: &str, params: &impl Serialize) -> Result<(), Gone> {
        let text = notification_text(method, params).map_err(|_| Gone)?;
        self.send(text).await
    }

    /// Follows events in a task that ends with the connection; `None` if there are too many already. What happens from
    /// now on is heard, and told once the [`Answering`] is dropped.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        state: &Arc<ApiState>,
        filter: Filter,
        after: Option<Seq>,
    ) -> Option<(u64, Answering)> {
        let (name, ended) = {
            let mut subscriptions = self.subscriptions();
            if subscriptions.open.len() >= WS_SUBSCRIPTIONS_MAX {
                return None;
            }
            subscriptions.last += 1;
            let (name, ended) = (subscriptions.last, self.ended.child_token());
            subscriptions.open.insert(name, ended.clone());
            (name, ended)
        };
        let mut follower = Follower::new(&state.sources, filter, after);
        let (link, counted) = (Arc::clone(self), state.metrics.stream_client("ws"));
        let (answering, answered) = oneshot::channel();
        state.tasks.spawn(async move {
            let _counted = counted;
            let follow = async {
                // It is never sent, only dropped.
                let _ = answered.await;
                while let Some(event) = follower.next().await {
                    let notified = Notified { subscription: name, event: &event };
                    if link.notify("event", &notified).await.is_err() {
                        break;
                    }
                }
            };
            // Ended or told to end, what is left is to forget it.
            ended.run_until_cancelled(follow).await;
            link.subscriptions().open.remove(&name);
        });
        Some((name, Answering(answering)))
    }

    /// Ends a subscription; whether there was one.
    pub(crate) fn unsubscribe(&self, name: u64) -> bool {
        let ended = self.subscriptions().open.remove(&name);
        ended.inspect(CancellationToken::cancel).is_some()
    }

    /// A std mutex suffices: nothing waits while it is held.
    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
