//! What is drawn of towns, over the metrics of towns that tick: nothing comes back empty, and alerts begin where they are
//! drawn.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use plimsoll::ids::TownId;
use plimsoll::reconciler::metrics::{Metrics, TownGauges, TownMetrics};
use plimsoll::telemetry::Registry;
use plimsoll::town::plan::ActionKind;
use plimsoll::town::words::{AgentStatus, BeadStatus, StuckClass};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::alerts::rule_expressions;
use crate::dashboards::{dashboard, expressions, filled_in, list, text};
use crate::support::prometheus::Prometheus;
use crate::support::server::until;
use crate::support::tools::needs;
use crate::support::upstream::{Reply, Upstream};

/// A fleet of two towns; every look at it is a tick of the first one. The second one only stands there.
struct Fleet {
    registry: Registry,
    metrics: Metrics,
    busy: TownMetrics,
    ticks: Mutex<u64>,
}

impl Fleet {
    fn new() -> Self {
        let registry = Registry::new(&plimsoll::catalogue::all()).expect("a valid catalogue");
        let metrics = Metrics::new(&registry);
        let busy = metrics.town(&town("busy"));
        let _idle = metrics.town(&town("idle"));
        Self { registry, metrics, busy, ticks: Mutex::new(0) }
    }

    fn scrape(&self) -> String {
        let mut ticks = self.ticks.lock().expect("no panic under it");
        *ticks += 1;
        self.tick(*ticks);
        let pending = |name, pending| TownGauges {
            town: town(name),
            pending,
            running: Duration::ZERO,
            overdue: Duration::ZERO,
            last_tick: Duration::from_millis(2),
            open: [(7, pending)].into(),
            agents: [(AgentStatus::Working, 3)].into(),
            classes: [(StuckClass::Working, 3)].into(),
            beads: BTreeMap::from([(BeadStatus::InProgress, 3), (BeadStatus::Open, 40)]),
        };
        self.metrics.show(&[pending("busy", *ticks), pending("idle", 0)]);
        self.registry.render() + "plimsoll_build_info{version=\"1\"} 1\nprocess_start_time_seconds 1\n"
    }

    fn tick(&self, ticks: u64) {
        self.busy.tick_ended(Duration::from_millis(2));
        self.busy.observed(Duration::from_millis(1));
        self.busy.drained(5);
        self.busy.acted(ActionKind::ALL[usize::try_from(ticks).expect("few") % ActionKind::ALL.len()]);
        self.busy.effect_attempted();
        self.busy.effect_ended(Duration::from_millis(30), !ticks.is_multiple_of(3));
        self.busy.rejected(1);
        self.busy.status_suppressed(4);
        self.busy.violated(7, 1);
    }
}

fn town(name: &str) -> TownId {
    TownId::parse(name).expect("an id")
}

#[tokio::test]
async fn no_expression_about_towns_is_empty_while_they_tick() {
    if needs("prometheus").is_none() {
        return;
    }
    let fleet = Fleet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("bound").to_string();
    let _fleet = Upstream::choosing(listener, move |_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n\r\n";
        Reply::Parts(vec![(head.to_owned() + &fleet.scrape()).into_bytes()])
    });
    let prometheus = Prometheus::scraping_at(&address).await.expect("it was there a moment ago");
    let dashboard = dashboard("reconciler.json");
    for expression in expressions(&dashboard) {
        let asked = filled_in(expression);
        until(&format!("{expression} has a value"), async || {
            let values = prometheus.values(&asked).await?;
            values.iter().any(|value| value.is_finite()).then_some(())
        })
        .await;
        let of_one = expression.replace("town=~\"$town\"", "town=\"nobody\"");
        let of_none = prometheus.values(&filled_in(&of_one)).await.expect("it answers");
        assert!(of_none.is_empty(), "{expression} shows a town that was not chosen");
    }
}

#[test]
fn what_is_told_of_each_tick_leaves_no_hole_in_a_town_that_ticks_every_five_minutes() {
    let dashboard = dashboard("reconciler.json");
    for panel in list(&dashboard, "/panels") {
        let asked = || list(panel, "/targets").iter().map(|target| text(target, "/expr"));
        if asked().any(|asked| asked.contains("rate(plimsoll_reconciler_tick_duration_seconds")) {
            assert_eq!(panel["interval"], json!("6m"), "{}", panel["title"]);
        }
    }
}

#[test]
fn each_alert_on_towns_is_drawn_where_it_begins_and_links_to_its_panel() {
    let dashboard = dashboard("reconciler.json");
    let rules = include_str!("../../alerts/plimsoll.rules.yaml");
    for (alert, comparison, metric, red) in [
        ("PlimsollTickSlow", "[1m])) > 0.5", "plimsoll_reconciler_tick_duration_seconds_bucket", json!(0.5)),
        ("PlimsollPendingEventsHigh", "[2m])) > 50", "plimsoll_reconciler_pending_events", json!(51)),
        ("PlimsollInvariantViolated", "[2m])) > 0", "plimsoll_invariant_violations_open", json!(1)),
    ] {
        let rule =
            rules.split("- alert: ").find(|rule| rule.starts_with(&format!("{alert}\n"))).expect(alert);
        assert!(rule.contains(comparison), "{alert} no longer begins at {comparison}: draw it where it does");
        let link = format!("/d/{}?viewPanel=", text(&dashboard, "/uid"));
        let link = rule.split(&link).nth(1).expect("a link");
        let (id, rest) = link.split_once('&').expect("a town");
        assert!(rest.starts_with("var-town={{ $labels.town }}\n"), "{alert} chooses its town: {rest}");
        let shown: Vec<&Value> = list(&dashboard, "/panels")
            .iter()
            .filter(|panel| panel["id"].as_u64() == id.parse().ok())
            .collect();
        let [panel] = shown[..] else { panic!("{alert} links to no panel") };
        assert!(
            list(panel, "/targets").iter().any(|target| text(target, "/expr").contains(metric)),
            "{alert} links to a panel about something else"
        );
        let steps = list(panel, "/fieldConfig/defaults/thresholds/steps");
        assert!(
            steps.iter().any(|step| step["value"] == red && step["color"] == "red"),
            "{alert}: red from {red}, not {steps:?}"
        );
    }
}

#[test]
fn alerts_tell_towns_apart() {
    let about_towns =
        |one: &&String| one.contains("plimsoll_reconciler_") || one.contains("plimsoll_invariant_");
    let expressions = rule_expressions();
    assert_eq!(expressions.iter().filter(about_towns).count(), 3);
    for expression in expressions.iter().filter(about_towns) {
        let aggregations = expression.matches("sum by (").chain(expression.matches("max by (")).count();
        assert_eq!(aggregations, expression.matches(" by (job, instance, town").count(), "{expression}");
    }
}
