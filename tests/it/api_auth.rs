//! Who may do what: every route and every method, with no token, a wrong one and each role, over real sockets.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::http::{Answer, Ask, Ws, soon};
use crate::support::server::{Server, token_hash, until};

const ROLES: [&str; 4] = ["viewer", "operator", "agent", "ingest"];

/// A server with one token per role, whose text is the role's name.
async fn with_tokens(more: Value) -> Server {
    let tokens: Vec<Value> = ROLES
        .iter()
        .map(|role| json!({"name": format!("of-{role}"), "role": role, "sha256": token_hash(role)}))
        .collect();
    let mut config = json!({"auth": {"tokens": tokens, "failures_per_minute": 10_000}});
    for (key, value) in more.as_object().into_iter().flatten() {
        for (inner, value) in value.as_object().into_iter().flatten() {
            config[key][inner] = value.clone();
        }
    }
    Server::start(config).await
}

/// Every route with the role it asks for, from the contract that the server itself serves.
async fn routes(server: &Server) -> Vec<(&'static str, String, String)> {
    let contract = Ask::get("/openapi.json").send(server.address()).await.json();
    let mut routes = Vec::new();
    for (path, item) in contract["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method = match method.as_str() {
                "get" => "GET",
                "post" => "POST",
                "delete" => "DELETE",
                other => panic!("a route with {other}: teach this test"),
            };
            routes.push((method, path.clone(), operation["x-role"].as_str().expect("a role").to_owned()));
        }
    }
    routes
}

