//! One connection: its place among the others, its handshake, its requests.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::filters::{self, Routes};
use super::request::Peer;
use super::stall::StallGuard;
use super::state::ApiState;
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX, SERVER_STOP_SECS_MAX, TLS_HANDSHAKE_SECS_MAX};

/// What a connection past the limit is told.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 90\r\n\r\n\
    {\"error\":{\"code\":\"too_many_connections\",\"message\":\"too many connections: try again soon\"}}";

/// Tells a connection that there is no place for it, and waits a moment until it has read that.
pub(crate) async fn refuse(mut stream: TcpStream) {
    let tell = async {
        stream.write_all(FULL.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1_024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Told or not, it is closed now.
    let _ = timeout(Duration::from_secs(1), tell).await;
}

/// Serves TLS on a connection.
pub(crate) async fn serve_tls(
    state: Arc<ApiState>,
    routes: Routes,
    peer: Arc<Peer>,
    (acceptor, stream): (TlsAcceptor, TcpStream),
) {
    let handshake = timeout(Duration::from_secs(TLS_HANDSHAKE_SECS_MAX), acceptor.accept(stream));
    match handshake.await {
        Ok(Ok(stream)) => serve(state, routes, peer, stream).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_elapsed) => state.limit_hit("tls_handshake_timeout"),
    }
}

/// Serves HTTP/1.1 on a connection, until its client or the server has had enough.
pub(crate) async fn serve(
    state: Arc<ApiState>,
    routes: Routes,
    peer: Arc<Peer>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) {
    let io = TokioIo::new(StallGuard::new(stream, state.sources.shared.clone()));
    let shared = Arc::clone(&state);
    let served = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let begun = Arc::clone(&served);
    let service = service_fn(move |request| {
        begun.store(true, std::sync::atomic::Ordering::Relaxed);
        filters::serve(Arc::clone(&shared), routes.clone(), Arc::clone(&peer), request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.config.header_timeout.0)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = Box::pin(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = state.sources.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(Duration::from_secs(SERVER_STOP_SECS_MAX), connection).await.ok()
        }
    };
    match ended {
        // A connection that was used and then idle is let go without a word; one that never got its header out is a
        // limit that was hit.
        Some(Err(error)) if error.is_timeout() && !served.load(std::sync::atomic::Ordering::Relaxed) => {
            state.limit_hit("header_timeout");
        }
        Some(Err(error)) => tracing::debug!(%error, "a connection ended badly"),
        Some(Ok(())) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn the_refusal_announces_its_own_length() {
        let (head, body) = FULL.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
