//! Calls to servers elsewhere: which certificates are trusted, which redirects are followed, when to come back.
//!
//! What is said to them, and for how long they are waited for, is the callers' matter. Start at [`client_of`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{ClientBuilder, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// What plimsoll calls itself.
pub(crate) const USER_AGENT: &str = concat!("plimsoll/", env!("CARGO_PKG_VERSION"));

/// Redirects followed within one host.
const REDIRECTS_MAX: usize = 3;

/// Why certificates cannot be trusted as they are given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRoots {
    /// What should be PEM is none.
    #[error("{0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// It is PEM, and no certificate of an authority.
    #[error("{0}")]
    Certificate(#[from] rustls::Error),
    /// There is nothing in it.
    #[error("it holds no certificate")]
    Empty,
    /// It cannot be read.
    #[error("{0}")]
    File(#[from] std::io::Error),
}

/// A client that trusts these roots, follows redirects within one host, and says who it is.
///
/// # Errors
/// Says why TLS cannot be set up.
pub(crate) fn client(roots: RootCertStore) -> Result<ClientBuilder, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let redirects = Policy::custom(same_host_only);
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    Ok(builder.user_agent(USER_AGENT).redirect(redirects).tcp_nodelay(true))
}

/// A client for what is at this address: one without TLS looks for no certificates.
///
/// # Errors
/// Says why TLS cannot be set up, or what is wrong with the file.
pub(crate) fn client_of(url: &Url, ca_file: Option<&Path>) -> Result<ClientBuilder, String> {
    if url.scheme() != "https" {
        return client(RootCertStore::empty());
    }
    let wrong = |error| match ca_file {
        Some(file) => format!("ca_file {}: {error}", file.display()),
        None => format!("the system's certificates: {error}"),
    };
    client(roots(ca_file).map_err(wrong)?)
}

/// The system's roots, Mozilla's (an image without any still reaches what is public), and those of a PEM file.
///
/// # Errors
/// See [`BadRoots`].
pub(crate) fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, BadRoots> {
    let pem = ca_file.map(std::fs::read).transpose()?;
    roots_and(pem.as_deref())
}

/// The same with the PEM itself.
///
/// # Errors
/// See [`BadRoots`].
pub(crate) fn roots_and(pem: Option<&[u8]>) -> Result<RootCertStore, BadRoots> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // A system certificate that cannot be read is one that cannot be trusted; the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let others = roots.len();
    for certificate in pem.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem)) {
        roots.add(certificate?)?;
    }
    if pem.is_some() && roots.len() == others { Err(BadRoots::Empty) } else { Ok(roots) }
}

/// Follows a redirect only to where the request, its content and its key were meant to go anyway.
fn same_host_only(attempt: Attempt<'_>) -> Action {
    let origin = |url: &Url| url.origin();
    let same = attempt.previous().last().is_some_and(|last| origin(last) == origin(attempt.url()));
    if same && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
}

/// When a server wants to be asked again: seconds, or a date
/// (<https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>) beside the server's own `Date`.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|at| at.timestamp());
    let now = date(headers.get(http::header::DATE)?.to_str().ok()?)?;
    Some(Duration::try_from(date(text)?.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect::<HeaderMap>()
        };
        assert_eq!(retry_after(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        let dates =
            [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")];
        assert_eq!(retry_after(&headers(&dates)), Some(Duration::from_secs(10)));
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
    }
}
