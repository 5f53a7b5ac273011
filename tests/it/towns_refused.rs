//! What towns do not take, by the real server: each refusal has its code and says what to do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::{Clock, Timestamp};
use plimsoll::ids::{IdempotencyKey, TownId};
use plimsoll::journal::{
    Actor, Append, Config, Fold, Journal as _, JournalDeps, NewRecord, SledJournal, StreamId,
};
use plimsoll::reconciler::{Reconciler, Towns};
use plimsoll::town::event::VERSION;
use plimsoll::town::words::{Origin, Role};
use plimsoll::town::{Policy, TownEvent};
use serde_json::{Value, json};

use crate::journal::fixture::deps;
use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, token_hash, until};

/// A server with a town `lab`, where the agents `ext` and `other` of a runtime elsewhere work at `fix` and `more`.
async fn lab(config: Value) -> Server {
    let server = Server::start(config).await;
    for (path, body) in [
        ("/api/towns", json!({"id": "lab"})),
        ("/api/towns/lab/agents", json!({"id": "ext"})),
        ("/api/towns/lab/beads", json!({"id": "fix", "title": "fix"})),
    ] {
        made(&server, path, body).await;
    }
    held(&server, "fix").await;
    made(&server, "/api/towns/lab/agents", json!({"id": "other"})).await;
    made(&server, "/api/towns/lab/beads", json!({"id": "more", "title": "more"})).await;
    held(&server, "more").await;
    server
}

async fn made(server: &Server, path: &str, body: Value) {
    let answer = post(server, path, &body).await;
    assert_eq!(answer.status, 201, "{path}: {}", answer.text());
}

async fn held(server: &Server, bead: &str) {
    let path = format!("/api/towns/lab/beads/{bead}");
    until(bead, async || (get(server, &path).await.json()["status"] == "in_progress").then_some(())).await;
}

fn asking(path: &str, body: &Value) -> Ask {
    Ask::post(path, body.to_string()).header("content-type", "application/json")
}

async fn post(server: &Server, path: &str, body: &Value) -> Answer {
    asking(path, body).send(server.address()).await
}

async fn get(server: &Server, path: &str) -> Answer {
    Ask::get(path).send(server.address()).await
}

async fn report(server: &Server, town: &str, key: &str, token: Option<&str>, body: &Value) -> Answer {
    let path = format!("/api/towns/{town}/events");
    asking(&path, body).header("idempotency-key", key).token(token).send(server.address()).await
}

/// Status, code and text of a refusal.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, says: &str) {
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (status, Some(code)),
        "{}",
        answer.text()
    );
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(says), "{message:?} does not say {says:?}");
}

fn done(agent: &str, dispatch: &str) -> Value {
    json!({"type": "agent_done", "agent": agent, "dispatchId": dispatch, "outcome": "done"})
}

/// Of each kind that may be reported one.
fn reports(agent: &str, dispatch: &str) -> [Value; 4] {
    [
        done(agent, dispatch),
        json!({"type": "agent_completed", "agent": agent, "dispatchId": dispatch, "status": "completed"}),
        json!({"type": "agent_progress", "agent": agent, "dispatchId": dispatch}),
        json!({"type": "container_status", "agent": agent, "dispatchId": dispatch, "status": "running"}),
    ]
}

const TIMES: (&str, &str) = ("2026-01-01T00:00:00Z", "2100-01-01T00:00:00Z");

/// Every route below a town that takes a body, and a body that would do.
fn told() -> Vec<(&'static str, Value)> {
    vec![
        ("drain", json!({"draining": true})),
        ("policy", json!({})),
        ("beads", json!({"title": "t"})),
        ("beads/fix/cancel", json!({})),
        ("beads/fix/hold", json!({})),
        ("beads/fix/release", json!({})),
        ("beads/fix/dependencies", json!({"blockedBy": "more"})),
        ("convoys", json!({"title": "t", "beads": ["fix"]})),
        ("agents", json!({"id": "new"})),
        ("events", done("ext", "fix.1")),
        ("debug/reconcile-dry-run", json!({})),
        ("debug/replay-events", json!({"from": TIMES.0, "to": TIMES.1})),
    ]
}

