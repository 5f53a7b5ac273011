//! Posts into a journal in memory: what is written, what is listed, and what a restart finds.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock, ManualTime, Timestamp};
use crate::ids::Seq;
use crate::journal::{Actor, Append, Fold, Journal as _, MemoryJournal, NewRecord, Scan, StreamId};
use crate::limits::alerts::*;
use crate::telemetry::{Registry, Shared};

const HOUR: Duration = Duration::from_secs(3_600);

/// Alerts over a journal in memory, at a time that stands still.
struct World {
    alerts: Arc<Alerts>,
    journal: Arc<MemoryJournal>,
    registry: Registry,
    clock: Clock,
    time: Arc<ManualTime>,
}

impl World {
    fn new() -> Self {
        let (clock, time) = Clock::manual(Timestamp::from_millis(1_000_000));
        let (alerts, registry) = made(&clock);
        let journal = MemoryJournal::new(clock.clone(), vec![Arc::clone(&alerts) as Arc<dyn Fold>]);
        Self { alerts, journal: Arc::new(journal), registry, clock, time }
    }

    async fn post(&self, body: &Value) -> Result<Taken, IntakeError> {
        self.alerts.receive(&*self.journal, &Actor::Local, body.to_string().as_bytes()).await
    }

    async fn taken(&self, body: &Value) -> Taken {
        self.post(body).await.expect("taken")
    }

    /// The kinds of all records, with the name of each alert.
    fn records(&self) -> Vec<String> {
        let page = self.journal.scan(&Scan { limit: 100_000, ..Scan::default() }).expect("reads");
        let told = |record: &crate::journal::Record| {
            let name = record.detail["labels"]["alertname"].as_str().unwrap_or("?");
            format!("{} {name}", record.kind)
        };
        page.records.iter().map(told).collect()
    }

    fn shown(&self) -> Vec<(String, Status)> {
        let list = self.alerts.list().alerts.into_iter();
        list.map(|alert| (alert.name.unwrap_or_default(), alert.status)).collect()
    }

    /// As the next process finds it: from a snapshot, or from the records alone.
    fn restart(&mut self, with_snapshot: bool) {
        let (next, registry) = made(&self.clock);
        let after = if with_snapshot {
            next.restore(&self.alerts.snapshot()).expect("its own snapshot");
            self.journal.status().last
        } else {
            Seq(0)
        };
        self.journal.reopen(after, vec![Arc::clone(&next) as Arc<dyn Fold>]);
        (self.alerts, self.registry) = (next, registry);
    }

    fn counted(&self, line: &str) -> bool {
        self.registry.render().lines().any(|found| found == line)
    }
}

fn made(clock: &Clock) -> (Arc<Alerts>, Registry) {
    let registry = Registry::new(&[]).expect("no histograms");
    let alerts = Arc::new(Alerts::new(&registry, &Shared::new(&registry), clock.clone()));
    (alerts, registry)
}

fn alert(status: &str, labels: Value) -> Value {
    json!({
        "status": status, "labels": labels,
        "annotations": {"summary": "It is slow", "description": "Look at it", "runbook_url": "https://r.example/A"},
        "startsAt": "2026-11-22T10:00:00.5Z", "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://p/graph", "fingerprint": "5ef77f1f8a3ecb8d",
    })
}

fn alertmanager(alerts: Vec<Value>) -> Value {
    json!({
        "receiver": "plimsoll", "status": "firing", "alerts": alerts, "groupLabels": {}, "commonLabels": {},
        "commonAnnotations": {}, "externalURL": "http://am:9093", "version": "4", "groupKey": "{}:{}",
        "truncatedAlerts": 0,
    })
}

fn grafana(alerts: Vec<Value>) -> Value {
    let mut body = alertmanager(alerts);
    for (key, value) in [("version", json!("1")), ("orgId", json!(1)), ("title", json!("[FIRING:1]"))] {
        body[key] = value;
    }
    body
}

