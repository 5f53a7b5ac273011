//! Alerts as Alertmanager and Grafana post them: over real sockets, to the real binary, and once from a real Alertmanager.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use plimsoll::client::{Client, Target};
use plimsoll::clock::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::child::Running;
use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, free_port, token_hash, until};
use crate::support::tools::needs;

/// A configuration with a token for each of these roles, whose text is the role's name.
fn config() -> Value {
    let of = |role: &&str| json!({"name": format!("of-{role}"), "role": role, "sha256": token_hash(role)});
    let tokens: Vec<Value> = ["viewer", "operator", "agent", "ingest"].iter().map(of).collect();
    json!({"auth": {"tokens": tokens, "failures_per_minute": 10_000}})
}

fn posting(body: &Value) -> Ask {
    Ask::post("/api/alerts", body.to_string()).header("content-type", "application/json")
}

async fn post(server: &Server, body: &Value) -> Answer {
    posting(body).token(Some("ingest")).send(server.address()).await
}

/// What became of a body that is taken.
async fn taken(server: &Server, body: &Value) -> Value {
    let answer = post(server, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn listed(server: &Server) -> Value {
    let answer = Ask::get("/api/alerts").token(Some("viewer")).send(server.address()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Name and status of each, in the order of the list.
async fn states(server: &Server) -> Vec<String> {
    let list = listed(server).await;
    let told = |alert: &Value| {
        format!("{} {}", alert["name"].as_str().unwrap_or("?"), alert["status"].as_str().unwrap_or("?"))
    };
    list["alerts"].as_array().expect("a list").iter().map(told).collect()
}

/// The journal's records of alerts, the oldest first.
async fn records(server: &Server) -> Vec<Value> {
    let ask = Ask::get("/audit?stream=alert&order=asc&limit=1000").token(Some("viewer"));
    ask.send(server.address()).await.json()["records"].as_array().expect("records").clone()
}

/// One alert as Alertmanager 0.25 posts it.
fn by_alertmanager(status: &str, name: &str) -> Value {
    let labels = json!({"alertname": name, "instance": "plimsoll:1876", "job": "plimsoll", "severity": "warning", "town": "lab"});
    let annotations = json!({
        "dashboard": "/d/plimsoll-reconciler?viewPanel=7", "description": "Over 10 % of the ticks took longer than 500 ms.",
        "runbook_url": "alerts/runbooks/PlimsollTickSlow.md", "summary": "Ticks of the town lab are slow",
    });
    let ends = if status == "firing" { "0001-01-01T00:00:00Z" } else { "2026-11-22T10:20:00.123Z" };
    json!({
        "receiver": "plimsoll", "status": status,
        "alerts": [{
            "status": status, "labels": labels, "annotations": annotations, "startsAt": "2026-11-22T10:10:00.123Z",
            "endsAt": ends, "generatorURL": "http://prometheus:9090/graph?g0.expr=up&g0.tab=1",
            "fingerprint": "8e5d1bd1b6b1ac19",
        }],
        "groupLabels": {"alertname": name}, "commonLabels": labels, "commonAnnotations": annotations,
        "externalURL": "http://alertmanager:9093", "version": "4",
        "groupKey": format!("{{}}:{{alertname=\"{name}\"}}"), "truncatedAlerts": 0,
    })
}

/// The same as Grafana posts it: 9.4, or 12 with what was added since.
fn by_grafana(version: u32, status: &str, name: &str) -> Value {
    let mut body = by_alertmanager(status, name);
    let title = format!("[FIRING:1] {name} plimsoll (plimsoll:1876 plimsoll warning lab)");
    for (key, value) in [
        ("version", json!("1")),
        ("orgId", json!(1)),
        ("title", json!(title)),
        ("state", json!(if status == "firing" { "alerting" } else { "ok" })),
        ("message", json!("**Firing**\n\nValue: A=0.7, C=1\nLabels:\n - alertname = x\n")),
        ("externalURL", json!("http://grafana:3000/")),
        ("groupKey", json!(format!("{{}}/{{}}:{{alertname=\"{name}\", grafana_folder=\"plimsoll\"}}"))),
    ] {
        body[key] = value;
    }
    let alert = &mut body["alerts"][0];
    alert["labels"]["grafana_folder"] = json!("plimsoll");
    alert["startsAt"] = json!("2026-11-22T11:10:30+01:00");
    for (key, value) in [
        ("silenceURL", json!("http://grafana:3000/alerting/silence/new?alertmanager=grafana")),
        ("dashboardURL", json!("http://grafana:3000/d/plimsoll-reconciler")),
        ("panelURL", json!("http://grafana:3000/d/plimsoll-reconciler?viewPanel=7")),
        ("valueString", json!("[ var='A' labels={} value=0.7 ], [ var='C' labels={} value=1 ]")),
        ("values", if version > 9 { json!({"A": 0.7, "C": 1}) } else { Value::Null }),
    ] {
        alert[key] = value;
    }
    if version > 9 {
        alert["orgId"] = json!(1);
        body["appVersion"] = json!("12.0.1");
    }
    body
}

/// Fifty alerts of their own in one body, and so on.
fn crowd(names: std::ops::Range<usize>) -> Value {
    let mut body = by_alertmanager("firing", "A");
    let one = body["alerts"][0].clone();
    let named = |i: usize| {
        let mut alert = one.clone();
        alert["labels"]["alertname"] = json!(format!("A{i}"));
        alert
    };
    body["alerts"] = names.map(named).collect();
    body
}

#[tokio::test]
async fn an_alert_is_shown_from_its_first_post_until_it_is_over_whoever_tells_of_it() {
    let server = Server::start(config()).await;
    let mut events = Ask::get("/events").token(Some("viewer")).open(server.address()).await;
    events.until(": plimsoll").await;
    assert_eq!(taken(&server, &by_alertmanager("firing", "Slow")).await["fired"], 1);
    for repeated in
        [by_alertmanager("firing", "Slow"), by_grafana(9, "firing", "Slow"), by_grafana(12, "firing", "Slow")]
    {
        assert_eq!(taken(&server, &repeated).await["repeated"], 1);
    }
    let list = listed(&server).await;
    assert_eq!(
        (&list["firing"], &list["stale"], list["alerts"].as_array().map(Vec::len)),
        (&json!(1), &json!(0), Some(1))
    );
    let alert = &list["alerts"][0];
    for (field, expected) in [
        ("/status", json!("firing")),
        ("/severity", json!("warning")),
        ("/name", json!("Slow")),
        ("/labels/town", json!("lab")),
        ("/source", json!("alertmanager")),
        ("/startsAt", json!(1_795_342_200_123_u64)),
        ("/annotations/summary", json!("Ticks of the town lab are slow")),
        ("/annotations/runbook", json!("alerts/runbooks/PlimsollTickSlow.md")),
        ("/annotations/dashboard", json!("/d/plimsoll-reconciler?viewPanel=7")),
    ] {
        assert_eq!(alert.pointer(field), Some(&expected), "{field} of {alert}");
    }
    assert!(alert["firstReceived"].as_u64() < alert["lastReceived"].as_u64(), "{alert}");
    assert_eq!(server.call("alert.list", json!({})).await["alerts"][0]["id"], alert["id"], "the same by RPC");
    assert_eq!(taken(&server, &by_grafana(9, "resolved", "Slow")).await["resolved"], 1);
    assert_eq!(taken(&server, &by_alertmanager("resolved", "Slow")).await["notFiring"], 1);
    assert_eq!(states(&server).await, ["Slow resolved"]);
    let kinds: Vec<_> =
        records(&server).await.iter().map(|r| (r["kind"].clone(), r["actor"].clone())).collect();
    assert_eq!(kinds, ["alert_fired", "alert_resolved"].map(|kind| (json!(kind), json!("of-ingest"))));
    events.until("alert.resolved").await;
    let seen = events.seen();
    assert_eq!(seen.matches("\"type\":\"alert.fired\"").count(), 1, "{seen}");
    assert!(
        seen.contains("\"level\":\"warn\"")
            && seen.contains("the alert Slow (warning) fires: Ticks of the town lab are slow")
    );
}

#[tokio::test]
async fn grafanas_links_are_whole_and_its_own_alert_keeps_its_labels() {
    let server = Server::start(config()).await;
    assert_eq!(taken(&server, &by_grafana(12, "firing", "Slow")).await["fired"], 1);
    let alert = listed(&server).await["alerts"][0].clone();
    assert_eq!(
        (&alert["source"], &alert["labels"]["grafana_folder"]),
        (&json!("grafana"), &json!("plimsoll"))
    );
    assert_eq!(alert["annotations"]["dashboard"], "http://grafana:3000/d/plimsoll-reconciler?viewPanel=7");
    assert_eq!(alert["startsAt"], 1_795_342_230_000_u64);
}

#[tokio::test]
async fn the_token_comes_as_bearer_or_as_the_password_of_basic_there_and_nowhere_else() {
    let server = Server::start(config()).await;
    let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair));
    let body = by_grafana(9, "firing", "Slow");
    let status = async |ask: Ask, authorization: &str| {
        ask.header("authorization", authorization).send(server.address()).await.status
    };
    for good in [
        "Bearer ingest",
        "bearer operator",
        &basic("grafana:ingest"),
        &basic(":operator"),
        &basic("é:ingest"),
    ] {
        assert_eq!(status(posting(&body), good).await, 200, "{good}");
    }
    for (bad, code) in [
        (basic("ingest:nonsense"), 401),
        (basic("ingest"), 401),
        (basic("ingest:ingest:"), 401),
        ("Basic ingest".to_owned(), 401),
        ("Basic".to_owned(), 401),
        ("Digest ingest".to_owned(), 401),
        (basic("x:viewer"), 403),
        (basic("x:agent"), 403),
        ("Bearer viewer".to_owned(), 403),
    ] {
        assert_eq!(status(posting(&body), &bad).await, code, "{bad}");
    }
    for elsewhere in [Ask::get("/api/alerts"), Ask::get("/agents"), Ask::call("alert.list", json!({}))] {
        assert_eq!(status(elsewhere, &basic("x:operator")).await, 401);
    }
    let asked = posting(&body).send(server.address()).await;
    let challenges: Vec<&str> = asked
        .headers
        .iter()
        .filter(|(name, _)| name == "www-authenticate")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(challenges, ["Bearer realm=\"plimsoll\"", "Basic realm=\"plimsoll\", charset=\"UTF-8\""]);
    let asked = Ask::get("/agents").send(server.address()).await;
    assert_eq!(asked.header("www-authenticate"), Some("Bearer realm=\"plimsoll\""));
    assert_eq!(states(&server).await, ["Slow firing"], "who was refused told nothing");
}

#[tokio::test]
async fn what_fires_survives_a_kill_between_two_posts_and_a_restart() {
    let server = Server::start(config()).await;
    for name in ["A", "B"] {
        taken(&server, &by_alertmanager("firing", name)).await;
    }
    taken(&server, &by_alertmanager("resolved", "B")).await;
    taken(&server, &by_grafana(9, "firing", "PlimsollWatchdog")).await;
    assert!(listed(&server).await["watchdog"]["lastReceived"].is_u64());
    let mut server = Server::spawn(server.kill(), config());
    server.ready().await;
    assert_eq!(listed(&server).await["watchdog"], json!({"lastReceived": null}), "kept in memory only");
    assert_eq!(states(&server).await, ["A firing", "B resolved"]);
    assert_eq!(taken(&server, &by_alertmanager("firing", "A")).await["repeated"], 1);
    assert_eq!(taken(&server, &by_alertmanager("firing", "B")).await["fired"], 1);
    let before = listed(&server).await;
    server.stop().await;
    let mut server = Server::spawn(server.kill(), config());
    server.ready().await;
    assert_eq!(
        listed(&server).await["alerts"],
        before["alerts"],
        "a plimsoll that ends in order keeps all of it"
    );
    assert_eq!(records(&server).await.len(), 4);
}

#[tokio::test]
async fn ten_thousand_alerts_are_taken_and_the_next_one_is_told_that_there_is_no_place() {
    let server = Server::start(config()).await;
    for part in 0..10 {
        assert_eq!(taken(&server, &crowd(part * 1_000..(part + 1) * 1_000)).await["fired"], 1_000);
    }
    let full = post(&server, &by_alertmanager("firing", "New")).await;
    assert_eq!(
        (full.status, &full.json()["error"]["code"]),
        (503, &json!("too_many_firing")),
        "it is to be sent again"
    );
    assert_eq!(full.header("retry-after"), Some("60"));
    let list = listed(&server).await;
    assert_eq!(
        (&list["firing"], &list["noPlace"], list["alerts"].as_array().map(Vec::len)),
        (&json!(10_000), &json!(1), Some(1_000))
    );
    let scrape = server.scrape().await;
    for (name, label, value, count) in [
        ("plimsoll_alerts_received_total", "outcome", "fired", 10_000),
        ("plimsoll_alerts_received_total", "outcome", "no_place", 1),
        ("plimsoll_limit_hits_total", "limit", "alerts_firing", 1),
        ("plimsoll_journal_appends_total", "stream", "alert", 10_000),
    ] {
        assert_eq!(scrape.count(name, &[(label, value)]), count, "{name} {value}");
    }
    let mut server = Server::spawn(server.kill(), config());
    server.ready().await;
    assert_eq!(listed(&server).await["firing"], 10_000);
    assert_eq!(taken(&server, &by_alertmanager("resolved", "A7")).await["notFiring"], 0);
}

#[tokio::test]
async fn a_hostile_body_is_refused_with_a_code_and_leaves_nothing() {
    let server = Server::start(config()).await;
    let good = by_alertmanager("firing", "A");
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        body.to_string()
    };
    let long = "x".repeat(5_000);
    let many: serde_json::Map<_, _> = (0..65).map(|i| (format!("l{i}"), json!("v"))).collect();
    let large: serde_json::Map<_, _> = (0..10).map(|i| (format!("l{i}"), json!("x".repeat(4_000)))).collect();
    for (body, status, code) in [
        (with("/version", json!("5")), 400, "bad_request"),
        (with("/alerts", json!(vec![good["alerts"][0].clone(); 1_001])), 413, "too_many_alerts"),
        (with("/alerts/0/labels", Value::Object(many)), 413, "too_many_labels"),
        (with("/alerts/0/labels", Value::Object(large)), 413, "alert_too_large"),
        (with("/alerts/0/labels/town", json!(long)), 413, "alert_text_too_long"),
        (with("/alerts/0/annotations/summary", json!(long)), 413, "alert_text_too_long"),
        (with("/alerts/0/status", json!("pending")), 400, "bad_request"),
        (with("/alerts/0/startsAt", json!("0000")), 400, "bad_request"),
        (with("/alerts/0/labels", json!({})), 400, "bad_request"),
        (String::new(), 400, "bad_request"),
        ("[".repeat(1_000_000), 400, "bad_request"),
        ("\u{0}".to_owned(), 400, "bad_request"),
        (" ".repeat((2 << 20) + 1), 413, "body_too_large"),
    ] {
        let ask = Ask::post("/api/alerts", body.clone()).header("content-type", "application/json");
        let answer = ask.token(Some("ingest")).send(server.address()).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &json!(code)), "{body:.200}");
        assert!(answer.body.len() < 1_000, "what was sent is not sent back");
    }
    let form =
        Ask::post("/api/alerts", good.to_string()).header("content-type", "text/plain").token(Some("ingest"));
    assert_eq!(form.send(server.address()).await.status, 415);
    assert!(states(&server).await.is_empty() && records(&server).await.is_empty());
    // Whatever stands in texts is text, on one line of the stream.
    let mut events = Ask::get("/events").token(Some("viewer")).open(server.address()).await;
    events.until(": plimsoll").await;
    let text = "<img src=x onerror=alert(1)>\r\nid: 999\r\n\r\n\u{1b}[2J\u{202e}=cmd";
    let mut hostile = good.clone();
    for place in ["/alerts/0/labels/alertname", "/alerts/0/annotations/summary"] {
        *hostile.pointer_mut(place).expect("a place") = json!(text);
    }
    hostile["alerts"][0]["annotations"]["runbook_url"] = json!("javascript:alert(1)");
    taken(&server, &hostile).await;
    let alert = listed(&server).await["alerts"][0].clone();
    assert_eq!((&alert["name"], &alert["annotations"]["runbook"]), (&json!(text), &Value::Null));
    let seen = events.until("alert.fired").await.to_owned();
    assert!(!seen.contains("\r\nid: 999") && !seen.contains('\u{1b}'), "{seen:?}");
}

