//! The plain routes, as a client meets them.

use std::io::Read as _;

use plimsoll::telemetry::OtlpProtocol;
use serde_json::{Value, json};

use crate::support::http::Ask;
use crate::support::receiver::Answer::Refuse;
use crate::support::receiver::{Receiver, Security};
use crate::support::server::{Server, until};
use crate::support::upstream::{STOP, Upstream, delta, refusal, stream};

#[tokio::test]
async fn health_says_what_the_documentation_promises() {
    let server = Server::start(json!({})).await;
    let health = Ask::get("/health").send(server.address()).await;
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")));
    let body = health.json();
    assert_eq!((&body["status"], &body["version"]), (&json!("ok"), &json!(env!("CARGO_PKG_VERSION"))));
    for count in ["uptime", "sessions", "connections", "tools", "channels"] {
        assert!(body[count].is_number(), "{count}: {body}");
    }
    assert_eq!(body["components"]["journal"]["status"], "ok");
    let over_rpc = Ask::call("system.health", json!({})).send(server.address()).await.json();
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&over_rpc["result"]), keys(&body));
    let ready = Ask::get("/ready").send(server.address()).await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true, "state": "serving"})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_what_has_stopped_working_until_it_works_again() {
    let broken = refusal("500 Internal Server Error", "", "");
    let answers = stream(&[&delta("ok"), STOP, "[DONE]"]);
    let upstream = Upstream::start(vec![broken.clone(), broken.clone(), broken, answers]).await;
    let receiver = Receiver::start(OtlpProtocol::Grpc, Security::Plain, &[Refuse]).await;
    let provider = json!({"kind": "openai", "base_url": upstream.base_url(), "retries": 0});
    let server = Server::start(json!({
        "providers": {"p": provider},
        "agents": {"a": {"provider": "p", "model": "m"}},
        "telemetry": {"otlp": {"endpoint": receiver.endpoint()}},
    }))
    .await;
    let health = async || Ask::get("/health").send(server.address()).await.json();
    let send =
        async || Ask::call("agent.send", json!({"agent": "a", "message": "hi"})).send(server.address()).await;
    let becomes = async |component: &str, status: &str| {
        until(&format!("{component} is {status}"), async || {
            let health = health().await;
            (health["components"][component]["status"] == status).then_some(health)
        })
        .await
    };
    assert_eq!(health().await["status"], "ok");
    for _ in 0..3 {
        assert_eq!(send().await.json()["error"]["code"], -32007);
    }
    let degraded = becomes("otlp", "degraded").await;
    assert_eq!(
        (&degraded["status"], &degraded["components"]["gateway"]["status"]),
        (&"degraded".into(), &"ok".into())
    );
    let providers = &degraded["components"]["providers"];
    assert!(
        providers["problem"].as_str().is_some_and(|text| text.contains("model calls of 1 agent")),
        "{providers}"
    );
    assert!(providers["since"].is_u64(), "{providers}");
    assert_eq!(send().await.json()["result"]["text"], "ok");
    assert_eq!(becomes("otlp", "ok").await["status"], "ok");
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let server = Server::start(json!({})).await;
    for path in ["/", "/health", "/nonsense", "/agents", "/openapi.json"] {
        let answer = Ask::get(path).send(server.address()).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(
            answer.header("content-security-policy").is_some_and(|csp| csp.starts_with("default-src 'none'"))
        );
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_said_in_json() {
    let server = Server::start(json!({})).await;
    let lost = Ask::get("/nonsense").send(server.address()).await;
    assert_eq!((lost.status, &lost.json()["error"]["code"]), (404, &json!("not_found")));
    let wrong = Ask::method("DELETE", "/health").send(server.address()).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    assert_eq!(wrong.json()["error"]["code"], "method_not_allowed");
    let wrong = Ask::get("/rpc").send(server.address()).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    let head = Ask::method("HEAD", "/health").send(server.address()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let query = Ask::get("/agents?colour=red").send(server.address()).await;
    assert_eq!(query.status, 400);
    assert!(query.text().contains("colour"), "{}", query.text());
}

#[tokio::test]
async fn metrics_come_as_prometheus_wants_them_and_packed_if_asked() {
    let server = Server::start(json!({})).await;
    let plain = Ask::get("/metrics").send(server.address()).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(plain.header("content-encoding"), None);
    let text = plain.text();
    for line in [
        "plimsoll_rpc_calls_total{method=\"agent.send\",code=\"ok\"} 0",
        "plimsoll_rpc_calls_total{method=\"unknown\",code=\"-32601\"} 0",
        "plimsoll_connections{transport=\"ws\"} 0",
        "plimsoll_stream_clients{transport=\"sse\"} 0",
        "plimsoll_component_up{component=\"journal\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let packed = Ask::get("/metrics").header("accept-encoding", "gzip").send(server.address()).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut unpacked).expect("gzip");
    assert!(unpacked.contains("plimsoll_connections"));
}

#[tokio::test]
async fn the_audit_pages_filters_and_speaks_three_formats() {
    let server = Server::start(json!({})).await;
    let client = server.client();
    for name in ["a", "b", "c"] {
        let made = client.call("token.create", json!({"name": name, "role": "viewer"})).await;
        made.expect("a token");
    }
    let audit = async |query: &str| {
        client.get(&format!("/audit?stream=operator&kind=token_created{query}")).await.expect("an answer")
    };
    let names = |page: &Value| {
        let records = page["records"].as_array().expect("records").iter();
        records.map(|r| r["detail"]["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let first: Value = audit("&limit=2").await.json().await.expect("JSON");
    assert_eq!(names(&first), ["c", "b"], "the newest first");
    let next = first["next"].as_u64().expect("there is more");
    let second: Value = audit(&format!("&limit=2&cursor={next}")).await.json().await.expect("JSON");
    assert_eq!((names(&second), &second["next"]), (vec!["a".to_owned()], &Value::Null));
    let asc: Value = audit("&order=asc&limit=2").await.json().await.expect("JSON");
    assert_eq!(names(&asc), ["a", "b"]);
    let next = asc["next"].as_u64().expect("there is more");
    let rest: Value = audit(&format!("&order=asc&cursor={next}")).await.json().await.expect("JSON");
    assert_eq!(names(&rest), ["c"]);
    let none: Value = audit("&from=2999-01-01T00:00:00Z").await.json().await.expect("JSON");
    assert_eq!(names(&none), [""; 0]);
    let none: Value = audit("&to=2001-01-01T00:00:00Z").await.json().await.expect("JSON");
    assert_eq!(names(&none), [""; 0]);

    let lines = audit("&format=ndjson").await.text().await.expect("text");
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    let accepted = client.get_with("/audit?limit=1", &[("accept", "text/csv".to_owned())]).await;
    let table = accepted.expect("an answer").text().await.expect("text");
    assert!(table.starts_with("seq,time,stream,kind,version,actor,trace_id,detail,prev_hash\n"), "{table}");
    for bad in ["&limit=0", "&limit=1001", "&order=up", "&colour=red", "&from=yesterday"] {
        let refused = audit_status(&server, bad).await;
        assert_eq!(refused, 400, "{bad}");
    }
}

async fn audit_status(server: &Server, query: &str) -> u16 {
    // Tokens exist by now: the network is refused, so ask through the socket.
    match server.client().get(&format!("/audit?stream=operator{query}")).await {
        Ok(answer) => answer.status().as_u16(),
        Err(plimsoll::client::ClientError::Status { status, .. }) => status.as_u16(),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_page_runs_nothing_and_loads_nothing() {
    let server = Server::start(json!({})).await;
    let page = Ask::get("/").send(server.address()).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains(env!("CARGO_PKG_VERSION")) && !text.contains("<script") && !text.contains("http:"));
}

#[tokio::test]
async fn agents_are_listed_with_their_state() {
    let server = Server::start(json!({})).await;
    let agents = Ask::get("/agents").send(server.address()).await.json();
    let echo = agents["agents"].as_array().expect("agents").iter().find(|a| a["id"] == "echo");
    let echo = echo.unwrap_or_else(|| panic!("the default echo agent: {agents}"));
    assert_eq!((&echo["mode"], &echo["start"]), (&json!("host"), &json!("hot")));
    assert_eq!(echo["state"], json!({"lifecycle_state": null, "lifecycle_metrics": null}));
}

#[tokio::test]
async fn the_address_and_the_socket_are_there_while_it_runs_and_gone_after() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut server = Server::start(json!({})).await;
    let socket = server.data_dir().join("control.sock");
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().await.success());
    assert!(!socket.exists() && !server.data_dir().join("address").exists());
}
