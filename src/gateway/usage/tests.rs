//! Sums by every side, days in zones, bounds.

use super::super::record::Outcome;
use super::super::recorded::Took;
use super::*;
use crate::ids::RequestId;
use crate::provider::ModelUsed;

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).expect("valid")
}

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).expect("valid")
}

fn used(model: &str, cost_usd: Option<f64>) -> ModelUsed {
    ModelUsed {
        provider: "p".to_owned(),
        model: model.to_owned(),
        calls: 1,
        input_tokens: 10,
        output_tokens: 2,
        cost_usd,
        unpriced: u64::from(cost_usd.is_none()),
        ..ModelUsed::default()
    }
}

fn ended(id: &str, session: &str, outcome: Outcome, models: Vec<ModelUsed>) -> Recorded {
    Recorded {
        request_id: RequestId::parse("r").expect("valid"),
        agent: agent(id),
        session: SessionId::parse(session).expect("valid"),
        outcome,
        timings: Took { total_ms: 1.0 },
        models,
    }
}

fn usage(zone: &str) -> Usage {
    Usage::new(Zone::named(zone).expect("it exists"))
}

fn report(usage: &Usage, by: UsageBy, since: &str) -> UsageReport {
    let query = UsageQuery { by, since: at(since), agent: None };
    usage.report(&query, at("2026-11-21T12:00:00Z"), "UTC")
}

/// One request each: two agents, two models, one of them without a price.
fn some() -> Usage {
    let mut usage = usage("UTC");
    let two = vec![used("big", Some(0.5)), used("free", None)];
    usage.add(at("2026-11-20T10:10:00Z"), &ended("a", "s", Outcome::Ok, two));
    usage.add(at("2026-11-21T10:10:00Z"), &ended("a", "s", Outcome::Failed, vec![used("big", Some(0.25))]));
    usage.add(
        at("2026-11-21T11:10:00Z"),
        &ended("b", "t", Outcome::Cancelled, vec![used("small", Some(1.0))]),
    );
    usage.add(at("2026-11-21T11:20:00Z"), &ended("b", "u", Outcome::Refused, Vec::new()));
    usage
}

fn costs(report: &UsageReport) -> Vec<(String, u64, u64, f64)> {
    let row = |row: &UsageRow| {
        let UsageRow { day, agent, session, provider: _, model, amounts } = row;
        let names = [
            day.clone(),
            agent.as_ref().map(ToString::to_string),
            session.as_ref().map(ToString::to_string),
            model.clone(),
        ];
        let name = names.into_iter().flatten().collect::<Vec<_>>().join("/");
        (name, amounts.requests, amounts.calls, amounts.cost_usd.unwrap_or(0.0))
    };
    report.rows.iter().map(row).collect()
}

fn rows(expected: &[(&str, u64, u64, f64)]) -> Vec<(String, u64, u64, f64)> {
    expected
        .iter()
        .map(|(name, requests, calls, cost)| ((*name).to_owned(), *requests, *calls, *cost))
        .collect()
}

#[test]
fn every_side_of_it_has_the_same_total() {
    let usage = some();
    let since = "2026-11-01T00:00:00Z";
    let by = |by| costs(&report(&usage, by, since));
    assert_eq!(by(UsageBy::Agent), rows(&[("b", 2, 1, 1.0), ("a", 2, 3, 0.75)]));
    assert_eq!(by(UsageBy::Model), rows(&[("small", 1, 1, 1.0), ("big", 2, 2, 0.75), ("free", 1, 1, 0.0)]));
    assert_eq!(by(UsageBy::Session), rows(&[("b/t", 1, 1, 1.0), ("a/s", 2, 3, 0.75), ("b/u", 1, 0, 0.0)]));
    assert_eq!(by(UsageBy::Day), rows(&[("2026-11-20", 1, 2, 0.5), ("2026-11-21", 3, 2, 1.25)]));
    let totals = [UsageBy::Agent, UsageBy::Model, UsageBy::Session, UsageBy::Day];
    for total in totals.map(|by| report(&usage, by, since).total) {
        assert_eq!((total.requests, total.failed, total.calls), (4, 1, 4));
        assert_eq!((total.cost_usd, total.unpriced, total.input_tokens), (Some(1.75), 1, 40));
    }
}