fn firing(name: &str) -> Value {
    alert("firing", json!({"alertname": name, "severity": "warning"}))
}

fn resolved(name: &str) -> Value {
    alert("resolved", json!({"alertname": name, "severity": "warning"}))
}

#[tokio::test]
async fn only_changes_are_written_and_a_restart_finds_what_fires() {
    let mut world = World::new();
    let first = world.taken(&alertmanager(vec![firing("A"), firing("B")])).await;
    assert_eq!(first, Taken { fired: 2, ..Taken::default() });
    let again = world.taken(&alertmanager(vec![firing("A"), resolved("B"), resolved("C")])).await;
    assert_eq!(again, Taken { repeated: 1, resolved: 1, not_firing: 1, ..Taken::default() });
    let written = ["alert_fired A", "alert_fired B", "alert_resolved B"];
    let shown = [("A".to_owned(), Status::Firing), ("B".to_owned(), Status::Resolved)];
    for with_snapshot in [true, false] {
        assert_eq!((world.records(), world.shown()), (written.map(str::to_owned).to_vec(), shown.to_vec()));
        world.restart(with_snapshot);
    }
    let list = world.alerts.list();
    let a = &list.alerts[0];
    assert_eq!(
        (list.firing, list.stale, a.source, a.severity),
        (1, 0, Source::Alertmanager, Severity::Warning)
    );
    assert_eq!(a.annotations.runbook.as_deref(), Some("https://r.example/A"));
    assert_eq!(a.starts_at.map(|at| at.to_string()).as_deref(), Some("2026-11-22T10:00:00.500Z"));
    assert_eq!(world.taken(&alertmanager(vec![firing("A")])).await.repeated, 1, "it fires still");
}

#[tokio::test]
async fn what_both_senders_tell_is_one_alert() {
    let world = World::new();
    let of_grafana = |status: &str| {
        let labels = json!({"alertname": "A", "severity": "warning", "grafana_folder": "plimsoll", "ref_id": "A",
            "rulename": "A", "datasource_uid": "x", "__name__": "up"});
        grafana(vec![alert(status, labels)])
    };
    world.taken(&alertmanager(vec![firing("A")])).await;
    assert_eq!(world.taken(&of_grafana("firing")).await.repeated, 1);
    assert_eq!(world.taken(&of_grafana("resolved")).await.resolved, 1, "the last word counts");
    assert_eq!(world.taken(&alertmanager(vec![resolved("A")])).await.not_firing, 1);
    assert_eq!(world.taken(&of_grafana("firing")).await.fired, 1);
    assert_eq!(world.records(), ["alert_fired A", "alert_resolved A", "alert_fired A"]);
    assert_eq!(world.alerts.list().alerts[0].source, Source::Grafana);
    let twice = grafana(vec![firing("B"), firing("B"), resolved("B")]);
    let taken = world.taken(&twice).await;
    assert_eq!(
        (taken.fired, taken.repeated, taken.not_firing),
        (1, 1, 1),
        "of one body, what fires counts last"
    );
}

