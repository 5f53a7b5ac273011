//! What the fuzz targets run, as ordinary tests: every file of the corpus, and some thousands of mutations of it from a
//! printed seed. Nothing may panic; long runs are `cargo +nightly fuzz run <target>`.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::tools::soak;

const SEED: u64 = 0x11_57_0b_ad;

/// Runs one target over its corpus and over mutations of it; how many inputs it accepted.
fn run(target: &str, accepts: impl Fn(&[u8]) -> bool) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("a corpus").map(|f| f.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{target} has a corpus");
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("a file")).collect();
    let mut accepted = corpus.iter().filter(|bytes| accepts(bytes)).count();
    assert!(accepted >= 1, "the corpus of {target} holds at least one good input");
    let mut random = StdRng::seed_from_u64(SEED);
    for round in 0..soak(3_000, 300_000) {
        let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
        for _ in 0..random.random_range(1..8) {
            mutate(&mut bytes, &corpus, &mut random);
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| accepts(&bytes)));
        let fine = outcome.unwrap_or_else(|_| {
            panic!(
                "{target} panics in round {round} of seed {SEED:#x} on {:?}",
                String::from_utf8_lossy(&bytes)
            )
        });
        accepted += usize::from(fine);
    }
    accepted
}

/// Changes, inserts, removes or repeats a little, or takes a piece of another input.
fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut StdRng) {
    const SPICE: &[&[u8]] =
        &[b"\"", b"\\", b"{", b"[", b"}", b"]", b":", b",", b"${", b"\n", b"\xff", b"\0", b"null", b"1e999"];
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..5) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => drop(bytes.drain(at..(at + random.random_range(1..16)).min(bytes.len()))),
        2 => {
            let spice = SPICE[random.random_range(0..SPICE.len())];
            bytes.splice(at..at, spice.iter().copied());
        }
        3 => {
            let end = (at + random.random_range(1..32)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece.repeat(random.random_range(1..4)));
        }
        _ => {
            let other = &corpus[random.random_range(0..corpus.len())];
            let from = random.random_range(0..=other.len());
            bytes.splice(at..at, other[from..].iter().copied().take(64));
        }
    }
}

#[test]
fn any_bytes_as_a_json_rpc_message_are_calls_or_a_refusal() {
    let accepted = run("jsonrpc", |bytes| plimsoll::api::jsonrpc::read(bytes, 100).is_ok());
    assert!(accepted > 100, "the mutations also reach what lies behind the first check: {accepted}");
}

#[test]
fn any_bytes_as_a_configuration_are_one_or_a_list_of_problems() {
    let environment = |name: &str| (name == "SET").then(|| "a: ${b}\n\"".into());
    run("config", |bytes| plimsoll::config::load_text(bytes, &environment).is_ok());
}

#[test]
fn any_bytes_as_a_row_of_the_journal_are_a_record_or_damage() {
    run("journal_record", |bytes| plimsoll::journal::decode_frame(bytes).is_ok());
}

#[test]
fn any_bytes_as_a_body_of_alerts_are_alerts_or_a_refusal() {
    let accepted = run("alerts", |bytes| plimsoll::alerts::read(bytes).is_ok());
    assert!(accepted > 50, "the mutations also reach what lies behind the first check: {accepted}");
}
