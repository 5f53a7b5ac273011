//! What a handler gets: a request whose head was checked, with its body still on the wire.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use hyper::upgrade::OnUpgrade;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::auth::Identity;
use super::metrics::{OpenConnection, Transport};
use super::response::Problem;
use crate::telemetry::TraceContext;

/// The other end of a connection.
pub(crate) struct Peer {
    /// Its address; none on the control socket.
    pub(crate) address: Option<IpAddr>,
    /// The address it reached us by; none on the control socket.
    pub(crate) local: Option<IpAddr>,
    /// Its place among the connections: held until the last part of it is gone.
    place: Mutex<(OpenConnection, OwnedSemaphorePermit)>,
}

impl Peer {
    pub(crate) fn new(
        address: Option<IpAddr>,
        local: Option<IpAddr>,
        place: (OpenConnection, OwnedSemaphorePermit),
    ) -> Arc<Self> {
        Arc::new(Self { address, local, place: Mutex::new(place) })
    }

    /// The connection speaks WebSocket from now on.
    pub(crate) fn upgraded(&self) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).0.becomes(Transport::Ws);
    }
}

/// What the shell found out before any route was asked; travels as an extension of the request.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) peer: Arc<Peer>,
    /// The client's address, behind trusted proxies too; none on the control socket.
    pub(crate) client: Option<IpAddr>,
    pub(crate) query: Arc<str>,
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// A request, authenticated.
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BoxStream<'static, Result<Bytes, warp::Error>>,
    /// What stands for each `{name}` in the route's path, in order.
    pub(crate) params: Vec<(&'static str, String)>,
    /// Who asks; nobody on a public route.
    pub(crate) identity: Option<Identity>,
}

impl Request {
    /// Reads the query; unknown and doubled names are refused.
    pub(crate) fn query<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_urlencoded::from_str(&self.head.query).map_err(|e| Problem::bad_request(format!("query: {e}")))
    }

    /// What stands for `{name}` in the route's path.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Who asks, on a route that is not public.
    pub(crate) fn identity(&self) -> Result<Identity, Problem> {
        self.identity.clone().ok_or_else(Problem::internal)
    }

    /// The trace this request belongs to, if it brought one.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        let context = self.text_header("traceparent").and_then(TraceContext::parse)?;
        let states: Option<Vec<_>> =
            self.headers.get_all("tracestate").iter().map(|value| value.to_str().ok()).collect();
        Some(context.with_state(&states.unwrap_or_default().join(",")))
    }

    /// A header, if it is there and is text.
    pub(crate) fn text_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What stands in `Authorization`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credentials<'h> {
    None,
    Bearer(&'h str),
    /// User and password in base64, for routes whose callers have nothing else.
    Basic(&'h str),
    Unusable,
}

/// Reads the one place where a token may stand.
pub(crate) fn credentials(headers: &HeaderMap) -> Credentials<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Credentials::None };
    let said = value.to_str().ok().and_then(|text| text.split_once(' '));
    match (said, values.next()) {
        (Some((scheme, token)), None) if scheme.eq_ignore_ascii_case("bearer") => {
            Credentials::Bearer(token.trim_matches(' '))
        }
        (Some((scheme, pair)), None) if scheme.eq_ignore_ascii_case("basic") => {
            Credentials::Basic(pair.trim_matches(' '))
        }
        _ => Credentials::Unusable,
    }
}

/// The password of Basic credentials (RFC 7617, section 2): what stands after the first colon. Any user will do.
pub(crate) fn basic_password(pair: &str) -> Option<String> {
    let pair = String::from_utf8(STANDARD.decode(pair).ok()?).ok()?;
    pair.split_once(':').map(|(_user, password)| password.to_owned())
}

/// The address behind trusted proxies: from the right, the first in `X-Forwarded-For` that is not one of them.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let trusts = |address: IpAddr| trusted.iter().any(|net| net.contains(&address.to_canonical()));
    if !trusts(peer) {
        return peer;
    }
    let chain: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let mut client = peer;
    for hop in chain.into_iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        client = address;
        if !trusts(address) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|v| (http::HeaderName::from_static(name), v.parse().expect("a header"))).collect()
    }

    #[test]
    fn only_one_bearer_header_is_a_token() {
        let read = |values: &[&str]| format!("{:?}", credentials(&with("authorization", values)));
        assert_eq!(read(&[]), "None");
        assert_eq!(read(&["Bearer abc"]), "Bearer(\"abc\")");
        assert_eq!(read(&["bearer abc"]), "Bearer(\"abc\")");
        assert_eq!(read(&["BASIC  abc"]), "Basic(\"abc\")");
        for bad in [&["Digest abc"][..], &["Bearer"], &["Bearer a", "Bearer b"], &["Basic a", "Bearer b"]] {
            assert_eq!(read(bad), "Unusable", "{bad:?}");
        }
    }

    #[test]
    fn the_password_of_basic_is_what_stands_after_the_first_colon() {
        let password = |pair: &str| basic_password(&STANDARD.encode(pair));
        for (pair, expected) in
            [("grafana:t", "t"), (":t", "t"), ("u:a:b", "a:b"), ("u:", ""), ("u:é ", "é ")]
        {
            assert_eq!(password(pair).as_deref(), Some(expected), "{pair}");
        }
        assert_eq!(password("no colon"), None);
        for bad in ["", "dTp0=", "dTp0\n", "d Tp0", "*", "/////w=="] {
            assert_eq!(basic_password(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
        let client = |peer: &str, forwarded: &[&str]| {
            client_address(peer.parse().expect("an address"), &with("x-forwarded-for", forwarded), &trusted)
                .to_string()
        };
        assert_eq!(client("1.2.3.4", &["9.9.9.9"]), "1.2.3.4", "a stranger may claim what it likes");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.2"]),
            "9.9.9.9",
            "the left part is the client's own say"
        );
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, nonsense, 10.0.0.2"]), "10.0.0.2");
    }
}
