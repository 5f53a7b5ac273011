//! `plimsoll audit head` and `verify`: of a running server, of files, and of both alike.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll::client::{Client, ClientError};
use serde_json::json;

use crate::support::http::Ask;
use crate::support::server::{Server, clean_command, echo, until};

/// Exit code, output and complaints of `plimsoll audit ...` on this data directory.
fn audit(data_dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = clean_command().arg("audit").args(args).arg("--data-dir").arg(data_dir).output();
    let output = output.expect("plimsoll runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn send(client: &Client) {
    client.call("agent.send", json!({"agent": "a", "message": "m"})).await.expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_found_by_the_next_query() {
    let server = Server::start(echo()).await;
    let client = server.client();
    for sent in 1..=10 {
        send(&client).await;
        let page = client.get("/audit?kind=request_finished").await.expect("answered");
        assert_eq!(page.text().await.expect("text").matches("request_finished").count(), sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_checks_come_from_the_running_server_beside_its_work() {
    let server = Server::start(echo()).await;
    let ended = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (client, ended) = (server.client(), Arc::clone(&ended));
            tokio::spawn(async move {
                while !ended.load(Ordering::SeqCst) {
                    send(&client).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let (code, heads, complaint) = audit(&server.data_dir(), &["head"]);
        assert_eq!(code, Some(0), "{complaint}");
        let mut verify = vec!["verify"];
        heads.lines().for_each(|head| verify.extend(["--head", head]));
        let (code, found, complaint) = audit(&server.data_dir(), &verify);
        assert_eq!((code, found.matches(": ok, ").count()), (Some(0), 2), "{found}{complaint}");
    }
    let foreign = format!("work:1:{}", "ab".repeat(32));
    let (code, found, _) = audit(&server.data_dir(), &["verify", "--head", &foreign]);
    assert!(code == Some(1) && found.contains("work: BAD: ") && found.contains(&foreign), "{found}");
    ended.store(true, Ordering::SeqCst);
    for task in load {
        task.await.expect("every message was answered");
    }
    let output = clean_command().args(["audit", "verify", "--json", "--server", &server.url()]).output();
    let output = output.expect("plimsoll runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_records_says_so_and_its_head_is_accepted() {
    let server = Server::start(json!({"towns": {}})).await;
    let (_, heads, _) = audit(&server.data_dir(), &["head"]);
    assert!(heads.lines().any(|line| line == "work:empty"), "{heads}");
    let (code, found, complaint) = audit(&server.data_dir(), &["verify", "--head", "work:empty"]);
    assert_eq!(code, Some(0), "{found}{complaint}");
}

/// Flips one bit of the record that begins a row in the middle of the log, and tells its seq.
fn damage(data_dir: &Path) -> u64 {
    let store = data_dir.join("journal/work/00000000000000000001/store");
    let db = sled::Config::new().path(store).flush_every_ms(None).open().expect("the store opens");
    let records = db.open_tree("records").expect("there are records");
    let keys: Vec<_> = records.iter().keys().map(|key| key.expect("readable")).collect();
    let key = &keys[keys.len() / 2];
    let mut row = records.get(key).expect("readable").expect("there").to_vec();
    row[100] ^= 1;
    records.insert(key, row).expect("written");
    db.flush().expect("flushed");
    u64::from_be_bytes(key[..8].try_into().expect("a seq"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bad_record_is_named_by_the_server_and_from_the_files_alike() {
    let mut server = Server::start(echo()).await;
    let client = server.client();
    for _ in 0..40 {
        send(&client).await;
    }
    until("the records", async || {
        let answer = client.get("/audit?kind=request_finished&limit=1000").await.ok()?.text().await.ok()?;
        (answer.matches("request_finished").count() == 40).then_some(())
    })
    .await;
    server.stop().await;
    let seq = damage(&server.data_dir());
    let (code, of_files, complaint) = audit(&server.data_dir(), &["verify"]);
    assert_eq!(code, Some(1), "{of_files}{complaint}");
    assert!(of_files.contains(&format!("work: BAD: the log work is damaged: record {seq}: ")), "{of_files}");
    assert!(of_files.contains("audit: ok, "), "{of_files}");
    let mut server = Server::spawn(server.kill(), echo());
    server.ready().await;
    let (code, of_server, complaint) = audit(&server.data_dir(), &["verify"]);
    assert_eq!((code, of_server), (Some(1), of_files), "{complaint}");
    let manifest = server.data_dir().join("journal/work/00000000000000000001/manifest.json");
    let dir = server.kill();
    std::fs::remove_file(manifest).expect("removed");
    let mut server = Server::spawn(dir, echo());
    server.ready().await;
    let (code, found, complaint) = audit(&server.data_dir(), &["verify"]);
    assert!(code == Some(1) && complaint.contains("its manifest is gone"), "{found}{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_check_runs_at_a_time() {
    let server = Server::start(json!({})).await;
    let verify = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "audit.verify"});
    let both = Ask::rpc(json!([verify(1), verify(2)]).to_string()).send(server.address()).await.json();
    assert_eq!(both[0]["result"]["ok"], true, "{both}");
    let error = &both[1]["error"];
    assert_eq!((&error["code"], &error["data"]["limit"]), (&json!(-32014), &json!("audit_verifications")));
    assert!(error["data"]["retryAfterMs"].as_u64().is_some_and(|wait| wait > 0), "{both}");
    // Who is not there any more holds nobody up.
    let mut gone = server.client().connect().await.expect("a WebSocket");
    gone.call("audit.verify", json!({})).await.expect("sent");
    drop(gone);
    until("the next check", async || server.client().call("audit.verify", json!({})).await.ok()).await;
    let too_many = json!({"heads": vec![json!({"log": "work", "seq": 0, "hash": "00".repeat(32)}); 105]});
    let refused = server.client().call("audit.verify", too_many).await.expect_err("too many heads");
    assert!(matches!(refused, ClientError::Rpc { code: -32602, .. }), "{refused}");
}
