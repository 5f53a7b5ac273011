//! Starting where the disk is full or read-only.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plimsoll::client::{Client, ClientError};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::journal::shim::shim;
use crate::support::server::{Server, echo, until};

async fn send(client: &Client) {
    client.call("agent.send", json!({"agent": "a", "message": "m"})).await.expect("answered");
}

/// How many finished requests the journal shows; `None` while it cannot be read.
async fn recorded(client: &Client) -> Option<usize> {
    let answer = client.get("/audit?kind=request_finished&limit=1000").await.ok()?;
    Some(answer.text().await.ok()?.matches("request_finished").count())
}

async fn journal_status(client: &Client) -> Value {
    let health: Value = client.get("/health").await.expect("alive").json().await.expect("the answer is JSON");
    health["components"]["journal"]["status"].clone()
}

fn code(error: &ClientError) -> Option<i64> {
    match error {
        ClientError::Rpc { code, .. } => Some(*code),
        _ => None,
    }
}

/// A file system in memory, of 32 MiB; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// Mounts it, or says that the test is skipped.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).expect("made");
        let mounted = mount(&["-t", "tmpfs", "-o", "size=32m,mode=700", "plimsoll-test"], &at);
        if !mounted {
            println!("skipped: needs root, to mount a small disk");
        }
        mounted.then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let status = Command::new("mount").args(arguments).arg(at).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Fills the disk to its last byte.
fn fill(data_dir: &Path) -> PathBuf {
    let path = data_dir.join("filler");
    let mut file = fs::File::create(&path).expect("made");
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    path
}

async fn nothing_runs_that_must_be_recorded_first(client: &Client) {
    let calls =
        async || client.call("system.metrics", json!({})).await.expect("answered")["modelCalls"].clone();
    let before = calls().await;
    let keyed = json!({"agent": "a", "message": "m", "idempotencyKey": "k"});
    for _ in 0..2 {
        let refused = client.call("agent.send", keyed.clone()).await;
        assert_eq!(refused.as_ref().err().and_then(code), Some(-32012), "{refused:?}");
    }
    assert_eq!(calls().await, before, "the provider was not called");
}

/// What is to survive a restart does not begin before it is written, and does not end.
async fn nobody_comes_or_goes(client: &Client) {
    for (method, params) in
        [("agent.create", json!({"id": "late", "provider": "p"})), ("agent.delete", json!({"agent": "made"}))]
    {
        let refused = client.call(method, params).await;
        assert_eq!(refused.as_ref().err().and_then(code), Some(-32012), "{refused:?}");
    }
    let listed = client.call("agent.list", json!({})).await.expect("answered");
    let ids: Vec<&Value> = listed["agents"].as_array().expect("a list").iter().map(|a| &a["id"]).collect();
    assert_eq!(ids, ["a", "made"]);
    client.call("agent.send", json!({"agent": "made", "message": "m"})).await.expect("answered");
}

