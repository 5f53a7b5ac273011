//! TLS on the network port, and what binding beyond loopback asks for.

use std::path::PathBuf;

use plimsoll::client::{Client, Target};
use plimsoll::secret::Secret;
use serde_json::{Value, json};

use crate::support::certificates::Certificates;
use crate::support::http::{Ask, raw};
use crate::support::server::{Server, token_hash};

fn operator() -> Value {
    json!({"tokens": [{"name": "op", "role": "operator", "sha256": token_hash("operator")}]})
}

#[tokio::test]
async fn both_roads_work_over_tls_with_an_own_authority() {
    let certificates = Certificates::make();
    let server = Server::start(json!({"server": {"tls": certificates.config()}, "auth": operator()})).await;
    let client = |ca_file: Option<PathBuf>| {
        let base = format!("https://{}", server.address());
        let token = Some(Secret::new("operator".to_owned(), "token"));
        Client::new(Target::Url { base, token, ca_file }).expect("a client")
    };
    let trusting = client(Some(certificates.file("ca.pem")));
    let answer = trusting.call("agent.send", json!({"agent": "echo", "message": "over TLS"})).await;
    assert_eq!(answer.expect("an answer")["text"], "over TLS");
    let mut socket = trusting.connect().await.expect("a WebSocket");
    let call = socket.call("system.health", json!({})).await.expect("sent");
    let health = socket.answer(call, |_, _| {}).await.expect("an answer");
    assert_eq!(health["status"], "ok");
    assert!(
        client(None).call("system.health", json!({})).await.is_err(),
        "a stranger's authority is refused"
    );
}

#[tokio::test]
async fn plain_text_on_a_tls_port_gets_no_answer_and_harms_nobody() {
    let certificates = Certificates::make();
    let server = Server::start(json!({"server": {"tls": certificates.config()}})).await;
    let answer = raw(server.address(), b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"), "{}", String::from_utf8_lossy(&answer));
    assert!(server.client().call("system.health", json!({})).await.is_ok());
}

/// Starts it and gives what it said when it refused.
async fn refused(config: Value) -> String {
    let mut server = Server::spawn(tempfile::tempdir().expect("a temporary directory"), config);
    assert!(!server.ended().await.success());
    server.log()
}

#[tokio::test]
async fn beyond_loopback_it_serves_only_with_tokens_and_with_tls_unless_told_otherwise() {
    let everywhere = "0.0.0.0:0";
    let said = refused(json!({"server": {"listen": everywhere, "insecure_plaintext": true}})).await;
    assert!(said.contains("no token exists"), "{said}");
    let said = refused(json!({"server": {"listen": everywhere}, "auth": operator()})).await;
    assert!(said.contains("insecure_plaintext"), "{said}");
    let open = json!({"server": {"listen": everywhere, "insecure_plaintext": true}, "auth": operator()});
    let server = Server::start(open).await;
    let port = server.address().port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(Ask::get("/agents").send(address).await.status, 401);
    assert_eq!(Ask::get("/agents").token(Some("operator")).send(address).await.status, 200);
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let certificates = Certificates::make();
    let missing = json!({"cert_file": "/nonexistent/cert.pem", "key_file": certificates.file("key.pem")});
    let said = refused(json!({"server": {"tls": missing}})).await;
    assert!(said.contains("/nonexistent/cert.pem"), "{said}");
    let swapped =
        json!({"cert_file": certificates.file("key.pem"), "key_file": certificates.file("key.pem")});
    let said = refused(json!({"server": {"tls": swapped}})).await;
    assert!(said.contains("certificate"), "{said}");
}
