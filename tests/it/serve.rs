//! Starting: without any file, on what an earlier run left, and where it cannot.

use std::process::Stdio;

use plimsoll::client::{Client, Target};
use serde_json::{Value, json};

use crate::support::child::Running;
use crate::support::http::Ask;
use crate::support::server::{Server, clean_command, echo, until};

#[tokio::test(flavor = "multi_thread")]
async fn serve_works_without_file_and_argument_in_an_empty_home() {
    let home = tempfile::tempdir().expect("a temporary directory");
    // The default port may be taken on this machine, and a child cannot take 0 without any configuration: then the
    // refusal must name the address.
    let mut command = clean_command();
    command.arg("serve").env("HOME", home.path()).current_dir(home.path());
    let output = std::fs::File::create(home.path().join("log")).expect("a log file");
    command.stdin(Stdio::null()).stderr(output.try_clone().expect("shared")).stdout(output);
    let mut child = Running::start(&mut command);
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
    assert!(!server.data_dir().exists(), "it leaves no directory behind");
    let log = server.log();
    assert!(log.contains(&address) && log.contains("stop the program that holds it"), "{log}");
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

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_read_from_the_server_and_from_the_files_alike() {
    let mut server = Server::start(echo()).await;
    for _ in 0..3 {
        server.client().call("agent.send", json!({"agent": "a", "message": "m"})).await.expect("answered");
    }
    let run = |args: &[&str]| {
        let output = clean_command().args(args).arg("--data-dir").arg(server.data_dir()).output();
        let output = output.expect("plimsoll runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let export = ["audit", "export", "--kind", "request_finished"];
    let online = until("three records", async || {
        let (_, said, _) = run(&export);
        (said.lines().count() == 3).then_some(said)
    })
    .await;
    let (code, heads, complaint) = run(&["audit", "head"]);
    assert_eq!(code, Some(0), "{complaint}");
    server.stop().await;
    let run = |args: &[&str]| {
        let output = clean_command().args(args).arg("--data-dir").arg(server.data_dir()).output();
        let output = output.expect("plimsoll runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    assert_eq!(run(&export), online);
    assert_eq!(run(&["audit", "list", "--stream", "request", "--limit", "2", "--json"]).lines().count(), 2);
    let table = run(&["audit", "list"]);
    assert!(table.contains("request_finished") && !table.contains('{'), "{table}");
    assert!(table.lines().all(|line| line.chars().count() < 145), "{table}");
    assert!(run(&["audit", "export", "--format", "csv"]).starts_with("seq,time,stream,kind,"));
    assert_eq!(run(&["audit", "head"]), heads);
    let mut verify = vec!["audit", "verify"];
    heads.lines().for_each(|head| verify.extend(["--head", head]));
    assert_eq!(run(&verify).matches(": ok, ").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_door_until_it_is_revoked() {
    let server = Server::start(echo()).await;
    let run = |args: &[&str]| {
        let output = clean_command().args(args).arg("--data-dir").arg(server.data_dir()).output();
        let output = output.expect("plimsoll runs");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let token = run(&["token", "new", "laptop", "--role", "operator"]);
    let send = |token: &str| {
        let mut command = clean_command();
        command.args(["send", "a", "hello there", "--server", &server.url()]);
        let output = command.env("PLIMSOLL_TOKEN", token).output().expect("plimsoll runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(token.is_empty(), said.contains("pass --token-file FILE or set PLIMSOLL_TOKEN"), "{said}");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(send("").0, Some(6));
    assert_eq!(send(&token), (Some(0), "hello there\n".to_owned()));
    assert_eq!(send("wrong").0, Some(6));
    assert!(run(&["token", "list"]).contains("laptop"));
    run(&["token", "revoke", "laptop"]);
    assert_eq!(send(&token).0, Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_before_the_first_start_is_valid_after_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = clean_command();
    command.args(["token", "new", "first", "--role", "viewer", "--data-dir"]).arg(dir.path().join("data"));
    let output = command.output().expect("plimsoll runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut server = Server::spawn(dir, echo());
    server.ready().await;
    server.tcp_client(Some(&token)).call("agent.list", json!({})).await.expect("the token opens the door");
    server.tcp_client(None).call("agent.list", json!({})).await.expect_err("without one it is shut");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_listed_and_revoked_without_a_server_as_with_one() {
    let mut server = Server::start(echo()).await;
    let data_dir = server.data_dir();
    let run = |args: &[&str]| {
        let output = clean_command().arg("token").args(args).arg("--data-dir").arg(&data_dir).output();
        let output = output.expect("plimsoll runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (_, token, _) = run(&["new", "laptop", "--role", "viewer"]);
    let (listed, unknown) = (run(&["list", "--json"]), run(&["revoke", "nobody"]));
    let taken = run(&["new", "laptop", "--role", "viewer"]);
    let bound = || run(&["new", "bound", "--role", "viewer", "--agent", "echo"]).0;
    assert_eq!(bound(), Some(6), "only a token of an agent is bound to one");
    assert!(
        listed.1.contains("laptop") && unknown.0 == Some(6) && taken.0 == Some(6),
        "{listed:?} {taken:?}"
    );
    server.stop().await;
    assert_eq!(run(&["list", "--json"]), listed);
    assert_eq!(run(&["revoke", "nobody"]).0, Some(6));
    assert_eq!(run(&["new", "laptop", "--role", "viewer"]).0, Some(6));
    assert_eq!(bound(), Some(6));
    assert_eq!(run(&["revoke", "laptop"]), (Some(0), "revoked laptop".to_owned(), String::new()));
    assert_eq!(run(&["list", "--json"]).1, r#"{"tokens":[]}"#);
    let mut server = Server::spawn(server.kill(), echo());
    server.ready().await;
    server.tcp_client(Some(&token)).call("agent.list", json!({})).await.expect_err("it is revoked");
    server.logged("all were revoked: `plimsoll token new` makes one").await;
}

/// The manifest of the newest partition of a log becomes a pipe: whoever opens the journal waits for its text.
fn hold_the_opening(data_dir: &std::path::Path) -> (std::path::PathBuf, Vec<u8>) {
    let manifest = data_dir.join("journal/work/00000000000000000001/manifest.json");
    let text = std::fs::read(&manifest).expect("there is a manifest");
    std::fs::remove_file(&manifest).expect("removed");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &manifest, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    (manifest, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_while_the_journal_is_opened_and_all_else_is_put_off() {
    let mut server = Server::start(echo()).await;
    server.stop().await;
    let dir = server.kill();
    let (manifest, text) = hold_the_opening(&dir.path().join("data"));
    let mut server = Server::spawn(dir, echo());
    until("it listens", async || server.data_dir().join("address").exists().then_some(())).await;
    let ready = Ask::get("/ready").send(server.address()).await;
    assert_eq!((ready.status, ready.json()), (503, json!({"ready": false, "state": "recovering"})));
    let health = Ask::get("/health").send(server.address()).await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("degraded")));
    for ask in [Ask::call("agent.list", json!({})), Ask::get("/audit"), Ask::get("/metrics"), Ask::get("/")] {
        let put_off = ask.send(server.address()).await;
        assert_eq!((put_off.status, put_off.header("retry-after")), (503, Some("1")), "{}", put_off.text());
        assert_eq!(put_off.json()["error"]["code"], "recovering");
    }
    std::fs::write(&manifest, text).expect("the reader gets its text");
    server.ready().await;
    assert_eq!(Ask::call("agent.list", json!({})).send(server.address()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_the_journal_is_opened_ends_it_and_leaves_no_address_behind() {
    let mut server = Server::start(echo()).await;
    server.stop().await;
    let dir = server.kill();
    hold_the_opening(&dir.path().join("data"));
    let mut server = Server::spawn(dir, echo());
    until("it listens", async || server.data_dir().join("control.sock").exists().then_some(())).await;
    server.stop().await;
    for sign in ["address", "control.sock"] {
        assert!(!server.data_dir().join(sign).exists(), "{sign} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_may_hide_tokens_opens_no_door_and_other_damage_shuts_none() {
    let mut server = Server::start(echo()).await;
    let made = server.client().call("token.create", json!({"name": "old", "role": "viewer"})).await;
    let token = made.expect("made")["token"].as_str().expect("a token").to_owned();
    server.stop().await;
    let mut dir = server.kill();
    for (log, expected) in [("audit", 401), ("work", 200)] {
        let manifest = dir.path().join(format!("data/journal/{log}/00000000000000000001/manifest.json"));
        let kept = dir.path().join("kept");
        std::fs::rename(&manifest, &kept).expect("moved");
        let mut server = Server::spawn(dir, echo());
        server.ready().await;
        let with = async |token| Ask::get("/agents").token(token).send(server.address()).await.status;
        assert_eq!((with(None).await, with(Some(&token)).await), (401, expected), "{log}");
        server.client().call("agent.list", json!({})).await.expect("the control socket is the operator's");
        dir = server.kill();
        std::fs::rename(&kept, &manifest).expect("moved back");
    }
    let mut server = Server::spawn(dir, echo());
    server.ready().await;
    assert_eq!(Ask::get("/agents").token(Some(&token)).send(server.address()).await.status, 200);
}
