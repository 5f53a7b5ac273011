//! One export request on the wire: gRPC or HTTP with Protocol Buffers, and what its answer means
//! (<https://opentelemetry.io/docs/specs/otlp/>).

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_types::StatusExt;

use super::super::config::OtlpProtocol;
use super::settings::{Compression, Settings, TlsFiles};

/// Why the transport could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The certificates for TLS cannot be used.
    #[error("the certificates for OTLP over TLS cannot be used")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client could not be made.
    #[error("the client for OTLP could not be made")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the collector made of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Spans it refused although the request was good.
    pub(super) rejected: u64,
}

/// Why a request did not arrive, and whether to try again.
#[derive(Debug)]
pub(super) struct SendError {
    pub(super) retry: Retry,
    pub(super) reason: Reason,
    pub(super) detail: String,
}

/// Whether a request may be sent again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It would fail again.
    Never,
    /// After a pause of our choice.
    Backoff,
    /// Not before this time.
    After(Duration),
}

/// Why spans were lost, as the label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// More ended than the queue holds.
    QueueFull,
    /// The collector could not be reached in time.
    Unreachable,
    /// The collector asked to wait for longer than spans are kept.
    Throttled,
    /// The collector refused the request.
    Rejected,
    /// The collector refused these spans of a good request.
    Partial,
    /// plimsoll ended first.
    Shutdown,
}

impl Reason {
    pub(super) const ALL: [Self; 6] =
        [Self::QueueFull, Self::Unreachable, Self::Throttled, Self::Rejected, Self::Partial, Self::Shutdown];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
            Self::Rejected => "rejected",
            Self::Partial => "partial",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The way to the collector.
pub(super) enum Transport {
    Grpc { client: TraceServiceClient<Channel>, metadata: MetadataMap },
    Http { client: reqwest::Client, endpoint: String, headers: HeaderMap, compression: Compression },
}

impl Transport {
    /// Makes the client; nothing is sent yet. Call it inside the runtime that sends.
    pub(super) fn new(settings: &Settings) -> Result<Self, TransportError> {
        match settings.protocol {
            OtlpProtocol::Grpc => grpc(settings),
            OtlpProtocol::HttpProtobuf => http(settings),
        }
    }

    /// Sends one request; the caller bounds the time.
    pub(super) async fn send(&self, request: &ExportTraceServiceRequest) -> Result<Delivered, SendError> {
        match self {
            Self::Grpc { client, metadata } => {
                let mut call = tonic::Request::new(request.clone());
                *call.metadata_mut() = metadata.clone();
                match client.clone().export(call).await {
                    Ok(response) => Ok(delivered(response.get_ref())),
                    Err(status) => Err(grpc_error(&status)),
                }
            }
            Self::Http { client, endpoint, headers, compression } => {
                let body = pack(request.encode_to_vec(), *compression);
                let sent = client.post(endpoint).headers(headers.clone()).body(body).send().await;
                http_answer(sent.map_err(|cause| unreachable_because(&cause))?).await
            }
        }
    }
}

fn grpc(settings: &Settings) -> Result<Transport, TransportError> {
    let mut endpoint = Endpoint::from(settings.endpoint.clone()).connect_timeout(settings.timeout);
    if settings.endpoint.scheme_str() == Some("https") {
        let mut tls = ClientTlsConfig::new().trust_anchors(roots(&settings.tls)?.roots);
        if let Some((certificate, key)) = &settings.tls.client {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(tls).map_err(|cause| TransportError::Tls(cause.into()))?;
    }
    let mut client = TraceServiceClient::new(endpoint.connect_lazy());
    if settings.compression == Compression::Gzip {
        client =
            client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    }
    let headers: HeaderMap = settings.headers.iter().cloned().collect();
    Ok(Transport::Grpc { client, metadata: MetadataMap::from_headers(headers) })
}

fn http(settings: &Settings) -> Result<Transport, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| TransportError::Tls(cause.into()))?
        .with_root_certificates(roots(&settings.tls)?);
    let tls = match &settings.tls.client {
        None => tls.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(|cause| TransportError::Tls(cause.into()))?;
            let key =
                PrivateKeyDer::from_pem_slice(key).map_err(|cause| TransportError::Tls(cause.into()))?;
            tls.with_client_auth_cert(chain, key).map_err(|cause| TransportError::Tls(cause.into()))?
        }
    };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(settings.timeout)
        .timeout(settings.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|cause| TransportError::Client(cause.into()))?;
    let mut headers: HeaderMap = settings.headers.iter().cloned().collect();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    if settings.compression == Compression::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let endpoint = settings.endpoint.to_string();
    Ok(Transport::Http { client, endpoint, headers, compression: settings.compression })
}

