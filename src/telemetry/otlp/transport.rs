//! The library's exporter as the settings say it: its gRPC or HTTP, its encoding, its retries.
//!
//! What it leaves to us: which certificates are trusted, and that a configured header wins over the environment's,
//! which the library reads on its own.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

use super::super::config::OtlpProtocol;
use super::settings::{Compression, Settings, TlsFiles};
use super::verdict::{Listener, Reason, Verdict};
use crate::outgoing::roots_and;

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

/// Why a batch did not arrive.
#[derive(Debug)]
pub(super) struct SendError {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

/// The way to the collector.
pub(super) struct Transport {
    exporter: SpanExporter,
    verdict: Verdict,
    listener: Dispatch,
    give_up_after: Duration,
}

impl Transport {
    /// Makes the client; nothing is sent yet. Call it inside the runtime that sends.
    pub(super) fn new(settings: &Settings, resource: &Resource) -> Result<Self, TransportError> {
        let verdict = Verdict::default();
        let exporter = match settings.protocol {
            OtlpProtocol::Grpc => grpc(settings)?,
            OtlpProtocol::HttpProtobuf => http(settings, verdict.clone())?,
        };
        let mut exporter = exporter.map_err(|cause| TransportError::Client(cause.into()))?;
        exporter.set_resource(resource);
        let listener = Dispatch::new(Listener(verdict.clone()));
        // The last try may begin just before the retries end.
        let give_up_after = RETRIES_FOR + settings.timeout;
        Ok(Self { exporter, verdict, listener, give_up_after })
    }

    /// Sends one batch, again where the protocol says so, and gives how many spans of it the collector left out.
    pub(super) async fn send(&self, spans: Vec<SpanData>) -> Result<u64, SendError> {
        let export = || self.exporter.export(spans.clone()).with_subscriber(self.listener.clone());
        let mut cut = None;
        let again = export.retry(pauses()).when(is_cut).notify(|error, _pause| cut = Some(error.to_string()));
        let sent = tokio::time::timeout(self.give_up_after, again).await;
        let heard = self.verdict.take();
        match sent {
            Ok(Ok(())) => Ok(heard.rejected),
            Ok(Err(error)) => Err(SendError {
                // It was not sent at all if the library did not say why: it is larger than a request may be.
                reason: heard.reason.unwrap_or(Reason::Rejected),
                detail: heard.cause.unwrap_or_else(|| error.to_string()),
            }),
            Err(_elapsed) => {
                let detail = cut.unwrap_or_else(|| "no answer in time".to_owned());
                Err(SendError { reason: Reason::Unreachable, detail })
            }
        }
    }
}

/// Whether the connection broke under a request. Such a batch may be sent again, and over HTTP the library does so; over
/// gRPC it takes `Unknown`, as `tonic` says, for the collector's own word.
fn is_cut(error: &OTelSdkError) -> bool {
    error.to_string().contains("gRPC code: Unknown: transport error")
}

/// The same pauses as those of [`retries`].
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_jitter()
        .without_max_times()
}

type Built = Result<SpanExporter, ExporterBuildError>;

fn grpc(settings: &Settings) -> Result<Built, TransportError> {
    let headers = settings.headers.clone();
    let with_headers = move |mut request: tonic::Request<()>| {
        let mut all = std::mem::take(request.metadata_mut()).into_headers();
        put(&headers, &mut all);
        *request.metadata_mut() = MetadataMap::from_headers(all);
        Ok(request)
    };
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(channel(settings)?)
        .with_interceptor(with_headers)
        .with_timeout(RETRIES_FOR)
        .with_retry_policy(retries());
    if settings.compression == Compression::Gzip {
        exporter = exporter.with_compression(opentelemetry_otlp::Compression::Gzip);
    }
    Ok(exporter.build())
}

/// A channel of our own, because the library's has one time for a single try and for all of them together.
fn channel(settings: &Settings) -> Result<Channel, TransportError> {
    let mut endpoint =
        Endpoint::from(settings.endpoint.clone()).connect_timeout(settings.timeout).timeout(settings.timeout);
    if settings.endpoint.scheme_str() == Some("https") {
        let roots =
            roots_and(settings.tls.ca.as_deref()).map_err(|cause| TransportError::Tls(cause.into()))?;
        let mut tls = ClientTlsConfig::new().trust_anchors(roots.roots);
        if let Some((certificate, key)) = &settings.tls.client {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(tls).map_err(|cause| TransportError::Tls(cause.into()))?;
    }
    Ok(endpoint.connect_lazy())
}

fn http(settings: &Settings, verdict: Verdict) -> Result<Built, TransportError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(&settings.tls)?)
        .connect_timeout(settings.timeout)
        .timeout(settings.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|cause| TransportError::Client(cause.into()))?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client { client, headers: settings.headers.clone(), verdict })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(settings.endpoint.to_string())
        .with_timeout(RETRIES_FOR)
        .with_retry_policy(retries());
    if settings.compression == Compression::Gzip {
        exporter = exporter.with_compression(opentelemetry_otlp::Compression::Gzip);
    }
    Ok(exporter.build())
}

/// The HTTP client, with our headers put last.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    headers: Vec<(HeaderName, HeaderValue)>,
    verdict: Verdict,
}

#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        put(&self.headers, request.headers_mut());
        let answer = self.client.send_bytes(request).await;
        // The library names the status of an answer, but of none at all it says no more than "network error".
        let cause = answer.as_ref().err().map(|error| chain(error.as_ref()));
        self.verdict.note(|heard| heard.cause = cause);
        answer
    }
}

fn put(headers: &[(HeaderName, HeaderValue)], all: &mut HeaderMap) {
    for (name, value) in headers {
        all.insert(name, value.clone());
    }
}

/// An error with what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn retries() -> RetryPolicy {
    RetryPolicy::recommended()
        // The time ends them, not their number.
        .with_max_retries(usize::MAX)
        .with_initial_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_max_jitter(RETRY_DELAY_MIN)
}

const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// How long one batch is tried. The queue fills meanwhile, so a collector that restarts loses nothing.
const RETRIES_FOR: Duration = Duration::from_secs(30);

fn tls(files: &TlsFiles) -> Result<rustls::ClientConfig, TransportError> {
    let roots = roots_and(files.ca.as_deref()).map_err(|cause| TransportError::Tls(cause.into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| TransportError::Tls(cause.into()))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &files.client else { return Ok(tls.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|cause| TransportError::Tls(cause.into()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|cause| TransportError::Tls(cause.into()))?;
    tls.with_client_auth_cert(chain, key).map_err(|cause| TransportError::Tls(cause.into()))
}
