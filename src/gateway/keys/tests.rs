//! What the keys hold, and for how long.

use proptest::prelude::*;

use super::*;
use crate::clock::ManualTime;
use crate::journal::MemoryJournal;

const HOUR: Duration = Duration::from_secs(3_600);

fn at(hours: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000_000).after(HOUR * u32::try_from(hours).expect("few"))
}

/// Keys whose clock stands at `at(0)`.
fn keys(keys_max: usize) -> (Arc<Keys>, Arc<ManualTime>) {
    let (clock, hand) = Clock::manual(at(0));
    (Arc::new(Keys::new(keys_max, clock)), hand)
}

fn request(key: &str, message: &str) -> SendRequest {
    let agent = AgentId::parse("a").expect("valid");
    let key = IdempotencyKey::parse(key).expect("valid");
    SendRequest { idempotency_key: Some(key), ..SendRequest::new(agent, message.to_owned()) }
}

fn wanted(key: &str, message: &str) -> Wanted {
    Wanted::of(&Actor::Local, &request(key, message)).expect("it has a key")
}

/// A request that comes in at `at(hours)`.
fn active(id: &str, hours: u64) -> Arc<Active> {
    Arc::new(Active {
        id: RequestId::parse(id).expect("valid"),
        session: SessionId::parse("s").expect("valid"),
        agent: AgentId::parse("a").expect("valid"),
        channel: Channel::Ws,
        message_bytes: 1,
        accepted_at: at(hours),
        accepted: HOUR * u32::try_from(hours).expect("few"),
        key: None,
        cancel: Default::default(),
        end: Default::default(),
        progress: Default::default(),
    })
}

fn take(keys: &Arc<Keys>, key: &str, id: &str, hours: u64) -> Result<Claim, String> {
    claimed(keys.claim(wanted(key, "m"), &active(id, hours)))
}

fn claimed(claim: Result<Claimed, Rejection>) -> Result<Claim, String> {
    match claim {
        Ok(Claimed::New(claim)) => Ok(claim),
        Ok(Claimed::UnderWay(first)) => Err(format!("under way: {}", first.id)),
        Ok(Claimed::Ended(first, outcome)) => Err(format!("{}: {first}", outcome.as_str())),
        Err(Rejection::Conflict { cause, request_id, .. }) => Err(format!("{cause}: {request_id}")),
        Err(other) => Err(other.to_string()),
    }
}

fn journal(keys: &Arc<Keys>) -> MemoryJournal {
    MemoryJournal::new(Clock::system(), vec![Arc::clone(keys) as _])
}

async fn accept(claim: &mut Claim, journal: &MemoryJournal) -> Result<(), Rejection> {
    claim.accept(journal, &Actor::Local, TraceId::from_bits(1).expect("not 0")).await
}

/// The state as the next process finds it.
fn restarted(keys: &Keys) -> Arc<Keys> {
    let next = Arc::new(Keys::new(keys.keys_max, keys.clock.clone()));
    next.restore(&keys.snapshot()).expect("its own snapshot");
    next
}

#[tokio::test]
async fn a_key_is_taken_once_and_tells_how_its_request_ended() {
    let (keys, _hand) = keys(9);
    let journal = journal(&keys);
    let mut claim = take(&keys, "k", "one", 0).expect("new");
    assert_eq!(take(&keys, "k", "two", 0).err().as_deref(), Some("under way: one"));
    accept(&mut claim, &journal).await.expect("memory takes it");
    claim.end(Outcome::Deadline, true);
    assert_eq!(take(&keys, "k", "two", 1).err().as_deref(), Some("deadline: one"));
    let other = keys.claim(wanted("k", "another"), &active("two", 1));
    assert!(matches!(other, Err(Rejection::Conflict { cause: "other_message", .. })));
}

#[tokio::test]
async fn what_the_journal_refused_is_free_again() {
    let (keys, _hand) = keys(9);
    let journal = journal(&keys);
    drop(take(&keys, "k", "one", 0).expect("new"));
    journal.close();
    let mut claim = take(&keys, "k", "two", 0).expect("free: it was not let in");
    assert_eq!(accept(&mut claim, &journal).await, Err(NOT_ACCEPTED));
    assert!(!claim.asked());
    claim.end(Outcome::Failed, true);
    assert!(take(&keys, "k", "three", 0).is_ok());
}

