//! Programs that cannot be run: who asks is told why, without a path of this machine.

use std::os::unix::fs::PermissionsExt as _;

use plimsoll::client::ClientError;
use serde_json::{Value, json};

use super::{OBLIGING, Work, ask, refused};
use crate::support::server::{Server, until};

async fn not_started(work: &Work, more: Value, expected: &str) {
    let server = work.serve(more).await;
    let (code, text, data) = refused(&server, json!({})).await;
    assert_eq!(code, -32006, "{text}");
    let said = format!("{text} {data}");
    assert!(said.contains(expected), "{said}");
    let path = work.path().display().to_string();
    assert!(!said.contains(&path), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_run_is_told_with_what_to_do() {
    let work = Work::of(OBLIGING);
    let file = |name: &str, mode: u32, text: &str| {
        work.write(name, text);
        let path = work.path().join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        json!({"program": path, "args": []})
    };
    not_started(&work, json!({"program": "no-such-program"}), "there is no program `no-such-program`").await;
    not_started(&work, json!({"program": work.path().join("none")}), "there is no program `none`").await;
    not_started(&work, json!({"program": work.path()}), "may not be executed").await;
    not_started(&work, file("locked", 0o644, "#!/bin/sh\n"), "`locked` may not be executed").await;
    not_started(&work, file("lost", 0o755, "#!/no/such/interpreter\n"), "interpreter").await;
    not_started(&work, file("text", 0o755, "just words\n"), "no program of this machine").await;
    not_started(&work, json!({"env": {"A": "nul \0 here"}}), "NUL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_is_told_and_found_when_it_is_back() {
    let work = Work::of(OBLIGING);
    let inner = work.path().join("inner");
    let mut config = work.config(json!({"args": ["../agent.sh"]}));
    config["agents"]["a"]["cwd"] = json!(inner);
    let server = Server::start(config).await;
    let (code, text, _) = refused(&server, json!({})).await;
    assert_eq!(code, -32006, "{text}");
    assert!(text.contains("directory") && !text.contains("inner"), "{text}");
    std::fs::write(&inner, "").expect("written");
    let (code, text, _) = refused(&server, json!({})).await;
    assert_eq!(code, -32006, "{text}");
    std::fs::remove_file(&inner).expect("removed");
    std::fs::create_dir(&inner).expect("made");
    assert_eq!(ask(&server, "m").await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_program_could_not_be_run_leaves_its_key_free() {
    let work = Work::of(OBLIGING);
    let program = work.path().join("late");
    let server = work.serve(json!({"program": program, "args": []})).await;
    let params = json!({"agent": "a", "message": "m", "idempotencyKey": "k"});
    assert_eq!(refused(&server, params.clone()).await.0, -32006);
    let unknown = server.client().call("request.get", json!({"idempotencyKey": "k"})).await;
    assert!(matches!(unknown, Err(ClientError::Rpc { code: -32013, .. })), "{unknown:?}");
    let record =
        until("its record", async || server.finished().await?.first().map(|record| record["detail"].clone()))
            .await;
    assert_eq!((&record["outcome"], &record["ran"]), (&json!("failed"), &json!(false)), "{record}");
    work.write("late", "#!/bin/sh\n. ./agent.sh\n");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_eq!(server.call("agent.send", params).await["text"], "done");
}

#[test]
fn doctor_says_whether_a_program_can_be_run() {
    let work = Work::of(OBLIGING);
    for (program, expected) in
        [("sh", "sh can be run"), ("/no/such-program", "there is no program `such-program`")]
    {
        let mut config = work.config(json!({"program": program}));
        config["server"]["listen"] = json!("127.0.0.1:0");
        work.write("plimsoll.yaml", &config.to_string());
        let mut command = crate::support::server::clean_command();
        command.args(["doctor", "--config"]).arg(work.path().join("plimsoll.yaml"));
        command.arg("--data-dir").arg(work.path().join("data"));
        let said = String::from_utf8_lossy(&command.output().expect("it runs").stdout).into_owned();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_guard_that_nobody_started_says_what_it_is_and_ends() {
    let mut command = crate::support::server::clean_command();
    let output = command.arg("exec-guard").stdin(std::process::Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let output = crate::support::server::clean_command().arg("--help").output().expect("it runs");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("exec-guard"));
}
