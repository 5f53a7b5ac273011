//! Budgets over a journal: clocks that jump, restarts, records that are lost.

use super::*;
use crate::clock::ManualTime;
use crate::gateway::record::{Outcome, REQUEST_FINISHED, REQUEST_FINISHED_VERSION, ToolCounts};
use crate::gateway::{Channel, Timings, Usage as AnswerUsage, UsageAmounts};
use crate::ids::{RequestId, SessionId};
use crate::journal::{Actor, Append, Journal, MemoryJournal, NewRecord, Scan, StreamId};
use crate::provider::ModelUsed;

fn agent() -> AgentId {
    AgentId::parse("a").expect("valid")
}

fn facts(n: u64, usd: Option<f64>, tokens: u64) -> RequestFinished {
    RequestFinished {
        request_id: RequestId::parse(&format!("r{n}")).expect("valid"),
        agent: agent(),
        session: SessionId::parse("s").expect("valid"),
        channel: Channel::Http,
        outcome: Outcome::Ok,
        code: None,
        timings: Timings::default(),
        tokens: AnswerUsage::default(),
        cost_usd: usd,
        model_calls: 1,
        provider: "echo",
        models: vec![ModelUsed {
            provider: "p".to_owned(),
            model: "m".to_owned(),
            calls: 1,
            input_tokens: tokens,
            cost_usd: usd,
            unpriced: u64::from(usd.is_none()),
            ..ModelUsed::default()
        }],
        tools: ToolCounts::default(),
        ran: true,
        key_hash: None,
    }
}

fn config(
    usd_per_day: Option<f64>,
    tokens_per_min: Option<u64>,
    requests_per_min: Option<u32>,
) -> AgentConfig {
    AgentConfig { usd_per_day, tokens_per_min, requests_per_min, ..AgentConfig::of_provider("p") }
}

fn meter(clock: &Clock, config: &AgentConfig) -> Arc<Meter> {
    let meter = Meter::new(clock.clone(), "UTC");
    meter.limit(&agent(), config);
    meter
}

fn journal_of(clock: &Clock, meter: &Arc<Meter>) -> MemoryJournal {
    MemoryJournal::new(clock.clone(), vec![Arc::clone(meter) as _])
}

fn land(journal: &MemoryJournal, facts: &RequestFinished) {
    let record = NewRecord {
        kind: REQUEST_FINISHED,
        version: REQUEST_FINISHED_VERSION,
        actor: Actor::Local,
        trace_id: None,
        detail: serde_json::to_value(facts).expect("JSON"),
    };
    let append = Append { stream: StreamId::request(), expected_last_seq: None, records: vec![record] };
    journal.offer(append).expect("taken");
}

/// A request from its arrival to its record.
fn run(meter: &Arc<Meter>, journal: &MemoryJournal, facts: &RequestFinished) -> Result<(), Rejection> {
    meter.arrive(&agent())?.keep();
    meter.ended(facts);
    land(journal, facts);
    Ok(())
}

/// Ten minutes of one request a second: how many were let in.
fn let_in(
    meter: &Arc<Meter>,
    journal: &MemoryJournal,
    hand: &ManualTime,
    facts: impl Fn(u64) -> RequestFinished,
) -> usize {
    let second = |n: &u64| {
        hand.advance(Duration::from_secs(1));
        run(meter, journal, &facts(*n)).is_ok()
    };
    (1..=600).filter(second).count()
}

fn start() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-21T10:00:00Z").expect("valid")
}

/// The second of the start, as a key.
fn second() -> String {
    (start().as_millis() / 1_000).to_string()
}

#[test]
fn rates_hold_after_the_clock_was_set_back() {
    let (clock, hand) = Clock::manual(start().after(Duration::from_secs(120)));
    let meter = meter(&clock, &config(None, Some(100), None));
    let journal = journal_of(&clock, &meter);
    run(&meter, &journal, &facts(0, None, 1)).expect("the first");
    hand.set_wall(start());
    let passed = let_in(&meter, &journal, &hand, |n| facts(n, None, 90));
    assert!((10..=22).contains(&passed), "two a minute, but {passed}");
}

#[test]
fn budgets_hold_after_the_clock_was_ahead_for_a_moment() {
    let (clock, hand) = Clock::manual(start().after(Duration::from_secs(30 * 3_600)));
    let meter = meter(&clock, &config(Some(1.0), None, None));
    let journal = journal_of(&clock, &meter);
    run(&meter, &journal, &facts(0, Some(0.0001), 1)).expect("the first");
    hand.set_wall(start());
    let passed = let_in(&meter, &journal, &hand, |n| facts(n, Some(0.5), 1));
    assert_eq!(passed, 2);
}

#[test]
fn budgets_hold_where_the_clock_was_ahead_before_a_restart() {
    let (clock, hand) = Clock::manual(start().after(Duration::from_secs(30 * 3_600)));
    let config = config(Some(1.0), None, None);
    let before = meter(&clock, &config);
    run(&before, &journal_of(&clock, &before), &facts(0, Some(1.0), 1)).expect("the first");
    hand.set_wall(start());
    let after = meter(&clock, &config);
    after.restore(&before.snapshot()).expect("its own");
    assert!(after.arrive(&agent()).is_err(), "its day is the one that was spent on");
}

#[test]
fn who_is_refused_hears_a_time_of_the_clock_on_the_wall() {
    let (clock, hand) = Clock::manual(start().after(Duration::from_secs(3_600)));
    let meter = meter(&clock, &config(None, Some(1), None));
    run(&meter, &journal_of(&clock, &meter), &facts(0, None, 1)).expect("the first");
    hand.set_wall(start());
    let Err(Rejection::Limited { advice, retry_after, .. }) = meter.arrive(&agent()) else {
        panic!("let in")
    };
    assert_eq!(retry_after, Duration::from_secs(60));
    assert!(advice.contains("2026-11-21T10:01:00"), "{advice}");
}

