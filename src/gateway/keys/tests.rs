//! What the keys hold, and for how long.

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::journal::MemoryJournal;

fn at(hours: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000_000).after(Duration::from_secs(hours * 3_600))
}

fn request(key: &str, message: &str) -> SendRequest {
    let agent = AgentId::parse("a").expect("valid");
    let key = IdempotencyKey::parse(key).expect("valid");
    SendRequest { idempotency_key: Some(key), ..SendRequest::new(agent, message.to_owned()) }
}

fn wanted(key: &str, message: &str) -> Wanted {
    Wanted::of(&Actor::Local, &request(key, message)).expect("it has a key")
}

fn active(id: &str, now: Timestamp) -> Arc<Active> {
    Arc::new(Active {
        id: RequestId::parse(id).expect("valid"),
        session: SessionId::parse("s").expect("valid"),
        agent: AgentId::parse("a").expect("valid"),
        channel: Channel::Ws,
        message_bytes: 1,
        accepted_at: now,
        accepted: Duration::ZERO,
        key: None,
        cancel: Default::default(),
        end: Default::default(),
        progress: Default::default(),
    })
}

fn take(keys: &Arc<Keys>, key: &str, id: &str, now: Timestamp) -> Result<Claim, String> {
    match keys.claim(wanted(key, "m"), &active(id, now)) {
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
    let next = Arc::new(Keys::new(keys.keys_max));
    next.restore(&keys.snapshot()).expect("its own snapshot");
    next
}

#[tokio::test]
async fn a_key_is_taken_once_and_tells_how_its_request_ended() {
    let keys = Arc::new(Keys::new(9));
    let journal = journal(&keys);
    let mut claim = take(&keys, "k", "one", at(0)).expect("new");
    assert_eq!(take(&keys, "k", "two", at(0)).err().as_deref(), Some("under way: one"));
    accept(&mut claim, &journal).await.expect("memory takes it");
    claim.end(Outcome::Deadline);
    assert_eq!(take(&keys, "k", "two", at(1)).err().as_deref(), Some("deadline: one"));
    let other = keys.claim(wanted("k", "another"), &active("two", at(1)));
    assert!(matches!(other, Err(Rejection::Conflict { cause: "other_message", .. })));
}

#[tokio::test]
async fn what_the_journal_refused_is_free_again() {
    let keys = Arc::new(Keys::new(9));
    let journal = journal(&keys);
    drop(take(&keys, "k", "one", at(0)).expect("new"));
    journal.close();
    let mut claim = take(&keys, "k", "two", at(0)).expect("free: it was not let in");
    assert_eq!(accept(&mut claim, &journal).await, Err(NOT_ACCEPTED));
    assert!(!claim.asked());
    claim.end(Outcome::Failed);
    assert!(take(&keys, "k", "three", at(0)).is_ok());
}

#[tokio::test]
async fn a_request_that_was_refused_in_its_turn_frees_its_key_also_over_a_restart() {
    let keys = Arc::new(Keys::new(9));
    let journal = journal(&keys);
    let mut claim = take(&keys, "k", "one", at(0)).expect("new");
    accept(&mut claim, &journal).await.expect("memory takes it");
    claim.end(Outcome::Refused);
    assert!(take(&restarted(&keys), "k", "two", at(1)).is_ok());
    assert!(take(&keys, "k", "two", at(1)).is_ok());
}

#[tokio::test]
async fn a_restart_finds_what_ended_and_what_was_interrupted() {
    let keys = Arc::new(Keys::new(9));
    let journal = journal(&keys);
    let (mut open, mut ended) = (take(&keys, "open", "one", at(0)), take(&keys, "ended", "two", at(0)));
    for claim in [&mut open, &mut ended] {
        accept(claim.as_mut().expect("new"), &journal).await.expect("memory takes it");
    }
    ended.expect("new").end(Outcome::Ok);
    let unwritten = take(&keys, "unwritten", "three", at(0));
    let next = restarted(&keys);
    assert_eq!(take(&next, "open", "four", at(1)).err().as_deref(), Some("interrupted: one"));
    assert_eq!(take(&next, "ended", "four", at(1)).err().as_deref(), Some("ok: two"));
    assert!(take(&next, "unwritten", "four", at(1)).is_ok(), "it never ran");
    drop((open, unwritten));
}

#[tokio::test]
async fn a_key_holds_for_a_day_and_while_its_request_is_under_way() {
    let keys = Arc::new(Keys::new(9));
    let journal = journal(&keys);
    let mut claim = take(&keys, "k", "one", at(0)).expect("new");
    accept(&mut claim, &journal).await.expect("memory takes it");
    assert_eq!(take(&keys, "k", "two", at(30)).err().as_deref(), Some("under way: one"));
    claim.end(Outcome::Ok);
    let just_before = Timestamp::from_millis(at(24).as_millis() - 1);
    assert_eq!(take(&keys, "k", "two", just_before).err().as_deref(), Some("ok: one"));
    assert!(take(&keys, "k", "two", at(24)).is_ok());
}

#[test]
fn a_full_table_refuses_what_is_new_and_forgets_nothing() {
    let keys = Arc::new(Keys::new(2));
    let kept = [take(&keys, "a", "one", at(0)), take(&keys, "b", "two", at(1))];
    let full = keys.claim(wanted("c", "m"), &active("three", at(2)));
    let Err(Rejection::KeysFull { retry_after }) = full else { panic!("not full") };
    assert_eq!(retry_after, Duration::from_secs(22 * 3_600), "until the oldest ends");
    assert_eq!(take(&keys, "a", "three", at(2)).err().as_deref(), Some("under way: one"));
    drop(kept);
    assert!(take(&keys, "c", "three", at(2)).is_ok());
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
        let (whole, before) = (Keys::new(9), Keys::new(9));
        let mut hours = 0;
        let records: Vec<_> = steps.into_iter().enumerate().map(|(i, (key, pause, end))| {
            hours += pause / 8;
            record(i as u64 + 1, at(hours), &key.to_string(), end)
        }).collect();
        let cut = cut.min(records.len());
        records.iter().for_each(|record| whole.apply(record));
        records[..cut].iter().for_each(|record| before.apply(record));
        let after = Keys::new(9);
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
    Record {
        seq: crate::ids::Seq(seq),
        time,
        stream: StreamId::request(),
        kind: kind.to_owned(),
        version: 1,
        actor: Actor::Local,
        trace_id: None,
        detail,
        prev_hash: RecordHash::default(),
    }
}
