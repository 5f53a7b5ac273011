//! What programs print: good, bad, too much, and nothing.

use std::time::Duration;

use serde_json::json;

use super::{Work, ask, refused, send};
use crate::support::server::{Server, until};

async fn fails(script: &str, more: serde_json::Value) -> (i64, String, serde_json::Value) {
    let work = Work::of(script);
    let server = work.serve(more).await;
    let refusal = refused(&server, json!({})).await;
    assert_eq!(work.workers(), [0; 0], "nothing is left");
    let calls = server.call("system.metrics", json!({})).await["modelCalls"].clone();
    assert_eq!(calls["total"], 1);
    assert!(calls["recentCalls"][0]["error"].is_string(), "{calls}");
    refusal
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_cost_and_tools_are_told_and_recorded() {
    let work = Work::of(
        r#"cat > /dev/null
        echo '{"type":"tool_start","id":"t1","name":"search"}'
        echo '{"type":"tool_end","id":"t1","ok":false,"exit_code":2}'
        echo '{"type":"delta","text":"do"}'
        echo '{"type":"delta","text":"ne"}'
        echo '{"type":"usage","model":"m-1","input_tokens":12,"output_tokens":3,"cost_usd":0.25}'
        echo '{"type":"usage","model":"m-2","input_tokens":5,"output_tokens":1,"cost_usd":0.5}'
        echo '{"type":"end","finish_reason":"stop"}'"#,
    );
    let server = work.serve(json!({})).await;
    let answer = server.call("agent.send", json!({"agent": "a", "message": "m"})).await;
    assert_eq!(answer["text"], "done");
    assert_eq!(answer["toolCalls"], json!([{"name": "search", "ok": false}]));
    assert_eq!((&answer["usage"]["inputTokens"], &answer["usage"]["outputTokens"]), (&json!(17), &json!(4)));
    let calls = server.call("system.metrics", json!({})).await["modelCalls"].clone();
    assert_eq!(calls["total"], 2, "one a model");
    let mut models: Vec<_> =
        calls["recentCalls"].as_array().expect("a list").iter().map(|call| call["model"].clone()).collect();
    models.sort_by_key(ToString::to_string);
    assert_eq!(models, ["m-1", "m-2"]);
    assert!(calls["recentCalls"].as_array().expect("a list").iter().all(|call| call["error"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_lines_and_half_a_character_do_no_harm() {
    let work = Work::of(
        r#"cat > /dev/null
        echo 'no JSON'; echo '[1]'; echo '{"type":"news"}'; echo; printf '\377\376\000\n'
        echo '{"type":"delta","text":"done"}'
        printf '{"type":"delta","text":"\303'"#,
    );
    let server = work.serve(json!({})).await;
    assert!(ask(&server, "m").await.starts_with("done"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_past_its_limit_ends_the_turn() {
    let long = r#"cat > /dev/null; head -c 3000 /dev/zero | tr '\0' x; echo; exec sleep 1000"#;
    let (code, text, _) = fails(long, json!({"line_bytes_max": "2KiB"})).await;
    assert_eq!(code, -32007);
    assert!(text.contains("longer than 2KiB") || text.contains("longer than 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_stopped_early_and_memory_stays_flat() {
    // 10 GB would come.
    let work = Work::of(r#"cat > /dev/null; head -c 10000000000 /dev/zero"#);
    let server = work.serve(json!({"line_bytes_max": "4MiB"})).await;
    let before = server.resident_kib_max();
    let (code, ..) = refused(&server, json!({})).await;
    assert_eq!(code, -32007);
    let grown = server.resident_kib_max().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
    work.left_alone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_gigabytes_of_output_are_stopped_early_and_memory_stays_flat() {
    for stream in ["", ">&2"] {
        // Lines that mean nothing, without end.
        let work = Work::of(&format!(
            "cat > /dev/null; yes '{{\"type\":\"news\"}}' {stream} | head -c 10000000000 {stream}"
        ));
        let server = work.serve(json!({"output_bytes_max": "16MiB"})).await;
        let before = server.resident_kib_max();
        let (code, text, _) = refused(&server, json!({})).await;
        assert_eq!(code, -32007, "{text}");
        assert!(text.contains("larger than 16777216 bytes"), "{text}");
        let grown = server.resident_kib_max().saturating_sub(before);
        assert!(grown < 64 << 10, "{grown} KiB");
        work.left_alone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ends_are_told_with_the_last_words_of_standard_error() {
    let (code, text, data) = fails("cat > /dev/null; echo 'out of luck' >&2; exit 3", json!({})).await;
    assert_eq!(code, -32007);
    assert!(text.contains("exit code 3"), "{text}");
    assert!(format!("{text}{data}").contains("out of luck"), "{text} {data}");
    let (code, text, _) = fails("cat > /dev/null; kill -9 $$", json!({})).await;
    assert_eq!(code, -32007);
    assert!(text.contains("signal 9"), "{text}");
    let (code, text, _) = fails("cat > /dev/null", json!({})).await;
    assert_eq!(code, -32007);
    assert!(text.contains("without an answer"), "{text}");
    let (code, _, data) =
        fails("cat > /dev/null; echo '{\"type\":\"delta\",\"text\":\"half\"}'; exit 1", json!({})).await;
    assert_eq!((code, &data["partial"]), (-32007, &json!("half")), "{data}");
}

/// The roads on which a program gets the variable `KEY`, and the one of plimsoll's own that holds its value.
const KEYS: [(&str, &str); 2] =
    [(r#"{"env": {"KEY": "${THE_KEY}"}}"#, "THE_KEY"), (r#"{"env_pass": ["KEY"]}"#, "KEY")];

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_program_are_masked_cut_and_in_no_log() {
    let work = Work::of(
        "cat > /dev/null; head -c 100000 /dev/zero | tr '\\0' x >&2; echo \"the key is $KEY, my plum\" >&2; exit 1",
    );
    for (exec, variable) in KEYS {
        let exec = serde_json::from_str(exec).expect("JSON");
        let server = Server::start_with(work.config(exec), &[(variable, "sk-very-secret")]).await;
        let (_, text, data) = refused(&server, json!({})).await;
        let said = format!("{text} {data}");
        assert!(said.contains("the key is ***, my plum") && !said.contains("sk-very"), "{said}");
        assert!(said.len() < 4_000, "{}", said.len());
        assert!(!server.log().contains("plum"), "{}", server.log());
        let events = server.call("system.events", json!({})).await.to_string();
        assert!(!events.contains("plum"), "{events}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_can_be_looked_at_without_secrets() {
    let work = Work::of(
        r#"cat > /dev/null; echo "with $KEY" >&2; printf 'half a character \303' >&2
        echo '{"type":"delta","text":"done"}'"#,
    );
    for (exec, variable) in KEYS {
        let exec = serde_json::from_str(exec).expect("JSON");
        let server = Server::start_with(work.config(exec), &[(variable, "sk-very-secret")]).await;
        assert_eq!(ask(&server, "m").await, "done");
        let page = server.call("agent.logs", json!({"agent": "a"})).await;
        let of = |stream: &str| -> Vec<String> {
            let lines = page["lines"].as_array().expect("a list").iter();
            let lines = lines.filter(|line| line["stream"] == stream);
            lines.map(|line| line["text"].as_str().expect("text").to_owned()).collect()
        };
        assert_eq!(of("stdout"), [r#"{"type":"delta","text":"done"}"#]);
        assert_eq!(of("stderr"), ["with ***", "half a character \u{fffd}"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_nothing_but_secrets_shows_no_part_of_one() {
    let work = Work::of(
        r#"cat > /dev/null; i=0; line=; while [ $i -lt 1000 ]; do i=$((i+1)); line="$line $KEY"; done
        i=0; while [ $i -lt 20 ]; do i=$((i+1)); printf '%s' "$line" >&2; done; exit 1"#,
    );
    let exec = json!({"env_pass": ["KEY"]});
    let server = Server::start_with(work.config(exec), &[("KEY", "sk-very-secret-9")]).await;
    let (_, text, data) = refused(&server, json!({})).await;
    let shown = server.call("agent.logs", json!({"agent": "a"})).await;
    let said = format!("{text} {data} {shown}");
    assert!(said.contains("*** ***"), "{said:.200}");
    for part in ["sk", "very", "ecret", "t-9"] {
        assert!(!said.contains(part), "{part} in {said:.2000}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_on_one_stream_does_not_stop_the_other() {
    let flood = r"head -c 2000000 /dev/zero | tr '\0' ' ' | fold -w 4000";
    let work = Work::of(&format!(
        "cat > /dev/null; {flood} >&2; {flood}; {flood} >&2; echo '{{\"type\":\"delta\",\"text\":\"done\"}}'"
    ));
    let server = work.serve(json!({})).await;
    assert_eq!(ask(&server, "m").await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_makes_the_program_wait() {
    let work = Work::of(
        r#"cat > /dev/null; i=0
        while [ $i -lt 100000 ]; do i=$((i+1)); echo '{"type":"delta","text":"0123456789abcdef0123456789abcdef"}'; done
        echo all > all"#,
    );
    let server = work.serve(json!({})).await;
    let made = server.call("token.create", json!({"name": "reader", "role": "operator"})).await;
    let mut connection = server.tcp_client(made["token"].as_str()).connect().await.expect("a WebSocket");
    let params = json!({"agent": "a", "message": "m", "stream": true, "requestId": "r1"});
    connection.call("agent.send", params).await.expect("sent");
    // Nobody reads: what fits buffers comes, and then the program stands still.
    let mut seen = 0;
    let stands_still = async || {
        let now = processor_ticks(&work);
        let still = now > 0 && now == std::mem::replace(&mut seen, now);
        tokio::time::sleep(Duration::from_millis(300)).await;
        still.then_some(())
    };
    until("the program waits", stands_still).await;
    assert!(work.read("all").is_none(), "it waits in the middle");
    server.call("agent.cancel", json!({"requestId": "r1"})).await;
    work.left_alone().await;
}

/// What all that works there has computed so far.
fn processor_ticks(work: &Work) -> u64 {
    let ticks = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<u64> =
            stat.rsplit_once(')')?.1.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        Some(fields.get(11)? + fields.get(12)?)
    };
    work.workers().into_iter().filter_map(ticks).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_stranger_holds_keeps_no_turn_open() {
    // The daemon runs already; the program hands it its output and ends.
    let work = Work::of(
        "cat > /dev/null; echo '{\"type\":\"delta\",\"text\":\"done\"}'; echo /proc/$$/fd/1 > handed; read -r _ < taken",
    );
    let made =
        std::process::Command::new("mkfifo").arg(work.path().join("taken")).status().expect("mkfifo runs");
    assert!(made.success());
    let server = work.serve(json!({})).await;
    let sent = send(&server, "r1");
    let path = until("the hand-over", async || {
        let path = work.text("handed");
        path.ends_with('\n').then(|| path.trim().to_owned())
    })
    .await;
    let held = std::fs::File::options().write(true).open(path).expect("the same user may");
    std::fs::write(work.path().join("taken"), "\n").expect("written");
    let answer = sent.await.expect("no panic").expect("answered");
    assert_eq!(answer["text"], "done");
    drop(held);
}