#[test]
fn rates_hold_over_a_clean_restart_where_nothing_has_a_price() {
    for limits in [config(None, Some(5), None), config(None, None, Some(2))] {
        let (clock, hand) = Clock::manual(start());
        let before = meter(&clock, &limits);
        let journal = journal_of(&clock, &before);
        (0..2).for_each(|n| run(&before, &journal, &facts(n, None, 4)).expect("let in"));
        hand.advance(Duration::from_secs(1));
        let after = meter(&clock, &limits);
        after.restore(&before.snapshot()).expect("its own");
        assert!(after.arrive(&agent()).is_err());
        hand.advance(Duration::from_secs(60));
        assert_eq!(after.snapshot()["accounts"], serde_json::json!({}), "a minute later nothing counts");
    }
}

/// A record that is taken and not written, as on a full disk; and one that is not even taken, as where the queue is full.
#[tokio::test]
async fn what_is_spent_while_records_are_lost_is_written_once_and_outlives_a_stop() {
    let (clock, _hand) = Clock::manual(start());
    let limits = config(Some(1.0), Some(1_000), None);
    let before = meter(&clock, &limits);
    let journal = journal_of(&clock, &before);
    run(&before, &journal, &facts(0, Some(0.25), 1)).expect("let in");
    for (n, taken) in [(1, true), (2, false)] {
        before.arrive(&agent()).expect("let in").keep();
        let mut facts = facts(n, Some(0.5), 400);
        (facts.models[0].estimated_usd, facts.models[0].estimated_tokens) = (Some(0.125), 8);
        let spent = before.ended(&facts);
        if taken {
            before.lost(REQUEST_FINISHED, &serde_json::to_value(&facts).expect("JSON"));
        } else {
            before.record_lost(&facts.agent, &facts.request_id, spent);
        }
    }
    let spent = |meter: &Meter| meter.spending(&agent()).usd;
    assert_eq!(spent(&before), 1.5, "it counts at once");
    let broken = MemoryJournal::new(clock.clone(), Vec::new());
    broken.close();
    assert!(!before.write_lost(&broken).await, "a journal that is closed");
    assert!(before.write_lost(&journal).await);
    assert!(before.write_lost(&journal).await, "nothing is left");
    assert_eq!(spent(&before), 1.5, "it counts once");
    let report = before.report(&UsageQuery {
        by: crate::gateway::UsageBy::Agent,
        since: Timestamp::default(),
        agent: None,
    });
    let UsageAmounts { requests, cost_usd, estimated_usd, input_tokens, estimated_tokens, .. } = report.total;
    assert_eq!(
        (requests, cost_usd, estimated_usd),
        (3, Some(1.25), Some(0.25)),
        "known and estimated stay apart"
    );
    assert_eq!((input_tokens, estimated_tokens), (801, 16));
    let after = meter(&clock, &limits);
    after.restore(&before.snapshot()).expect("its own");
    assert_eq!(spent(&after), 1.5);
    assert!(after.arrive(&agent()).is_err());
    let page = journal.scan(&Scan { limit: 10, ..Scan::default() }).expect("read");
    let lost = page.records.iter().filter(|record| record.kind == SPEND_LOST).collect::<Vec<_>>();
    let expected = serde_json::json!({
        "agent": "a", "at": start(), "requests": 2, "usd": 1.0, "estimatedUsd": 0.25,
        "inputTokens": 800, "outputTokens": 0, "estimatedTokens": 16,
        "tokensBySecond": {second(): 816}, "requestsBySecond": {second(): 2},
    });
    assert_eq!(lost.iter().map(|record| &record.detail).collect::<Vec<_>>(), [&expected]);
}

#[tokio::test]
async fn that_a_budget_is_used_up_is_recorded_once_a_day_also_over_a_restart() {
    let (clock, hand) = Clock::manual(start());
    let limits = config(Some(1.0), None, None);
    let before = meter(&clock, &limits);
    let journal = journal_of(&clock, &before);
    run(&before, &journal, &facts(0, Some(1.5), 1)).expect("let in");
    for _ in 0..3 {
        assert!(before.arrive(&agent()).is_err());
    }
    assert!(before.write_lost(&journal).await);
    let reached = || {
        let page = journal.scan(&Scan { limit: 20, ..Scan::default() }).expect("read");
        let reached = page.records.into_iter().filter(|record| record.kind == BUDGET_REACHED);
        reached.map(|record| record.detail).collect::<Vec<_>>()
    };
    let day = |number: u64| Timestamp::from_millis((start().as_millis() / 86_400_000 + number) * 86_400_000);
    let expected =
        |until: Timestamp| serde_json::json!({"agent": "a", "usd": 1.5, "budgetUsd": 1.0, "until": until});
    assert_eq!(reached(), [expected(day(1))]);
    let after = meter(&clock, &limits);
    after.restore(&before.snapshot()).expect("its own");
    assert!(after.arrive(&agent()).is_err());
    assert!(after.write_lost(&journal).await);
    assert_eq!(reached().len(), 1, "an earlier life recorded it");
    hand.advance(day(1).since(start()));
    journal.reopen(crate::ids::Seq(u64::MAX), vec![Arc::clone(&after) as _]);
    run(&after, &journal, &facts(1, Some(1.5), 1)).expect("a new day");
    assert!(after.arrive(&agent()).is_err());
    assert!(after.write_lost(&journal).await);
    assert_eq!(reached(), [expected(day(1)), expected(day(2))]);
}