const ASKED: [&str; 4] = ["status", "beads", "beads/fix", "agents"];

#[tokio::test]
async fn no_route_knows_a_town_that_is_not_there_and_each_says_where_towns_are_listed() {
    let server = Server::start(json!({})).await;
    let says = "plimsoll town list";
    for (path, body) in told() {
        let answer = report_or_post(&server, &format!("/api/towns/none/{path}"), &body).await;
        refused(&answer, 404, "unknown_town", says);
    }
    for path in ASKED {
        refused(&get(&server, &format!("/api/towns/none/{path}")).await, 404, "unknown_town", says);
    }
    let left = Ask::method("DELETE", "/api/towns/none/agents/ext").send(server.address()).await;
    refused(&left, 404, "unknown_town", says);
}

async fn report_or_post(server: &Server, path: &str, body: &Value) -> Answer {
    asking(path, body).header("idempotency-key", "k").send(server.address()).await
}

#[tokio::test]
async fn an_odd_id_in_a_path_is_not_found_and_the_rule_is_told() {
    let server = lab(json!({})).await;
    let long = "x".repeat(65);
    let odd = [
        "LAB",
        "-a",
        ".a",
        "_a",
        "a%20b",
        "%20",
        "%00",
        "a%00",
        "%0a",
        "a%2fb",
        "a%2Fb",
        "%2e%2e",
        "..%2f..",
        "%c3%a4",
        "%f0%9f%90%8e",
        "%ff",
        "%zz",
        "%",
        "a;b",
        "a,b",
        "a:b",
        "a@b",
        "a'b",
        "a*b",
        "(a)",
        "a+b",
        "~a",
        long.as_str(),
    ];
    for id in odd {
        for path in [format!("{id}/status"), format!("{id}/beads"), format!("lab/beads/{id}")] {
            let answer = get(&server, &format!("/api/towns/{path}")).await;
            refused(&answer, 404, "not_found", "has 1 to 64 characters of a-z, 0-9, '-', '_', '.'");
        }
        for (path, body) in [
            (format!("lab/beads/{id}/hold"), json!({})),
            (format!("lab/beads/{id}/dependencies"), json!({"blockedBy": "fix"})),
            (format!("{id}/debug/reconcile-dry-run"), json!({})),
            (format!("{id}/events"), done("ext", "fix.1")),
        ] {
            let answer = report_or_post(&server, &format!("/api/towns/{path}"), &body).await;
            refused(&answer, 404, "not_found", "and begins with a letter or a digit");
        }
        let left = Ask::method("DELETE", &format!("/api/towns/lab/agents/{id}")).send(server.address()).await;
        refused(&left, 404, "not_found", "an agent id has 1 to 64 characters");
    }
    for nothing in ["//status", "/lab/beads//hold", "/lab/beads/fix/hold/", "/lab/agents/a/b"] {
        assert_eq!(get(&server, &format!("/api/towns{nothing}")).await.status, 404, "{nothing}");
    }
    assert_eq!(get(&server, "/api/towns/lab/status").await.status, 200, "it goes on");
}

