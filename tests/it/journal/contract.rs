//! What every journal promises, checked on the durable one and on its twin in memory.

use std::time::Duration;

use plimsoll::clock::Clock;
use plimsoll::ids::{Seq, TownId};
use plimsoll::journal::{
    Append, AppendError, Config, Fold, Journal, Log, MemoryJournal, RecordHash, Scan, SledJournal, StreamId,
};
use proptest::prelude::*;
use std::sync::Arc;

use super::fixture::{Sum, a_time, all, append, deps, instance, number, record, scan_all};

type Make<'a> = &'a dyn Fn(Clock, Vec<Arc<dyn Fold>>) -> Box<dyn Journal>;

/// Runs a check on both journals.
fn on_both(check: impl Fn(Make<'_>)) {
    check(&|clock, folds| Box::new(MemoryJournal::new(clock, folds)));
    let dirs = std::cell::RefCell::new(Vec::new());
    check(&|clock, folds| {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut deps = deps(clock);
        deps.folds = folds;
        let journal = SledJournal::open(dir.path(), &Config::default(), deps).expect("opens");
        dirs.borrow_mut().push(dir);
        Box::new(journal)
    });
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

#[test]
fn records_of_all_streams_stand_in_one_order_and_each_log_is_a_chain() {
    on_both(|make| {
        let journal = make(Clock::system(), Vec::new());
        let streams = [StreamId::operator(), StreamId::request(), instance("a"), StreamId::alert()];
        for number in 0..40 {
            let stream = &streams[number as usize % 4];
            let appended = wait(journal.append(append(stream, [number]))).expect("appended");
            assert_eq!(appended.first, Seq(number + 1));
        }
        let records = all(journal.as_ref());
        assert_eq!(records.iter().map(|r| r.seq.0).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
        for log in Log::ALL {
            let mut of_log = records.iter().filter(|r| r.stream.kind().log() == log);
            assert_eq!(of_log.next().map(|r| r.prev_hash), Some(RecordHash::default()));
            let verified = journal.verify(log, None).expect("whole");
            assert_eq!(verified.head, journal.head(log).expect("readable"));
            assert_eq!(journal.verify(log, Some(verified.head)).map(|v| v.records), Ok(verified.records));
        }
    });
}

#[test]
fn the_head_of_an_empty_log_is_part_of_it_then_and_later() {
    on_both(|make| {
        let journal = make(Clock::system(), Vec::new());
        let empty = journal.head(Log::Audit).expect("readable");
        assert_eq!(empty.seq, Seq(0));
        assert_eq!(journal.verify(Log::Audit, Some(empty)).map(|v| v.records), Ok(0));
        wait(journal.append(append(&StreamId::operator(), 0..3))).expect("appended");
        assert_eq!(journal.verify(Log::Audit, Some(empty)).map(|v| v.records), Ok(3));
        let hash = RecordHash::parse(&"ab".repeat(32)).expect("a hash");
        let other = plimsoll::journal::Head { hash, ..empty };
        assert!(journal.verify(Log::Audit, Some(other)).is_err(), "no log began with that hash");
    });
}

#[test]
fn an_append_that_expects_another_last_seq_appends_nothing() {
    on_both(|make| {
        let journal = make(Clock::system(), Vec::new());
        let stream = instance("a");
        let expecting = |seq| Append { expected_last_seq: Some(Seq(seq)), ..append(&stream, [1, 2]) };
        assert!(wait(journal.append(expecting(0))).is_ok());
        let conflict = AppendError::Conflict { expected: Seq(0), actual: Seq(2) };
        assert_eq!(wait(journal.append(expecting(0))), Err(conflict));
        wait(journal.append(append(&instance("b"), [1]))).expect("another stream");
        assert!(wait(journal.append(expecting(2))).is_ok());
        assert_eq!(all(journal.as_ref()).len(), 5);
    });
}

#[test]
fn too_many_records_none_or_too_many_bytes_are_refused() {
    on_both(|make| {
        let journal = make(Clock::system(), Vec::new());
        let stream = StreamId::request();
        assert!(wait(journal.append(append(&stream, 0..500))).is_ok());
        for count in [0, 501] {
            let refused = wait(journal.append(append(&stream, 0..count)));
            assert!(matches!(refused, Err(AppendError::Invalid(_))), "{count} records");
        }
        let mut large = record(1);
        large.detail = serde_json::json!({"number": 1, "text": "x".repeat(250 * 1024)});
        let of = |count| Append { records: vec![large.clone(); count], ..append(&stream, [1]) };
        assert!(wait(journal.append(of(16))).is_ok());
        assert!(matches!(wait(journal.append(of(17))), Err(AppendError::Invalid(_))));
        let found = all(journal.as_ref());
        assert_eq!(found.len(), 516);
        assert_eq!(found[515].detail, large.detail);
    });
}

#[test]
fn a_journal_that_dropped_nothing_has_its_past_from_the_first_record_on() {
    on_both(|make| {
        let journal = make(Clock::system(), vec![Sum::new() as Arc<dyn Fold>]);
        wait(journal.append(append(&StreamId::request(), [3, 4]))).expect("appended");
        for log in Log::ALL {
            assert_eq!(journal.kept_from(log), Ok(Seq(1)));
        }
        assert_eq!(journal.snapshots("sum"), Ok(Vec::new()));
        assert_eq!(journal.snapshot_before("sum", Seq(u64::MAX)), Ok(None));
    });
}

#[test]
fn time_never_decreases_and_finds_its_seq() {
    on_both(|make| {
        let (clock, hand) = Clock::manual(a_time());
        let journal = make(clock, Vec::new());
        let stream = StreamId::operator();
        let mut times = Vec::new();
        for number in 0..20 {
            hand.advance(Duration::from_millis(10));
            if number == 10 {
                hand.set_wall(a_time());
            }
            times.push(wait(journal.append(append(&stream, [number]))).expect("appended").time);
        }
        let steps: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
        assert_eq!(steps, vec![Duration::from_millis(10); 19], "time goes on although the clock jumped back");
        for (time, seq) in times.iter().zip(1..) {
            assert_eq!(journal.seq_at(*time), Ok(Seq(seq)));
        }
        assert_eq!(journal.seq_at(a_time()), Ok(Seq(1)));
        assert_eq!(journal.seq_at(times[19].after(Duration::from_millis(1))), Ok(Seq(21)));
    });
}

#[test]
fn folds_and_the_tail_hear_of_a_record_before_its_append_is_answered() {
    on_both(|make| {
        let sum = Sum::new();
        let journal = make(Clock::system(), vec![Arc::clone(&sum) as Arc<dyn Fold>]);
        let mut tail = journal.tail();
        wait(journal.append(append(&StreamId::request(), [3, 4]))).expect("appended");
        assert_eq!(sum.value(), (2, 7));
        assert_eq!(tail.try_recv().map(|r| r.seq), Ok(Seq(1)));
        assert_eq!(tail.try_recv().map(|r| number(&r)), Ok(4));
        wait(journal.append(append(&StreamId::operator(), [5]))).expect("appended");
        assert_eq!(sum.value(), (2, 7), "it does not want this stream");
    });
}

#[test]
fn what_was_offered_is_there_after_close_and_a_closed_journal_refuses() {
    on_both(|make| {
        let journal = make(Clock::system(), Vec::new());
        for number in 0..100 {
            journal.offer(append(&StreamId::request(), [number])).expect("taken");
        }
        journal.close();
        assert_eq!(journal.status().last, Seq(100));
        assert_eq!(journal.offer(append(&StreamId::request(), [1])), Err(AppendError::Closed));
        assert_eq!(wait(journal.append(append(&StreamId::request(), [1]))), Err(AppendError::Closed));
        journal.close();
    });
}

#[derive(Debug, Clone)]
enum Step {
    /// To this stream, so many records, expecting the right last seq (`Some(true)`), a wrong one, or any.
    Append(u8, u16, Option<bool>),
    /// Large records, which take several rows.
    Large(u8),
    Reopen,
    Scan {
        stream: Option<u8>,
        from: u64,
        before: Option<u64>,
        limit: usize,
        newest_first: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8, 1..60_u16, any::<Option<bool>>()).prop_map(|(s, n, e)| Step::Append(s, n, e)),
        1 => (0..6_u8).prop_map(Step::Large),
        1 => Just(Step::Reopen),
        4 => (proptest::option::of(0..6_u8), 0..400_u64, proptest::option::of(0..400_u64), 1..80_usize, any::<bool>())
            .prop_map(|(stream, from, before, limit, newest_first)| Step::Scan {
                stream, from, before, limit, newest_first
            }),
    ]
}

fn stream(number: u8) -> StreamId {
    match number {
        0 => StreamId::request(),
        1 => StreamId::operator(),
        2 => StreamId::alert(),
        3 => instance("a"),
        4 => instance("a-b"),
        _ => StreamId::town(&TownId::parse("main").expect("valid")),
    }
}

/// Small partitions, so that a short run has several.
fn small() -> Config {
    Config { partition_records_max: 70, ..Config::default() }
}

/// Runs the steps on the durable journal and on the one in memory, which serves as the model.
fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (clock, _hand) = Clock::manual(a_time());
    let open = || SledJournal::open(dir.path(), &small(), deps(clock.clone())).expect("opens");
    let (mut journal, model) = (open(), MemoryJournal::new(clock.clone(), Vec::new()));
    for step in steps {
        match step {
            Step::Append(to, count, expected) => {
                let last = model.scan(&Scan {
                    stream: Some(stream(to)),
                    limit: 1,
                    newest_first: true,
                    ..Scan::default()
                });
                let last = last.expect("readable").records.first().map_or(Seq(0), |r| r.seq);
                let expected = expected.map(|right| if right { last } else { Seq(last.0 + 1) });
                let append =
                    Append { expected_last_seq: expected, ..append(&stream(to), 0..u64::from(count)) };
                assert_eq!(wait(journal.append(append.clone())), wait(model.append(append)));
            }
            Step::Large(to) => {
                let mut new = record(7);
                new.detail = serde_json::json!({ "text": "y".repeat(40_000) });
                let append =
                    Append { records: vec![new.clone(), record(1), new], ..append(&stream(to), [1]) };
                assert_eq!(wait(journal.append(append.clone())), wait(model.append(append)));
            }
            Step::Reopen => {
                drop(journal);
                journal = open();
            }
            Step::Scan { stream: of, from, before, limit, newest_first } => {
                let query = Scan {
                    stream: of.map(stream),
                    from: Seq(from),
                    before: before.map(Seq),
                    limit,
                    newest_first,
                    ..Scan::default()
                };
                let (left, right) = (journal.scan(&query).expect("readable"), model.scan(&query));
                assert_eq!(left, right.expect("readable"), "{query:?}");
            }
        }
    }
    for log in Log::ALL {
        assert_eq!(journal.head(log).map(|h| h.hash), model.head(log).map(|h| h.hash));
        journal.verify(log, None).expect("whole");
    }
    for of in 0..6 {
        let query = Scan { stream: Some(stream(of)), limit: 7, newest_first: true, ..Scan::default() };
        assert_eq!(scan_all(&journal, query.clone()), scan_all(&model, query));
    }
    assert_eq!(all(&journal), all(&model));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("PLIMSOLL_SOAK").is_some() { 300 } else { 12 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_durable_journal_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        run(steps);
    }
}
