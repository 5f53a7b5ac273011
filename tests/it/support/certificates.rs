//! A certificate authority of a test's own, with what it signed for a server and for a client.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Everybody.
    Any,
    /// Those who show a certificate of the same authority.
    Certified,
}

/// The files `ca.pem`; `cert.pem` and `key.pem` for `localhost` and 127.0.0.1; `client.pem` and `client-key.pem`.
pub(crate) struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("written");
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each has a name of its own, as strangers have.
        ca.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        write("ca.pem", ca.self_signed(&ca_key).expect("a certificate").pem());
        let issuer = Issuer::new(ca, ca_key);
        for (names, certificate, key_file) in [
            (vec!["localhost".to_owned(), "127.0.0.1".to_owned()], "cert.pem", "key.pem"),
            (vec!["client".to_owned()], "client.pem", "client-key.pem"),
        ] {
            let key = KeyPair::generate().expect("a key");
            let signed = CertificateParams::new(names).expect("parameters").signed_by(&key, &issuer);
            write(certificate, signed.expect("a certificate").pem());
            write(key_file, key.serialize_pem());
        }
        Self { dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("it was written")
    }

    /// `server.tls:` of a plimsoll that shows the server's certificate.
    pub(crate) fn config(&self) -> Value {
        json!({"cert_file": self.file("cert.pem"), "key_file": self.file("key.pem")})
    }

    /// Takes TLS connections for a server that speaks HTTP/1.1 or HTTP/2, whichever the client asks for.
    pub(crate) fn acceptor(&self, clients: Clients) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let certificate = |name| CertificateDer::from_pem_file(self.file(name)).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring speaks them");
        let config = match clients {
            Clients::Any => config.with_no_client_auth(),
            Clients::Certified => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate("ca.pem")).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().expect("a root"))
            }
        };
        let key = PrivateKeyDer::from_pem_file(self.file("key.pem")).expect("PEM");
        let mut config =
            config.with_single_cert(vec![certificate("cert.pem")], key).expect("key and certificate fit");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