#[test]
fn models_without_a_price_are_named_and_not_free() {
    let report = report(&some(), UsageBy::Session, "2026-11-01T00:00:00Z");
    let free = UnpricedModel { provider: "p".to_owned(), model: "free".to_owned(), calls: 1 };
    assert_eq!(report.unpriced_models, [free]);
}

#[test]
fn what_has_no_price_costs_no_known_dollars_and_what_cost_nothing_none() {
    let mut usage = usage("UTC");
    let now = at("2026-11-21T10:10:00Z");
    let estimated = ModelUsed { estimated_tokens: 5, ..used("free", None) };
    usage.add(now, &ended("a", "s", Outcome::Ok, vec![estimated, used("also free", None)]));
    usage.add(now, &ended("b", "s", Outcome::Refused, Vec::new()));
    for _ in 0..3 {
        usage.add(now, &ended("a", "s", Outcome::Ok, vec![used("m", Some(0.1))]));
    }
    let by_model = report(&usage, UsageBy::Model, "2026-11-21T10:00:00Z");
    let dollars = |amounts: &UsageAmounts| (amounts.cost_usd, amounts.estimated_usd);
    let rows: Vec<_> =
        by_model.rows.iter().map(|row| (row.model.as_deref(), dollars(&row.amounts))).collect();
    let expected = [
        (Some("m"), (Some(0.3), Some(0.0))),
        (Some("also free"), (None, Some(0.0))),
        (Some("free"), (None, None)),
    ];
    assert_eq!(rows, expected, "to the picodollar");
    let by_agent = report(&usage, UsageBy::Agent, "2026-11-21T10:00:00Z");
    assert_eq!(dollars(&by_agent.rows[1].amounts), (Some(0.0), Some(0.0)), "b called no model");
}

#[test]
fn since_takes_the_hour_that_holds_it_whole() {
    let usage = some();
    let since = |since: &str| {
        let report = report(&usage, UsageBy::Agent, since);
        (report.since, report.total.requests)
    };
    assert_eq!(since("2026-11-21T10:59:59Z"), (at("2026-11-21T10:00:00Z"), 3));
    assert_eq!(since("2026-11-21T11:00:00Z"), (at("2026-11-21T11:00:00Z"), 2));
    assert_eq!(since("2026-11-21T12:00:00Z"), (at("2026-11-21T12:00:00Z"), 0));
    assert_eq!(
        since("2026-11-20T12:30:00.080Z"),
        (at("2026-11-20T12:00:00Z"), 3),
        "also where nothing was used"
    );
    assert_eq!(since("2026-10-01T05:59:00Z"), (at("2026-10-01T05:00:00Z"), 4));
}

#[test]
fn only_one_agent_where_it_is_asked_for() {
    let query = UsageQuery { by: UsageBy::Model, since: at("2026-11-01T00:00:00Z"), agent: Some(agent("b")) };
    let report = some().report(&query, at("2026-11-21T12:00:00Z"), "UTC");
    assert_eq!(costs(&report), rows(&[("small", 1, 1, 1.0)]));
    assert_eq!((report.total.requests, report.unpriced_models), (2, Vec::new()));
}

/// In Kathmandu a day begins at a quarter past six in the evening of UTC.
#[test]
fn an_hour_in_which_a_day_ends_is_two() {
    let mut usage = usage("Asia/Kathmandu");
    let one = |model: &str| ended("a", "s", Outcome::Ok, vec![used(model, Some(1.0))]);
    usage.add(at("2026-11-20T18:14:59Z"), &one("m"));
    usage.add(at("2026-11-20T18:15:00Z"), &one("m"));
    usage.add(at("2026-11-20T18:59:00Z"), &one("m"));
    let days = costs(&report(&usage, UsageBy::Day, "2026-11-01T00:00:00Z"));
    assert_eq!(days, rows(&[("2026-11-20", 1, 1, 1.0), ("2026-11-21", 2, 2, 2.0)]));
}