async fn status(server: &Server, (method, path): (&'static str, &str), token: Option<&str>) -> u16 {
    let ask = match method {
        "POST" => Ask::post(path, r#"{"jsonrpc":"2.0","id":1,"method":"system.health"}"#)
            .header("content-type", "application/json"),
        _ => Ask::method(method, path),
    };
    // Streams never end: the head says enough.
    let mut flow = ask.token(token).open(server.address()).await;
    let head = flow.until("\r\n\r\n").await;
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}"))
}

#[tokio::test]
async fn every_route_admits_exactly_the_roles_of_the_contract() {
    let server = with_tokens(json!({})).await;
    let routes = routes(&server).await;
    assert!(routes.len() >= 10, "{routes:?}");
    for (method, path, role) in &routes {
        let ask = |token| status(&server, (method, path), token);
        // What a route says to one who is let in: a plain GET of /ws is asked to upgrade; a role that may knock at
        // /rpc may still not call system.health, which is no completion, no agent, no alert and no town, and `{id}` is neither a
        // model nor an agent nor a town.
        let (welcome, knock) = match path.as_str() {
            "/agents" if *method == "POST" => (400, 403),
            "/agents/{id}" => (404, 403),
            "/ws" => (426, 426),
            "/v1/chat/completions" => (400, 403),
            "/v1/models/{id}" => (404, 403),
            "/api/alerts" if *method == "POST" => (400, 403),
            "/api/towns" if *method == "POST" => (400, 403),
            of_a_town if of_a_town.starts_with("/api/towns/") => (404, 403),
            _ => (200, 403),
        };
        let stranger = match role.as_str() {
            "public" => welcome,
            "token" if path == "/ws" => 426,
            _ => 401,
        };
        assert_eq!(ask(None).await, stranger, "{method} {path} without a token");
        let wrong = if role == "public" { welcome } else { 401 };
        assert_eq!(ask(Some("nonsense")).await, wrong, "{method} {path} with a wrong token");
        for token in ROLES {
            let admitted = match role.as_str() {
                "public" => true,
                "operator" => token == "operator",
                "agent" => matches!(token, "agent" | "operator"),
                "ingest" => matches!(token, "ingest" | "operator"),
                "token" if path == "/ws" => true,
                _ => matches!(token, "viewer" | "operator"),
            };
            let expected = if admitted { welcome } else { knock };
            assert_eq!(ask(Some(token)).await, expected, "{method} {path} as {token}");
        }
    }
}

#[tokio::test]
async fn every_method_admits_exactly_its_role() {
    let server = with_tokens(json!({})).await;
    let call = async |method: &str, token: Option<&str>| {
        Ask::call(method, json!({})).token(token).send(server.address()).await
    };
    let listed = call("system.methods", Some("viewer")).await.json();
    let methods: BTreeMap<String, String> = listed["result"]["methods"]
        .as_array()
        .expect("methods")
        .iter()
        .map(|m| {
            (m["name"].as_str().expect("a name").to_owned(), m["role"].as_str().expect("a role").to_owned())
        })
        .collect();
    assert!(methods.len() >= 16, "{methods:?}");
    for (method, role) in &methods {
        assert_eq!(call(method, None).await.status, 401, "{method} without a token");
        assert_eq!(call(method, Some("nonsense")).await.status, 401, "{method} with a wrong token");
        for token in ROLES {
            let admitted = token == "operator" || (token == role && matches!(token, "viewer" | "agent"));
            let answer = call(method, Some(token)).await;
            let code = answer.json()["error"]["code"].as_i64();
            assert_eq!(code == Some(-32008), !admitted, "{method} as {token}: {}", answer.text());
            assert_eq!(answer.status == 403, !admitted, "{method} as {token}");
        }
    }
}

#[tokio::test]
async fn without_tokens_a_local_caller_is_the_operator() {
    let server = Server::start(json!({})).await;
    let answer = Ask::call("token.list", json!({})).send(server.address()).await;
    assert_eq!((answer.status, &answer.json()["result"]["tokens"]), (200, &json!([])));
    let answer = Ask::call("token.list", json!({})).token(Some("stale")).send(server.address()).await;
    assert_eq!(answer.status, 401, "a token that is sent must be good");
}

#[tokio::test]
async fn the_first_token_shuts_the_door_and_revoking_it_opens_it_to_nobody() {
    let server = Server::start(json!({})).await;
    let created =
        Ask::call("token.create", json!({"name": "ann", "role": "viewer"})).send(server.address()).await;
    let token = created.json()["result"]["token"].as_str().expect("a token").to_owned();
    assert!(token.starts_with("plim_"), "{token}");
    let ask =
        async |token: Option<&str>| Ask::get("/agents").token(token).send(server.address()).await.status;
    assert_eq!((ask(None).await, ask(Some(&token)).await), (401, 200));

    let mut ws = Ws::open(&server, Some(&token)).await;
    assert!(ws.call("system.health", json!({})).await["result"].is_object());
    let mut events = Ask::get("/events").token(Some(&token)).open(server.address()).await;
    events.until(": plimsoll").await;
    // The control socket is the operator's, whatever tokens there are.
    let revoked = server.client().call("token.revoke", json!({"name": "ann"})).await;
    assert_eq!(revoked.expect("revoked"), json!({"revoked": true}));
    assert_eq!(ws.closed().await, (1008, "the token was revoked".to_owned()));
    events.end().await;
    assert_eq!((ask(None).await, ask(Some(&token)).await), (401, 401));
}

#[tokio::test]
async fn the_first_token_ends_what_is_open_without_one_but_for_the_control_socket() {
    let server = Server::start(json!({})).await;
    let mut own = server.client().connect().await.expect("a WebSocket");
    let mut other = Ws::open(&server, None).await;
    assert!(other.call("system.health", json!({})).await["result"].is_object());
    let mut events = Ask::get("/events").open(server.address()).await;
    events.until(": plimsoll").await;
    let mut ws = Ws::open(&server, None).await;
    let made = ws.call("token.create", json!({"name": "ann", "role": "operator"})).await;
    assert!(made["result"]["token"].is_string(), "who made it is told before the door shuts: {made}");
    let goodbye = (1008, "a token is needed from now on".to_owned());
    assert_eq!(ws.closed().await, goodbye);
    assert_eq!(other.closed().await, goodbye);
    events.end().await;
    let call = own.call("token.list", json!({})).await.expect("sent");
    assert!(own.answer(call, |_, _| {}).await.is_ok(), "the control socket is the operator's");
}

/// Sends one call of `token.create`, its body only after `change`, and gives the answer.
async fn change_before_the_body(server: &Server, token: Option<&str>, change: impl Future) -> String {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "token.create", "params": {"name": "eve", "role": "operator"}});
    let (body, address) = (call.to_string(), server.address());
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /rpc HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\n{bearer}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    // It asks for the body of a call that passed the door, and of no other.
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    soon("the wish for the body", stream.read_exact(&mut go_on)).await.expect("an answer");
    assert!(go_on.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&go_on));
    change.await;
    stream.write_all(body.as_bytes()).await.expect("the body is sent");
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.expect("text");
    answer
}

#[tokio::test]
async fn a_call_whose_body_comes_after_the_end_of_its_right_is_not_begun() {
    let server = Server::start(json!({})).await;
    let first = server.call("token.create", json!({"name": "ann", "role": "operator"}));
    let answer = change_before_the_body(&server, None, first).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "a token is needed now: {answer}");

    let bob = server.call("token.create", json!({"name": "bob", "role": "operator"})).await;
    let revoke = server.call("token.revoke", json!({"name": "bob"}));
    let answer = change_before_the_body(&server, bob["token"].as_str(), revoke).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "the token was revoked: {answer}");
    let left = server.call("token.list", json!({})).await;
    assert!(!left.to_string().contains("eve"), "{left}");
}

