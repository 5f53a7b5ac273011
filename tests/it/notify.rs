//! People outside are told what happened: webhooks and Sentry, over real sockets, from records of a journal.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use plimsoll::clock::{Clock, Timestamp};
use plimsoll::ids::{AgentId, TownId};
use plimsoll::journal::{Actor, Append, Journal, MemoryJournal, NewRecord, StreamId};
use plimsoll::notify::{AlarmKind, Form, Notifier, NotifierParts, WebhookConfig};
use plimsoll::secret::Secret;
use plimsoll::telemetry::{Registry, SentryConfig, Shared};
use plimsoll::units::Period;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::exposition::Scrape;
use crate::support::server::{Server, clean_command, rpc, until};
use crate::support::upstream::{Reply, Request, Upstream, refusal, whole};

const DEADLINE: Duration = Duration::from_secs(10);

fn secret(text: impl Into<String>) -> Secret {
    Secret::new(text.into(), "${SECRET}")
}

/// A webhook at this server that is not slowed down.
fn hook(server: &Upstream) -> WebhookConfig {
    let url = Some(secret(format!("{}/hook", server.base_url())));
    WebhookConfig { url, interval: Period::from_millis(0), ..WebhookConfig::default() }
}

/// A notifier that follows a journal in memory.
struct World {
    journal: Arc<MemoryJournal>,
    registry: Registry,
    notifier: Notifier,
}

impl World {
    fn of(webhooks: &[(&str, WebhookConfig)], sentry: SentryConfig) -> Self {
        let journal = Arc::new(MemoryJournal::new(Clock::system(), Vec::new()));
        Self::over(journal, webhooks, sentry)
    }

    /// The next life over a journal.
    fn over(journal: Arc<MemoryJournal>, webhooks: &[(&str, WebhookConfig)], sentry: SentryConfig) -> Self {
        let clock = Clock::system();
        let registry = plimsoll::catalogue::registry();
        let webhooks: BTreeMap<_, _> =
            webhooks.iter().map(|(name, config)| ((*name).to_owned(), config.clone())).collect();
        let notifier = Notifier::start(NotifierParts {
            webhooks: &webhooks,
            sentry: &sentry,
            journal: Arc::clone(&journal) as _,
            registry: &registry,
            shared: Shared::new(&registry),
            clock,
        });
        Self { journal, registry, notifier }
    }

    fn telling(webhooks: &[(&str, WebhookConfig)]) -> Self {
        Self::of(webhooks, SentryConfig::default())
    }

    fn write(&self, stream: StreamId, kind: &'static str, detail: Value) {
        let record = NewRecord { kind, version: 1, actor: Actor::Planner, trace_id: None, detail };
        let append = Append { stream, expected_last_seq: None, records: vec![record] };
        self.journal.offer(append).expect("memory takes it");
    }

    fn town(&self, kind: &'static str, detail: Value) {
        self.write(StreamId::town(&TownId::parse("main").expect("a town")), kind, detail);
    }

    fn opened(&self, bead: &str) {
        let message = format!("bead {bead} was tried 6 times, and may be 5 times");
        let entities = [format!("bead/{bead}")];
        self.town("violation_opened", json!({"invariant": 10, "entities": entities, "message": message}));
    }

    fn resolved(&self, bead: &str) {
        self.town("violation_resolved", json!({"invariant": 10, "entities": [format!("bead/{bead}")]}));
    }

    fn crash_loop(&self, agent: &str) {
        let agent = AgentId::parse(agent).expect("an agent");
        self.write(StreamId::instance(&agent), "crash_loop", json!({"failures": 5}));
    }

    /// How many notifications ended so: `webhook`, then sent, failed, dropped.
    fn counts(&self, webhook: &str) -> [u64; 3] {
        let scrape = Scrape::parse(&self.registry.render());
        ["sent", "failed", "dropped"].map(|outcome| {
            scrape.count("plimsoll_notifications_total", &[("webhook", webhook), ("outcome", outcome)])
        })
    }
}

/// A notifier of which nobody hears anything.
fn nobody() -> Notifier {
    World::telling(&[]).notifier
}

async fn got(server: &Upstream, count: usize) -> Vec<Request> {
    until("notifications", async || Some(server.requests()).filter(|all| all.len() >= count)).await
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    let line = request.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {}", request.head))
}

