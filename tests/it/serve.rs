//! Starting: without any file, on what an earlier run left, and where it cannot.

use std::process::Stdio;

use plimsoll::client::{Client, Target};
use serde_json::{Value, json};

use crate::support::server::{Server, clean_command, until};

fn echo() -> Value {
    json!({"providers": {"p": {"kind": "echo"}}, "agents": {"a": {"provider": "p"}}})
}

/// A child that is killed when the test ends, however it ends.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_works_without_file_and_argument_in_an_empty_home() {
    let home = tempfile::tempdir().expect("a temporary directory");
    // The default port may be taken on this machine, and a child cannot take 0 without any configuration: then the
    // refusal must name the address.
    let mut command = clean_command();
    command.arg("serve").env("HOME", home.path()).current_dir(home.path());
    let output = std::fs::File::create(home.path().join("log")).expect("a log file");
    command.stdin(Stdio::null()).stderr(output.try_clone().expect("shared")).stdout(output);
    let mut child = Child(command.spawn().expect("plimsoll starts"));
    let data = home.path().join(".local/state/plimsoll");
    let client = Client::new(Target::DataDir(data.clone())).expect("a client");
    let log = || std::fs::read_to_string(home.path().join("log")).unwrap_or_default();
    let ended = until("readiness or a refusal", async || {
        let ended = child.0.try_wait().expect("the child can be asked");
        if ended.is_some() {
            return Some(ended);
        }
        client.get("/ready").await.ok().map(|_| None)
    })
    .await;
    if let Some(status) = ended {
        assert_eq!(status.code(), Some(7), "{}", log());
        assert!(log().contains("127.0.0.1:1876"), "{}", log());
        return;
    }
    let agents = client.call("agent.list", json!({})).await.expect("agents");
    let agent = agents.pointer("/agents/0/id").or(agents.pointer("/0/id")).and_then(Value::as_str);
    assert_eq!(agent, Some("echo"), "{agents}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&data).expect("exists").permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_files_data_directory_and_address() {
    let server = Server::start(echo()).await;
    let parts = [
        server.dir().join("plimsoll.yaml").display().to_string(),
        server.data_dir().display().to_string(),
        server.url().trim_start_matches("http://").to_owned(),
    ];
    until("a log line that names all", async || {
        let log = server.log();
        log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_directory_is_refused_by_name() {
    let server = Server::start(echo()).await;
    let mut command = clean_command();
    command.arg("serve").arg("--config").arg(server.dir().join("plimsoll.yaml"));
    let output = command.arg("--data-dir").arg(server.data_dir()).output().expect("plimsoll runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(&server.data_dir().display().to_string()), "{said}");
    assert!(said.contains(&server.pid().to_string()), "the holder is not named: {said}");
    server.client().get("/ready").await.expect("the first one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_ends_with_7_and_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = echo();
    config["server"] = json!({"listen": address});
    let mut server = Server::spawn(dir, config);
    assert_eq!(server.ended().await.code(), Some(7), "{}", server.log());
    assert!(server.log().contains(&address), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_with_3_and_names_file_and_key() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::spawn(dir, json!({"sever": {"listen": "127.0.0.1:0"}}));
    assert_eq!(server.ended().await.code(), Some(3), "{}", server.log());
    let log = server.log();
    assert!(log.contains("plimsoll.yaml") && log.contains("sever"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_journaled_is_there_after_kill_and_restart() {
    let server = Server::start(echo()).await;
    for _ in 0..5 {
        let answer = server.client().call("agent.send", json!({"agent": "a", "message": "m"})).await;
        answer.expect("answered");
    }
    let records = async |server: &Server| {
        let answer = server.client().get("/audit?stream=request").await.expect("the journal answers");
        answer.text().await.expect("text").matches("request_finished").count()
    };
    until("five records", async || (records(&server).await == 5).then_some(())).await;
    let mut again = Server::spawn(server.kill(), echo());
    again.ready().await;
    assert_eq!(records(&again).await, 5);
}
