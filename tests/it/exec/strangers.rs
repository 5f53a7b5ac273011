//! Those that plimsoll may not end, may not see, or must not touch.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{OBLIGING, Work, ask, guards, pids, refused, signal, stat};
use crate::support::server::{Server, run_by, until};
use crate::support::tools::{needs, needs_package};

/// plimsoll, run by these words.
async fn serve_by(words: &[&str], config: Value) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::spawn_with(dir, config, |command| run_by(command, words));
    server.ready().await;
    server
}

/// Whether a program can be run so here; says that the test is skipped if not.
fn can(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("true").stdin(Stdio::null()).stderr(Stdio::null());
    needs_package(&words.join(" "), command.status().is_ok_and(|status| status.success()))
}

/// Leaves a process of another user the first time.
const LEAVES_ANOTHER_USERS: &str = r#"
cat > /dev/null
if [ ! -e pids ]; then
    sh -c 'echo $$ > pids; exec setpriv --reuid=65534 --clear-groups sleep 1000' > /dev/null 2>&1 &
    until [ -s pids ] && [ "$(stat -c %u "/proc/$(cat pids)")" = 65534 ]; do sleep 0.02; done
fi
echo '{"type":"delta","text":"done"}'
"#;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_ended_blocks_its_directory_by_name_and_only_while_it_runs() {
    // A root that may become others, and may not signal them.
    let words = ["setpriv", "--bounding-set=-kill"];
    if needs("setpriv").is_none() || !rustix::process::getuid().is_root() || !can(&words) {
        return;
    }
    let work = Work::of(LEAVES_ANOTHER_USERS);
    let mut server = serve_by(&words, work.config(json!({}))).await;
    assert_eq!(ask(&server, "m").await, "done", "the answer is given all the same");
    let pid = work.noted("pids", 1).await[0];
    for _ in 0..2 {
        let (code, text, _) = refused(&server, json!({})).await;
        assert_eq!(code, -32006, "{text}");
        assert!(text.contains(&format!("process {pid}")), "{text}");
    }
    let log = server.logged("cannot be ended").await;
    let told: Vec<&str> = log.lines().filter(|line| line.contains("cannot be ended")).collect();
    assert!(told.len() == 1 && told[0].contains(&pid.to_string()), "{log}");
    assert!(told[0].contains("not permitted"), "{log}");
    signal(pid, Signal::KILL);
    work.left_alone().await;
    assert_eq!(ask(&server, "m").await, "done", "the next one is served");
    server.stop().await;
    assert!(!server.log().contains("did not end in time"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn as_process_one_it_ends_what_lost_its_guard_and_no_stranger() {
    let words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if needs("nsenter").is_none() || needs("setsid").is_none() || !can(&words) {
        return;
    }
    let work = Work::of(
        "cat > /dev/null; setsid sleep 1000 > /dev/null 2>&1 & env -i sleep 1000 & kill -9 $PPID; exec sleep 1000",
    );
    let server = serve_by(&words, work.config(json!({}))).await;
    let plimsoll = pids().find(|pid| stat(*pid).get(1) == Some(&server.pid().to_string())).expect("it runs");
    // A daemon that somebody starts beside it becomes its child.
    let elsewhere = Work::of("");
    let begin = "cd \"$0\" && (setsid sleep 1000 > /dev/null 2>&1 &)";
    let mut enter = Command::new("nsenter");
    enter.args(["-t", &plimsoll.to_string(), "-p", "-m", "sh", "-c", begin]).arg(elsewhere.path());
    assert!(enter.status().expect("nsenter runs").success());
    let stranger = until("the adoption of a stranger", async || match elsewhere.workers()[..] {
        [pid] if stat(pid).get(1) == Some(&plimsoll.to_string()) => Some(pid),
        _ => None,
    })
    .await;
    let (code, text, _) = refused(&server, json!({})).await;
    assert_eq!(code, -32007, "{text}");
    assert_eq!(work.workers(), [0; 0], "{}", server.log());
    assert_eq!(elsewhere.workers(), [stranger], "nobody touched it");
    work.write("agent.sh", OBLIGING);
    assert_eq!(ask(&server, "m").await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_proc_of_another_namespace_it_ends_the_group_and_says_so() {
    let words = ["unshare", "--pid", "--fork", "--kill-child"];
    if !can(&words) {
        return;
    }
    let work = Work::of(
        "cat > /dev/null; sleep 1000 > /dev/null 2>&1 & echo '{\"type\":\"delta\",\"text\":\"done\"}'",
    );
    let server = serve_by(&words, work.config(json!({}))).await;
    assert_eq!(ask(&server, "m").await, "done");
    work.left_alone().await;
    assert!(guards(server.pid()).is_empty());
    server.logged("pid namespace").await;
}