/// A pause holds without the disk, says that it is not durable, and ends with the process.
async fn the_brake_works(client: &Client) {
    let paused = client.call("agent.pause", json!({"cancel": true})).await.expect("paused");
    assert_eq!(paused, json!({"paused": ["a", "made"], "cancelled": 0, "durable": false}));
    let refused = client.call("agent.send", json!({"agent": "a", "message": "m"})).await;
    assert_eq!(refused.as_ref().err().and_then(code), Some(-32011), "{refused:?}");
    let refused = client.call("agent.resume", json!({})).await;
    assert_eq!(refused.as_ref().err().and_then(code), Some(-32012), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_serves_what_is_recorded_and_records_again_when_there_is_space() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = Small::mount(dir.path().join("data")) else { return };
    let mut server = Server::spawn(dir, alone());
    server.ready().await;
    server.call("agent.create", json!({"id": "made", "provider": "p"})).await;
    for _ in 0..5 {
        send(&server.client()).await;
    }
    until("five records", async || (recorded(&server.client()).await == Some(5)).then_some(())).await;
    let kept = disk.0.join("reserve");
    until("space for a start", async || fs::metadata(&kept).is_ok_and(|m| m.len() == 8 << 20).then_some(()))
        .await;
    let mut dir = server.kill();
    let filler = fill(&disk.0);
    // The second time, nothing is left of the first one's help.
    for _ in 0..2 {
        let mut server = Server::spawn(dir, alone());
        server.ready().await;
        let client = server.client();
        assert_eq!(journal_status(&client).await, "degraded");
        assert_eq!(recorded(&client).await, Some(5), "reads go on");
        assert!(client.get("/metrics").await.is_ok());
        let checked = client.call("audit.verify", json!({})).await.expect("checked");
        assert_eq!((&checked["ok"], &checked["logs"][1]["verified"]["records"]), (&json!(true), &json!(5)));
        let refused = client.call("token.create", json!({"name": "late", "role": "viewer"})).await;
        assert_eq!(refused.as_ref().err().and_then(code), Some(-32012), "{refused:?}");
        nothing_runs_that_must_be_recorded_first(&client).await;
        send(&client).await;
        nobody_comes_or_goes(&client).await;
        the_brake_works(&client).await;
        dir = server.kill();
    }
    let mut server = Server::spawn(dir, alone());
    server.ready().await;
    let client = server.client();
    fs::remove_file(filler).expect("removed");
    until("the journal writes again", async || {
        client.call("token.create", json!({"name": "late", "role": "viewer"})).await.ok()
    })
    .await;
    assert_eq!(journal_status(&client).await, "ok");
    assert_eq!(fs::metadata(&kept).expect("kept again").len(), 8 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_write_a_byte_waits_for_space_and_says_so() {
    let Some(shim) = shim() else { return };
    let mut server = Server::start(echo()).await;
    send(&server.client()).await;
    until("a record", async || (recorded(&server.client()).await == Some(1)).then_some(())).await;
    server.stop().await;
    let dir = server.kill();
    let (root, fault) = (dir.path().join("data"), dir.path().join("fault"));
    fs::write(&fault, "28 wc").expect("written");
    let mut server = Server::spawn_with(dir, echo(), |command| {
        command.env("LD_PRELOAD", shim).env("SHIM_ROOT", &root).env("SHIM_FAULT", &fault);
    });
    let client = server.client();
    until("it says what it waits for", async || {
        server.log().contains("plimsoll waits until there is space").then_some(())
    })
    .await;
    assert_eq!(journal_status(&client).await, "degraded");
    let ready = client.get("/ready").await.expect_err("it is not");
    assert!(matches!(&ready, ClientError::Status { status, .. } if status.as_u16() == 503), "{ready}");
    fs::remove_file(fault).expect("removed");
    server.ready().await;
    assert_eq!(recorded(&client).await, Some(1));
    client.call("token.create", json!({"name": "late", "role": "viewer"})).await.expect("made");
}

/// How many finished requests the journal did not take.
async fn lost(client: &Client) -> usize {
    const SERIES: &str = r#"plimsoll_dropped_total{what="request_finished",reason="unavailable"} "#;
    let text = client.get("/metrics").await.expect("rendered").text().await.expect("UTF-8");
    text.lines()
        .find_map(|line| line.strip_prefix(SERIES)?.parse().ok())
        .expect("it stands at 0 from the start")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_finished_request_is_recorded_or_counted_as_lost() {
    let Some(shim) = shim() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (root, fault) = (dir.path().join("data"), dir.path().join("fault"));
    let mut server = Server::spawn_with(dir, echo(), |command| {
        command.env("LD_PRELOAD", shim).env("SHIM_ROOT", &root).env("SHIM_FAULT", &fault);
    });
    server.ready().await;
    let client = server.client();
    fs::write(&fault, "28 wc").expect("written");
    for _ in 0..3 {
        send(&client).await;
    }
    until("it is noticed", async || (journal_status(&client).await == "degraded").then_some(())).await;
    for _ in 0..3 {
        send(&client).await;
    }
    until("all are counted", async || (lost(&client).await == 6).then_some(())).await;
    fs::remove_file(fault).expect("removed");
    until("it writes again", async || (journal_status(&client).await == "ok").then_some(())).await;
    send(&client).await;
    until("a record", async || (recorded(&client).await == Some(1)).then_some(())).await;
    assert_eq!(lost(&client).await, 6);
}

/// Takes the right to write away, as far as this user can.
fn forbid_writing(dir: &TempDir) -> Option<Small> {
    let data = dir.path().join("data");
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(data.join("lock"), Permissions::from_mode(0o400)).expect("changed");
        fs::set_permissions(&data, Permissions::from_mode(0o500)).expect("changed");
        return None;
    }
    let bound = mount(&["--bind", data.to_str().expect("UTF-8")], &data);
    (bound && mount(&["-o", "remount,bind,ro"], &data)).then_some(Small(data))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written_is_refused_with_what_to_do() {
    let mut server = Server::start(echo()).await;
    server.stop().await;
    let dir = server.kill();
    let mounted = forbid_writing(&dir);
    if mounted.is_none() && rustix::process::geteuid().is_root() {
        println!("skipped: needs the right to mount, or a user that is not root");
        return;
    }
    let data = dir.path().join("data");
    let mut command = crate::support::server::clean_command();
    command.args(["serve", "--data-dir"]).arg(&data);
    let output = command.env("HOME", dir.path()).current_dir(dir.path()).output().expect("plimsoll runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    fs::set_permissions(&data, Permissions::from_mode(0o700)).ok();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("cannot be written to") && said.contains("mount it read-write"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_while_the_journal_cannot_write_still_counts_after_a_stop() {
    let Some(shim) = shim() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (root, fault) = (dir.path().join("data"), dir.path().join("fault"));
    let config = json!({
        "providers": {"p": {"kind": "echo"}},
        "agents": {"a": {"provider": "p", "tokens_per_min": 3}},
    });
    let mut server = Server::spawn_with(dir, config.clone(), |command| {
        command.env("LD_PRELOAD", shim).env("SHIM_ROOT", &root).env("SHIM_FAULT", &fault);
    });
    server.ready().await;
    let client = server.client();
    fs::write(&fault, "28 wc").expect("written");
    for _ in 0..2 {
        send(&client).await;
    }
    until("both are lost", async || (lost(&client).await == 2).then_some(())).await;
    fs::remove_file(fault).expect("removed");
    until("what was lost is written", async || {
        let page = client.get("/audit?kind=spend_lost").await.ok()?.json::<Value>().await.ok()?;
        let tokens = |record: &Value| {
            let said = ["inputTokens", "outputTokens"].map(|key| record["detail"][key].as_u64());
            said.into_iter().flatten().sum::<u64>()
        };
        (page["records"].as_array()?.iter().map(tokens).sum::<u64>() == 4).then_some(())
    })
    .await;
    server.signal(rustix::process::Signal::TERM);
    server.ended().await;
    let mut server = Server::spawn(server.kill(), config);
    server.ready().await;
    let params = json!({"agent": "a", "message": "m"});
    let refused = server.client().call("agent.send", params).await.expect_err("four tokens are used up");
    assert!(refused.to_string().contains("tokens_per_min"), "{refused}");
}

/// An agent and no town: whatever is recorded was asked for.
fn alone() -> Value {
    let mut config = echo();
    config["towns"] = json!({});
    config
}
