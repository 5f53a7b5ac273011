//! Hears what one test's thread says to `tracing`.

use std::sync::LazyLock;

use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::{Registry, registry};

/// Listens on this thread until the guard is dropped.
pub(crate) fn listen(layer: impl Layer<Registry> + Send + Sync) -> DefaultGuard {
    // While a process has one subscriber, a call site that is met for the first time asks the thread that met it, and
    // stays silent for all where that thread has none (`Dispatchers` of tracing-core). With two it asks both.
    static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(registry()));
    LazyLock::force(&SECOND);
    tracing::subscriber::set_default(registry().with(layer))
}