#[tokio::test]
async fn an_episode_is_told_once_when_it_opens_and_once_when_it_ends() {
    let server = Upstream::start(vec![whole("ok")]).await;
    let world = World::telling(&[("ops", hook(&server))]);
    assert_eq!(world.counts("ops"), [0, 0, 0]);
    for _ in 0..3 {
        world.opened("b1");
    }
    world.opened("b2");
    world.resolved("b1");
    world.crash_loop("last");
    let told: Vec<Value> = got(&server, 4).await.into_iter().map(|request| request.body).collect();
    let types: Vec<&str> = told.iter().filter_map(|body| body["type"].as_str()).collect();
    let expected = ["violation.opened", "violation.opened", "violation.resolved", "crash_loop.opened"];
    assert_eq!(types, expected.map(|kind| format!("plimsoll.{kind}")));
    let data = |number: usize| &told[number]["data"];
    assert_eq!((data(0)["town"].as_str(), data(0)["bead"].as_str()), (Some("main"), Some("b1")));
    assert_eq!((data(0)["level"].as_str(), data(2)["level"].as_str()), (Some("critical"), Some("info")));
    assert_eq!((data(0)["key"] == data(2)["key"], data(0)["key"] == data(1)["key"]), (true, false));
    assert_eq!(data(0)["seq"], 1);
    until("counts", async || (world.counts("ops") == [4, 0, 0]).then_some(())).await;
    world.notifier.stop(DEADLINE).await;
}

#[tokio::test]
async fn alarms_are_signed_as_standard_webhooks_are() {
    let server = Upstream::start(vec![whole("ok")]).await;
    let key = "0123456789abcdef0123456789abcdef";
    let world = World::telling(&[("ops", WebhookConfig { secret: Some(secret(key)), ..hook(&server) })]);
    world.crash_loop("a");
    let request = got(&server, 1).await.remove(0);
    let sent = header(&request, "webhook-timestamp").parse::<u64>().expect("seconds");
    assert!(Clock::system().now().since(Timestamp::from_millis(sent * 1_000)) < Duration::from_secs(60));
    // The helper gives the head in lower case: ids and signatures are compared so.
    let id = header(&request, "webhook-id").to_uppercase().replacen("MSG", "msg", 1);
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(key.as_bytes()).expect("a key");
    mac.update(format!("{id}.{sent}.{}", request.body).as_bytes());
    let expected = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
    assert_eq!(header(&request, "webhook-signature"), expected.to_lowercase());
}