/// The system's certificates, those of Mozilla (an image without any still reaches public collectors), and the file's.
fn roots(files: &TlsFiles) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // A system certificate that cannot be read is one that cannot be trusted; the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in files.ca.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem)) {
        let certificate = certificate.map_err(|cause| TransportError::Tls(cause.into()))?;
        roots.add(certificate).map_err(|cause| TransportError::Tls(cause.into()))?;
    }
    Ok(roots)
}

fn pack(body: Vec<u8>, compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => body,
        Compression::Gzip => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            let written = packed.write_all(&body).and_then(|()| packed.finish());
            written.expect("a Vec takes every byte")
        }
    }
}

fn delivered(response: &ExportTraceServiceResponse) -> Delivered {
    let rejected = response.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans);
    Delivered { rejected: u64::try_from(rejected).unwrap_or(0) }
}

fn unreachable_because(cause: &reqwest::Error) -> SendError {
    let mut detail = cause.to_string();
    let mut source = std::error::Error::source(cause);
    while let Some(inner) = source {
        detail = format!("{detail}: {inner}");
        source = inner.source();
    }
    SendError { retry: Retry::Backoff, reason: Reason::Unreachable, detail }
}

async fn http_answer(response: reqwest::Response) -> Result<Delivered, SendError> {
    let status = response.status();
    if status.is_success() {
        let body = bounded_body(response).await;
        // A collector that answers with something else took the spans all the same.
        return Ok(ExportTraceServiceResponse::decode(body.as_slice())
            .map_or(Delivered { rejected: 0 }, |r| delivered(&r)));
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let (retry, reason) = match (status.as_u16(), after) {
        (429 | 503, Some(wait)) => (Retry::After(wait), Reason::Throttled),
        (429 | 503, None) => (Retry::Backoff, Reason::Throttled),
        (502 | 504, _) => (Retry::Backoff, Reason::Unreachable),
        _ => (Retry::Never, Reason::Rejected),
    };
    Err(SendError { retry, reason, detail: format!("HTTP {status}") })
}

/// The answer's body, as far as it could be a real one.
async fn bounded_body(mut response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Vec::new();
        }
    }
    body
}

/// An answer holds one number and one message.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

fn grpc_error(status: &tonic::Status) -> SendError {
    use tonic::Code;
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let (retry, reason) = match (status.code(), after) {
        (Code::Unavailable, Some(wait)) => (Retry::After(wait), Reason::Throttled),
        (Code::ResourceExhausted, Some(wait)) => (Retry::After(wait), Reason::Throttled),
        (Code::ResourceExhausted, None) => (Retry::Never, Reason::Rejected),
        (Code::Unavailable | Code::DeadlineExceeded, _) => (Retry::Backoff, Reason::Unreachable),
        (Code::Cancelled | Code::Aborted | Code::OutOfRange | Code::DataLoss, _) => {
            (Retry::Backoff, Reason::Unreachable)
        }
        _ => (Retry::Never, Reason::Rejected),
    };
    SendError { retry, reason, detail: format!("gRPC {:?}: {}", status.code(), status.message()) }
}
