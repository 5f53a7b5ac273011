//! Cancelling with a reason.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

/// A flag that is raised once, with the reason of whoever raised it first.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    reason: OnceLock<&'static str>,
    token: CancellationToken,
}

impl Cancel {
    /// Raises it; later reasons are ignored.
    pub(super) fn raise(&self, reason: &'static str) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Waits until it is raised; gives the reason.
    pub(super) async fn raised(&self) -> &'static str {
        self.token.cancelled().await;
        self.reason.get().copied().unwrap_or("cancelled")
    }
}
