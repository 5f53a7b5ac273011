//! The command line against a live server: Ctrl-C, following events, TLS, and the server's own log lines.

use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout};

use crate::support::certificates::Certificates;
use crate::support::http::soon;
use crate::support::server::{Server, clean_command, until};
use crate::support::upstream::{Reply, Upstream, delta, stream_head};

/// Starts a command that is killed with the test.
fn start(args: &[&str]) -> Child {
    let mut command = tokio::process::Command::from(clean_command());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().expect("plimsoll starts")
}

async fn run(args: &[&str]) -> Output {
    soon("the end of the command", start(args).wait_with_output()).await.expect("it can be waited for")
}

fn interrupt(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), Signal::INT).expect("the signal is sent");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server with an agent `a` whose model begins to say something and hangs.
async fn hanging() -> (Server, Upstream) {
    let hello = [stream_head(), format!("data: {}\n\n", delta("Hel")).into_bytes()].concat();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = Upstream::choosing(listener, move |_| Reply::Hang(hello.clone()));
    let server = Server::start(json!({
        "providers": {"p": {"kind": "openai", "base_url": upstream.base_url()}},
        "agents": {"a": {"provider": "p", "model": "m"}},
    }))
    .await;
    (server, upstream)
}

#[tokio::test]
async fn ctrl_c_during_send_cancels_the_request_on_the_server_and_ends_with_130() {
    let (server, _upstream) = hanging().await;
    let data_dir = server.data_dir().display().to_string();
    let mut child = start(&["send", "a", "tell me more", "--data-dir", &data_dir]);
    let mut begun = [0; 3];
    let stdout = child.stdout.as_mut().expect("piped");
    soon("the first words", stdout.read_exact(&mut begun)).await.expect("it is shown as it comes");
    interrupt(&child);
    let ended = soon("the end of the command", child.wait_with_output()).await.expect("it ends");
    assert_eq!((ended.status.code(), &begun, &ended.stdout[..]), (Some(130), b"Hel", &b"\n"[..]));
    let record = until("the record of its end", async || server.finished().await?.into_iter().next()).await;
    let id = record["detail"]["requestId"].as_str().expect("an id");
    assert_eq!(stderr(&ended).trim_end(), format!("error: stopped: the request {id} is cancelled"));
    assert_eq!(
        (&record["detail"]["outcome"], &record["detail"]["code"]),
        (&json!("cancelled"), &json!(-32005))
    );
    assert_eq!(server.call("system.activeRequests", json!({})).await, json!([]));
}

#[tokio::test]
async fn ctrl_c_cancels_a_message_with_a_key_too_and_the_key_stays_its_own() {
    let (server, upstream) = hanging().await;
    let data_dir = server.data_dir().display().to_string();
    let with_key =
        |command: &'static [&str]| [command, &["--idempotency-key", "k", "--data-dir", &data_dir]].concat();
    let mut child = start(&with_key(&["send", "a", "tell me more"]));
    let stdout = child.stdout.as_mut().expect("piped");
    soon("the first words", stdout.read_exact(&mut [0; 3])).await.expect("it is shown as it comes");
    interrupt(&child);
    let ended = soon("the end of the command", child.wait_with_output()).await.expect("it ends");
    let said = stderr(&ended);
    assert!(ended.status.code() == Some(130) && said.starts_with("error: stopped: the request "), "{said}");
    let found = run(&with_key(&["get", "--wait", "--json"])).await;
    let status: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!((&status["state"], &status["error"]["data"]["partial"]), (&json!("cancelled"), &json!("Hel")));
    let again = run(&with_key(&["send", "a", "tell me more"])).await;
    assert!(!again.status.success() && stderr(&again).contains("cancelled"), "{}", stderr(&again));
    assert_eq!(upstream.requests().len(), 1, "it runs once");
}

/// A `plimsoll events` that runs.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(server: &Server, after: u64) -> Self {
        let (data_dir, after) = (server.data_dir().display().to_string(), after.to_string());
        let mut child = start(&[
            "events",
            "--json",
            "--type",
            "token.created",
            "--after",
            &after,
            "--data-dir",
            &data_dir,
        ]);
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// The next event: which token was made, and its place in the journal.
    async fn next(&mut self) -> (String, u64) {
        let line = soon("an event", self.lines.next_line()).await.expect("UTF-8").expect("it follows");
        let event: Value = serde_json::from_str(&line).expect("one object a line");
        let name = event["detail"]["name"].as_str().expect("a name").to_owned();
        (name, event["seq"].as_u64().expect("it is journaled"))
    }
}