#[tokio::test]
async fn tokens_survive_a_kill() {
    let server = Server::start(json!({})).await;
    let created = server.client().call("token.create", json!({"name": "ann", "role": "viewer"})).await;
    let token = created.expect("made")["token"].as_str().expect("a token").to_owned();
    let mut server = Server::spawn(server.kill(), json!({}));
    server.ready().await;
    let ask =
        async |token: Option<&str>| Ask::get("/agents").token(token).send(server.address()).await.status;
    assert_eq!((ask(None).await, ask(Some(&token)).await), (401, 200));
    assert!(!server.log().contains(&token), "a token never stands in the log");
}

#[tokio::test]
async fn an_address_that_guesses_has_to_wait_and_who_holds_a_token_does_not() {
    let server = with_tokens(json!({"auth": {"failures_per_minute": 3}})).await;
    let ask = async |token: &str| Ask::get("/agents").token(Some(token)).send(server.address()).await;
    for _ in 0..3 {
        assert_eq!(ask("guess").await.status, 401);
    }
    let limited = ask("guess").await;
    assert_eq!(limited.status, 429);
    let wait: u64 = limited.header("retry-after").expect("when").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let unusable = Ask::get("/agents").header("authorization", "Basic Z3Vlc3M6").send(server.address()).await;
    assert_eq!(unusable.status, 429, "another way to be wrong");
    assert_eq!(ask("viewer").await.status, 200, "others share an address behind a proxy");
    let mut ws = Ws::open(&server, None).await;
    assert!(ws.call("auth", json!({"token": "viewer"})).await["result"].is_object());
    assert!(server.client().call("agent.list", json!({})).await.is_ok());
    assert_eq!(Ask::get("/health").send(server.address()).await.status, 200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_count() {
    let server = with_tokens(
        json!({"auth": {"failures_per_minute": 2}, "server": {"trusted_proxies": ["127.0.0.0/8"]}}),
    )
    .await;
    let ask = async |client: &str, token: &str| {
        let ask = Ask::get("/agents").token(Some(token)).header("x-forwarded-for", client);
        ask.send(server.address()).await.status
    };
    for expected in [401, 401, 429] {
        assert_eq!(ask("203.0.113.7", "guess").await, expected);
    }
    assert_eq!(
        ask("198.51.100.1, 203.0.113.7", "guess").await,
        429,
        "what the client wrote itself is no help"
    );
    assert_eq!(ask("203.0.113.8", "guess").await, 401);
}

#[tokio::test]
async fn strangers_never_append_to_the_journal() {
    let server = with_tokens(json!({})).await;
    let last = async || {
        let audit = Ask::get("/audit?limit=1").token(Some("viewer")).send(server.address()).await;
        audit.json()["records"].clone()
    };
    let before = last().await;
    for i in 0..50 {
        assert_eq!(Ask::call("token.list", json!({})).send(server.address()).await.status, 401);
        let guess = format!("guess-{i}");
        assert_eq!(Ask::get("/audit").token(Some(&guess)).send(server.address()).await.status, 401);
    }
    assert_eq!(last().await, before);
}

async fn asked(server: &Server, host: &str, origin: Option<&str>) -> Answer {
    let ask = Ask::get("/agents").token(Some("viewer")).host(host);
    match origin {
        Some(origin) => ask.header("origin", origin),
        None => ask,
    }
    .send(server.address())
    .await
}

#[tokio::test]
async fn foreign_names_and_origins_are_refused_on_every_route_but_the_probes() {
    let server = with_tokens(json!({"server": {"allowed_hosts": ["plimsoll:1876"]}})).await;
    let port = server.address().port();
    for host in [&format!("localhost:{port}"), "127.0.0.1", "[::1]:1", "plimsoll:1876"] {
        assert_eq!(asked(&server, host, None).await.status, 200, "{host}");
    }
    for host in ["evil.example", "foo.localhost", "127.1", "2130706433", "0x7f.1", "127.0.0.2", "localhost."]
    {
        assert_eq!(asked(&server, host, None).await.status, 421, "{host}");
        for (_, path, _) in routes(&server).await {
            let free = matches!(path.as_str(), "/health" | "/ready");
            let status = Ask::get(&path).host(host).send(server.address()).await.status;
            assert_eq!(status == 421, !free, "{path} as {host}");
        }
    }
    let own = format!("http://localhost:{port}");
    let host = format!("localhost:{port}");
    assert_eq!(asked(&server, &host, Some(&own)).await.status, 200);
    for origin in ["null", "http://evil.example", "http://localhost:1", "http://127.0.0.1"] {
        assert_eq!(asked(&server, &host, Some(origin)).await.status, 403, "{origin}");
    }
    let mut ask = Ask::get("/ws").token(Some("viewer")).header("origin", "http://evil.example");
    for (name, value) in
        [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    {
        ask = ask.header(name, value);
    }
    let ask = ask.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(ask.send(server.address()).await.status, 403, "a page of another site opens no WebSocket");
}

#[tokio::test]
async fn metrics_are_a_viewers_unless_public() {
    let shut = with_tokens(json!({})).await;
    assert_eq!(Ask::get("/metrics").send(shut.address()).await.status, 401);
    assert_eq!(Ask::get("/metrics").token(Some("viewer")).send(shut.address()).await.status, 200);
    let open = with_tokens(json!({"metrics": {"public": true}})).await;
    assert_eq!(Ask::get("/metrics").send(open.address()).await.status, 200);
    assert_eq!(Ask::get("/audit").send(open.address()).await.status, 401);
}

#[tokio::test]
async fn a_websocket_may_bring_its_token_in_the_first_message() {
    let server = with_tokens(json!({})).await;
    let mut ws = Ws::open(&server, None).await;
    let answer = ws.call("auth", json!({"token": "viewer"})).await;
    assert_eq!(answer["result"], json!({"name": "of-viewer", "role": "viewer"}));
    assert!(ws.call("system.health", json!({})).await["result"].is_object());
    assert_eq!(ws.call("token.list", json!({})).await["error"]["code"], -32008);

    let mut wrong = Ws::open(&server, None).await;
    assert_eq!(wrong.call("auth", json!({"token": "guess"})).await["error"]["code"], -32008);
    assert_eq!(wrong.closed().await.0, 1008);

    let mut eager = Ws::open(&server, None).await;
    assert_eq!(eager.call("token.list", json!({})).await["error"]["code"], -32008);
    assert_eq!(eager.closed().await, (1008, "the first message must be auth".to_owned()));

    let mut silent = Ws::open(&server, None).await;
    assert_eq!(silent.closed().await, (1008, "no token came in time".to_owned()));
}

#[tokio::test]
async fn a_websocket_may_send_little_before_its_token_and_as_much_as_others_after_it() {
    let server = with_tokens(json!({})).await;
    let mut stranger = Ws::open(&server, None).await;
    stranger.send_text("x".repeat(1 << 20)).await;
    let (code, reason) = stranger.closed().await;
    assert_eq!((code, reason.as_str()), (1009, "too much before a token: send auth {token} first"));
    let mut known = Ws::open(&server, None).await;
    let auth = known.begin("auth", json!({"token": "operator"})).await;
    let large = json!({"agent": "echo", "message": "x".repeat(100_000)});
    let sent = known.begin("agent.send", large).await;
    assert_eq!(known.next().await["id"], auth);
    let answer = known.next().await;
    assert_eq!(
        (&answer["id"], answer["result"]["text"].as_str().map(str::len)),
        (&json!(sent), Some(100_000))
    );
}

#[tokio::test]
async fn every_call_counts_against_the_rate_whatever_it_is() {
    let server = with_tokens(json!({"server": {"requests_per_second": 1}})).await;
    let viewer = |ask: Ask| ask.token(Some("viewer"));
    let form = Ask::method("POST", "/rpc").header("content-type", "text/plain");
    let asks = [
        ("what is no call", viewer(Ask::rpc("nonsense"))),
        ("an unknown method", viewer(Ask::call("no.such", json!({})))),
        ("a forbidden method", viewer(Ask::call("token.list", json!({})))),
        ("what is no message", viewer(form)),
        ("a forbidden route", Ask::get("/agents").token(Some("ingest"))),
    ];
    for (what, ask) in asks {
        // The rate gives one back while this asks, on a slow machine two.
        until(what, async || (ask.send(server.address()).await.status == 429).then_some(())).await;
    }
    let mut ws = Ws::open(&server, Some("operator")).await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "no.such"});
    ws.send_text(json!(vec![call; 50]).to_string()).await;
    let answers = ws.next().await;
    let limited = answers.as_array().expect("a batch").iter().filter(|a| a["error"]["code"] == -32010);
    assert!(limited.count() > 40, "each call of a batch counts: {answers}");
}

#[tokio::test]
async fn refusals_are_counted() {
    let server = with_tokens(json!({})).await;
    let _ = Ask::get("/agents").send(server.address()).await;
    let _ = Ask::get("/agents").token(Some("guess")).send(server.address()).await;
    let _ = Ask::get("/agents").token(Some("ingest")).send(server.address()).await;
    for reason in ["missing", "wrong", "forbidden"] {
        let line = format!("plimsoll_auth_failures_total{{reason=\"{reason}\"}} 1");
        until(&line, async || {
            let metrics = Ask::get("/metrics").token(Some("viewer")).send(server.address()).await.text();
            metrics.contains(&line).then_some(())
        })
        .await;
    }
}
