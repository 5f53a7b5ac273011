//! An OTLP collector that keeps what it gets and answers as it is told, over gRPC and HTTP, plain and TLS.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use plimsoll::telemetry::OtlpProtocol;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic_types::{ErrorDetails, StatusExt};

/// What the collector says to one request. After the last one it says [`Answer::Take`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Take,
    /// Takes all but so many.
    Partial(i64),
    /// Refuses for good: 400 or `InvalidArgument`.
    Refuse,
    /// Asks to come back: 503 or `Unavailable`.
    Unavailable,
    /// Asks to come back after so long: 429 with `Retry-After`, or `ResourceExhausted` with `RetryInfo`.
    Throttle(Duration),
    /// Never answers.
    Hang,
}

/// What arrived.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) requests: Vec<HeaderMap>,
    pub(super) spans: Vec<Span>,
    pub(super) resources: Vec<(String, String)>,
    script: VecDeque<Answer>,
}

/// A running collector.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    /// The certificate authority to trust, if it speaks TLS.
    pub(super) ca: Option<String>,
    inbox: Arc<Mutex<Inbox>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a receiver speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    Plain,
    Tls,
}

impl Receiver {
    pub(super) async fn start(protocol: OtlpProtocol, security: Security, script: &[Answer]) -> Self {
        let inbox = Inbox { script: script.iter().copied().collect(), ..Inbox::default() };
        let inbox = Arc::new(Mutex::new(inbox));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let certificates = (security == Security::Tls).then(Certificates::new);
        let ca = certificates.as_ref().map(|certificates| certificates.ca.clone());
        let collector = Collector(Arc::clone(&inbox));
        let task = match protocol {
            OtlpProtocol::Grpc => tokio::spawn(serve_grpc(listener, certificates, collector)),
            OtlpProtocol::HttpProtobuf => tokio::spawn(serve_http(listener, certificates, collector)),
        };
        Self { address, ca, inbox, task }
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("no panic while held")
    }

    pub(super) fn endpoint(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.address.port())
    }
}

struct Certificates {
    ca: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("signed").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("valid");
        let certificate = leaf.signed_by(&key, &issuer).expect("signed").pem();
        Self { ca, certificate, key: key.serialize_pem() }
    }
}

#[derive(Clone)]
struct Collector(Arc<Mutex<Inbox>>);

impl Collector {
    /// Keeps the request's headers and, unless it is refused, its spans.
    fn receive(&self, headers: HeaderMap, request: ExportTraceServiceRequest) -> Answer {
        let mut inbox = self.0.lock().expect("no panic while held");
        let answer = inbox.script.pop_front().unwrap_or(Answer::Take);
        inbox.requests.push(headers);
        if let Answer::Take | Answer::Partial(_) = answer {
            for group in request.resource_spans {
                let attributes = group.resource.into_iter().flat_map(|resource| resource.attributes);
                inbox.resources.extend(attributes.map(|a| (a.key, format!("{:?}", a.value))));
                inbox.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        answer
    }
}

fn taken(rejected_spans: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too many".to_owned() };
    ExportTraceServiceResponse { partial_success: (rejected_spans > 0).then_some(partial) }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        match self.receive(headers, request.into_inner()) {
            Answer::Take => Ok(tonic::Response::new(taken(0))),
            Answer::Partial(rejected) => Ok(tonic::Response::new(taken(rejected))),
            Answer::Refuse => Err(tonic::Status::invalid_argument("no")),
            Answer::Unavailable => Err(tonic::Status::unavailable("not now")),
            Answer::Throttle(wait) => {
                let details = ErrorDetails::with_retry_info(Some(wait));
                Err(tonic::Status::with_error_details(tonic::Code::ResourceExhausted, "slow down", details))
            }
            Answer::Hang => std::future::pending().await,
        }
    }
}

async fn serve_grpc(listener: TcpListener, certificates: Option<Certificates>, collector: Collector) {
    let mut server = tonic::transport::Server::builder();
    if let Some(Certificates { certificate, key, .. }) = certificates {
        let identity = tonic::transport::Identity::from_pem(certificate, key);
        let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
        server = server.tls_config(tls).expect("a good certificate");
    }
    let service = TraceServiceServer::new(collector)
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
        .max_decoding_message_size(64 << 20);
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    server.add_service(service).serve_with_incoming(incoming).await.expect("serves until aborted");
}

async fn serve_http(listener: TcpListener, certificates: Option<Certificates>, collector: Collector) {
    let acceptor = certificates.map(|Certificates { certificate, key, .. }| {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a good certificate");
        TlsAcceptor::from(Arc::new(config))
    });
    loop {
        let Ok((stream, _peer)) = listener.accept().await else { return };
        let (acceptor, collector) = (acceptor.clone(), collector.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer_http(collector.clone(), request));
            let server = hyper::server::conn::http1::Builder::new();
            // A client that goes away is no fault of this test.
            let _closed = match acceptor {
                None => server.serve_connection(TokioIo::new(stream), service).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                    Err(_untrusted) => return,
                },
            };
        });
    }
}

async fn answer_http(
    collector: Collector,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let reply = |status: u16, body: Vec<u8>| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).expect("a known status");
        response
    };
    if parts.uri.path() != "/v1/traces" {
        return Ok(reply(404, Vec::new()));
    }
    let mut bytes = body.collect().await.expect("a whole body").to_bytes().to_vec();
    if parts.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).expect("gzip");
        bytes = unpacked;
    }
    let decoded = ExportTraceServiceRequest::decode(bytes.as_slice()).expect("an export request");
    Ok(match collector.receive(parts.headers, decoded) {
        Answer::Take => reply(200, taken(0).encode_to_vec()),
        Answer::Partial(rejected) => reply(200, taken(rejected).encode_to_vec()),
        Answer::Refuse => reply(400, b"no".to_vec()),
        Answer::Unavailable => reply(503, b"not now".to_vec()),
        Answer::Throttle(wait) => {
            let mut response = reply(429, b"slow down".to_vec());
            let seconds = wait.as_secs().to_string().parse().expect("digits");
            response.headers_mut().insert("retry-after", seconds);
            response
        }
        Answer::Hang => std::future::pending().await,
    })
}