#[tokio::test]
async fn a_request_that_was_refused_in_its_turn_frees_its_key_also_over_a_restart() {
    let (keys, _hand) = keys(9);
    let journal = journal(&keys);
    let mut claim = take(&keys, "k", "one", 0).expect("new");
    accept(&mut claim, &journal).await.expect("memory takes it");
    claim.end(Outcome::Refused, false);
    assert!(take(&restarted(&keys), "k", "two", 1).is_ok());
    assert!(take(&keys, "k", "two", 1).is_ok());
}

#[tokio::test]
async fn a_restart_finds_what_ended_and_what_was_interrupted() {
    let (keys, _hand) = keys(9);
    let journal = journal(&keys);
    let (mut open, mut ended) = (take(&keys, "open", "one", 0), take(&keys, "ended", "two", 0));
    for claim in [&mut open, &mut ended] {
        accept(claim.as_mut().expect("new"), &journal).await.expect("memory takes it");
    }
    ended.expect("new").end(Outcome::Ok, true);
    let unwritten = take(&keys, "unwritten", "three", 0);
    let next = restarted(&keys);
    assert_eq!(take(&next, "open", "four", 1).err().as_deref(), Some("interrupted: one"));
    assert_eq!(take(&next, "ended", "four", 1).err().as_deref(), Some("ok: two"));
    assert!(take(&next, "unwritten", "four", 1).is_ok(), "it never ran");
    drop((open, unwritten));
}

#[tokio::test]
async fn a_key_holds_for_a_day_and_while_its_request_is_under_way() {
    let (keys, _hand) = keys(9);
    let journal = journal(&keys);
    let mut claim = take(&keys, "k", "one", 0).expect("new");
    accept(&mut claim, &journal).await.expect("memory takes it");
    assert_eq!(take(&keys, "k", "two", 30).err().as_deref(), Some("under way: one"));
    claim.end(Outcome::Ok, true);
    assert_eq!(take(&keys, "k", "two", 23).err().as_deref(), Some("ok: one"));
    assert!(take(&keys, "k", "two", 24).is_ok());
}

#[tokio::test]
async fn a_wall_clock_that_is_set_makes_no_key_shorter() {
    let (keys, hand) = keys(9);
    let journal = journal(&keys);
    let mut claim = take(&keys, "k", "one", 0).expect("new");
    accept(&mut claim, &journal).await.expect("memory takes it");
    claim.end(Outcome::Ok, true);
    // The journal is ahead of the clock, and another request is accepted at its time.
    keys.apply(&record(9, at(30), "other", false));
    assert_eq!(take(&keys, "k", "two", 1).err().as_deref(), Some("ok: one"));
    // The clock is set forward: nothing elapsed.
    hand.set_wall(at(48));
    let request =
        Arc::new(Active { accepted_at: at(48), ..Arc::into_inner(active("two", 1)).expect("ours") });
    let again = claimed(keys.claim(wanted("k", "m"), &request));
    assert_eq!(again.err().as_deref(), Some("ok: one"));
    // And back: what the next process reads lies in its future.
    hand.set_wall(at(0));
    assert_eq!(
        take(&restarted(&keys), "other", "two", 1).err().as_deref(),
        Some("other_message: other"),
        "known"
    );
}

