//! From the route table to warp filters, and the shell around them: names first, then the route, then the door.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
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
use super::request::{Head, Peer, Request, client_address};
use super::response::{Problem, compress, finish};
use super::routes::{self, Compression, Names, ROUTES, Route};
use super::state::ApiState;

type Response = warp::reply::Response;

/// When to come again while plimsoll recovers: most starts take less.
const RECOVERY_WAIT: Duration = Duration::from_secs(1);

/// All routes as one service.
pub(crate) type Routes =
    TowerToHyperService<BoxCloneSyncService<http::Request<Incoming>, Response, Infallible>>;

/// Makes the service from the table.
pub(crate) fn service(state: &Arc<ApiState>) -> Routes {
    let nothing = warp::any().and_then(|| async { Err::<Response, _>(warp::reject::not_found()) }).boxed();
    let routes = ROUTES
        .iter()
        .rev()
        .fold(nothing, |rest, route| route_filter(route, Arc::clone(state)).or(rest).unify().boxed());
    let lost = warp::path::full()
        .map(|path: warp::path::FullPath| match routes::allowed(path.as_str()) {
            Some(allow) => finish(Problem::method_not_allowed(allow).into_reply()),
            None => finish(Problem::not_found().into_reply()),
        })
        .boxed();
    let filter = routes.or(lost).unify().boxed();
    TowerToHyperService::new(BoxCloneSyncService::new(warp::service(filter)))
}

fn route_filter(route: &'static Route, state: Arc<ApiState>) -> BoxedFilter<(Response,)> {
    let mut path = warp::any().boxed();
    for segment in route.path.split('/').filter(|segment| !segment.is_empty()) {
        path = path.and(warp::path(segment)).boxed();
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
        .then(move |head, headers, body| {
            let body = bytes_of(body).boxed();
            let request = Request { head, headers, body, identity: None };
            handle(route, Arc::clone(&state), request).boxed()
        })
        .boxed()
}

fn bytes_of(
    body: impl Stream<Item = Result<impl bytes::Buf, warp::Error>> + Send + Sync + 'static,
) -> impl Stream<Item = Result<Bytes, warp::Error>> + Send + 'static {
    body.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
}

/// One request on its route: the door, the handler, and what goes out.
async fn handle(route: &'static Route, state: Arc<ApiState>, mut request: Request) -> Response {
    request.identity = match guard::admit(&state, route.access, &request.head, &request.headers) {
        Ok(Admission::As(identity)) => identity,
        Ok(Admission::Later) => None,
        Err(problem) => return finish(problem.into_reply()),
    };
    let headers = (route.compression == Compression::Gzip).then(|| request.headers.clone());
    let work = AssertUnwindSafe((route.handler)(state, request)).catch_unwind();
    let outcome = work.await.unwrap_or_else(|_panic| {
        tracing::error!(source = "api", path = route.path, "a handler panicked");
        Err(Problem::internal())
    });
    let reply = outcome.unwrap_or_else(Problem::into_reply);
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
        return Ok(finish(problem.into_reply()));
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