#[test]
fn hours_become_days_and_old_days_go_without_losing_a_cent() {
    let mut usage = usage("Europe/Berlin");
    let start = at("2026-10-01T00:30:00Z").as_millis();
    let hours = 24 * 60;
    for hour in 0..hours {
        let time = Timestamp::from_millis(start + hour * HOUR_MS);
        usage.add(time, &ended("a", "s", Outcome::Ok, vec![used("m", Some(1.0))]));
    }
    assert!(usage.spans.len() < 60 + 4 * 24, "{}", usage.spans.len());
    assert!(usage.sessions.len() as u64 <= USAGE_SESSION_DAYS_KEPT + 1);
    let all = report(&usage, UsageBy::Day, "2026-01-01T00:00:00Z");
    assert_eq!((all.total.requests, all.rows.len()), (hours, 61));
    // The day on which clocks go back has 25 hours, all others inside have 24.
    let of = |day: &str| {
        all.rows.iter().find(|row| row.day.as_deref() == Some(day)).map(|row| row.amounts.requests)
    };
    assert_eq!((of("2026-10-24"), of("2026-10-25"), of("2026-10-26")), (Some(24), Some(25), Some(24)));
    let later = Timestamp::from_millis(start + (hours + 100 * 24) * HOUR_MS);
    usage.add(later, &ended("a", "s", Outcome::Ok, Vec::new()));
    assert_eq!(report(&usage, UsageBy::Day, "2026-01-01T00:00:00Z").total.requests, 1);
}

#[test]
fn what_comes_from_outside_is_bounded_and_summed_up() {
    let mut usage = usage("UTC");
    let now = at("2026-11-21T10:00:00Z");
    let (sessions, models) = (USAGE_SESSIONS_MAX + 50, USAGE_MODELS_MAX + 5);
    for n in 0..sessions {
        let model = format!("m{}", n % models);
        usage.add(now, &ended("a", &format!("s{n}"), Outcome::Ok, vec![used(&model, Some(0.01))]));
    }
    let by_session = report(&usage, UsageBy::Session, "2026-11-21T00:00:00Z");
    assert_eq!((by_session.total.requests, by_session.rows.len()), (sessions as u64, USAGE_ROWS_MAX));
    let nameless: u64 =
        by_session.rows.iter().filter(|row| row.session.is_none()).map(|row| row.amounts.requests).sum();
    assert!(nameless >= 50, "{nameless}");
    let by_model = report(&usage, UsageBy::Model, "2026-11-21T00:00:00Z");
    assert_eq!(by_model.rows.len(), USAGE_MODELS_MAX + 1);
    assert_eq!(by_model.total.requests, sessions as u64);
    assert!(by_model.rows.iter().any(|row| row.model.as_deref() == Some(OTHER_MODELS)));
}

#[test]
fn a_snapshot_restores_all_of_it_also_in_another_zone() {
    let before = some();
    let stored = serde_json::to_value(before.store()).expect("JSON");
    let mut after = usage("UTC");
    after.restore(serde_json::from_value(stored.clone()).expect("its own snapshot"));
    let since = "2026-11-01T00:00:00Z";
    for by in [UsageBy::Agent, UsageBy::Model, UsageBy::Session, UsageBy::Day] {
        assert_eq!(report(&after, by, since), report(&before, by, since));
    }
    let mut elsewhere = usage("Pacific/Auckland");
    elsewhere.restore(serde_json::from_value(stored).expect("its own snapshot"));
    assert_eq!(report(&elsewhere, UsageBy::Day, since).total, report(&before, UsageBy::Day, since).total);
}

#[test]
fn since_is_read_as_people_and_programs_say_it() {
    let now = at("2026-11-21T12:00:00Z");
    assert_eq!(parse_since("1h", now), Ok(at("2026-11-21T11:00:00Z")));
    assert_eq!(parse_since("2026-11-20T12:00:00Z", now), Ok(at("2026-11-20T12:00:00Z")));
    assert_eq!(parse_since("1000", now), Ok(Timestamp::from_millis(1_000)));
    assert_eq!(parse_since("30000d", now), Ok(Timestamp::default()));
    assert!(parse_since("yesterday", now).is_err_and(|problem| problem.contains("7d")));
}
