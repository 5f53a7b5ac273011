//! Lets a provider be written as straight-line async code that tells its events one after the other.

use std::future::Future;

use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc;

use super::ProviderEvent;

/// Where the events go. Holds one: whoever is slow to take it makes the provider wait.
pub(super) struct Emitter(mpsc::Sender<ProviderEvent>);

impl Emitter {
    /// Tells an event and waits until the one before was taken.
    pub(super) async fn emit(&self, event: ProviderEvent) {
        // The receiver lives in the same stream as the work: if it is gone, so is whoever calls this.
        let _ = self.0.send(event).await;
    }

    /// Waits until all that was told has been taken.
    pub(super) async fn taken(&self) {
        let _ = self.0.reserve().await;
    }
}

/// The events that `work` tells. Dropping the stream drops the work.
pub(super) fn events<F>(work: impl FnOnce(Emitter) -> F) -> BoxStream<'static, ProviderEvent>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tx, mut rx) = mpsc::channel(1);
    let told = stream::poll_fn(move |cx| rx.poll_recv(cx));
    let working = work(Emitter(tx)).into_stream().filter_map(|()| std::future::ready(None));
    stream::select(told, working).boxed()
}
