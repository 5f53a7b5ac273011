//! A connection whose peer has to read: a write that makes no progress for [`WRITE_STALL_SECS_MAX`] fails, so that a
//! client that stops reading holds no memory and no place for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::limits::WRITE_STALL_SECS_MAX;
use crate::telemetry::Shared;

/// An IO object that gives up on a stalled write.
pub(crate) struct StallGuard<S> {
    io: S,
    shared: Shared,
    /// Runs while a write waits; made only then, so that an idle connection costs nothing.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> StallGuard<S> {
    pub(crate) fn new(io: S, shared: Shared) -> Self {
        Self { io, shared, waiting: None }
    }

    /// Passes progress on, and turns a wait that lasts too long into an error.
    fn watch<T>(&mut self, ctx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let limit = Duration::from_secs(WRITE_STALL_SECS_MAX);
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if waiting.as_mut().poll(ctx).is_pending() {
            return Poll::Pending;
        }
        self.waiting = None;
        self.shared.limit_hit("write_stall");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(ctx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(ctx, bytes);
        self.watch(ctx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(ctx, parts);
        self.watch(ctx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(ctx);
        self.watch(ctx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(ctx);
        self.watch(ctx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registry;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_is_given_up_and_one_that_is_slow_is_not() {
        let registry = Registry::new(&[]).expect("no histograms");
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut guarded = StallGuard::new(ours, Shared::new(&registry));
        let slow = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(WRITE_STALL_SECS_MAX - 1)).await;
                let mut bytes = [0; 16];
                theirs.read_exact(&mut bytes).await.expect("bytes come");
            }
        };
        let (written, ()) = tokio::join!(guarded.write_all(&[0; 160]), slow);
        written.expect("progress, however slow");
        let stalled = guarded.write_all(&[0; 160]).await.map_err(|e| e.kind());
        assert_eq!(stalled, Err(io::ErrorKind::TimedOut));
        assert!(registry.render().contains("plimsoll_limit_hits_total{limit=\"write_stall\"} 1"));
    }
}
