//! What a crash of plimsoll and of its guards left running is ended at the next start, and nobody else is.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use super::ending::WILD;
use super::{OBLIGING, Work, alive, ask, guards, send, signal};
use crate::support::child::Running;
use crate::support::server::{Server, until};
use crate::support::tools::needs;

/// A sleeper with this mark.
fn marked(mark: &str) -> Running {
    let mut command = Command::new("sleep");
    Running::start(command.arg("1000").env("PLIMSOLL_OWNER", mark).stdin(Stdio::null()))
}

/// Kills plimsoll and its guards in a way that lets no guard do its work.
async fn crash(server: Server) -> tempfile::TempDir {
    let found = guards(server.pid());
    found.iter().for_each(|guard| signal(*guard, Signal::STOP));
    let dir = server.kill();
    found.iter().for_each(|guard| signal(*guard, Signal::KILL));
    until("the end of the guards", async || (!found.iter().any(|guard| alive(*guard))).then_some(())).await;
    dir
}

fn id_of(dir: &std::path::Path) -> String {
    fs::read_to_string(dir.join("data/id")).expect("the directory has an id").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_ends_what_was_left_and_no_stranger() {
    if needs("setsid").is_none() {
        return;
    }
    // One without an environment can be told from a stranger only while it stays in a session of the agent.
    let work = Work::of(&WILD.replace("setsid env -i", "env -i"));
    let server = work.serve(json!({})).await;
    let _sent = send(&server, "r1");
    let pids = work.noted("pids", super::ending::WILD_COUNT).await;
    let dir = crash(server).await;
    let left = pids.iter().filter(|pid| alive(**pid)).count();
    assert_eq!(left, pids.len(), "nobody ended them");
    let id = id_of(dir.path());
    let other: String = id.chars().rev().collect();
    let mut strangers = [format!("{other}/a"), format!("{id}0/a"), format!("x{id}/a"), String::new()]
        .map(|mark| marked(&mark));
    let mut server = Server::spawn(dir, work.config(json!({})));
    server.ready().await;
    assert_eq!(work.workers(), [0; 0], "gone before anything is served");
    assert!(strangers.iter_mut().all(Running::runs));
    let log = server.logged("left behind were ended").await;
    assert!(log.contains("\"processes\":6"), "{log}");
    work.write("agent.sh", OBLIGING);
    assert_eq!(ask(&server, "m").await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plimsoll_that_carries_a_mark_spares_itself_and_those_it_descends_from() {
    let work = Work::of(OBLIGING);
    let dir = work.serve(json!({})).await.kill();
    let id = id_of(dir.path());
    // A shell with the mark runs plimsoll, which inherits it.
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\"; exit 7", "sh", env!("CARGO_BIN_EXE_plimsoll"), "serve", "--config"]);
    shell.arg(dir.path().join("plimsoll.yaml")).arg("--data-dir").arg(dir.path().join("data"));
    let _ = fs::remove_file(dir.path().join("data/address"));
    shell
        .env("PLIMSOLL_OWNER", format!("{id}/a"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut shell = Running::start(&mut shell);
    let target = plimsoll::client::Target::DataDir(dir.path().join("data"));
    let client = plimsoll::client::Client::new(target).expect("a client");
    until("readiness", async || client.get("/ready").await.ok()).await;
    let answer = client.call("agent.send", json!({"agent": "a", "message": "m"})).await.expect("answered");
    assert_eq!(answer["text"], "done");
    assert!(shell.runs());
    let holder = fs::read_to_string(dir.path().join("data/lock")).expect("the lock names its holder");
    signal(holder.trim().parse().expect("a process id"), Signal::TERM);
    let status = until("the shell's end", async || shell.0.try_wait().expect("asked")).await;
    assert_eq!(status.code(), Some(7), "it went on after plimsoll");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_directory_spares_what_runs_under_the_original() {
    let work = Work::of("cat > /dev/null; echo $$ >> pids; exec sleep 1000");
    let original = work.serve(json!({})).await;
    let sent = send(&original, "r1");
    let pids = work.noted("pids", 1).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("data")).expect("made");
    fs::copy(original.data_dir().join("id"), dir.path().join("data/id")).expect("copied");
    let elsewhere = Work::of(OBLIGING);
    let mut copy = Server::spawn(dir, elsewhere.config(json!({})));
    copy.ready().await;
    assert_eq!(id_of(copy.dir()), id_of(original.dir()));
    assert_eq!(ask(&copy, "m").await, "done");
    assert!(pids.iter().all(|pid| alive(*pid)));
    original.call("agent.cancel", json!({"requestId": "r1"})).await;
    sent.await.expect("no panic").expect_err("it was cancelled");
    work.left_alone().await;
}
