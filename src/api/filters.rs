//! From the route table to warp filters, and the shell around them: names first, then the route, then the door.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tower::util::BoxCloneSyncService;
use warp::filters::BoxedFilter;
use warp::{Filter as _, Stream};

use super::Readiness;
use super::guard::{self, Admission};
use super::hosts::HostError;
use super::metrics::AuthFailure;
use super::openai::Fault;
use super::request::{Head, Peer, Request, client_address};
use super::response::{Problem, Reply, compress, finish};
use super::routes::{self, Compression, Dialect, Names, Route};
use super::state::ApiState;

type Response = warp::reply::Response;

/// When to come again while plimsoll recovers: most starts take less.
const RECOVERY_WAIT: Duration = Duration::from_secs(1);

/// All routes as one service.
pub(crate) type Routes =
    TowerToHyperService<BoxCloneSyncService<http::Request<Incoming>, Response, Infallible>>;

/// Makes the service from the table.
pub(crate) fn service(state: &Arc<ApiState>, routes: &'static [Route]) -> Routes {
    let nothing = warp::any().and_then(|| async { Err::<Response, _>(warp::reject::not_found()) }).boxed();
    let routes = routes
        .iter()
        .rev()
        .fold(nothing, |rest, route| route_filter(route, Arc::clone(state)).or(rest).unify().boxed());
    let lost = warp::path::full()
        .map(|path: warp::path::FullPath| {
            let problem = match routes::allowed(path.as_str()) {
                Some(allow) => Problem::method_not_allowed(allow),
                None => Problem::not_found(),
            };
            refuse(path.as_str(), problem)
        })
        .boxed();
    let filter = routes.or(lost).unify().boxed();
    TowerToHyperService::new(BoxCloneSyncService::new(warp::service(filter)))
}

fn route_filter(route: &'static Route, state: Arc<ApiState>) -> BoxedFilter<(Response,)> {
    let mut path = warp::any().map(Vec::new).boxed();
    for segment in route.path.split('/').filter(|segment| !segment.is_empty()) {
        path = match routes::parameter(segment) {
            Some(name) => path
                .and(warp::path::param())
                .map(move |params, value: String| with(params, name, value))
                .boxed(),
            None => path.and(warp::path(segment)).boxed(),
        };
    }
    let method = warp::method().and_then(move |method: Method| {
        let fits = route.method.takes(&method);
        std::future::ready(if fits { Ok(()) } else { Err(warp::reject::not_found()) })
    });
    path.and(warp::path::end())
        .and(method.untuple_one())
        .and(warp::ext::get::<Head>())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |params, head, headers, body| {
            let body = bytes_of(body).boxed();
            let request = Request { head, headers, body, params, identity: None };
            handle(route, Arc::clone(&state), request).boxed()
        })
        .boxed()
}

fn with(
    mut params: Vec<(&'static str, String)>,
    name: &'static str,
    value: String,
) -> Vec<(&'static str, String)> {
    params.push((name, value));
    params
}

fn bytes_of(
    body: impl Stream<Item = Result<impl bytes::Buf, warp::Error>> + Send + Sync + 'static,
) -> impl Stream<Item = Result<Bytes, warp::Error>> + Send + 'static {
    body.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
}

/// One request on its route. A panic ends this request and nothing else.
async fn handle(route: &'static Route, state: Arc<ApiState>, request: Request) -> Response {
    let answered = AssertUnwindSafe(answer(route, &state, request)).catch_unwind().await;
    answered.unwrap_or_else(|_panic| {
        let id = state.incident();
        tracing::error!(source = "api", path = route.path, request_id = %id, "a handler panicked");
        refuse(route.path, Problem::internal().about(&id))
    })
}

/// What went wrong, in the shape that clients of this path expect.
fn tell(path: &str, problem: Problem) -> Reply {
    match routes::dialect(path) {
        Dialect::Own => problem.into_reply(),
        Dialect::OpenAi => Fault::from(problem).into_reply(),
    }
}

fn refuse(path: &str, problem: Problem) -> Response {
    finish(tell(path, problem))
}

/// The door, the handler, and what goes out.
async fn answer(route: &Route, state: &Arc<ApiState>, mut request: Request) -> Response {
    // Clients of OpenAI always send a key. Where no token is asked for, none can be right or wrong.
    if routes::dialect(route.path) == Dialect::OpenAi && !state.doors.tokens.required() {
        request.headers.remove(AUTHORIZATION);
    }
    request.identity = match guard::admit(state, route.access, &request.head, &request.headers) {
        Ok(Admission::As(identity)) => identity,
        Ok(Admission::Later) => None,
        Err(problem) => return refuse(route.path, problem),
    };
    let headers = (route.compression == Compression::Gzip).then(|| request.headers.clone());
    let outcome = (route.handler)(Arc::clone(state), request).await;
    let reply = outcome.unwrap_or_else(|problem| tell(route.path, problem));
    finish(match headers {
        Some(headers) => compress(reply, &headers).await,
        None => reply,
    })
}

/// One request of one connection.
pub(crate) async fn serve(
    state: Arc<ApiState>,
    routes: Routes,
    peer: Arc<Peer>,
    mut request: http::Request<Incoming>,
) -> Result<Response, Infallible> {
    let admitted = check_recovered(&state, &request).and_then(|()| check_names(&state, &peer, &request));
    if let Err(problem) = admitted {
        return Ok(refuse(request.uri().path(), problem));
    }
    let client =
        peer.address.map(|address| client_address(address, request.headers(), &state.config.trusted_proxies));
    let query = request.uri().query().unwrap_or_default().into();
    let upgrade =
        request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    request.extensions_mut().insert(Head { peer, client, query, upgrade });
    routes.call(request).await
}

