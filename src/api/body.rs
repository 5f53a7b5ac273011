//! Reading a request's body: typed, timed, and bounded after decompression.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::response::Problem;

/// How much of a body that is too large is still taken off the line, so that the refusal can be read.
const LINGER_BYTES_MAX: u64 = 4 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// What a body may be.
pub(crate) struct BodyLimits {
    /// Bytes after decompression.
    pub(crate) bytes_max: u64,
    /// Time until its last byte.
    pub(crate) timeout: Duration,
}

/// Why a body was not read, as the limit's name in the metrics; `None` where no limit was hit.
pub(crate) struct BodyError {
    pub(crate) problem: Problem,
    pub(crate) limit: Option<&'static str>,
}

impl From<Problem> for BodyError {
    fn from(problem: Problem) -> Self {
        Self { problem, limit: None }
    }
}

/// Refuses a body that is not `application/json`: a form of another site can send everything else.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let essence = types.next().and_then(|v| v.to_str().ok()).map(|t| t.split(';').next().unwrap_or(t).trim());
    match (essence, types.next()) {
        (Some(essence), None) if essence.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => {
            let message = "the body must be sent as content-type: application/json";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
        }
    }
}

/// Reads a whole body.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: BoxStream<'static, Result<Bytes, warp::Error>>,
    limits: &BodyLimits,
) -> Result<Vec<u8>, BodyError> {
    let too_large = || {
        let message = format!("the body is larger than {} bytes", limits.bytes_max);
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
        BodyError { problem, limit: Some("body_bytes") }
    };
    let mut sink = Sink::for_encoding(headers, limits.bytes_max)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let collect = async {
        if announced.is_some_and(|bytes| bytes > limits.bytes_max) {
            return Err(too_large());
        }
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body ended early"))?;
            match sink.write_all(&chunk) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::FileTooLarge => return Err(too_large()),
                Err(_) => return Err(Problem::bad_request("the body is not valid gzip").into()),
            }
        }
        sink.finish().map_err(|e| match e.kind() {
            io::ErrorKind::FileTooLarge => too_large(),
            _ => Problem::bad_request("the body is not valid gzip").into(),
        })
    };
    let read = match tokio::time::timeout(limits.timeout, collect).await {
        Ok(read) => read,
        Err(_elapsed) => {
            let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body took too long");
            return Err(BodyError { problem, limit: Some("body_timeout") });
        }
    };
    if read.as_ref().is_err_and(|e| e.limit == Some("body_bytes")) {
        linger(body).await;
    }
    read
}

/// Takes what the client is still sending off the line for a moment: it reads no answer while it sends.
async fn linger(mut body: BoxStream<'static, Result<Bytes, warp::Error>>) {
    let drain = async {
        let mut left = LINGER_BYTES_MAX;
        while let Some(Ok(chunk)) = body.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Over or not, the answer goes out now.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// Where chunks go: straight into memory, or through a decoder that stops at the limit.
enum Sink {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

impl Sink {
    fn for_encoding(headers: &HeaderMap, bytes_max: u64) -> Result<Self, Problem> {
        let capped = Capped { bytes: Vec::new(), max: usize::try_from(bytes_max).unwrap_or(usize::MAX) };
        let mut codings = headers.get_all(CONTENT_ENCODING).iter().map(|v| v.as_bytes());
        match (codings.next(), codings.next()) {
            (None | Some(b"identity"), None) => Ok(Self::Plain(capped)),
            (Some(b"gzip"), None) => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(capped)))),
            _ => {
                let message = "content-encoding: expected gzip or none";
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message))
            }
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(capped) => Ok(capped.bytes),
            Self::Gzip(decoder) => decoder.finish().map(|capped| capped.bytes),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(capped) => capped.write(chunk),
            Self::Gzip(decoder) => decoder.write(chunk),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A vector that takes so many bytes and not one more.
struct Capped {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for Capped {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if chunk.len() > self.max - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    const MAX: u64 = 1_000;

    async fn read_body(headers: &[(http::HeaderName, &str)], body: Vec<u8>) -> Result<usize, u16> {
        let headers = headers.iter().map(|(n, v)| (n.clone(), v.parse().expect("a header"))).collect();
        let chunks: Vec<_> = body.chunks(100).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let limits = BodyLimits { bytes_max: MAX, timeout: Duration::from_secs(5) };
        let read = read(&headers, futures_util::stream::iter(chunks).boxed(), &limits).await;
        read.map(|b| b.len()).map_err(|e| e.problem.status.as_u16())
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory")
    }

    #[tokio::test]
    async fn a_body_is_taken_at_its_limit_and_refused_one_byte_later() {
        assert_eq!(read_body(&[], vec![b' '; 1_000]).await, Ok(1_000));
        assert_eq!(read_body(&[], vec![b' '; 1_001]).await, Err(413));
        assert_eq!(read_body(&[(CONTENT_LENGTH, "1001")], vec![]).await, Err(413));
        assert_eq!(read_body(&[], vec![]).await, Ok(0));
    }

    #[tokio::test]
    async fn the_limit_counts_after_decompression() {
        let encoded = [(CONTENT_ENCODING, "gzip")];
        assert_eq!(read_body(&encoded, gzip(&[b'x'; 1_000])).await, Ok(1_000));
        assert_eq!(read_body(&encoded, gzip(&[b'x'; 1_001])).await, Err(413));
        assert_eq!(read_body(&encoded, gzip(&vec![b'x'; 5_000_000])).await, Err(413));
        assert_eq!(read_body(&encoded, b"not gzip".to_vec()).await, Err(400));
        let mut cut = gzip(&[b'x'; 500]);
        cut.truncate(cut.len() - 4);
        assert_eq!(read_body(&encoded, cut).await, Err(400));
        assert_eq!(read_body(&[(CONTENT_ENCODING, "br")], vec![]).await, Err(415));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let body = futures_util::stream::pending().boxed();
        let limits = BodyLimits { bytes_max: MAX, timeout: Duration::from_secs(5) };
        let error = read(&HeaderMap::new(), body, &limits).await.map(|_| ()).map_err(|e| e.limit);
        assert_eq!(error, Err(Some("body_timeout")));
    }

    #[test]
    fn only_json_is_taken() {
        let sent = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().expect("a header"));
            require_json(&headers).is_ok()
        };
        assert!(sent("application/json") && sent("Application/JSON; charset=utf-8"));
        assert!(
            !sent("text/plain") && !sent("application/x-www-form-urlencoded") && !sent("application/jsonp")
        );
        assert!(require_json(&HeaderMap::new()).is_err());
    }
}