#[tokio::test]
async fn a_webhook_hears_only_of_the_kinds_that_it_wants_in_its_form() {
    let server = Upstream::start(vec![whole("ok")]).await;
    let kinds = Some([AlarmKind::Escalation].into());
    let world = World::telling(&[("chat", WebhookConfig { kinds, form: Form::Slack, ..hook(&server) })]);
    world.opened("b1");
    world.town(
        "escalated",
        json!({"escalation": "b2.e1", "bead": "b2", "class": "stuck", "quiet_ms": 3_600_000, "reason": "it said <b>"}),
    );
    let request = got(&server, 1).await.remove(0);
    let text = request.body["text"].as_str().expect("a message of Slack");
    let begins =
        "*[warning]* bead b2 in town main needs a person: nothing was heard for 60 min, it is stuck\n";
    assert!(text.starts_with(&format!("{begins}town main · bead b2 · ")), "{text}");
    assert!(!text.contains("it said"), "{text}");
    world.notifier.stop(DEADLINE).await;
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_under_the_same_id_and_what_is_refused_is_not() {
    let busy = refusal("503 Service Unavailable", "content-length: 0\r\n", "");
    let server = Upstream::start(vec![busy, whole("ok")]).await;
    let gone = Upstream::start(vec![refusal("404 Not Found", "content-length: 0\r\n", "")]).await;
    let moved = "content-length: 0\r\nlocation: /elsewhere\r\n";
    let moved = Upstream::start(vec![refusal("302 Found", moved, "")]).await;
    let world = World::telling(&[("busy", hook(&server)), ("gone", hook(&gone)), ("moved", hook(&moved))]);
    world.crash_loop("a");
    let tries = got(&server, 2).await;
    assert_eq!(header(&tries[0], "webhook-id"), header(&tries[1], "webhook-id"));
    let ends = async || {
        let counts = ["busy", "gone", "moved"].map(|name| world.counts(name));
        (counts == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]).then_some(())
    };
    until("ends", ends).await;
    assert_eq!((server.requests().len(), gone.requests().len(), moved.requests().len()), (2, 1, 1));
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept() {
    let later = refusal("429 Too Many Requests", "retry-after: 4\r\ncontent-length: 0\r\n", "");
    let server = Upstream::start(vec![later, whole("ok")]).await;
    let world = World::telling(&[("ops", hook(&server))]);
    let clock = Clock::system();
    world.crash_loop("a");
    got(&server, 1).await;
    let first = clock.elapsed();
    got(&server, 2).await;
    assert!(clock.elapsed() - first > Duration::from_millis(3_500), "{:?}", clock.elapsed() - first);
}

#[tokio::test]
async fn a_webhook_that_never_answers_holds_up_no_end_and_what_waits_is_counted() {
    let silent = Upstream::start(vec![Reply::Hang(Vec::new())]).await;
    let server = Upstream::start(vec![whole("ok")]).await;
    let timeout = Period::from_secs(60);
    let world =
        World::telling(&[("silent", WebhookConfig { timeout, ..hook(&silent) }), ("ops", hook(&server))]);
    ["a", "b", "c"].iter().for_each(|agent| world.crash_loop(agent));
    got(&silent, 1).await;
    let (registry, clock) = (world.registry.clone(), Clock::system());
    world.notifier.stop(Duration::from_millis(300)).await;
    assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());
    assert_eq!(server.requests().len(), 3);
    let scrape = Scrape::parse(&registry.render());
    let dropped = [("what", "notification"), ("reason", "shutdown")];
    assert_eq!(scrape.count("plimsoll_dropped_total", &dropped), 3);
    let dropped = [("webhook", "silent"), ("outcome", "dropped")];
    assert_eq!(scrape.count("plimsoll_notifications_total", &dropped), 3);
}

#[tokio::test]
async fn what_was_not_delivered_before_a_kill_is_told_after_it_under_the_same_id() {
    let silent = Upstream::start(vec![Reply::Hang(Vec::new())]).await;
    let server = Upstream::start(vec![whole("ok")]).await;
    let world = World::telling(&[("ops", hook(&silent))]);
    world.crash_loop("a");
    let first = got(&silent, 1).await;
    world.crash_loop("b");
    let World { journal, notifier, .. } = world;
    drop(notifier);
    let next = World::over(journal, &[("ops", hook(&server))], SentryConfig::default());
    let told = got(&server, 2).await;
    assert_eq!(header(&told[0], "webhook-id"), header(&first[0], "webhook-id"));
    assert_eq!(told[0].body, first[0].body, "whoever keeps the id has the same");
    let agents: Vec<_> = told.iter().map(|request| request.body["data"]["agent"].clone()).collect();
    assert_eq!(agents, ["a", "b"]);
    next.notifier.stop(DEADLINE).await;
}

#[tokio::test]
async fn what_was_told_is_not_told_again_after_a_restart_and_what_came_meanwhile_is() {
    let server = Upstream::start(vec![whole("ok")]).await;
    let world = World::telling(&[("ops", hook(&server))]);
    world.crash_loop("a");
    until("it is told", async || (world.counts("ops") == [1, 0, 0]).then_some(())).await;
    let World { journal, registry, notifier } = world;
    notifier.stop(DEADLINE).await;
    // Nobody follows the journal now.
    let (config, gone) = (SentryConfig::default(), World { journal, registry, notifier: nobody() });
    gone.crash_loop("b");
    let both = [("ops", hook(&server)), ("new", hook(&server))];
    let next = World::over(Arc::clone(&gone.journal), &both, config);
    until("it is told", async || (next.counts("ops") == [1, 0, 0]).then_some(())).await;
    next.crash_loop("c");
    until("both are told", async || (next.counts("new") == [1, 0, 0]).then_some(())).await;
    next.notifier.stop(DEADLINE).await;
    let agents: Vec<_> =
        server.requests().iter().map(|request| request.body["data"]["agent"].clone()).collect();
    assert_eq!(agents.len(), 4, "{agents:?}");
    assert_eq!(agents[..2], ["a", "b"], "a webhook that is new hears of what comes");
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let silent = Upstream::start(vec![Reply::Hang(Vec::new())]).await;
    let world = World::telling(&[("ops", hook(&silent))]);
    world.crash_loop("first");
    got(&silent, 1).await;
    // One is being posted, 256 wait.
    (0..256 + 3).for_each(|number| world.crash_loop(&format!("a{number}")));
    until("drops", async || (world.counts("ops") == [0, 0, 3]).then_some(())).await;
    world.notifier.stop(Duration::ZERO).await;
}