async fn make_token(server: &Server, name: &str) {
    server.call("token.create", json!({"name": name, "role": "viewer"})).await;
}

#[tokio::test]
async fn events_follows_a_live_server_and_goes_on_where_it_was_stopped() {
    let mut server = Server::start(json!({})).await;
    make_token(&server, "before").await;
    let mut first = Follower::start(&server, 0);
    assert_eq!(first.next().await.0, "before");
    make_token(&server, "live").await;
    let (name, seq) = first.next().await;
    assert_eq!(name, "live");
    interrupt(&first.child);
    let ended = soon("the end of the command", first.child.wait()).await.expect("it ends");
    assert_eq!(ended.code(), Some(0), "Ctrl-C is how following ends");

    make_token(&server, "missed").await;
    let mut second = Follower::start(&server, seq);
    assert_eq!(second.next().await.0, "missed");
    make_token(&server, "later").await;
    let (name, last) = second.next().await;
    assert_eq!(name, "later");
    server.signal(Signal::TERM);
    let ended = soon("the end of the command", second.child.wait_with_output()).await.expect("it ends");
    assert_eq!(ended.status.code(), Some(5), "{}", stderr(&ended));
    let said = stderr(&ended);
    let after =
        said.trim_end().strip_suffix(" goes on from there").and_then(|said| said.split(' ').next_back());
    assert!(after.and_then(|seq| seq.parse().ok()).is_some_and(|seq: u64| seq >= last), "{last}: {said}");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn events_that_a_revoked_token_ends_say_so() {
    let server = Server::start(json!({})).await;
    let made = server.call("token.create", json!({"name": "mine", "role": "viewer"})).await;
    let file = server.dir().join("token");
    std::fs::write(&file, made["token"].as_str().expect("a token")).expect("written");
    let file = file.display().to_string();
    let mut child = start(&["events", "--after", "0", "--server", &server.url(), "--token-file", &file]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    soon("an event", lines.next_line()).await.expect("UTF-8").expect("it follows");
    server.call("token.revoke", json!({"name": "mine"})).await;
    let ended = soon("the end of the command", child.wait_with_output()).await.expect("it ends");
    let said = stderr(&ended);
    assert!(ended.status.code() == Some(6) && said.contains("401") && !said.contains("--after"), "{said}");
}

#[tokio::test]
async fn a_server_with_tls_is_trusted_by_its_authority_and_a_stranger_is_refused_with_advice() {
    let (certificates, stranger) = (Certificates::make(), Certificates::make());
    let server = Server::start(json!({"server": {"tls": certificates.config()}})).await;
    let send = async |scheme: &str, ca_file: Option<&Path>| {
        let url = format!("{scheme}://{}", server.address());
        let ca_file = ca_file.map(|path| path.display().to_string());
        let mut args = vec!["send", "echo", "hello", "--server", &url];
        args.extend(ca_file.iter().flat_map(|path| ["--ca-file", path]));
        run(&args).await
    };
    let answered = send("https", Some(&certificates.file("ca.pem"))).await;
    assert_eq!(
        (answered.status.code(), &answered.stdout[..]),
        (Some(0), &b"hello\n"[..]),
        "{}",
        stderr(&answered)
    );
    for (scheme, ca_file, advice) in [
        ("https", Some(stranger.file("ca.pem")), "--ca-file"),
        ("https", None, "--ca-file"),
        ("http", None, "https://"),
    ] {
        let refused = send(scheme, ca_file.as_deref()).await;
        let said = stderr(&refused);
        assert_eq!((refused.status.code(), said.lines().count()), (Some(5), 1), "{said}");
        assert!(said.contains(advice), "{advice} in {said}");
    }
    let unusable = send("https", Some(&certificates.file("key.pem"))).await;
    assert_eq!(unusable.status.code(), Some(2), "{}", stderr(&unusable));
    assert!(stderr(&unusable).contains("key.pem"), "{}", stderr(&unusable));
}

#[tokio::test]
async fn a_client_that_speaks_tls_to_a_plain_server_is_told_so() {
    let server = Server::start(json!({})).await;
    let refused = run(&["send", "echo", "hello", "--server", &format!("https://{}", server.address())]).await;
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("http://"), "{said}");
}

/// The whole log of a server that answered one message and failed another.
async fn log_of(format: &str) -> String {
    let mut server = Server::start(json!({
        "telemetry": {"log": {"format": format}},
        "providers": {"bad": {"kind": "echo", "failure_rate": 1.0}, "good": {"kind": "echo"}},
        "agents": {"bad": {"provider": "bad"}, "good": {"provider": "good"}},
    }))
    .await;
    server.call("agent.send", json!({"agent": "good", "message": "hello"})).await;
    let params = json!({"agent": "bad", "message": "hello", "session": "s1", "requestId": "r1"});
    server.client().call("agent.send", params).await.expect_err("it fails");
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
    server.log()
}

#[tokio::test]
async fn each_json_line_is_an_object_with_the_documented_fields() {
    for format in ["json", "auto"] {
        let log = log_of(format).await;
        let lines: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        for line in &lines {
            let timestamp = line["timestamp"].as_str().expect("a time");
            assert!(timestamp.parse::<jiff::Timestamp>().is_ok() && timestamp.ends_with('Z'), "{line}");
            assert!(["error", "warn", "info"].contains(&line["level"].as_str().expect("a level")), "{line}");
            assert!(line["target"].as_str().is_some_and(|target| target.starts_with("plimsoll")), "{line}");
            assert!(line["message"].as_str().is_some_and(|message| !message.is_empty()), "{line}");
        }
        let failed = lines.iter().find(|line| line["message"] == "request failed").expect("it is logged");
        assert_eq!(
            [
                &failed["level"],
                &failed["source"],
                &failed["agent"],
                &failed["session_id"],
                &failed["request_id"]
            ],
            ["error", "agent.send", "bad", "s1", "r1"]
        );
        assert_eq!(failed["trace_id"].as_str().map(str::len), Some(32));
        assert!(failed["cause"].as_str().is_some_and(|cause| cause.contains("configured to fail")));
    }
}

#[tokio::test]
async fn a_text_line_begins_with_time_level_and_place() {
    let log = log_of("text").await;
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let timestamp = words.next().expect("a time");
        assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(["ERROR", "WARN", "INFO"].contains(&words.next().expect("a level")), "{line}");
        assert!(
            words.next().is_some_and(|place| place.starts_with("plimsoll") && place.ends_with(':')),
            "{line}"
        );
    }
    let failed = log.lines().find(|line| line.contains("request failed")).expect("it is logged");
    for part in ["source=agent.send", "session_id=s1", "request_id=r1", "agent=bad", "trace_id="] {
        assert!(failed.contains(part), "{part} in {failed}");
    }
}

