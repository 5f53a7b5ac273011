//! TLS for the public port: certificate and key from files, TLS 1.2 and 1.3, HTTP/1.1.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::TlsConfig;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("{path} holds no usable PEM {what}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not fit, or are not supported.
    #[error("the certificate and the key do not fit together")]
    Pair(#[source] rustls::Error),
}

/// Looks whether certificate and key can be served.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn check_tls(config: &TlsConfig) -> Result<(), TlsError> {
    acceptor(config).map(drop)
}

/// Reads certificate and key.
///
/// # Errors
/// [`TlsError`], which names the file.
pub(crate) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, TlsError> {
    let file = |path: &Path, what, problem: String| TlsError::File { path: path.to_owned(), what, problem };
    let TlsConfig { cert_file, key_file } = config;
    let certificates = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| file(cert_file, "certificate", e.to_string()))?;
    if certificates.is_empty() {
        return Err(file(cert_file, "certificate", "it is empty of them".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(key_file).map_err(|e| file(key_file, "private key", e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(TlsError::Pair)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}
