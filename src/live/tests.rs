//! What holds for the live view as a whole.

use serde_json::Map;

use super::*;
use crate::clock::Timestamp;
use crate::ids::{RequestId, SessionId};
use crate::telemetry::metric::Definition;

fn registry() -> Registry {
    let catalogue: Vec<Definition> = metrics::CATALOGUE.iter().map(|definition| **definition).collect();
    Registry::new(&catalogue).expect("valid")
}

fn live() -> (Arc<Live>, Registry) {
    let registry = registry();
    let (clock, _hand) = Clock::manual(Timestamp::from_millis(1));
    (Live::new(&Config::default(), &registry, clock), registry)
}

fn event(level: Level, n: u64) -> Event {
    Event {
        timestamp: Timestamp::from_millis(n),
        level,
        source: "agent.send".into(),
        message: format!("event {n}"),
        context: Map::new(),
    }
}

fn model_call(latency: f64, error: Option<&str>) -> ModelCall {
    ModelCall {
        timestamp: Timestamp::from_millis(1),
        provider: "openai".to_owned(),
        model: "m-2026".to_owned(),
        requested_model: "m".to_owned(),
        agent: AgentId::parse("a").expect("valid"),
        session: SessionId::parse("s").expect("valid"),
        request_id: RequestId::parse("r").expect("valid"),
        trace_id: TraceId::from_bits(1).expect("not zero"),
        latency,
        time_to_first_token: None,
        input_tokens: Some(10),
        output_tokens: None,
        tokens_per_sec: None,
        cost_usd: None,
        unpriced: true,
        error: error.map(str::to_owned),
    }
}

#[test]
fn an_agent_is_failing_from_its_third_failed_call_in_a_row_until_a_good_one() {
    let (live, _registry) = live();
    let call = |agent: &str, second: u64, error: Option<&str>| {
        let (agent, timestamp) = (AgentId::parse(agent).expect("valid"), Timestamp::from_millis(second));
        live.record_model_call(ModelCall { agent, timestamp, ..model_call(1.0, error) });
    };
    let failing = |agents, since| Some(FailingAgents { agents, since: Timestamp::from_millis(since) });
    call("a", 1, Some("500"));
    call("a", 2, Some("deadline"));
    call("b", 3, Some("timeout"));
    call("a", 4, Some("cancelled"));
    assert_eq!(live.failing_agents(), None, "a cancelled call says nothing");
    call("a", 5, Some("500"));
    assert_eq!(live.failing_agents(), failing(1, 1));
    [6, 7].iter().for_each(|second| call("b", *second, Some("timeout")));
    assert_eq!(live.failing_agents(), failing(2, 1));
    call("a", 8, None);
    assert_eq!(live.failing_agents(), failing(1, 3));
    call("b", 9, None);
    assert_eq!(live.failing_agents(), None);
}

#[test]
fn events_are_filtered_by_exactly_their_level_newest_first() {
    let (live, _registry) = live();
    for n in 0..9 {
        live.record_event(event([Level::Info, Level::Warn, Level::Error][n as usize % 3], n));
    }
    let asked = |level, limit| {
        let filter = EventFilter { level, source: None, limit };
        live.events(&filter).iter().map(|e| e.timestamp.as_millis()).collect::<Vec<_>>()
    };
    assert_eq!(asked(Some(Level::Warn), None), [7, 4, 1]);
    assert_eq!(asked(Some(Level::Error), Some(2)), [8, 5]);
    assert_eq!(asked(None, Some(0)), [0_u64; 0]);
    assert_eq!(asked(None, None).len(), 9);
    let elsewhere = EventFilter { source: Some("journal".to_owned()), ..EventFilter::default() };
    assert_eq!(live.events(&elsewhere), []);
    assert_eq!(live.errors(), 3);
}

#[test]
fn the_rings_evict_the_oldest_at_201_and_501() {
    let (live, _registry) = live();
    for n in 0..501 {
        live.record_event(event(Level::Info, n));
        live.record_model_call(model_call(n as f64, None));
    }
    let events = live.events(&EventFilter::default());
    assert_eq!((events.len(), events[499].timestamp), (500, Timestamp::from_millis(1)));
    let calls = live.model_calls();
    assert_eq!((calls.total, calls.recent.len()), (501, 200));
    assert_eq!((calls.recent[0].latency, calls.recent[199].latency), (500.0, 301.0));
}

#[test]
fn the_mean_and_the_share_of_failures_are_over_the_calls_kept() {
    let (live, _registry) = live();
    let empty = live.model_calls();
    assert_eq!((empty.total, empty.avg_latency, empty.error_rate), (0, 0.0, 0.0));
    (0..200).for_each(|_| live.record_model_call(model_call(1_000.0, Some("timeout"))));
    (0..150).for_each(|_| live.record_model_call(model_call(100.0, None)));
    let calls = live.model_calls();
    assert_eq!((calls.total, calls.error_rate), (350, 0.25));
    assert_eq!(calls.avg_latency, (150.0 * 100.0 + 50.0 * 1_000.0) / 200.0);
}

#[test]
fn envelopes_are_made_only_if_somebody_listens() {
    let (live, _registry) = live();
    live.publish_with(|| unreachable!("nobody listens"));
    let mut stream = live.subscribe();
    live.record_event(event(Level::Warn, 3));
    let heard = stream.try_recv().expect("published");
    assert_eq!((heard.level, heard.summary.as_str(), heard.seq), (Level::Warn, "event 3", None));
}
