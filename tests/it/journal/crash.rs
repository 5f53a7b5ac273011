//! `kill -9`: under load, and while it starts.

use std::io::BufRead as _;
use std::path::Path;
use std::time::Duration;

use plimsoll::journal::{Journal, StreamId};

use super::child::{Work, acks, check_all_there, parse_ack};
use super::fixture::{all, append, number, open};

fn soak() -> bool {
    std::env::var_os("PLIMSOLL_SOAK").is_some()
}

fn flood(dir: &Path, run: u64) -> Work {
    Work {
        dir: dir.to_owned(),
        run,
        writers: 16,
        appends: 100_000,
        partition_records_max: 3_000,
        age_max_ms: None,
        persistent: false,
    }
}

/// A small generator with a seed, so that a failing run can be told.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn after_every_kill_each_acknowledged_record_is_there_once() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    let (mut acked, mut seed) = (Vec::new(), 7_u64);
    let rounds = if soak() { 200 } else { 20 };
    for run in 0..rounds {
        let work = flood(dir.path(), run);
        let (mut child, mut output) = work.start(|_| {});
        if run % 2 == 0 {
            let until = random(&mut seed) % 600;
            let mut line = String::new();
            for _ in 0..until {
                line.clear();
                if output.read_line(&mut line).is_ok_and(|bytes| bytes == 0) {
                    break;
                }
                acked.extend(parse_ack(&line));
            }
        } else {
            // Most of these die while they start.
            let delay = Duration::from_micros(random(&mut seed) % 150_000);
            runtime.block_on(async { tokio::time::sleep(delay).await });
        }
        child.kill().expect("killed");
        acked.extend(acks(output));
        child.wait().expect("ended");
        if soak() && run % 10 == 0 {
            check_all_there(dir.path(), &work.config(), &acked).expect("all there");
        }
    }
    assert!(acked.len() > 1_000, "only {} appends were acknowledged", acked.len());
    check_all_there(dir.path(), &flood(dir.path(), 0).config(), &acked).expect("all there");
}

#[test]
fn a_half_snapshot_of_a_start_that_was_killed_does_not_lock_the_journal_out() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    {
        let journal = open(dir.path());
        runtime.block_on(journal.append(append(&StreamId::request(), 0..200))).expect("appended");
    }
    let store = dir.path().join("journal/work/00000000000000000001/store");
    assert!(store.is_dir(), "the first partition is named after its first seq");
    std::fs::write(store.join("snap.00000000FFFFFFFF.generating"), b"half").expect("written");
    let journal = open(dir.path());
    assert_eq!(journal.status().degraded, None);
    assert_eq!(all(&journal).iter().map(number).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
}