#[tokio::test]
async fn ps_lists_what_waits_and_runs_and_cancel_ends_it() {
    let server = Server::start(json!({
        "providers": {"slow": {"kind": "echo", "latency": "10m"}},
        "agents": {"slow": {"provider": "slow", "max_concurrent": 1}},
    }))
    .await;
    let data_dir = server.data_dir().display().to_string();
    let first = start(&["send", "slow", "one", "--session", "s-1", "--data-dir", &data_dir]);
    let listed = async |wanted: usize| {
        until("the list", async || {
            let output = run(&["ps", "--json", "--data-dir", &data_dir]).await;
            let list: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
            (list.len() == wanted).then_some(list)
        })
        .await
    };
    until("the first runs", async || (listed(1).await[0]["state"] == json!("running")).then_some(())).await;
    let second = start(&["send", "slow", "two", "--session", "s-2", "--data-dir", &data_dir]);
    let list = listed(2).await;
    let shown = |key: &str| list.iter().map(|request| request[key].clone()).collect::<Vec<_>>();
    assert_eq!(shown("state"), [json!("running"), json!("queued")]);
    assert_eq!(shown("sessionId"), [json!("s-1"), json!("s-2")]);

    let output = run(&["ps", "--data-dir", &data_dir]).await;
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["REQUEST", "AGENT", "SESSION", "STATE", "AGE", "TOOLS"]);
    assert_eq!(rows[2][1..4], ["slow", "s-2", "queued"], "{table}");

    let agents = async || {
        let output = run(&["agents", "--data-dir", &data_dir]).await;
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let row = |table: &str| -> Vec<String> {
        table.lines().nth(1).expect("a row").split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row(&agents().await), ["slow", "echo", "host", "ready", "1", "1"]);

    for (request, waiting) in shown("id").iter().zip([first, second]) {
        let request = request.as_str().expect("an id");
        let cancelled = run(&["cancel", request, "--data-dir", &data_dir]).await;
        assert!(cancelled.status.success(), "{}", stderr(&cancelled));
        let ended = soon("the end of the request", waiting.wait_with_output()).await.expect("it ends");
        assert!(ended.status.code() == Some(6) && stderr(&ended).contains("cancelled"), "{}", stderr(&ended));
        let again = run(&["cancel", request, "--data-dir", &data_dir]).await;
        assert!(again.status.code() == Some(6) && stderr(&again).contains("may have ended"));
    }
    listed(0).await;
    let empty = run(&["ps", "--data-dir", &data_dir]).await;
    assert_eq!((&empty.stdout[..], stderr(&empty).trim_end()), (&b""[..], "nothing waits or runs"));
    assert!(run(&["pause", "slow", "--data-dir", &data_dir]).await.status.success());
    assert_eq!(row(&agents().await), ["slow", "echo", "host", "paused", "0", "0"]);
    let listed = run(&["agents", "--json", "--data-dir", &data_dir]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed, server.call("agent.list", json!({})).await);
}

