//! A disk that fills, that fails, that turns read-only, and that recovers.

use std::io::BufRead as _;

use super::child::{Work, check_all_there, parse_ack};
use super::shim::shim;

/// Runs a child, makes its disk fail for a while, and checks that it goes on by itself and loses nothing.
fn survives(fault: &str, expected: &str) {
    let Some(shim) = shim() else { return };
    let temporary = tempfile::tempdir().expect("temporary folder");
    let control = temporary.path().join("fault");
    let work = Work {
        dir: temporary.path().join("root/data"),
        run: 1,
        writers: 8,
        appends: u64::MAX,
        partition_records_max: 100_000,
        age_max_ms: None,
        persistent: true,
    };
    std::fs::create_dir(temporary.path().join("root")).expect("made");
    let (mut child, mut output) = work.start(|command| {
        command
            .env("LD_PRELOAD", shim)
            .env("SHIM_ROOT", temporary.path().join("root"))
            .env("SHIM_FAULT", &control);
    });
    let (mut acked, mut refused) = (Vec::new(), Vec::new());
    let mut read_until = |acks: usize, refusals: usize| {
        let (mut new_acks, mut new_refusals) = (0, 0);
        while new_acks < acks || new_refusals < refusals {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).expect("readable"), 0, "the child goes on");
            if let Some(ack) = parse_ack(&line) {
                acked.push(ack);
                new_acks += 1;
            } else if line.starts_with("refused ") {
                refused.push(line.clone());
                new_refusals += 1;
            }
        }
    };
    for _ in 0..3 {
        read_until(200, 0);
        std::fs::write(&control, fault).expect("written");
        read_until(0, 20);
        std::fs::remove_file(&control).expect("removed");
        read_until(1, 0);
    }
    drop(child.stdin.take());
    for line in output.lines().map_while(Result::ok) {
        acked.extend(parse_ack(&line));
    }
    assert!(child.wait().expect("ended").success(), "it ends as if nothing had been");
    for line in &refused {
        assert!(line.contains("read=true"), "reads go on: {line}");
        assert!(line.contains(expected), "{line}");
    }
    check_all_there(&work.dir, &work.config(), &acked).expect("all there");
    let journal = super::fixture::open(&work.dir);
    let there: std::collections::HashSet<u64> =
        super::fixture::all(&journal).iter().map(super::fixture::number).collect();
    for line in &refused {
        let number: u64 = line.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
        assert!(!there.contains(&number), "refused, yet there: {line}");
    }
}

#[test]
fn a_full_disk_refuses_appends_and_resumes_by_itself() {
    survives("28 wc", "No space left on device");
}

#[test]
fn a_disk_that_turns_read_only_refuses_appends_and_resumes_by_itself() {
    survives("30 wc", "Read-only file system");
}

#[test]
fn a_failing_disk_refuses_appends_and_resumes_by_itself() {
    survives("5 ws", "Input/output error");
}

#[test]
fn a_failing_sync_refuses_appends_and_resumes_by_itself() {
    survives("5 s", "Input/output error");
}
