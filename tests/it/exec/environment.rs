//! What a program gets of its surroundings: what is named, and nothing else.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Work, ask, send};
use crate::support::server::{Server, until};

const SHOW: &str =
    r#"cat > /dev/null; cat /proc/$$/environ > environ; echo '{"type":"delta","text":"done"}'"#;

fn variables(work: &Work) -> BTreeMap<String, String> {
    let text = work.text("environ");
    let pairs = text.split('\0').filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_exactly_what_is_named() {
    let work = Work::of(SHOW);
    let config = work.config(json!({
        "env_pass": ["PASSED", "NOT_THERE"],
        "env": {"SET": "by the operator", "KEY": "${THE_KEY}"},
    }));
    let surroundings = [
        ("HOME", "/nowhere"),
        ("LANG", "C.UTF-8"),
        ("PASSED", "on"),
        ("THE_KEY", "sk-very-secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret"),
        ("PLIMSOLL_OWNER", "somebody/else"),
        ("PLIMSOLL_TOKEN", "secret"),
        ("LD_LIBRARY_PATH", "/nowhere"),
        ("USER", "me"),
    ];
    let server = Server::start_with(config, &surroundings).await;
    assert_eq!(ask(&server, "m").await, "done");
    let mut found = variables(&work);
    let id = std::fs::read_to_string(server.data_dir().join("id")).expect("the directory has an id");
    assert_eq!(found.remove("PLIMSOLL_OWNER"), Some(format!("{}/a", id.trim())));
    let traceparent = found.remove("TRACEPARENT").expect("the call's span");
    assert!(traceparent.starts_with("00-") && traceparent.len() == 55, "{traceparent}");
    assert!(found.remove("PATH").is_some());
    let rest: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("HOME", "/nowhere"),
        ("KEY", "sk-very-secret"),
        ("LANG", "C.UTF-8"),
        ("PASSED", "on"),
        ("SET", "by the operator"),
    ];
    assert_eq!(rest, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_sets_wins_over_what_is_handed_on_and_never_over_plimsoll() {
    let work = Work::of(SHOW);
    let config = work.config(json!({"env_pass": ["TWICE"], "env": {
        "TWICE": "set", "HOME": "/elsewhere", "TRACEPARENT": "mine",
    }}));
    let server = Server::start_with(config, &[("TWICE", "passed"), ("HOME", "/nowhere")]).await;
    assert_eq!(ask(&server, "m").await, "done");
    let found = variables(&work);
    assert_eq!((found["TWICE"].as_str(), found["HOME"].as_str()), ("set", "/elsewhere"));
    assert!(found["TRACEPARENT"].starts_with("00-"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_inherited_but_the_three_streams() {
    // A file that whoever starts plimsoll forgot to close must not reach the program either.
    let work = Work::of("");
    let run =
        "cat > /dev/null; cat /proc/$$/oom_score_adj > oom; pwd -P > cwd; echo $$ > pids; exec sleep 1000";
    let config = work.config(json!({"args": ["-c", run]}));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let leak = std::fs::File::open("/dev/null").expect("there");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("a flag");
    let mut server = Server::spawn_with(dir, config, |_| {});
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::CLOEXEC).expect("a flag");
    server.ready().await;
    let _sent = send(&server, "r1");
    let pid = work.noted("pids", 1).await[0];
    // What the shell opened for itself is gone once it has become something else.
    let file = |number: &str| std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
    let open = until("the program", async || {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut open: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        open.sort();
        (name.trim() == "sleep" && !open.is_empty()).then_some(open)
    })
    .await;
    assert_eq!(open, ["0", "1", "2"]);
    for number in &open {
        let target = file(number).expect("open").display().to_string();
        assert!(target.starts_with("pipe:"), "{number}: {target}");
    }
    assert_eq!(work.text("cwd").trim(), work.path().to_str().expect("UTF-8"));
    let own: i32 =
        std::fs::read_to_string("/proc/self/oom_score_adj").expect("there").trim().parse().expect("a number");
    assert_eq!(work.text("oom").trim(), (own + 500).min(1_000).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_the_caller_reaches_the_program() {
    let work = Work::of(SHOW);
    let server = work.serve(json!({})).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let params = json!({"agent": "a", "message": "m",
        "_meta": {"traceparent": traceparent, "tracestate": "rojo=00f067aa"}});
    server.call("agent.send", params).await;
    let found = variables(&work);
    assert!(found["TRACEPARENT"].starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{found:?}");
    assert_ne!(found["TRACEPARENT"], traceparent, "the call's own span, not the caller's");
    assert_eq!(found["TRACESTATE"], "rojo=00f067aa");
}