/// A running Alertmanager that posts to a server at once.
struct Alertmanager {
    _child: Running,
    dir: TempDir,
    address: std::net::SocketAddr,
}

impl Alertmanager {
    async fn posting_to(server: &Server) -> Option<Self> {
        let program = needs("prometheus-alertmanager")?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hook = |name: &str, http: Value| {
            let url = format!("{}/api/alerts", server.url());
            json!({"name": name, "webhook_configs": [{"url": url, "send_resolved": true, "max_alerts": 500, "http_config": http}]})
        };
        let route = |name: &str| json!({"receiver": name, "matchers": [format!("by=\"{name}\"")]});
        let config = json!({
            "route": {
                "receiver": "nobody", "group_by": ["alertname"], "group_wait": "10ms", "group_interval": "1s",
                "repeat_interval": "1h", "routes": [route("basic"), route("bearer")],
            },
            "receivers": [
                {"name": "nobody"},
                hook("basic", json!({"basic_auth": {"username": "alertmanager", "password": "ingest"}})),
                hook("bearer", json!({"authorization": {"type": "Bearer", "credentials": "ingest"}})),
            ],
        });
        fs::write(dir.path().join("alertmanager.yml"), config.to_string()).expect("written");
        let log = File::create(dir.path().join("log")).expect("a log file");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(program);
        command
            .args(["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir.path())
            .stderr(log)
            .stdout(Stdio::null())
            .stdin(Stdio::null());
        let started = Self { _child: Running::start(&mut command), dir, address };
        let base = format!("http://{address}");
        let client = Client::new(Target::Url { base, token: None, ca_file: None }).expect("a client");
        until("the Alertmanager", async || client.get("/-/ready").await.ok().map(drop)).await;
        Some(started)
    }

    /// Tells it of an alert as Prometheus does, which ends then.
    async fn tell(&self, by: &str, ends_in: Duration) {
        let now = Clock::system().now();
        let alert = json!([{
            "labels": {"alertname": "Real", "severity": "critical", "by": by},
            "annotations": {"summary": "It is real", "runbook_url": "https://runbooks.example/Real"},
            "startsAt": "2026-11-22T10:00:00Z", "endsAt": now.after(ends_in).to_string(),
            "generatorURL": "http://prometheus:9090/graph",
        }]);
        let ask = Ask::post("/api/v2/alerts", alert.to_string()).header("content-type", "application/json");
        let answer = ask.send(self.address).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_real_alertmanager_posts_with_basic_and_with_credentials_and_says_when_it_is_over() {
    let server = Server::start(config()).await;
    let Some(alertmanager) = Alertmanager::posting_to(&server).await else { return };
    for by in ["basic", "bearer"] {
        alertmanager.tell(by, Duration::from_secs(3_600)).await;
    }
    let both = async |status: &str| {
        until(&format!("both are {status}: {}", alertmanager.log()), async || {
            let list = listed(&server).await;
            let of = |by: &str| {
                let alerts = list["alerts"].as_array()?;
                alerts.iter().find(|alert| alert["labels"]["by"] == by && alert["status"] == status).cloned()
            };
            Some([of("basic")?, of("bearer")?])
        })
        .await
    };
    let [basic, _] = both("firing").await;
    assert_eq!((&basic["severity"], &basic["source"]), (&json!("critical"), &json!("alertmanager")));
    assert_eq!(
        basic["annotations"],
        json!({"summary": "It is real", "runbook": "https://runbooks.example/Real"})
    );
    assert_eq!((&basic["startsAt"], &basic["endsAt"]), (&json!(1_795_341_600_000_u64), &Value::Null));
    for by in ["basic", "bearer"] {
        alertmanager.tell(by, Duration::ZERO).await;
    }
    let [basic, _] = both("resolved").await;
    assert!(basic["overAt"].as_u64() >= basic["endsAt"].as_u64(), "{basic}");
    let kinds: Vec<_> = records(&server).await.iter().map(|record| record["kind"].clone()).collect();
    assert_eq!(kinds, ["alert_fired", "alert_fired", "alert_resolved", "alert_resolved"]);
}
