//! What a scrape shows of towns.

use super::*;

fn town(name: &str) -> TownId {
    TownId::parse(name).expect("an id")
}

/// A registry, with as many towns as have series of their own: `t00` and so on.
fn full() -> (Registry, Metrics) {
    let registry = crate::telemetry::Registry::new(&CATALOGUE.iter().map(|one| **one).collect::<Vec<_>>());
    let registry = registry.expect("a catalogue");
    let metrics = Metrics::new(&registry);
    (0..TOWN_SERIES_MAX).for_each(|n| drop(metrics.town(&town(&format!("t{n:02}")))));
    (registry, metrics)
}

/// The series of this town, without its label and without buckets.
fn series_of(registry: &Registry, label: &str) -> BTreeMap<String, String> {
    let label = format!("{{town=\"{label}\"");
    let text = registry.render();
    let own = text.lines().filter(|line| line.contains(&label) && !line.contains("_bucket{"));
    own.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        (series.replacen(&label, "{", 1).replace("{,", "{").replace("{}", ""), value.to_owned())
    })
    .collect()
}

fn gauges(name: &str, n: u64) -> TownGauges {
    TownGauges {
        pending: n,
        running: Duration::from_millis(n * 10),
        overdue: Duration::from_secs(n),
        last_tick: Duration::from_millis(n),
        open: [(7, n)].into(),
        agents: [(AgentStatus::Stalled, n)].into(),
        classes: [(StuckClass::Stuck, n)].into(),
        beads: [(BeadStatus::InReview, n)].into(),
        ..TownGauges::none(town(name))
    }
}

#[test]
fn every_series_of_a_new_town_stands_at_zero() {
    let (registry, metrics) = full();
    let series = series_of(&registry, "t00");
    assert!(series.values().all(|value| value == "0"), "{series:?}");
    for name in [
        "plimsoll_reconciler_tick_duration_seconds_count",
        "plimsoll_reconciler_pending_events",
        "plimsoll_reconciler_actions_total{action=\"dispatch_bead\"}",
        "plimsoll_reconciler_effects_total{outcome=\"failed\"}",
        "plimsoll_invariant_violations_total{invariant=\"10_attempts_over_cap\"}",
        "plimsoll_invariant_violations_open{invariant=\"1_state_differs_from_events\"}",
        "plimsoll_agents_by_class{class=\"waiting_on_human\"}",
    ] {
        assert!(series.contains_key(name), "{name} is not in {series:?}");
    }
    assert!(series_of(&registry, OTHER).is_empty(), "nobody shares");
    let _shared = metrics.town(&town("late"));
    assert_eq!(series_of(&registry, OTHER), series);
}