#[tokio::test]
async fn what_never_ran_leaves_its_key_free_also_over_a_restart() {
    for outcome in [Outcome::Cancelled, Outcome::Deadline, Outcome::Refused] {
        let (keys, _hand) = keys(9);
        let journal = journal(&keys);
        let mut claim = take(&keys, "k", "one", 0).expect("new");
        accept(&mut claim, &journal).await.expect("memory takes it");
        let killed = restarted(&keys);
        assert_eq!(take(&killed, "k", "two", 1).err().as_deref(), Some("interrupted: one"));
        let mut end = record(2, at(0), "k", true);
        end.detail["requestId"] = serde_json::json!("one");
        end.detail["outcome"] = serde_json::json!(outcome);
        end.detail["ran"] = serde_json::json!(false);
        killed.apply(&end);
        assert!(take(&killed, "k", "two", 1).is_ok(), "{outcome:?}");
        claim.end(outcome, false);
        assert!(take(&keys, "k", "two", 1).is_ok(), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_waited_for_a_little_and_its_late_record_takes_no_key() {
    let (keys, _hand) = keys(9);
    let journal = journal(&keys);
    journal.hang();
    let mut late = take(&keys, "k", "one", 0).expect("new");
    assert_eq!(accept(&mut late, &journal).await, Err(NOT_ACCEPTED));
    assert!(late.asked(), "the journal may have it");
    late.end(Outcome::Refused, false);
    let mut second = take(&keys, "k", "two", 0).expect("free: nothing ran");
    journal.go_on();
    assert_eq!(take(&keys, "k", "three", 0).err().as_deref(), Some("under way: two"));
    accept(&mut second, &journal).await.expect("memory takes it");
    second.end(Outcome::Ok, true);
    assert_eq!(take(&keys, "k", "three", 0).err().as_deref(), Some("ok: two"));
    journal.hang();
    let mut late = take(&keys, "other", "four", 0).expect("new");
    assert_eq!(accept(&mut late, &journal).await, Err(NOT_ACCEPTED));
    late.end(Outcome::Refused, false);
    journal.go_on();
    assert!(take(&keys, "other", "five", 0).is_ok());
}

#[test]
fn a_full_table_refuses_what_is_new_and_forgets_nothing() {
    let (keys, _hand) = keys(2);
    let kept = [take(&keys, "a", "one", 0), take(&keys, "b", "two", 1)];
    let full = keys.claim(wanted("c", "m"), &active("three", 2));
    let Err(Rejection::KeysFull { retry_after }) = full else { panic!("not full") };
    assert_eq!(retry_after, Duration::from_secs(22 * 3_600), "until the oldest ends");
    assert_eq!(take(&keys, "a", "three", 2).err().as_deref(), Some("under way: one"));
    drop(kept);
    assert!(take(&keys, "c", "three", 2).is_ok());
}

#[test]
fn callers_agents_and_all_that_is_said_are_told_apart() {
    let key = |actor: &Actor, request: &SendRequest| Wanted::of(actor, request).expect("it has a key");
    let first = key(&Actor::Local, &request("k", "m"));
    let other_agent = SendRequest { agent: AgentId::parse("b").expect("valid"), ..request("k", "m") };
    assert_ne!(first.key, key(&Actor::System, &request("k", "m")).key);
    assert_ne!(first.key, key(&Actor::Local, &other_agent).key);
    let said = |more: SendRequest| key(&Actor::Local, &more).message;
    let session = Some(SessionId::parse("s").expect("valid"));
    assert_ne!(first.message, said(SendRequest { session, ..request("k", "m") }));
    assert_ne!(first.message, said(SendRequest { system: Some("be kind".to_owned()), ..request("k", "m") }));
    assert_ne!(first.message, said(request("other", "m")), "who reads the journal cannot try messages out");
    assert_eq!(first.message, said(request("k", "m")));
}

proptest! {
    /// Whatever happens in whatever order: a snapshot and what comes after it make the same state as all records.
    #[test]
    fn a_snapshot_stands_for_the_records_before_it(
        steps in proptest::collection::vec((0_u8..4, 0_u64..40, any::<bool>()), 1..40),
        cut in 0_usize..40,
    ) {
        let make = || keys(9).0;
        let (whole, before) = (make(), make());
        let mut hours = 0;
        let records: Vec<_> = steps.into_iter().enumerate().map(|(i, (key, pause, end))| {
            hours += pause / 8;
            record(i as u64 + 1, at(hours), &key.to_string(), end)
        }).collect();
        let cut = cut.min(records.len());
        records.iter().for_each(|record| whole.apply(record));
        records[..cut].iter().for_each(|record| before.apply(record));
        let after = make();
        after.restore(&before.snapshot()).expect("its own snapshot");
        records[cut..].iter().for_each(|record| after.apply(record));
        prop_assert_eq!(whole.snapshot(), after.snapshot());
        let state = whole.state();
        prop_assert_eq!(state.all.len(), state.by_age.len());
    }
}

fn record(seq: u64, time: Timestamp, key: &str, end: bool) -> Record {
    let hash = wanted(key, "m").key;
    let (kind, detail) = if end {
        (REQUEST_FINISHED, serde_json::json!({"requestId": key, "keyHash": hash, "outcome": "ok"}))
    } else {
        let detail = serde_json::json!({
            "requestId": key, "agent": "a", "session": "s", "channel": "ws", "keyHash": hash, "messageHash": hash,
        });
        (REQUEST_ACCEPTED, detail)
    };
    Record { seq: crate::ids::Seq(seq), time, ..Record::example(StreamId::request(), kind, detail) }
}
