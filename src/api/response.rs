//! What a handler gives back, and how it goes out: JSON bodies for errors, security headers, compression.

use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    REFERRER_POLICY, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use warp::Reply as _;

use crate::ids::RequestId;
use crate::limits::COMPRESS_BYTES_MIN;

/// A body: whole, or as it comes.
pub(crate) enum Content {
    Whole(Bytes),
    Stream(BoxStream<'static, Bytes>),
}

/// An answer of a handler.
pub(crate) type Reply = Response<Content>;

/// What a handler returns.
pub(crate) type Outcome = Result<Reply, Problem>;

/// JSON of any value, with status 200.
pub(crate) fn json_reply(value: &impl Serialize) -> Outcome {
    let body = serde_json::to_vec(value).map_err(|_| Problem::internal())?;
    Ok(reply(StatusCode::OK, "application/json", body))
}

/// An answer with a body.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Content::Whole(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// Server-sent events, which nobody between is to keep or to hold back.
pub(crate) fn event_stream(content_type: &'static str, frames: BoxStream<'static, Bytes>) -> Reply {
    let mut response = Response::new(Content::Stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A refusal or failure of the HTTP layer; JSON-RPC errors are not among them. The message is for strangers.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(super) code: &'static str,
    message: String,
    pub(super) retry_after: Option<Duration>,
    allow: Option<String>,
    /// Whether the token may also come as the password of Basic.
    basic: bool,
    pub(super) request_id: Option<RequestId>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, code, message, retry_after: None, allow: None, basic: false, request_id: None }
    }

    /// Names the request, so that it is found in the log.
    pub(crate) fn about(self, request_id: &RequestId) -> Self {
        Self { request_id: Some(request_id.clone()), ..self }
    }

    pub(crate) fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Says, where it asks for a token, that it may also come as the password of Basic.
    pub(crate) fn or_basic(self) -> Self {
        Self { basic: true, ..self }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "this is a bug in plimsoll; its log says more",
        )
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such path: /openapi.json lists those there are",
        )
    }

    pub(crate) fn method_not_allowed(allow: String) -> Self {
        let message = format!("this path takes {allow} only");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        Self { allow: Some(allow), ..problem }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_reply(self) -> Reply {
        let mut body = json!({"error": {"code": self.code, "message": self.message}});
        if let Some(id) = &self.request_id {
            body["error"]["requestId"] = json!(id);
        }
        self.with_body(&body)
    }

    /// The answer with a body of another shape.
    pub(super) fn with_body(self, body: &serde_json::Value) -> Reply {
        let Self { status, code: _, message: _, retry_after, allow, basic, request_id: _ } = self;
        let mut reply = reply(status, "application/json", body.to_string());
        let headers = reply.headers_mut();
        if let Some(after) = retry_after {
            headers.insert(RETRY_AFTER, seconds(after));
        }
        if let Some(allow) = allow.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(ALLOW, allow);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"plimsoll\""));
            if basic {
                let basic = HeaderValue::from_static("Basic realm=\"plimsoll\", charset=\"UTF-8\"");
                headers.append(WWW_AUTHENTICATE, basic);
            }
        }
        reply
    }
}

/// A wait as `Retry-After` says it: rounded up, so that a client that obeys is not refused again.
pub(crate) fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_millis().div_ceil(1_000).max(1) as u64)
}

/// Headers on every answer, unless a handler set its own.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Turns an answer into what goes on the wire.
pub(crate) fn finish(reply: Reply) -> warp::reply::Response {
    let (head, content) = reply.into_parts();
    let mut response = match content {
        Content::Whole(bytes) => Response::new(bytes).into_response(),
        Content::Stream(stream) => {
            let stream = Shared(Mutex::new(stream)).map(Ok::<_, std::convert::Infallible>);
            warp::reply::stream(stream).into_response()
        }
    };
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    *response.extensions_mut() = head.extensions;
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// A stream that may be shared between threads, as warp demands of bodies: nobody ever does, so nobody ever waits.
struct Shared(Mutex<BoxStream<'static, Bytes>>);

impl futures_util::Stream for Shared {
    type Item = Bytes;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        ctx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Bytes>> {
        self.get_mut().0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).poll_next_unpin(ctx)
    }
}

/// Compresses a whole body if the client takes gzip and it pays. Takes milliseconds: it runs off the runtime.
pub(crate) async fn compress(reply: Reply, request: &HeaderMap) -> Reply {
    let (mut head, content) = reply.into_parts();
    head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    let content = match content {
        Content::Whole(bytes) if bytes.len() >= COMPRESS_BYTES_MIN && accepts_gzip(request) => {
            let plain = bytes.clone();
            match tokio::task::spawn_blocking(move || gzip(&plain)).await {
                Ok(Ok(packed)) => {
                    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                    Content::Whole(packed.into())
                }
                Ok(Err(_)) | Err(_) => Content::Whole(bytes),
            }
        }
        content @ (Content::Whole(_) | Content::Stream(_)) => content,
    };
    Response::from_parts(head, content)
}

fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Whether `Accept-Encoding` names gzip (or anything) with a weight above zero.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|offer| {
        let (coding, weight) = offer.split_once(';').unwrap_or((offer, ""));
        let refused =
            weight.trim().strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        let coding = coding.trim();
        (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_for_those_who_take_it() {
        for (offer, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, offer.parse().expect("a header"));
            assert_eq!(accepts_gzip(&headers), takes, "{offer}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_how_to_prove_oneself() {
        let reply = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "no")
            .retry_after(Duration::from_millis(1_200))
            .into_reply();
        assert_eq!(reply.headers()[RETRY_AFTER], "2");
        assert!(reply.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(finish(reply).headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
