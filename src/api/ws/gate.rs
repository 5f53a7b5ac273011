//! What stands before a WebSocket until its client is known: a stranger may send [`WS_STRANGER_BYTES_MAX`] and no more,
//! whatever it announces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::WS_STRANGER_BYTES_MAX;

/// An IO object whose reads fail with [`io::ErrorKind::FileTooLarge`] past the limit, until it is opened.
pub(super) struct Gate<S> {
    io: S,
    /// Bytes that may still come; `None` once it is open.
    left: Option<usize>,
}

impl<S> Gate<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, left: Some(WS_STRANGER_BYTES_MAX) }
    }

    /// Lets everything through from now on.
    pub(super) fn open(&mut self) {
        self.left = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else { return Pin::new(&mut self.io).poll_read(ctx, buffer) };
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let take = left.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(take));
        ready!(Pin::new(&mut self.io).poll_read(ctx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.left = Some(left - read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn a_stranger_is_heard_up_to_the_limit_and_a_friend_past_it() {
        let sent = vec![7; WS_STRANGER_BYTES_MAX + 1];
        let mut gate = Gate::new(&sent[..]);
        let mut heard = vec![0; WS_STRANGER_BYTES_MAX];
        gate.read_exact(&mut heard).await.expect("up to the limit");
        let over = gate.read_u8().await.map_err(|e| e.kind());
        assert_eq!(over, Err(io::ErrorKind::FileTooLarge));
        gate.open();
        assert_eq!(gate.read_u8().await.expect("what came stays"), 7);
    }
}