#[tokio::test]
async fn the_watchdog_leaves_its_time_and_no_record() {
    let world = World::new();
    assert_eq!(world.alerts.list().watchdog.last_received, None);
    assert_eq!(world.taken(&grafana(vec![firing("PlimsollWatchdog")])).await.watchdog, 1);
    let at = Some(world.clock.now());
    world.time.advance(HOUR);
    assert_eq!(world.taken(&grafana(vec![resolved("PlimsollWatchdog")])).await.watchdog, 1);
    assert_eq!(world.alerts.list().watchdog.last_received, at, "its end is no sign of life");
    assert!(world.records().is_empty() && world.shown().is_empty());
    assert!(world.counted(r#"plimsoll_alerts_received_total{outcome="watchdog"} 2"#));
}

#[tokio::test]
async fn an_alert_that_nobody_tells_of_any_more_is_stale_and_in_the_end_expires() {
    let mut world = World::new();
    world.taken(&alertmanager(vec![firing("Old"), firing("Told")])).await;
    world.time.advance(ALERT_STALE_AFTER - HOUR);
    world.taken(&alertmanager(vec![firing("Told")])).await;
    assert_eq!(world.alerts.list().stale, 0);
    world.time.advance(HOUR);
    let stale = [("Told".to_owned(), Status::Firing), ("Old".to_owned(), Status::Stale)];
    assert_eq!(world.shown(), stale, "what fires stands first");
    world.restart(false);
    assert_eq!(world.alerts.list().stale, 0, "nobody could tell a plimsoll that did not run");
    world.time.advance(ALERT_EXPIRES_AFTER - Duration::from_millis(1));
    world.taken(&alertmanager(vec![firing("Told")])).await;
    assert_eq!(world.shown()[1], ("Old".to_owned(), Status::Stale));
    world.time.advance(Duration::from_millis(1));
    let taken = world.taken(&alertmanager(vec![resolved("Other")])).await;
    assert_eq!(taken.not_firing, 1);
    assert_eq!(world.records().last().map(String::as_str), Some("alert_expired Old"));
    assert_eq!(world.shown()[1], ("Old".to_owned(), Status::Expired));
    assert!(world.counted(r#"plimsoll_alerts_received_total{outcome="expired"} 1"#));
}

#[tokio::test]
async fn an_announced_end_is_believed_until_it_is_told_again() {
    let world = World::new();
    let until = |time: &str| {
        let mut alert = firing("A");
        alert["endsAt"] = json!(time);
        alertmanager(vec![alert])
    };
    world.taken(&until("1970-01-01T00:20:00Z")).await;
    world.time.advance(Duration::from_secs(200));
    assert_eq!(world.alerts.list().stale, 0, "exactly then");
    world.time.advance(Duration::from_millis(1));
    assert_eq!(world.alerts.list().stale, 1);
    assert_eq!(world.taken(&until("1970-01-01T00:40:00Z")).await.repeated, 1);
    assert_eq!((world.alerts.list().stale, world.records().len()), (0, 1));
}

fn crowd(names: std::ops::Range<usize>) -> Value {
    alertmanager(names.map(|i| firing(&format!("A{i}"))).collect())
}

#[tokio::test]
async fn at_most_so_many_fire_and_who_finds_no_place_is_told() {
    let world = World::new();
    for part in 0..10 {
        assert_eq!(world.taken(&crowd(part * 1_000..(part + 1) * 1_000)).await.fired, 1_000);
    }
    assert_eq!(world.alerts.list().firing, ALERTS_FIRING_MAX);
    assert_eq!(world.alerts.list().alerts.len(), ALERTS_LISTED_MAX);
    let full = world.post(&alertmanager(vec![firing("A7"), firing("New"), resolved("Gone")])).await;
    assert!(matches!(full, Err(IntakeError::NoPlace(1))), "{full:?}");
    assert_eq!((world.alerts.list().no_place, world.records().len()), (1, ALERTS_FIRING_MAX));
    assert!(world.counted(r#"plimsoll_limit_hits_total{limit="alerts_firing"} 1"#));
    let room = world.taken(&alertmanager(vec![firing("New"), resolved("A7")])).await;
    assert_eq!((room.fired, room.resolved), (1, 1), "what ends makes room for what begins");
    // Nobody tells of the others any more: they give way, and leave a record.
    world.time.advance(ALERT_STALE_AFTER);
    world.taken(&alertmanager(vec![firing("New")])).await;
    assert_eq!(world.taken(&crowd(20_000..20_400)).await.fired, 400);
    let expired = world.records().iter().filter(|kind| kind.starts_with("alert_expired")).count();
    assert_eq!((expired, world.alerts.list().firing, world.alerts.list().stale), (400, 401, 9_599));
    assert_eq!(world.shown().len(), ALERTS_LISTED_MAX + ALERTS_OVER_MAX);
}

#[tokio::test]
async fn long_texts_find_fewer_places() {
    let world = World::new();
    let long = |i: usize| {
        let text = "x".repeat(ALERT_TEXT_BYTES_MAX);
        let labels: serde_json::Map<_, _> = (0..7).map(|k| (format!("l{k}"), json!(text))).collect();
        let mut labels = Value::Object(labels);
        labels["alertname"] = json!(format!("A{i}"));
        alert("firing", labels)
    };
    let mut fired = 0;
    for part in 0..12 {
        match world.post(&alertmanager((part * 50..(part + 1) * 50).map(long).collect())).await {
            Ok(taken) => fired += taken.fired,
            Err(error) => assert!(matches!(error, IntakeError::NoPlace(_)), "{error}"),
        }
    }
    let list = world.alerts.list();
    assert!(
        fired >= 500 && list.firing < 600 && list.no_place > 0,
        "{fired} {} {}",
        list.firing,
        list.no_place
    );
}

#[tokio::test]
async fn two_posts_at_once_write_it_once() {
    let world = World::new();
    let other = NewRecord {
        kind: ALERT_FIRED,
        version: 1,
        actor: Actor::Local,
        trace_id: None,
        detail: json!({"labels": {"alertname": "A", "severity": "warning"}, "annotations": {}, "source": "grafana"}),
    };
    let mut between = Some(other);
    world.journal.cross(move |_: &Append| between.take());
    let taken = world.taken(&alertmanager(vec![firing("A"), firing("B")])).await;
    assert_eq!((taken.fired, taken.repeated), (1, 1), "the other one went ahead");
    assert_eq!(world.records(), ["alert_fired A", "alert_fired B"]);
    let mut count = 0;
    world.journal.cross(move |append: &Append| {
        count += 1;
        let mut record = append.records[0].clone();
        record.detail["labels"]["alertname"] = json!(format!("X{count}"));
        Some(record)
    });
    let busy = world.post(&alertmanager(vec![firing("C")])).await;
    assert!(matches!(busy, Err(IntakeError::Busy)), "{busy:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_durable_was_not_taken_and_sending_it_again_is_safe() {
    let world = World::new();
    world.journal.hang();
    let late = world.post(&alertmanager(vec![firing("A")])).await;
    assert!(matches!(late, Err(IntakeError::Late)), "{late:?}");
    assert!(
        world.shown().is_empty() && world.counted(r#"plimsoll_alerts_received_total{outcome="fired"} 0"#)
    );
    let (journal, alerts) = (Arc::clone(&world.journal), Arc::clone(&world.alerts));
    let again = tokio::spawn(async move {
        let body = alertmanager(vec![firing("A")]).to_string();
        alerts.receive(&*journal, &Actor::Local, body.as_bytes()).await
    });
    tokio::task::yield_now().await;
    world.journal.go_on();
    let taken = again.await.expect("no panic").expect("taken");
    assert_eq!((taken.repeated, world.records()), (1, vec!["alert_fired A".to_owned()]));
    world.journal.close();
    let closed = world.post(&alertmanager(vec![resolved("A")])).await;
    assert!(matches!(closed, Err(IntakeError::Journal(_))), "{closed:?}");
    assert_eq!(world.shown(), [("A".to_owned(), Status::Firing)]);
}

#[tokio::test]
async fn what_is_lost_of_the_journal_and_what_later_ones_write_stops_nothing() {
    let world = World::new();
    let odd = |kind, detail| NewRecord { kind, version: 9, actor: Actor::System, trace_id: None, detail };
    for record in [
        odd(ALERT_FIRED, json!({"labels": 7})),
        odd("alert_silenced", json!({})),
        odd(ALERT_RESOLVED, json!([])),
    ] {
        let append = Append { stream: StreamId::alert(), expected_last_seq: None, records: vec![record] };
        // A detail that is no object is not even written.
        let _ = world.journal.append(append).await;
    }
    assert_eq!(world.taken(&alertmanager(vec![firing("A")])).await.fired, 1);
    assert!(world.alerts.restore(&json!({"standing": 1})).is_err());
    world.alerts.records_lost();
    assert_eq!(world.shown().len(), 1);
}

/// A body with one thing changed.
fn with(change: impl Fn(&mut Value)) -> Result<Body, String> {
    let mut body = alertmanager(vec![firing("A"), firing("B")]);
    change(&mut body);
    read(body.to_string().as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn a_body_is_read_as_its_sender_means_it() {
    let body = with(|_| ()).expect("good");
    assert_eq!((body.source, body.alerts.len(), body.truncated), (Source::Alertmanager, 2, 0));
    let full = with(|body| {
        body["truncatedAlerts"] = json!(7);
        body["of_later_times"] = json!([{"deep": {}}]);
        body["alerts"][0]["values"] = json!({"A": 1.5});
        body["alerts"][0]["endsAt"] = json!("2026-11-22T11:00:00+01:00");
        body["alerts"][0]["panelURL"] = json!("http://g/d/x?viewPanel=7");
        body["alerts"][0]["annotations"]["dashboard"] = json!("/d/x");
        body["alerts"][1]["panelURL"] = json!("");
        body["alerts"][1]["dashboardURL"] = json!("javascript:alert(1)");
        body["alerts"][1]["annotations"] = Value::Null;
    });
    let full = full.expect("unknown fields pass");
    let [a, b] = &full.alerts[..] else { panic!("two") };
    assert_eq!((full.truncated, a.annotations.dashboard.as_deref()), (7, Some("http://g/d/x?viewPanel=7")));
    assert_eq!(a.ends_at, Timestamp::parse_rfc3339("2026-11-22T10:00:00Z").ok());
    assert_eq!((&b.annotations, b.ends_at), (&Annotations::default(), None));
    let own = with(|body| body["alerts"][0]["annotations"]["dashboard"] = json!("/d/x")).expect("good");
    assert_eq!(own.alerts[0].annotations.dashboard.as_deref(), Some("/d/x"));
}

#[test]
fn what_is_no_body_of_theirs_is_refused_with_its_place() {
    let refused = |change: fn(&mut Value)| with(change).expect_err("refused");
    for (change, names) in [
        ((|b| b["version"] = json!("3")) as fn(&mut Value), "version: expected \"4\""),
        (|b| b["version"] = json!("1"), "version: expected \"4\""),
        (|b| b["version"] = Value::Null, "version: is missing"),
        (|b| b["alerts"] = json!({}), "alerts: is missing or has another type"),
        (|b| b["alerts"][1]["status"] = json!("pending"), "alerts[1].status: is missing or has another type"),
        (|b| b["alerts"][1]["labels"]["x"] = json!(7), "alerts[1].labels.x"),
        (|b| b["alerts"][1]["labels"] = json!({}), "alerts[1].labels: an alert without labels"),
        (|b| b["alerts"][0]["startsAt"] = json!("yesterday"), "alerts[0]: startsAt or endsAt"),
        (|b| b["truncatedAlerts"] = json!(-1), "truncatedAlerts"),
        (|b| *b = json!([]), "."),
    ] {
        let message = refused(change);
        assert!(message.contains(names), "{message}");
    }
    for text in ["", "{", "null", "{}{}", "\u{feff}{}", &"[".repeat(100_000)] {
        assert!(matches!(read(text.as_bytes()), Err(BodyError::Unreadable(_))), "{text:.20}");
    }
    let deep = |place: &str| {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        read(format!("{{\"version\":\"4\",\"alerts\":[],\"{place}\":{open}1{close}}}").as_bytes())
    };
    assert!(deep("later").is_ok(), "what is not read may be as deep as it likes");
    assert!(matches!(deep("orgId"), Err(BodyError::Unreadable(_))));
}

#[test]
fn each_limit_is_kept_exactly() {
    let alerts =
        |count: usize| with(|body| body["alerts"] = json!(vec![firing("A"); count])).map(|b| b.alerts.len());
    assert_eq!((alerts(0), alerts(ALERTS_PER_BODY_MAX)), (Ok(0), Ok(ALERTS_PER_BODY_MAX)));
    assert!(
        alerts(ALERTS_PER_BODY_MAX + 1).is_err_and(|e| e.contains("at most 1000 alerts, this one has 1001"))
    );
    let labels = |count: usize| {
        with(|body| {
            let labels = (0..count).map(|i| (format!("l{i}"), json!("v")));
            body["alerts"][1]["labels"] = Value::Object(labels.collect());
        })
    };
    assert!(labels(ALERT_LABELS_MAX).is_ok());
    assert!(
        labels(ALERT_LABELS_MAX + 1)
            .is_err_and(|e| e.starts_with("alerts[1]: an alert has at most 64 labels"))
    );
    let at =
        |place: fn(&mut Value, String), bytes: usize| with(|body| place(body, "x".repeat(bytes))).map(drop);
    let places: [fn(&mut Value, String); 4] = [
        |body, text| body["alerts"][0]["labels"]["l"] = json!(text),
        |body, text| body["alerts"][0]["labels"][&text] = json!("v"),
        |body, text| body["alerts"][0]["annotations"]["description"] = json!(text),
        |body, text| body["alerts"][0]["panelURL"] = json!(text),
    ];
    for place in places {
        assert_eq!(at(place, ALERT_TEXT_BYTES_MAX), Ok(()));
        assert!(at(place, ALERT_TEXT_BYTES_MAX + 1).is_err_and(|e| e.contains("at most 4096 bytes")));
    }
    let whole = |bytes: usize| {
        with(|body| {
            let mut alert = json!({"status": "firing", "labels": {}});
            for i in 0..8 {
                alert["labels"][format!("{i}")] = json!("x".repeat((bytes - 8) / 8));
            }
            body["alerts"] = json!([alert]);
        })
    };
    assert!(whole(ALERT_BYTES_MAX).is_ok());
    assert!(whole(ALERT_BYTES_MAX + 8).is_err_and(|e| e.contains("at most 32768 bytes together")));
    let body = alertmanager(vec![]).to_string();
    let padded = |bytes: usize| read((body.clone() + &" ".repeat(bytes - body.len())).as_bytes());
    assert!(padded(ALERT_BODY_BYTES_MAX).is_ok());
    assert_eq!(padded(ALERT_BODY_BYTES_MAX + 1), Err(BodyError::TooLong));
}

#[tokio::test]
async fn a_body_past_a_limit_is_refused_whole_and_counted() {
    let world = World::new();
    let mut bad = firing("B");
    bad["labels"]["l"] = json!("x".repeat(ALERT_TEXT_BYTES_MAX + 1));
    let refused = world.post(&alertmanager(vec![firing("A"), bad])).await;
    assert!(matches!(refused, Err(IntakeError::Body(BodyError::TextTooLong(1)))), "{refused:?}");
    assert!(world.records().is_empty());
    assert!(world.counted(r#"plimsoll_limit_hits_total{limit="alert_text_bytes"} 1"#));
    assert!(world.counted(r#"plimsoll_alerts_received_total{outcome="unreadable"} 1"#));
    let mut cut = alertmanager(vec![firing("A")]);
    cut["truncatedAlerts"] = json!(7);
    assert_eq!(world.taken(&cut).await.truncated, 7);
    assert_eq!(world.alerts.list().truncated, 7);
}
