//! What is drawn of towns, over the metrics of towns that tick: nothing comes back empty.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use plimsoll::ids::TownId;
use plimsoll::reconciler::metrics::{Metrics, TownGauges, TownMetrics};
use plimsoll::telemetry::Registry;
use plimsoll::town::plan::ActionKind;
use plimsoll::town::words::{AgentStatus, BeadStatus, StuckClass};
use serde_json::json;
use tokio::net::TcpListener;

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