#[tokio::test]
async fn an_odd_id_in_a_body_is_named_with_its_rule() {
    let server = lab(json!({})).await;
    for id in ["", "A", "a b", "a/b", "../a", "ä", "🐎", "a\u{0}", "a\n", "-a", &"x".repeat(65)] {
        for (path, body, field) in [
            ("/api/towns", json!({"id": id}), "id: a town id"),
            ("/api/towns/lab/agents", json!({"id": id}), "id: an agent id"),
            ("/api/towns/lab/beads", json!({"title": "t", "id": id}), "id: a bead id"),
            ("/api/towns/lab/beads", json!({"title": "t", "convoy": id}), "convoy: a bead id"),
            ("/api/towns/lab/beads", json!({"title": "t", "blockedBy": [id]}), "blockedBy"),
            ("/api/towns/lab/beads/fix/dependencies", json!({"blockedBy": id}), "blockedBy: a bead id"),
            ("/api/towns/lab/convoys", json!({"title": "t", "beads": [id]}), "beads"),
            ("/api/towns/lab/convoys", json!({"title": "t", "beads": ["fix"], "id": id}), "id: a bead id"),
        ] {
            let answer = post(&server, path, &body).await;
            refused(&answer, 400, "bad_request", field);
            refused(&answer, 400, "bad_request", "and begins with a letter or a digit");
        }
        let agent = done(id, "fix.1");
        refused(
            &report(&server, "lab", "k", None, &agent).await,
            400,
            "bad_request",
            "an agent id has 1 to 64 characters",
        );
    }
    for id in [
        "",
        "fix",
        "fix.",
        "fix.0",
        "fix.01",
        "fix.-1",
        "fix.1.x",
        ".1",
        "FIX.1",
        "fix.1000000000000000",
        "fix 1",
    ] {
        let answer = report(&server, "lab", "k", None, &done("ext", id)).await;
        refused(
            &answer,
            400,
            "bad_request",
            "a dispatch id is a bead id, a dot and a number from 1 of at most 15 digits",
        );
    }
    // Longer than a town of the API may be, and shorter than an id.
    let long = post(&server, "/api/towns", &json!({"id": "x".repeat(33)})).await;
    refused(&long, 422, "invalid", "id: has at most 32 characters");
    let long = json!({"title": "t", "id": "x".repeat(49)});
    refused(
        &post(&server, "/api/towns/lab/beads", &long).await,
        422,
        "invalid",
        "id: expected 1 to 48 bytes, and it is 49",
    );
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_and_says_what_is_expected() {
    let server = lab(json!({"server": {"body_bytes_max": "4KiB"}})).await;
    for (path, body) in told() {
        let path = format!("/api/towns/lab/{path}");
        let sent = async |body: &[u8], kind: &str| {
            let ask = Ask::post(&path, body).header("content-type", kind).header("idempotency-key", "k");
            ask.send(server.address()).await
        };
        let plain = sent(body.to_string().as_bytes(), "text/plain").await;
        refused(&plain, 415, "unsupported_media_type", "content-type: application/json");
        for bytes in [&b"[]"[..], b"{", b"nonsense", b"{} {}"] {
            assert_eq!(sent(bytes, "application/json").await.status, 400, "{path} {bytes:?}");
        }
        refused(&sent(b"{\"a\": \"\xff\"}", "application/json").await, 400, "bad_request", "not UTF-8");
        let unknown = sent(b"{\"image\": \"x\"}", "application/json").await;
        assert_eq!(unknown.status, 400, "{path}: {}", unknown.text());
        let large = [body.to_string().as_bytes(), &[b' '; 4 << 10]].concat();
        refused(&sent(&large, "application/json").await, 413, "body_too_large", "4096");
        let asked = Ask::post(&format!("{path}?town=main"), body.to_string());
        let asked = asked.header("content-type", "application/json").header("idempotency-key", "k");
        assert_eq!(asked.send(server.address()).await.status, 400, "{path}");
    }
    // Nothing of all that was taken.
    let town = get(&server, "/api/towns/lab/beads").await.json();
    assert_eq!(town["beads"].as_array().map(Vec::len), Some(2), "{town}");
}

#[tokio::test]
async fn a_completion_of_anothers_dispatch_is_refused_and_changes_nothing() {
    let server = lab(json!({})).await;
    let says = "an agent reports for its own only";
    for (n, event) in reports("other", "fix.1").iter().chain(&reports("ext", "more.1")).enumerate() {
        refused(&report(&server, "lab", &format!("k{n}"), None, event).await, 403, "forbidden", says);
    }
    for (bead, agent) in [("fix", "ext"), ("more", "other")] {
        let bead = get(&server, &format!("/api/towns/lab/beads/{bead}")).await.json();
        assert_eq!((&bead["status"], &bead["assignee"]), (&json!("in_progress"), &json!(agent)));
    }
    // The key of a refusal is free.
    assert_eq!(report(&server, "lab", "k0", None, &done("ext", "fix.1")).await.status, 201);
}

#[tokio::test]
async fn a_key_is_known_for_its_town_and_its_token_and_happens_once_however_many_come() {
    let token = |name: &str, role: &str| json!({"name": name, "role": role, "sha256": token_hash(name)});
    let tokens = json!([token("ann", "operator"), token("one", "agent"), token("two", "agent")]);
    let server = Server::start(json!({"auth": {"tokens": tokens}})).await;
    for (path, body) in [
        ("/api/towns", json!({"id": "lab"})),
        ("/api/towns", json!({"id": "lab2"})),
        ("/api/towns/lab/agents", json!({"id": "ext"})),
        ("/api/towns/lab2/agents", json!({"id": "far"})),
    ] {
        assert_eq!(asking(path, &body).token(Some("ann")).send(server.address()).await.status, 201, "{path}");
    }
    let event = |agent: &str, status: &str| json!({"type": "container_status", "agent": agent, "dispatchId": "no.1", "status": status});
    let sent = async |town, key, token, body| report(&server, town, key, Some(token), &body).await;
    let first = sent("lab", "k", "one", event("ext", "running")).await;
    assert_eq!((first.status, &first.json()["repeated"]), (201, &json!(false)));
    let again = sent("lab", "k", "one", event("ext", "running")).await;
    assert_eq!(
        (again.status, again.json()),
        (200, json!({"seq": first.json()["seq"], "repeated": true, "coalesced": false}))
    );
    let other = sent("lab", "k", "one", event("ext", "exited")).await;
    refused(&other, 409, "key_reused", "take a new key");
    assert_eq!(sent("lab", "k", "two", event("ext", "exited")).await.status, 201, "another token's key");
    assert_eq!(sent("lab2", "k", "one", event("far", "exited")).await.status, 201, "another town's key");

    let all = (0..20).map(|_| sent("lab", "many", "one", event("ext", "starting")));
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    let mut seqs = Vec::new();
    for answer in futures_util::future::join_all(all).await {
        *counts.entry(answer.status).or_default() += 1;
        seqs.push(answer.json()["seq"].clone());
    }
    assert_eq!(counts, BTreeMap::from([(200, 19), (201, 1)]));
    assert!(seqs.iter().all(|seq| *seq == seqs[0]), "{seqs:?}");

    let path = "/api/towns/lab/events";
    let body = event("ext", "running");
    let without = asking(path, &body).token(Some("one")).send(server.address()).await;
    refused(&without, 400, "bad_request", "Idempotency-Key: send one, of 1 to 128 visible characters");
    let twice = asking(path, &body).header("idempotency-key", "a").header("idempotency-key", "b");
    refused(
        &twice.token(Some("one")).send(server.address()).await,
        400,
        "bad_request",
        "Idempotency-Key: send one",
    );
    let long = "x".repeat(129);
    for key in ["", long.as_str(), "a\tb", "ä"] {
        let odd = sent("lab", key, "one", body.clone()).await;
        refused(&odd, 400, "bad_request", "Idempotency-Key: ");
    }
    assert_eq!(sent("lab", &"x".repeat(128), "one", body.clone()).await.status, 201);
}

/// A journal that was written before: at these hours before now, these events of the town `lab`.
struct Before {
    journal: SledJournal,
    hand: Arc<plimsoll::clock::ManualTime>,
    begin: Timestamp,
}

impl Before {
    fn new(dir: &Path, age: Duration) -> Self {
        let begin = Timestamp::from_millis(Clock::system().now().as_millis() - age.as_millis() as u64);
        let (clock, hand) = Clock::manual(begin);
        let config = Config { partition_records_max: 1_000, ..Config::default() };
        let deps = JournalDeps { folds: vec![Arc::<Towns>::default() as Arc<dyn Fold>], ..deps(clock) };
        let journal = SledJournal::open(dir, &config, deps).expect("opens");
        Self { journal, hand, begin }
    }

    async fn tell(&self, events: impl IntoIterator<Item = TownEvent>) {
        let record = |event: TownEvent| NewRecord {
            kind: event.kind(),
            version: VERSION,
            actor: Actor::Local,
            trace_id: None,
            detail: event.detail(),
        };
        let town = TownId::parse("lab").expect("an id");
        let records = events.into_iter().map(record).collect();
        let append = Append { stream: StreamId::town(&town), expected_last_seq: None, records };
        self.journal.append(append).await.expect("appended");
    }

    async fn town(&self) {
        let (agent, role, origin) = ("ext".parse_id(), Role::Worker, Origin::External);
        self.tell([
            TownEvent::TownCreated { policy: Box::new(Policy::default()) },
            TownEvent::AgentRegistered { agent, role, origin, nudges: false, template: None },
        ])
        .await;
    }
}

trait ParseId {
    fn parse_id(&self) -> plimsoll::ids::AgentId;
}

impl ParseId for str {
    fn parse_id(&self) -> plimsoll::ids::AgentId {
        plimsoll::ids::AgentId::parse(self).expect("an id")
    }
}

/// That `ext` runs, reported by who is at the machine under this key.
fn reported(key: &str) -> TownEvent {
    use plimsoll::town::words::ContainerStatus;
    let status = |report| TownEvent::ContainerStatus {
        agent: "ext".parse_id(),
        dispatch_id: None,
        status: ContainerStatus::Running,
        exit_reason: None,
        report,
    };
    let plain = status(None);
    let body = format!("{}{}", plain.kind(), plain.detail());
    let key = IdempotencyKey::parse(key).expect("a key");
    status(Some(Box::new(Reconciler::report(&Actor::Local, key, body.as_bytes()))))
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day_and_not_before() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (day, minutes) = (Duration::from_secs(24 * 3_600), Duration::from_secs(300));
    let before = Before::new(&dir.path().join("data"), day + minutes);
    before.town().await;
    before.tell([reported("old")]).await;
    before.hand.advance(minutes * 2);
    before.tell([reported("young")]).await;
    drop(before);
    let mut server = Server::spawn(dir, json!({}));
    server.ready().await;
    let other = json!({"type": "container_status", "agent": "ext", "dispatchId": "no.1", "status": "exited"});
    refused(&report(&server, "lab", "young", None, &other).await, 409, "key_reused", "take a new key");
    assert_eq!(report(&server, "lab", "old", None, &other).await.status, 201);
    refused(&report(&server, "lab", "young", None, &other).await, 409, "key_reused", "take a new key");
}

#[tokio::test]
async fn a_window_before_what_is_kept_is_gone_and_the_first_that_is_kept_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = Before::new(&dir.path().join("data"), Duration::from_secs(2 * 3_600));
    before.town().await;
    for _ in 0..30 {
        before.hand.advance(Duration::from_secs(60));
        before.tell((0..100).map(|_| TownEvent::DrainStarted { reason: None })).await;
    }
    let begin = before.begin;
    until("snapshots", async || before.journal.snapshots("towns").ok().filter(|seqs| !seqs.is_empty())).await;
    drop(before);
    let journal = json!({"partition_records_max": 1_000, "work": {"age_max": "1m"}});
    let mut server = Server::spawn(dir, json!({"journal": journal}));
    server.ready().await;
    let replay = async |from: &str| {
        post(&server, "/api/towns/lab/debug/replay-events", &json!({"from": from, "to": TIMES.1})).await
    };
    // More may go between two questions.
    until("a window that begins at the first moment that is told", async || {
        let gone = Some(replay(&begin.to_string()).await).filter(|answer| answer.status != 200)?;
        refused(&gone, 410, "before_history", "the window begins before what is kept: begin at ");
        let message = gone.json()["error"]["message"].as_str().expect("a message").to_owned();
        let first = message.split("begin at ").nth(1).and_then(|rest| rest.split(' ').next());
        (replay(first.expect("a moment")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn beads_and_agents_that_are_not_there_are_told_so() {
    let server = lab(json!({})).await;
    for (path, body) in told().into_iter().filter(|(path, _)| path.starts_with("beads/fix/")) {
        let path = format!("/api/towns/lab/{}", path.replace("fix", "none"));
        refused(
            &post(&server, &path, &body).await,
            404,
            "unknown_bead",
            "`plimsoll bead list` names those there are",
        );
    }
    let (beads, list) = ("/api/towns/lab/beads", "`plimsoll bead list`");
    refused(&get(&server, "/api/towns/lab/beads/none").await, 404, "unknown_bead", list);
    made(&server, beads, json!({"id": "third", "title": "waits"})).await;
    let tied = json!({"blockedBy": "none"});
    refused(
        &post(&server, "/api/towns/lab/beads/third/dependencies", &tied).await,
        404,
        "unknown_bead",
        list,
    );
    refused(&post(&server, beads, &json!({"title": "t", "convoy": "none"})).await, 404, "unknown_bead", list);
    let convoy = json!({"title": "t", "beads": ["none"]});
    refused(&post(&server, "/api/towns/lab/convoys", &convoy).await, 404, "unknown_bead", list);
    let left = Ask::method("DELETE", "/api/towns/lab/agents/none").send(server.address()).await;
    refused(&left, 404, "unknown_agent", "the town's agents are those that joined it");
    for event in reports("none", "fix.9") {
        refused(
            &report(&server, "lab", "k", None, &event).await,
            404,
            "unknown_agent",
            "those that joined it",
        );
    }
}

#[tokio::test]
async fn an_event_of_a_kind_that_is_not_reported_is_refused_and_the_kinds_are_named() {
    let server = lab(json!({})).await;
    let kinds = "expected one of `agent_done`, `agent_completed`, `agent_progress`, `container_status`";
    for kind in
        ["weather", "", "AGENT_DONE", "agentDone", "bead_dispatched", "bead_transitioned", "town_created"]
    {
        let event = json!({"type": kind, "agent": "ext", "dispatchId": "fix.1"});
        refused(&report(&server, "lab", "k", None, &event).await, 400, "bad_request", kinds);
    }
    for (event, says) in [
        (json!({"agent": "ext", "dispatchId": "fix.1"}), "type"),
        (json!({"type": 1}), "type"),
        (json!({"type": "agent_done", "agent": "ext", "dispatchId": "fix.1"}), "outcome"),
        (
            json!({"type": "agent_done", "agent": "ext", "dispatchId": "fix.1", "outcome": "well"}),
            "`needs_human`",
        ),
        (json!({"type": "agent_progress", "agent": "ext"}), "dispatchId"),
        (json!({"type": "agent_progress", "agent": "ext", "dispatchId": "fix.1", "url": "x"}), "url"),
        (
            json!({"type": "container_status", "agent": "ext", "dispatchId": "no.1", "status": "gone"}),
            "`exited`",
        ),
    ] {
        refused(&report(&server, "lab", "k", None, &event).await, 400, "bad_request", says);
    }
    let mut long = done("ext", "fix.1");
    long["summary"] = json!("x".repeat((4 << 10) + 1));
    refused(
        &report(&server, "lab", "k", None, &long).await,
        422,
        "invalid",
        "summary: expected 0 to 4096 bytes",
    );
}
