//! `Host` and `Origin`: which names this server answers to, so that no web page reaches it by a name of its own
//! (DNS rebinding) or from another site.
//!
//! The list of names is exact. Ports of loopback names and plain entries are free, because a tunnel or a published
//! container port changes them and a rebinding page cannot choose a name on the list anyway; what keeps other pages of
//! the same machine out is that an `Origin` must match the whole `Host`.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// Names of the machine itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The names this server answers to.
pub(crate) struct Hosts {
    allowed: Vec<Authority>,
    bound: IpAddr,
}

/// Why a request was refused by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the Host header is missing, doubled or malformed")]
    Malformed,
    #[error("this server does not answer to that Host: add it to server.allowed_hosts if it should")]
    ForeignHost,
    #[error("requests from that Origin are refused")]
    ForeignOrigin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    name: String,
    port: Option<u16>,
}

impl Authority {
    /// Reads `name` or `name:port`; the name in lower case, an IPv6 address in brackets.
    fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.rfind(':') {
            Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
            _ => (text, None),
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None => None,
        };
        let bracketed = name.starts_with('[') && name.ends_with(']');
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let fits = !name.is_empty() && (bracketed || name.bytes().all(plain));
        fits.then(|| Self { name: name.to_ascii_lowercase(), port })
    }

    /// The same name, and the same port where `self` names one.
    fn covers(&self, other: &Self) -> bool {
        self.name == other.name && (self.port.is_none() || self.port == other.port)
    }
}

impl Hosts {
    /// The list for a server bound to `bound`, with the `server.allowed_hosts` of the configuration.
    pub(crate) fn new(bound: SocketAddr, allowed: &[String]) -> Self {
        let allowed = allowed.iter().filter_map(|text| Authority::parse(text)).collect();
        Self { allowed, bound: bound.ip() }
    }

    /// Checks the names in a request that came in on the address `local`.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        uri_host: Option<&str>,
        local: IpAddr,
    ) -> Result<(), HostError> {
        let host = single(headers, &HOST)?.ok_or(HostError::Malformed)?;
        let host = Authority::parse(host).ok_or(HostError::Malformed)?;
        let uri_host = uri_host.map(|text| Authority::parse(text).ok_or(HostError::Malformed)).transpose()?;
        if !self.knows(&host, local) || uri_host.is_some_and(|named| !self.knows(&named, local)) {
            return Err(HostError::ForeignHost);
        }
        match single(headers, &ORIGIN).map_err(|_| HostError::ForeignOrigin)? {
            None => Ok(()),
            Some(origin) if self.is_own(origin, &host) => Ok(()),
            Some(_) => Err(HostError::ForeignOrigin),
        }
    }

    fn knows(&self, host: &Authority, local: IpAddr) -> bool {
        let named = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        LOOPBACK.contains(&host.name.as_str())
            || host.name == named(self.bound)
            || host.name == named(local)
            || self.allowed.iter().any(|entry| entry.covers(host))
    }

    /// Whether a page of this origin is one of ours: from the very host it asks, or from one the operator listed.
    fn is_own(&self, origin: &str, host: &Authority) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let Some(origin) = Authority::parse(authority) else { return false };
        let port = |of: &Authority| of.port.unwrap_or(default_port);
        (origin.name == host.name && port(&origin) == port(host))
            || self.allowed.iter().any(|entry| entry.covers(&origin))
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Result<Option<&'h str>, HostError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => one.to_str().map(Some).map_err(|_| HostError::Malformed),
        (Some(_), Some(_)) => Err(HostError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bound: &str, host: &str, origin: Option<&str>) -> Result<(), HostError> {
        let bound: SocketAddr = bound.parse().expect("an address");
        let hosts = Hosts::new(bound, &["plimsoll:1876".to_owned(), "dash.example".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header"));
        }
        hosts.check(&headers, None, bound.ip())
    }

    #[test]
    fn names_on_the_list_are_answered() {
        for host in [
            "localhost",
            "localhost:1876",
            "LOCALHOST:8080",
            "127.0.0.1:1876",
            "[::1]:1876",
            "plimsoll:1876",
            "dash.example",
            "10.1.2.3:1876",
        ] {
            assert_eq!(check("10.1.2.3:1876", host, None), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_names_and_aliases_of_loopback_are_refused() {
        for host in [
            "evil.example",
            "foo.localhost",
            "localhost.",
            "127.1",
            "2130706433",
            "0x7f000001",
            "127.0.0.2",
            "0.0.0.0",
            "[::ffff:127.0.0.1]",
            "[0:0:0:0:0:0:0:1]",
            "plimsoll:80",
            "plimsoll",
            "localhost.evil.example",
            "dash.example.evil",
        ] {
            assert_eq!(check("127.0.0.1:1876", host, None), Err(HostError::ForeignHost), "{host}");
        }
        for host in ["", "localhost:port", "a b", "localhost:99999", "user@localhost", "localhost/x"] {
            assert_eq!(check("127.0.0.1:1876", host, None), Err(HostError::Malformed), "{host}");
        }
    }

    #[test]
    fn an_origin_must_be_the_host_itself_or_listed() {
        let origin = |origin: &str| check("127.0.0.1:1876", "localhost:1876", Some(origin));
        assert_eq!(origin("http://localhost:1876"), Ok(()));
        assert_eq!(origin("https://dash.example"), Ok(()));
        for foreign in [
            "null",
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:1876",
            "http://evil.example",
            "file://",
            "ftp://localhost:1876",
            "http://localhost:1876.evil.example",
            "http://localhost:1876/",
        ] {
            assert_eq!(origin(foreign), Err(HostError::ForeignOrigin), "{foreign}");
        }
    }

    #[test]
    fn two_hosts_and_a_foreign_target_are_refused() {
        let hosts = Hosts::new("127.0.0.1:1876".parse().expect("an address"), &[]);
        let mut headers = HeaderMap::new();
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(hosts.check(&headers, None, local), Err(HostError::Malformed));
        headers.append(HOST, http::HeaderValue::from_static("localhost"));
        assert_eq!(hosts.check(&headers, Some("evil.example"), local), Err(HostError::ForeignHost));
        headers.append(HOST, http::HeaderValue::from_static("localhost"));
        assert_eq!(hosts.check(&headers, None, local), Err(HostError::Malformed));
    }
}