/// On one thread the notifier does not get to look while this test writes more than the tail of the journal holds.
#[tokio::test]
async fn what_comes_too_fast_is_read_back() {
    let server = Upstream::start(vec![whole("ok")]).await;
    let world = World::telling(&[("ops", hook(&server))]);
    world.crash_loop("first");
    for _ in 0..plimsoll::limits::JOURNAL_TAIL_RECORDS_MAX + 1_000 {
        world.write(StreamId::operator(), "agent_paused", json!({}));
    }
    world.crash_loop("last");
    let told = got(&server, 2).await;
    let agents: Vec<&str> =
        told.iter().filter_map(|request| request.body["data"]["agent"].as_str()).collect();
    assert_eq!(agents, ["first", "last"]);
    world.notifier.stop(DEADLINE).await;
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_trusted_through_the_ca_file_and_not_without_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca_file = dir.path().join("ca.pem");
    let server = Upstream::start_tls(vec![whole("ok")], &ca_file).await;
    let trusting = WebhookConfig { ca_file: Some(ca_file), ..hook(&server) };
    let clock = Clock::system();
    let taken = plimsoll::notify::test("ops", &trusting, &clock).await;
    assert_eq!((taken.taken, taken.said.as_str()), (true, "it answered 200 OK: ok"));
    let refused = plimsoll::notify::test("ops", &hook(&server), &clock).await;
    assert!(!refused.taken && refused.said.contains("certificate"), "{}", refused.said);
}

