//! The examples of `config/examples` that are a server of one's own: what `config init` writes answers, streamed and whole,
//! and stops when nobody asks.

#![cfg(target_os = "linux")]

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::{Server, clean_command, free_port, until};
use crate::support::tools::needs;

/// What `config init` writes of this example.
pub(crate) fn written(example: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let init = clean_command()
        .args(["config", "init", "--agent", example])
        .current_dir(dir.path())
        .output()
        .expect("plimsoll runs");
    assert!(init.status.success(), "{init:?}");
    dir
}

/// A message to its agent on a plimsoll that is new: what it answers, and that it stops. `overlay` is laid over the
/// example.
pub(crate) async fn answers_and_stops(dir: TempDir, overlay: &Value) {
    std::fs::write(dir.path().join("test.yaml"), overlay.to_string()).expect("written");
    let mut server = Server::spawn_there(dir, |command| {
        command.env("PLIMSOLL_ENV", "test");
    });
    server.ready().await;
    assert_eq!(agent(&server).await["state"]["lifecycle_state"], "cold", "nothing runs before it is needed");
    for (message, text) in
        [("what is 6 * 7?", "6 * 7 = 42"), ("thanks", "Message 2 of this conversation has 1 word.")]
    {
        let params = json!({"agent": "local", "session": "s", "message": message});
        let answer = server.call("agent.send", params).await;
        assert_eq!((&answer["text"], &answer["finishReason"]), (&json!(text), &json!("stop")), "{answer}");
        assert!(answer["usage"]["outputTokens"].as_u64() == Some(text.split(' ').count() as u64), "{answer}");
    }
    // It counts once it is written down, a moment after it.
    let counts = until("the stop of an idle one", async || {
        let agent = agent(&server).await;
        let state = &agent["state"];
        let is_over = state["lifecycle_state"] == "cold" && state["lifecycle_metrics"]["lazy_stop"] == 1;
        is_over.then(|| state["lifecycle_metrics"].clone())
    })
    .await;
    let counted = ["lazy_start", "lazy_stop", "lazy_start_failed", "lazy_stop_failed", "exited"];
    assert_eq!(counted.map(|kind| counts[kind].as_u64()), [1, 1, 0, 0, 0].map(Some), "{counts}");
    server.stop().await;
}

async fn agent(server: &Server) -> Value {
    let agents: Value = server.client().get("/agents").await.expect("answers").json().await.expect("JSON");
    agents["agents"][0].clone()
}

async fn in_a_process(stream: bool) {
    if needs("python3").is_none() {
        return;
    }
    let port = free_port();
    let process = json!({"args": ["server.py", "--port", port.to_string()]});
    let overlay = json!({
        "server": {"listen": "127.0.0.1:0"},
        "providers": {"local": {"stream": stream}},
        "agents": {"local": {"instance": {"port": port, "idle_after": "1s", "process": process}}},
    });
    answers_and_stops(written("local-process"), &overlay).await;
}

#[tokio::test]
async fn the_server_in_a_process_streams_its_answers_and_stops_when_idle() {
    in_a_process(true).await;
}

#[tokio::test]
async fn the_server_in_a_process_answers_whole_too() {
    in_a_process(false).await;
}

/// What is wrong is refused with words, in time, and ends nothing.
#[tokio::test]
async fn the_server_refuses_what_it_cannot_read() {
    let Some(python) = needs("python3") else { return };
    let (dir, port) = (written("local-process"), free_port());
    let mut command = tokio::process::Command::new(python);
    command.args(["server.py", "--port", &port.to_string()]).current_dir(dir.path()).kill_on_drop(true);
    let mut child = command.spawn().expect("it runs");
    let address = format!("127.0.0.1:{port}");
    until("the server", async || tokio::net::TcpStream::connect(&address).await.ok()).await;
    let large = format!("content-length: {}\r\n", 5 << 20);
    let sums = json!({"messages": [{"role": "user", "content": format!("{}1", "-(".repeat(1_000_000))}]});
    for (line, headers, body, status) in [
        ("POST /v1/chat/completions", "", "", "411"),
        ("POST /v1/chat/completions", &large, "", "413"),
        ("POST /v1/chat/completions", "content-length: 2\r\n", "[]", "400"),
        ("POST /v1/chat/completions", "content-length: 4\r\n", "{\"a\"", "400"),
        ("POST /other", "", "", "404"),
        ("GET /v1/models", "", "", "200"),
        (
            "POST /v1/chat/completions",
            &format!("content-length: {}\r\n", sums.to_string().len()),
            &sums.to_string(),
            "200",
        ),
    ] {
        let answer = asked(&address, &format!("{line} HTTP/1.1\r\nhost: local\r\n{headers}\r\n{body}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{line} {headers}: {answer}");
    }
    let pid = rustix::process::Pid::from_raw(child.id().expect("it runs").cast_signed()).expect("not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    let ended = crate::support::http::soon("its end", child.wait()).await.expect("it was ours");
    assert!(ended.success(), "it ends in peace: {ended}");
}

async fn asked(address: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("taken");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    crate::support::http::soon("an answer", read).await.expect("text");
    answer
}