#[tokio::test]
async fn a_session_is_reset_from_the_command_line() {
    let server = Server::start(json!({})).await;
    let data_dir = server.data_dir().display().to_string();
    assert!(
        run(&["send", "echo", "hello", "--session", "s", "--data-dir", &data_dir]).await.status.success()
    );
    let reset = async || run(&["session", "reset", "echo", "s", "--data-dir", &data_dir]).await;
    let done = reset().await;
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(server.call("session.list", json!({})).await["sessions"], json!([]));
    assert_eq!(reset().await.status.code(), Some(6), "there is none any more");
}

#[tokio::test]
async fn an_instance_is_started_and_stopped_from_the_command_line() {
    let scripted = json!({"provider": "p", "instance": {"scripted": {}}});
    let agents = json!({"played": scripted, "plain": {"provider": "p"}});
    let server = Server::start(json!({"providers": {"p": {"kind": "echo"}}, "agents": agents})).await;
    let data_dir = server.data_dir().display().to_string();
    let plimsoll = async |words: &[&str]| {
        let output = run(&[words, &["--data-dir", &data_dir]].concat()).await;
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let becomes = async |wanted: &str| {
        until(wanted, async || {
            let table = plimsoll(&["agents"]).await.1;
            let row = table.lines().find(|line| line.starts_with("played")).expect("it is listed");
            let cells: Vec<&str> = row.split_whitespace().collect();
            assert_eq!(cells[2], "scripted", "{table}");
            (cells[3] == wanted).then_some(table.clone())
        })
        .await
    };
    becomes("cold").await;
    let (code, said) = plimsoll(&["start", "played"]).await;
    assert!(code == Some(0) && said.starts_with("played is "), "{said}");
    assert!(becomes("idle").await.contains("host"), "the other lives in plimsoll");
    assert_eq!(plimsoll(&["stop", "played"]).await.0, Some(0));
    becomes("cold").await;
    for order in ["start", "stop"] {
        assert_eq!(plimsoll(&[order, "plain"]).await.0, Some(6), "{order}: it has no instance");
    }
}

#[tokio::test]
async fn logs_of_an_agent_without_a_program_say_so() {
    let server = Server::start(json!({})).await;
    let data_dir = server.data_dir().display().to_string();
    for form in [&["logs", "echo"][..], &["logs", "echo", "--follow"]] {
        let output = run(&[form, &["--data-dir", &data_dir]].concat()).await;
        let said = stderr(&output);
        assert!(output.status.success() && said.starts_with("echo runs no program"), "{said}");
    }
}

#[tokio::test]
async fn a_message_reaches_the_agent_as_it_is_from_an_argument_and_from_standard_input() {
    let server = Server::start(json!({})).await;
    let data_dir = server.data_dir().display().to_string();
    for message in ["--help", "-x", "$(id) `id` ; rm -rf / \"'", "line\n\nline"] {
        let output = run(&["send", "echo", "--json", "--data-dir", &data_dir, "--", message]).await;
        let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(answer["text"], *message, "{}", stderr(&output));
    }
    for message in ["a\0b\n".to_owned(), "x".repeat(1 << 20)] {
        let mut command = tokio::process::Command::from(clean_command());
        command.args(["send", "echo", "-", "--json", "--data-dir", &data_dir]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("plimsoll starts");
        let mut stdin = child.stdin.take().expect("piped");
        soon("the message", stdin.write_all(message.as_bytes())).await.expect("it is read");
        drop(stdin);
        let output = soon("the end", child.wait_with_output()).await.expect("it ends");
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        assert!(
            answer["text"] == *message,
            "{} bytes came back as {}",
            message.len(),
            answer["text"].as_str().map_or(0, str::len)
        );
    }
}