/// Who may come in is not known before the journal is read: until then only probes are answered.
fn check_recovered(state: &ApiState, request: &http::Request<Incoming>) -> Result<(), Problem> {
    if state.readiness() != Readiness::Recovering || routes::names(request.uri().path()) == Names::Free {
        return Ok(());
    }
    let message = "plimsoll is starting and reads its journal: try again in a moment";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "recovering", message);
    Err(problem.retry_after(RECOVERY_WAIT))
}

fn check_names(state: &ApiState, peer: &Peer, request: &http::Request<Incoming>) -> Result<(), Problem> {
    // The control socket has no names: nobody reaches it by one.
    let Some(local) = peer.local else { return Ok(()) };
    if routes::names(request.uri().path()) == Names::Free {
        return Ok(());
    }
    let named = request.uri().authority().map(http::uri::Authority::as_str);
    state.doors.hosts.check(request.headers(), named, local).map_err(|error| {
        state.metrics.auth_failure(AuthFailure::Forbidden);
        let (status, code) = match error {
            HostError::Malformed => (StatusCode::BAD_REQUEST, "bad_host"),
            HostError::ForeignHost => (StatusCode::MISDIRECTED_REQUEST, "foreign_host"),
            HostError::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin"),
        };
        Problem::new(status, code, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::super::access::Access;
    use super::super::request::Request;
    use super::super::response::Outcome;
    use super::super::routes::{Verb, route};
    use super::super::rpc::{Call, CallResult, Method};
    use super::super::{connection, fixture, rest};
    use super::*;
    use futures_util::future::BoxFuture;
    use serde_json::Value;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    static BROKEN: &[Route] = &[
        Route {
            access: Access::Public,
            ..route("/broken", |state, request| Box::pin(broken(state, request)))
        },
        Route {
            method: Verb::Post,
            access: Access::Token,
            ..route("/rpc", |state, request| Box::pin(rest::rpc(state, request)))
        },
    ];

    static BROKEN_METHODS: &[Method] = &[method("test.now", broken_now), method("test.later", broken_later)];

    const fn method(name: &'static str, handler: fn(Call<'_>) -> BoxFuture<'static, CallResult>) -> Method {
        let (params, result) =
            (|_: &mut _| schemars::Schema::default(), |_: &mut _| schemars::Schema::default());
        Method { name, access: Access::Viewer, summary: "Fails.", params, result, handler }
    }

    async fn broken(_state: Arc<ApiState>, _request: Request) -> Outcome {
        panic!("the secret")
    }

    fn broken_now(_call: Call<'_>) -> BoxFuture<'static, CallResult> {
        panic!("the secret")
    }

    fn broken_later(_call: Call<'_>) -> BoxFuture<'static, CallResult> {
        async { panic!("the secret") }.boxed()
    }

    /// What stands in the log.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Status and body of one request after another on one connection.
    async fn ask(state: &Arc<ApiState>, requests: &[(&str, &str, &str)]) -> Vec<(String, Value)> {
        let (mut client, line) = tokio::io::duplex(1 << 16);
        let served = connection::serve(Arc::clone(state), service(state, BROKEN), fixture::peer(state), line);
        let served = tokio::spawn(served);
        let mut answers = Vec::new();
        for (verb, path, body) in requests {
            let request = format!(
                "{verb} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(request.as_bytes()).await.expect("sent");
            let mut seen = Vec::new();
            let answer = loop {
                client.read_buf(&mut seen).await.expect("an answer");
                let text = String::from_utf8_lossy(&seen).into_owned();
                let whole =
                    text.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned()));
                if let Some((head, Ok(body))) = whole.map(|(head, body)| (head, serde_json::from_str(&body)))
                {
                    break (head.lines().next().unwrap_or_default().to_owned(), body);
                }
            };
            answers.push(answer);
        }
        drop(client);
        served.await.expect("the connection ends in order");
        answers
    }

    #[tokio::test]
    async fn a_panic_ends_one_request_and_is_named_in_its_answer_and_in_the_log() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        let mut state = fixture::state(crate::api::Config::default());
        state.methods = BROKEN_METHODS;
        let state = Arc::new(state);
        let call = |name: &str| format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{name}"}}"#);
        let (now, later, unknown) = (call("test.now"), call("test.later"), call("test.none"));
        let requests = [
            ("GET", "/broken", ""),
            ("POST", "/rpc", &now),
            ("POST", "/rpc", &later),
            ("POST", "/rpc", &unknown),
        ];
        let answers = ask(&state, &requests).await;
        let log = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("text");
        let (status, body) = &answers[0];
        assert!(status.contains("500") && body["error"]["code"] == "internal", "{status}: {body}");
        assert!(log.contains(body["error"]["requestId"].as_str().expect("a name")), "{log}");
        for (status, body) in &answers[1..3] {
            assert!(status.contains("200") && body["id"] == 7, "{status}: {body}");
            assert_eq!(body["error"]["code"], -32603);
            assert!(log.contains(body["error"]["data"]["requestId"].as_str().expect("a name")), "{log}");
        }
        assert!(answers.iter().all(|(_, body)| !body.to_string().contains("secret")), "{answers:?}");
        assert_eq!(answers[3].1["error"]["code"], -32601, "the connection goes on");
        let counted = r#"plimsoll_rpc_calls_total{method="test.now",code="-32603"} 1"#;
        assert!(state.registry.render().contains(counted), "{}", state.registry.render());
    }
}