#[test]
fn towns_past_the_cap_add_up_what_is_counted_and_show_the_worst() {
    let (registry, metrics) = full();
    let (late, later) = (metrics.town(&town("late")), metrics.town(&town("other")));
    late.acted(ActionKind::CloseBead);
    later.acted(ActionKind::CloseBead);
    late.tick_ended(Duration::from_millis(1));
    later.tick_ended(Duration::from_millis(3));
    let all = [gauges("late", 4), gauges("t03", 9), gauges("other", 3), gauges("unheard-of", 2)];
    metrics.show(&all);
    let (other, own) = (series_of(&registry, OTHER), series_of(&registry, "t03"));
    for (name, shared, alone) in [
        ("plimsoll_reconciler_actions_total{action=\"close_bead\"}", "2", "0"),
        ("plimsoll_reconciler_tick_duration_seconds_count", "2", "0"),
        ("plimsoll_reconciler_tick_duration_seconds_sum", "0.004", "0"),
        ("plimsoll_reconciler_pending_events", "4", "9"),
        ("plimsoll_reconciler_tick_running_seconds", "0.04", "0.09"),
        ("plimsoll_reconciler_tick_overdue_seconds", "4", "9"),
        ("plimsoll_reconciler_last_tick_duration_seconds", "0.004", "0.009"),
        ("plimsoll_invariant_violations_open{invariant=\"7_working_without_hook\"}", "9", "9"),
        ("plimsoll_agents{status=\"stalled\"}", "9", "9"),
        ("plimsoll_agents_by_class{class=\"stuck\"}", "9", "9"),
        ("plimsoll_beads{status=\"in_review\"}", "9", "9"),
    ] {
        assert_eq!((&*other[name], &*own[name]), (shared, alone), "{name}");
    }
    let _again = (metrics.town(&town("t03")), metrics.town(&town("later")));
    assert_eq!(series_of(&registry, "t03"), own, "who asks again finds what is there");
    assert_eq!(series_of(&registry, OTHER), other);
    metrics.show(&[]);
    assert_eq!(series_of(&registry, OTHER)["plimsoll_reconciler_pending_events"], "0", "all are gone");
    let label =
        |line: &str| line.split("town=\"").nth(1).and_then(|rest| Some(rest.split_once('"')?.0.to_owned()));
    let labels: BTreeSet<String> = registry.render().lines().filter_map(label).collect();
    assert_eq!(labels.len(), TOWN_SERIES_MAX + 1, "{labels:?}");
    let text = registry.render();
    let hits = text.lines().filter(|line| line.starts_with("plimsoll_series_overflow_total{"));
    assert!(hits.clone().count() > 0 && hits.clone().all(|line| line.ends_with(" 0")), "no cap was hit");
}

#[test]
fn violations_go_on_from_what_the_fold_counted() {
    let (registry, metrics) = full();
    let restored = metrics.town(&town("t01"));
    restored.violated(7, 5);
    restored.violated(0, 1);
    restored.violated(11, 1);
    let name = "plimsoll_invariant_violations_total{invariant=\"7_working_without_hook\"}";
    assert_eq!(series_of(&registry, "t01")[name], "5", "this is the first that anybody reads");
    metrics.town(&town("t01")).violated(7, 1);
    let series = series_of(&registry, "t01");
    assert_eq!(series[name], "6", "the same town is the same series");
    let counted = series.iter().filter(|(name, value)| name.contains("violations") && *value != "0");
    assert_eq!(counted.count(), 1, "{series:?}");
}

#[test]
fn effects_are_counted_by_outcome() {
    let (registry, metrics) = full();
    let counted = metrics.town(&town("t02"));
    counted.effect_attempted();
    counted.effect_attempted();
    counted.effect_ended(Duration::from_millis(250), true);
    counted.effect_ended(Duration::from_millis(250), false);
    counted.effect_ended(Duration::from_millis(500), false);
    counted.observed(Duration::from_millis(5));
    counted.rejected(2);
    counted.status_suppressed(4);
    let series = series_of(&registry, "t02");
    for (name, value) in [
        ("plimsoll_reconciler_effects_total{outcome=\"attempted\"}", "2"),
        ("plimsoll_reconciler_effects_total{outcome=\"succeeded\"}", "1"),
        ("plimsoll_reconciler_effects_total{outcome=\"failed\"}", "2"),
        ("plimsoll_reconciler_effect_duration_seconds_sum", "1"),
        ("plimsoll_reconciler_observe_duration_seconds_count", "1"),
        ("plimsoll_reconciler_rejected_events_total", "2"),
        ("plimsoll_reconciler_container_status_suppressed_total", "4"),
    ] {
        assert_eq!(series[name], value, "{name}");
    }
}

#[test]
fn a_tick_of_half_a_second_is_not_over_the_edge_that_alerts_read() {
    let (registry, metrics) = full();
    let counted = metrics.town(&town("t00"));
    counted.tick_ended(Duration::from_millis(500));
    counted.tick_ended(Duration::from_millis(501));
    let bucket = "plimsoll_reconciler_tick_duration_seconds_bucket{town=\"t00\",le=\"0.5\"} 1\n";
    assert!(registry.render().contains(bucket), "{}", registry.render());
}
