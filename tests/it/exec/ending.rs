//! Nothing of a program is left, whatever it does to get away and however its turn ends.

use plimsoll::client::ClientError;
use rustix::process::Signal;
use serde_json::json;

use super::{Work, alive, ask, guards, refused, send, signal, stat};
use crate::support::server::until;
use crate::support::tools::needs;

/// Forks, forks twice, opens new sessions, empties its environment, and ignores SIGTERM in all of it. Each notes its
/// process id.
pub(super) const WILD: &str = r#"
cat > /dev/null
trap '' TERM HUP INT
hold='trap "" TERM HUP INT; echo $$ >> pids; exec sleep 1000'
sh -c "$hold" &
( sh -c "$hold" & )
setsid sh -c "$hold" &
( setsid sh -c "$hold" > /dev/null 2>&1 & )
( setsid env -i PATH="$PATH" sh -c "$hold" > /dev/null 2>&1 < /dev/null & )
echo $$ >> pids
echo '{"type":"session","id":"s"}'
exec sleep 1000
"#;

pub(super) const WILD_COUNT: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_agent_leaves_no_process() {
    if needs("setsid").is_none() {
        return;
    }
    let work = Work::of(WILD);
    let server = work.serve(json!({})).await;
    let sent = send(&server, "r1");
    let pids = work.noted("pids", WILD_COUNT).await;
    assert!(pids.iter().all(|pid| alive(*pid)), "{pids:?}");
    server.call("agent.cancel", json!({"requestId": "r1"})).await;
    let ended = sent.await.expect("no panic").expect_err("it was cancelled");
    assert!(matches!(ended, ClientError::Rpc { code: -32005, .. }), "{ended}");
    work.left_alone().await;
    assert!(!pids.iter().any(|pid| alive(*pid)), "{pids:?}");
    let calls = server.call("system.metrics", json!({})).await["modelCalls"].clone();
    assert_eq!((&calls["total"], &calls["recentCalls"][0]["error"]), (&json!(1), &json!("cancelled")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_past_its_deadline_leaves_no_process() {
    if needs("setsid").is_none() {
        return;
    }
    let work = Work::of(WILD);
    let server = work.serve(json!({})).await;
    let (code, ..) = refused(&server, json!({"deadlineMs": 4_000})).await;
    assert_eq!(code, -32004);
    // On a busy machine not all of them have come up by then.
    let pids = work.noted("pids", 1).await;
    work.left_alone().await;
    assert!(!pids.iter().any(|pid| alive(*pid)), "{pids:?}");
    let calls = server.call("system.metrics", json!({})).await["modelCalls"].clone();
    assert_eq!(calls["recentCalls"][0]["error"], "deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn plimsoll_ends_after_the_last_process_of_its_agents() {
    if needs("setsid").is_none() {
        return;
    }
    let work = Work::of(WILD);
    let mut server = work.serve(json!({})).await;
    let _sent = send(&server, "r1");
    work.noted("pids", WILD_COUNT).await;
    server.stop().await;
    assert_eq!(work.workers(), [0; 0], "all were gone before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_plimsoll_leaves_no_process() {
    if needs("setsid").is_none() {
        return;
    }
    let work = Work::of(WILD);
    let server = work.serve(json!({})).await;
    let _sent = send(&server, "r1");
    work.noted("pids", WILD_COUNT).await;
    let _dir = server.kill();
    work.left_alone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_leaves_running_is_ended_before_it_is_given() {
    if needs("setsid").is_none() {
        return;
    }
    let work =
        Work::of(&WILD.replace("exec sleep 1000\n", "echo '{\"type\":\"delta\",\"text\":\"done\"}'\n"));
    let server = work.serve(json!({})).await;
    assert_eq!(ask(&server, "m").await, "done");
    assert_eq!(work.workers(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_kills_its_guard_is_ended_too() {
    if needs("setsid").is_none() {
        return;
    }
    let kill = "kill -9 $PPID\necho $$ >> killed\n";
    let work = Work::of(
        &WILD.replace("echo '{\"type\":\"session\"", &format!("{kill}echo '{{\"type\":\"session\"")),
    );
    let server = work.serve(json!({})).await;
    let (code, text, _) = refused(&server, json!({})).await;
    assert_eq!(code, -32007, "{text}");
    assert!(text.contains("guard"), "{text}");
    assert_eq!(work.workers(), [0; 0]);
    server.logged("the guard of an agent's program was killed").await;
    work.write("agent.sh", super::OBLIGING);
    assert_eq!(ask(&server, "m").await, "done", "the next one is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_its_guard_is_ended_too() {
    let work = Work::of("cat > /dev/null; trap '' TERM; kill -STOP $PPID; echo $$ >> pids; exec sleep 1000");
    let server = work.serve(json!({})).await;
    let sent = send(&server, "r1");
    work.noted("pids", 1).await;
    server.call("agent.cancel", json!({"requestId": "r1"})).await;
    sent.await.expect("no panic").expect_err("it was cancelled");
    work.left_alone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_guard_gives_nobody_a_second_grace() {
    let work = Work::of("cat > /dev/null; trap '' TERM; kill -STOP $PPID; echo $$ >> pids; exec sleep 1000");
    // With a second one plimsoll would be gone before the program.
    let mut server = work.serve(json!({"kill_grace": "6s"})).await;
    let _sent = send(&server, "r1");
    work.noted("pids", 1).await;
    server.stop().await;
    assert_eq!(work.workers(), [0; 0], "all were gone before");
    assert!(!server.log().contains("are left"), "{}", server.log());
}

/// Its main thread ends while another goes on: `/proc` calls it a zombie.
const HEADLESS: &str = r#"
import ctypes, os, sys, threading, time
sys.stdin.read()
threading.Thread(target=lambda: time.sleep(1000)).start()
open("pids", "a").write(f"{os.getpid()}\n")
ctypes.CDLL(None).pthread_exit(0)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_main_thread_has_ended_is_ended() {
    if needs("python3").is_none() {
        return;
    }
    let work = Work::of("exec python3 agent.py");
    work.write("agent.py", HEADLESS);
    let mut server = work.serve(json!({})).await;
    for how in ["cancel", "stop"] {
        let _ = std::fs::remove_file(work.path().join("pids"));
        let sent = send(&server, how);
        let pid = work.noted("pids", 1).await[0];
        until("the end of its main thread", async || (stat(pid).first()? == "Z").then_some(())).await;
        assert!(alive(pid));
        if how == "cancel" {
            server.call("agent.cancel", json!({"requestId": how})).await;
            sent.await.expect("no panic").expect_err("it was cancelled");
            until("its end", async || (!alive(pid)).then_some(())).await;
        } else {
            server.stop().await;
            assert!(!alive(pid), "gone before plimsoll");
        }
    }
    assert!(!server.log().contains("guard"), "its guard was up to it: {}", server.log());
}

/// Each generation begins the next in a session of its own and ends.
const HYDRA: &str = r#"
if [ "$1" != head ]; then cat > /dev/null; echo $$ >> pids; fi
trap '' TERM
setsid sh agent.sh head > /dev/null 2>&1 &
[ "$1" = head ] || exec sleep 1000
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_forks_on_and_on_is_ended() {
    if needs("setsid").is_none() {
        return;
    }
    let work = Work::of(HYDRA);
    let server = work.serve(json!({"kill_grace": "50ms"})).await;
    let sent = send(&server, "r1");
    work.noted("pids", 1).await;
    until("some heads", async || (work.workers().len() >= 2).then_some(())).await;
    server.call("agent.cancel", json!({"requestId": "r1"})).await;
    sent.await.expect("no panic").expect_err("it was cancelled");
    // A guard works there too, and goes last.
    work.left_alone().await;
    assert!(!server.log().contains("guard"), "its guard was up to it: {}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_turn_waits_until_the_stopped_one_is_gone() {
    // The first ignores SIGTERM for as long as it may; whoever comes then looks whether it is alone.
    let work = Work::of(
        r#"cat > /dev/null
        if [ -e pids ]; then
            text=alone; kill -0 "$(cat pids)" 2> /dev/null && text=together
            echo "{\"type\":\"delta\",\"text\":\"$text\"}"; exit
        fi
        trap '' TERM; echo $$ > pids; exec sleep 1000"#,
    );
    let server = work.serve(json!({"kill_grace": "1s"})).await;
    let first = send(&server, "r1");
    work.noted("pids", 1).await;
    let second = send(&server, "r2");
    server.call("agent.cancel", json!({"requestId": "r1"})).await;
    first.await.expect("no panic").expect_err("it was cancelled");
    let answer = second.await.expect("no panic").expect("answered");
    assert_eq!(answer["text"], "alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_when_asked_has_its_grace() {
    let work = Work::of(
        "cat > /dev/null; trap 'echo tidy > end; exit' TERM; echo $$ >> pids; while :; do sleep 0.05; done",
    );
    let server = work.serve(json!({"kill_grace": "20s"})).await;
    let sent = send(&server, "r1");
    work.noted("pids", 1).await;
    server.call("agent.cancel", json!({"requestId": "r1"})).await;
    sent.await.expect("no panic").expect_err("it was cancelled");
    work.left_alone().await;
    assert_eq!(work.text("end").trim(), "tidy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_the_guard_ends_its_program() {
    let work = Work::of("cat > /dev/null; echo $$ >> pids; exec sleep 1000");
    let server = work.serve(json!({})).await;
    let sent = send(&server, "r1");
    work.noted("pids", 1).await;
    for guard in guards(server.pid()) {
        signal(guard, Signal::TERM);
    }
    let ended = sent.await.expect("no panic").expect_err("it was ended");
    assert!(
        matches!(&ended, ClientError::Rpc { code: -32007, message, .. } if message.contains("signal 15")),
        "{ended}"
    );
    work.left_alone().await;
}
