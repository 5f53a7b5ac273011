//! The official clients of the OpenAI API, unchanged, for Python and for JavaScript.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::{counted, under_way};
use crate::support::server::Server;
use crate::support::tools::{needs_package, needs_tool};
use crate::support::upstream::{Reply, Request, STOP, Upstream, delta, refusal, stream, stream_head};

/// A whole run takes seconds; a busy machine is given more.
const PATIENCE: Duration = Duration::from_secs(180);

/// How many sessions a script has at once.
const SESSIONS: u64 = 50;

/// Does what the last message of the conversation says.
fn model(request: &Request) -> Reply {
    let messages = request.body["messages"].as_array().cloned().unwrap_or_default();
    let last = messages.last().and_then(|message| message["content"].as_str()).unwrap_or_default();
    let hello = || format!("data: {}\n\n", delta("Hel")).into_bytes();
    match last {
        "hang" => Reply::Hang([stream_head(), hello()].concat()),
        "cut" => Reply::Parts(vec![stream_head(), hello()]),
        "fail" => refusal("500 Internal Server Error", "", r#"{"error":{"message":"out of order"}}"#),
        "count nothing" => stream(&[&delta("uncounted"), STOP, "[DONE]"]),
        text => {
            let usage = json!({"prompt_tokens": messages.len(), "completion_tokens": 2, "total_tokens": 0});
            let usage = json!({"choices": [], "usage": usage}).to_string();
            stream(&[&delta("You said: "), &delta(text), STOP, &usage, "[DONE]"])
        }
    }
}

struct Scene {
    upstream: Upstream,
    server: Server,
    operator: String,
    viewer: String,
}

async fn scene() -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let upstream = Upstream::choosing(listener, model);
    let server = Server::start(json!({
        "gateway": {"lane_depth_max": 1},
        "providers": {"up": {"kind": "openai", "base_url": upstream.base_url(), "retries": 0}},
        "agents": {"a": {"provider": "up", "model": "m-1"}, "b": {"provider": "up", "model": "m-1"}},
    }))
    .await;
    let mut tokens = Vec::new();
    for role in ["operator", "viewer"] {
        let made = server.call("token.create", json!({"name": format!("of-{role}"), "role": role})).await;
        tokens.push(made["token"].as_str().expect("a token").to_owned());
    }
    let viewer = tokens.pop().expect("two");
    Scene { upstream, server, operator: tokens.pop().expect("two"), viewer }
}

/// Runs the script to its end, and looks at what it left behind.
async fn run(mut command: Command, scene: Scene) {
    let Scene { upstream, mut server, operator, viewer } = scene;
    command.args([&format!("{}/v1", server.url()), &operator, &viewer]).stdin(Stdio::null());
    command.env("no_proxy", "127.0.0.1").kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends");
    let output = output.expect("it starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));

    under_way(&server, 0).await;
    let asked = upstream.requests();
    let of = |text: &str| {
        let last =
            |request: &&Request| request.body["messages"].as_array().and_then(|all| all.last()).cloned();
        asked.iter().filter(|request| last(request).is_some_and(|message| message["content"] == text)).count()
    };
    assert_eq!((of("fail"), of("cut")), (1, 1), "what failed was not paid for again");
    for session in 0..SESSIONS {
        let params = json!({"agent": "b", "session": format!("s{session}")});
        let history = server.call("session.history", params).await;
        let texts =
            history["messages"].as_array().expect("a list").iter().map(|message| message["text"].clone());
        let expected = (0..3).flat_map(|message| {
            let text = format!("message {message} of {session}");
            [json!(text), json!(format!("You said: {text}"))]
        });
        assert!(texts.eq(expected), "{history}");
    }
    for (code, at_least) in [
        ("ok", 3 * SESSIONS),
        ("cancelled", 2),
        ("lane_full", 1),
        ("provider_failed", 2),
        ("model_not_found", 1),
    ] {
        assert!(counted(&server, code).await >= at_least, "{code}");
    }
    let journaled: Value = server.call("system.metrics", json!({})).await;
    assert!(journaled["messagesProcessed"].as_u64() >= Some(3 * SESSIONS), "{journaled}");
    server.stop().await;
}

fn script(name: &str) -> String {
    format!("{}/tests/it/scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_works_unchanged() {
    let Some(python) = needs_tool("python3", Some("PLIMSOLL_PYTHON")) else { return };
    let installed = std::process::Command::new(&python).args(["-c", "import openai"]).output();
    if !needs_package("openai for Python", installed.is_ok_and(|output| output.status.success())) {
        return;
    }
    let mut command = Command::new(python);
    command.arg(script("openai_client.py"));
    run(command, scene().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client_works_unchanged() {
    let Some(node) = needs_tool("node", None) else { return };
    let modules = std::env::var_os("PLIMSOLL_NODE_MODULES").map(std::path::PathBuf::from);
    let installed = modules.as_ref().is_some_and(|modules| modules.join("openai/package.json").is_file());
    if !needs_package("openai for JavaScript in PLIMSOLL_NODE_MODULES", installed) {
        return;
    }
    let mut command = Command::new(node);
    command.arg(script("openai_client.cjs")).env("NODE_PATH", modules.unwrap_or_default());
    run(command, scene().await).await;
}