fn notify_test(config: &Value, more: &[&str]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("plimsoll.yaml");
    fs::write(&file, config.to_string()).expect("written");
    let mut command = clean_command();
    let output =
        command.args(["notify", "test", "--data-dir", "data", "--config"]).arg(&file).args(more).output();
    let output = output.expect("plimsoll runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_sends_a_test_and_says_what_came_of_it() {
    let good = Upstream::start(vec![whole("thank you")]).await;
    let bad = Upstream::start(vec![refusal("403 Forbidden", "", "no_service /v1/hook T0K3N-OF-HOOK")]).await;
    let url = |server: &Upstream| format!("http://{}/T0K3N-OF-HOOK", server.address());
    let config = json!({"notify": {
        "bad": {"url": format!("{}", url(&bad)), "secret": "T0K3N-OF-HOOK-SECRET"},
        "good": {"url": url(&good), "form": "slack"},
    }});
    let (code, out, error) = notify_test(&config, &[]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, Some(1), "{out}{error}");
    assert!(lines[0].starts_with("failed  bad   it answered 403 Forbidden: no_service"), "{out}");
    assert_eq!(lines[1], "sent    good  it answered 200 OK: thank you");
    let text = good.requests()[0].body["text"].as_str().map(str::to_owned);
    assert!(text.is_some_and(|text| text.contains("this is a test")));
    assert_eq!(bad.requests()[0].body["type"], "plimsoll.test");
    let (code, out, _) = notify_test(&config, &["good"]);
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
    let (code, _, error) = notify_test(&config, &["ops"]);
    assert_eq!((code, error.trim()), (Some(2), "error: no webhook is called `ops`: there are bad, good"));
    assert_eq!(notify_test(&json!({}), &[]).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_webhooks_and_sends_them_nothing() {
    let server = Upstream::start(vec![whole("ok")]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let look = |url: String| {
        let file = dir.path().join("plimsoll.yaml");
        let config = json!({"server": {"listen": "127.0.0.1:0"}, "notify": {"ops": {"url": url}}});
        fs::write(&file, config.to_string()).expect("written");
        let mut command = clean_command();
        command
            .args(["doctor", "--json", "--data-dir", "data", "--config"])
            .arg(&file)
            .current_dir(dir.path());
        let output = command.output().expect("plimsoll runs").stdout;
        let report: Value = serde_json::from_slice(&output).expect("JSON");
        let checks = report["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|check| check["check"] == "webhooks").expect("a check")
    };
    let seen = look(format!("{}/hook", server.base_url()));
    assert_eq!(seen["status"], "pass", "{seen}");
    assert_eq!(seen["detail"], format!("ops: {} takes connections", server.address()));
    let port = crate::support::server::free_port();
    assert_eq!(look(format!("http://127.0.0.1:{port}/hook"))["status"], "warn");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_running_plimsoll_tells_of_a_budget_that_is_used_up_and_ends_with_all_told() {
    let hooked = Upstream::start(vec![whole("ok")]).await;
    let config = json!({
        "providers": {"p": {"kind": "echo"}},
        "prices": {"m": {"input": 2_000.0, "output": 2_000.0}},
        "agents": {"a": {"provider": "p", "model": "m", "usd_per_day": 0.001}},
        "notify": {"ops": {"url": format!("{}/hook", hooked.base_url())}},
    });
    let mut server = Server::start(config).await;
    let send = async || rpc(&server, "agent.send", json!({"agent": "a", "message": "SECRET words"})).await;
    assert!(send().await["result"].is_object());
    for _ in 0..3 {
        assert!(send().await["error"].is_object());
    }
    let told = got(&hooked, 1).await.remove(0).body;
    assert_eq!(told["type"], "plimsoll.budget.opened", "{told}");
    assert_eq!((&told["data"]["agent"], &told["data"]["facts"]["budgetUsd"]), (&json!("a"), &json!(0.001)));
    assert!(!told.to_string().contains("SECRET"), "{told}");
    let sent = [("webhook", "ops"), ("outcome", "sent")];
    let scraped = async || server.scrape().await.count("plimsoll_notifications_total", &sent);
    until("the count", async || (scraped().await == 1).then_some(())).await;
    server.stop().await;
    assert_eq!(hooked.requests().len(), 1, "{}", server.log());
}

/// The parts of an envelope (<https://develop.sentry.dev/sdk/foundations/transport/envelopes/>): its header, and its one
/// item.
fn envelope(request: &Request) -> (Value, Value) {
    let text = request.body.as_str().expect("lines of JSON, not one of it");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (head, item, event) = (lines.next(), lines.next(), lines.next());
    assert_eq!(item.expect("an item")["type"], "event");
    (head.expect("a header"), event.expect("an event"))
}

fn dsn(server: &Upstream, scheme: &str) -> SentryConfig {
    let dsn = Some(secret(format!("{scheme}://0123456789abcdef@{}/42", server.address())));
    SentryConfig { dsn, environment: Some("staging".to_owned()), ..SentryConfig::default() }
}

#[tokio::test]
async fn sentry_gets_one_event_for_each_episode() {
    let server = Upstream::start(vec![whole("{}")]).await;
    let world = World::of(&[], dsn(&server, "http"));
    assert_eq!(world.counts("sentry"), [0, 0, 0]);
    let instructions = "SECRET-INSTRUCTIONS";
    world.town(
        "bead_created",
        json!({"bead": "b1", "title": "t", "instructions": instructions, "role": "worker", "priority": 2}),
    );
    world.opened("b1");
    world.resolved("b1");
    world.crash_loop("a");
    world.opened("b2");
    for _ in 0..3 {
        world.opened("b1");
        world.resolved("b1");
    }
    let requests = got(&server, 5).await;
    let head = &requests[0].head;
    assert!(head.starts_with("post /api/42/envelope/ http/1.1"), "{head}");
    let auth = header(&requests[0], "x-sentry-auth");
    assert!(auth.contains("sentry_key=0123456789abcdef") && auth.contains("sentry_version=7"), "{auth}");
    assert_eq!(header(&requests[0], "content-type"), "application/x-sentry-envelope");
    let (head, event) = envelope(&requests[0]);
    let id = |value: &Value| value["event_id"].as_str().map(|id| id.replace('-', ""));
    assert_eq!(id(&head), id(&event));
    // The level of an event is `error` where none is given.
    assert_eq!(event.get("level").unwrap_or(&json!("error")), "error");
    assert_eq!(event["fingerprint"], json!(["10_attempts_over_cap", "main"]));
    assert_eq!(event["tags"], json!({"invariant": "10_attempts_over_cap", "townId": "main"}));
    assert_eq!(event["release"], format!("plimsoll@{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(event["environment"], "staging");
    let message = "bead b1 was tried 6 times, and may be 5 times";
    let last = json!([{"seq": 1, "kind": "bead_created"}, {"seq": 2, "kind": "violation_opened"}]);
    assert_eq!(
        event["extra"],
        json!({
            "invariant": "10_attempts_over_cap", "townId": "main", "message": message, "entities": ["bead/b1"],
            "lastEvents": last,
        })
    );
    assert!(event["contexts"]["rust"].is_object(), "{event:#}");
    assert_eq!(envelope(&requests[1]).1["extra"]["entities"], json!(["bead/b2"]));
    assert!(requests.iter().all(|request| !request.body.to_string().contains(instructions)));
    world.notifier.stop(DEADLINE).await;
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn a_panic_goes_to_sentry_with_its_place_and_without_its_words() {
    let server = Upstream::start(vec![whole("{}")]).await;
    let world = World::of(&[], dsn(&server, "http"));
    let line = line!() + 2;
    for _ in 0..3 {
        let _ = std::thread::spawn(|| panic!("SECRET WORDS")).join();
    }
    // Other tests panic too, on purpose.
    let place = format!("tests/it/notify.rs:{line}:");
    let ours = || {
        let events = server.requests().into_iter().map(|request| envelope(&request).1);
        events.filter(|event| event["tags"]["place"].to_string().contains(&place)).collect::<Vec<_>>()
    };
    let event = until("the panic", async || ours().into_iter().next()).await;
    let exception = &event["exception"]["values"][0];
    assert_eq!(
        (exception["type"].as_str(), &exception["mechanism"]["handled"]),
        (Some("panic"), &json!(false))
    );
    let frames = exception["stacktrace"]["frames"].as_array().expect("a stack");
    assert!(frames.iter().any(|frame| frame["function"].to_string().contains("a_panic_goes_to_sentry")));
    assert!(!event.to_string().contains("SECRET"), "{event:#}");
    world.notifier.stop(DEADLINE).await;
    assert_eq!(ours().len(), 1, "each place is told once");
}

#[tokio::test]
async fn a_sentry_that_never_answers_holds_up_no_end() {
    let silent = Upstream::start(vec![Reply::Hang(Vec::new())]).await;
    let world = World::of(&[], dsn(&silent, "http"));
    world.opened("b1");
    got(&silent, 1).await;
    let (registry, clock) = (world.registry.clone(), Clock::system());
    world.notifier.stop(Duration::from_millis(300)).await;
    assert!(clock.elapsed() < Duration::from_secs(3), "{:?}", clock.elapsed());
    let dropped = [("webhook", "sentry"), ("outcome", "dropped")];
    assert_eq!(Scrape::parse(&registry.render()).count("plimsoll_notifications_total", &dropped), 1);
}

#[tokio::test]
async fn a_sentry_that_asks_for_a_wait_gets_the_event_after_it() {
    let later = refusal("429 Too Many Requests", "retry-after: 3\r\ncontent-length: 0\r\n", "");
    let server = Upstream::start(vec![later, whole("{}")]).await;
    let world = World::of(&[], dsn(&server, "http"));
    let clock = Clock::system();
    world.opened("b1");
    got(&server, 1).await;
    let first = clock.elapsed();
    let events: Vec<Value> = got(&server, 2).await.iter().map(|request| envelope(request).1).collect();
    assert!(clock.elapsed() - first > Duration::from_millis(2_500), "{:?}", clock.elapsed() - first);
    assert_eq!(events[0]["event_id"], events[1]["event_id"]);
}

#[tokio::test]
async fn sentry_is_reached_over_tls_with_an_authority_of_ones_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca_file = dir.path().join("ca.pem");
    let server = Upstream::start_tls(vec![whole("{}")], &ca_file).await;
    let world = World::of(&[], SentryConfig { ca_file: Some(ca_file), ..dsn(&server, "https") });
    world.opened("b1");
    assert_eq!(envelope(&got(&server, 1).await[0]).1["tags"]["townId"], "main");
}
