//! The demo: it starts, it is lively, it ends cleanly.

use std::process::Stdio;

use plimsoll::client::{Client, Target};
use serde_json::json;

use crate::support::server::{clean_command, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_fills_everything_and_ends_with_0_after_its_duration() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let mut command = clean_command();
    command.args(["demo", "--port", "0", "--seed", "3", "--rate", "150", "--duration", "6s", "--data-dir"]);
    command.arg(&data).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("plimsoll starts");
    let client = Client::new(Target::DataDir(data)).expect("a client");
    until("a lively snapshot", async || {
        let metrics = client.call("system.metrics", json!({})).await.ok()?;
        let recent = metrics["modelCalls"]["recentCalls"].as_array()?;
        let lively = recent.len() > 100
            && recent.iter().any(|call| call.get("error").is_some())
            && recent.iter().any(|call| call.get("costUsd").is_some())
            && metrics["errors"].as_u64()? > 3
            && metrics["connections"].as_u64()? > 1
            && metrics["sessions"].as_u64()? > 10;
        lively.then_some(())
    })
    .await;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.expect("joined");
    let output = output.expect("the demo ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}\n{complained}");
    assert!(said.contains("http://127.0.0.1:") && said.contains("answered"), "{said}\n{complained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_goes_on_when_a_token_is_made_in_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let mut command = clean_command();
    command.args(["demo", "--port", "0", "--rate", "150", "--data-dir"]).arg(&data).stdout(Stdio::null());
    let mut child = command.spawn().expect("plimsoll starts");
    let client = Client::new(Target::DataDir(data)).expect("a client");
    let processed = async || {
        let metrics = client.call("system.metrics", json!({})).await.ok()?;
        metrics["messagesProcessed"].as_u64()
    };
    until("a message", async || processed().await.filter(|count| *count > 0)).await;
    let new = json!({"name": "me", "role": "viewer"});
    client.call("token.create", new).await.expect("a token");
    let before = processed().await.expect("a count");
    // More than could have been under way.
    until("more messages", async || processed().await.filter(|count| *count > before + 500)).await;
    child.kill().expect("it is there");
    child.wait().expect("it ends");
}

#[test]
fn the_demo_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let mut command = clean_command();
    command.args(["demo", "--port", "0", "--rate", "20", "--duration", "300ms"]);
    let output = command.env("TMPDIR", temporary.path()).output().expect("plimsoll runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let left: Vec<_> = std::fs::read_dir(temporary.path()).expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}
