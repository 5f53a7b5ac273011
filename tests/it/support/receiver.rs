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
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic_types::{ErrorDetails, StatusExt};

use super::certificates::{Certificates, Clients};

/// What the collector says to one request. After the last one it says [`Answer::Take`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Take,
    /// Takes all but so many.
    Partial(i64),
    /// Refuses for good: 400 or `InvalidArgument`.
    Refuse,
    /// Asks to come back: 503 or `Unavailable`.
    Unavailable,
    /// Asks to come back after so long: 429 with `Retry-After`, or `ResourceExhausted` with `RetryInfo`.
    Throttle(Duration),
    /// Takes, and says so only after so long.
    Late(Duration),
    /// Never answers.
    Hang,
}

/// What arrived.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) requests: Vec<HeaderMap>,
    pub(crate) spans: Vec<Span>,
    pub(crate) resources: Vec<(String, String)>,
    script: VecDeque<Answer>,
}

/// A running collector.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    /// What it shows and trusts, if it speaks TLS.
    pub(crate) certificates: Option<Certificates>,
    inbox: Arc<Mutex<Inbox>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a receiver speaks TLS, and with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    Plain,
    Tls,
    /// Only with clients that show a certificate of the receiver's authority.
    Mutual,
}

impl Receiver {
    pub(crate) async fn start(protocol: OtlpProtocol, security: Security, script: &[Answer]) -> Self {
        let inbox = Inbox { script: script.iter().copied().collect(), ..Inbox::default() };
        let inbox = Arc::new(Mutex::new(inbox));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let clients = match security {
            Security::Plain => None,
            Security::Tls => Some(Clients::Any),
            Security::Mutual => Some(Clients::Certified),
        };
        let tls = clients.map(|clients| (Certificates::make(), clients));
        let collector = Collector(Arc::clone(&inbox));
        let task = match protocol {
            OtlpProtocol::Grpc => tokio::spawn(serve_grpc(listener, tls.as_ref().map(grpc_tls), collector)),
            OtlpProtocol::HttpProtobuf => {
                let acceptor = tls.as_ref().map(|(certificates, clients)| certificates.acceptor(*clients));
                tokio::spawn(serve_http(listener, acceptor, collector))
            }
        };
        Self { address, certificates: tls.map(|(certificates, _)| certificates), inbox, task }
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("no panic while held")
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.address.port())
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
        if let Answer::Take | Answer::Late(_) | Answer::Partial(_) = answer {
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
            Answer::Late(after) => {
                tokio::time::sleep(after).await;
                Ok(tonic::Response::new(taken(0)))
            }
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

fn grpc_tls((certificates, clients): &(Certificates, Clients)) -> ServerTlsConfig {
    let identity = Identity::from_pem(certificates.text("cert.pem"), certificates.text("key.pem"));
    let tls = ServerTlsConfig::new().identity(identity);
    match clients {
        Clients::Any => tls,
        Clients::Certified => tls.client_ca_root(Certificate::from_pem(certificates.text("ca.pem"))),
    }
}

async fn serve_grpc(listener: TcpListener, tls: Option<ServerTlsConfig>, collector: Collector) {
    let mut server = tonic::transport::Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).expect("a good certificate");
    }
    let service = TraceServiceServer::new(collector)
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
        .max_decoding_message_size(64 << 20);
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    server.add_service(service).serve_with_incoming(incoming).await.expect("serves until aborted");
}

async fn serve_http(listener: TcpListener, acceptor: Option<TlsAcceptor>, collector: Collector) {
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
        Answer::Late(after) => {
            tokio::time::sleep(after).await;
            reply(200, taken(0).encode_to_vec())
        }
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
