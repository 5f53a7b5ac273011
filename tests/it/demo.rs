//! The demo: it starts, it is lively, it ends cleanly.

use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::client::{Client, Target};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::child::Running;
use crate::support::exposition::Scrape;
use crate::support::http::Ask;
use crate::support::server::{PATIENCE, clean_command, token_hash, until};

/// A demo that runs until this is dropped.
struct Demo {
    client: Client,
    running: Option<Running>,
    home: TempDir,
}

impl Demo {
    fn start(more: &[&str]) -> Self {
        Self::start_with(more, |_| {})
    }

    /// One in which this goes wrong at once, for so long divided by 60, and then not for a day divided so.
    fn breaching(breach: &str, lasts: &str) -> Self {
        let times = ["--breach-first=0s", "--breach-pause=1d", "--durations-divided-by=60", "--breach-lasts"];
        Self::start(&[&["--breach", breach], &times[..], &[lasts]].concat())
    }

    fn start_with(more: &[&str], set: impl FnOnce(&mut Command)) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let data = home.path().join("data");
        let mut command = clean_command();
        command.args(["demo", "--port", "0", "--rate", "1"]).args(more).arg("--data-dir").arg(&data);
        set(&mut command);
        let log = std::fs::File::create(home.path().join("log")).expect("a log file");
        let running = Some(Running::start(command.stdout(Stdio::null()).stderr(log)));
        Self { client: Client::new(Target::DataDir(data)).expect("a client"), running, home }
    }

    /// Waits until the events tell this so often, and gives them, the first first.
    async fn until_told(&self, message: &str, times: usize) -> Vec<Value> {
        until(message, async || {
            let asked = json!({"source": "demo", "limit": 100});
            let told = self.client.call("system.events", asked).await.ok()?;
            let all = told.as_array()?.iter().rev();
            let found: Vec<Value> = all.filter(|event| event["message"] == message).cloned().collect();
            (found.len() >= times).then_some(found)
        })
        .await
    }

    /// Waits until what the town's metrics show is so.
    async fn until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) {
        until(what, async || holds(&self.scrape().await?).then_some(())).await;
    }

    async fn scrape(&self) -> Option<Scrape> {
        let text = self.client.get("/metrics").await.ok()?.text().await.ok()?;
        Some(Scrape::parse(&text)).filter(|scrape| scrape.0.iter().any(is_of_the_town))
    }

    async fn status(&self) -> Option<Value> {
        self.client.call("town.status", json!({"town": "main"})).await.ok()
    }
}

fn is_of_the_town(sample: &crate::support::exposition::Sample) -> bool {
    sample.labels.get("town").is_some_and(|town| town == "main")
}

/// The sum of the town's series of this name with this label.
fn sum(scrape: &Scrape, name: &str, label: (&str, &str)) -> f64 {
    scrape.of(&format!("plimsoll_{name}"), &[("town", "main"), label]).map(|sample| sample.value).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_fills_everything_and_ends_with_0_after_its_duration() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let mut command = clean_command();
    command.args(["demo", "--port", "0", "--seed", "3", "--rate", "150", "--duration", "6s", "--data-dir"]);
    command.arg(&data).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("plimsoll starts");
    let client = Client::new(Target::DataDir(data)).expect("a client");
    until("a lively snapshot", async || {
        let metrics = client.call("system.metrics", json!({})).await.ok()?;
        let recent = metrics["modelCalls"]["recentCalls"].as_array()?;
        let lively = recent.len() > 100
            && recent.iter().any(|call| call.get("error").is_some())
            && recent.iter().any(|call| call.get("costUsd").is_some())
            && metrics["errors"].as_u64()? > 3
            && metrics["connections"].as_u64()? > 1
            && metrics["sessions"].as_u64()? > 10;
        lively.then_some(())
    })
    .await;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.expect("joined");
    let output = output.expect("the demo ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}\n{complained}");
    assert!(said.contains("http://127.0.0.1:") && said.contains("answered"), "{said}\n{complained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_goes_on_when_a_token_is_made_in_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    let mut command = clean_command();
    command.args(["demo", "--port", "0", "--rate", "150", "--data-dir"]).arg(&data).stdout(Stdio::null());
    let mut child = command.spawn().expect("plimsoll starts");
    let client = Client::new(Target::DataDir(data)).expect("a client");
    let processed = async || {
        let metrics = client.call("system.metrics", json!({})).await.ok()?;
        metrics["messagesProcessed"].as_u64()
    };
    until("a message", async || processed().await.filter(|count| *count > 0)).await;
    let new = json!({"name": "me", "role": "viewer"});
    client.call("token.create", new).await.expect("a token");
    let before = processed().await.expect("a count");
    // More than could have been under way.
    until("more messages", async || processed().await.filter(|count| *count > before + 500)).await;
    child.kill().expect("it is there");
    child.wait().expect("it ends");
}

#[test]
fn the_demo_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let mut command = clean_command();
    command.args(["demo", "--port", "0", "--rate", "20", "--duration", "300ms"]);
    let output = command.env("TMPDIR", temporary.path()).output().expect("plimsoll runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let left: Vec<_> = std::fs::read_dir(temporary.path()).expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_town_of_the_demo_works_fails_and_tries_again() {
    let demo = Demo::start(&[]);
    until("a town", async || demo.status().await).await;
    // Always more at once than there are hands for, until some of it failed: which does is chance, about one of eight.
    let again = async {
        loop {
            let page = demo.client.call("town.beads", json!({"town": "main", "kind": "task"})).await;
            let beads = page.expect("beads")["beads"].as_array().cloned().expect("a list");
            if beads.iter().any(|bead| bead["attempts"].as_u64() > Some(1)) {
                return;
            }
            for _ in beads.len()..12 {
                let bead = json!({"town": "main", "title": "Carry a stone"});
                demo.client.call("town.addBead", bead).await.expect("a bead");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(4 * PATIENCE, again).await.expect("a second attempt");
    let town = ("town", "main");
    for (name, label) in [
        ("reconciler_tick_duration_seconds_count", town),
        ("reconciler_observe_duration_seconds_count", town),
        ("reconciler_effect_duration_seconds_count", town),
        ("reconciler_last_tick_duration_seconds", town),
        ("reconciler_events_drained_total", town),
        ("reconciler_container_status_suppressed_total", town),
        ("reconciler_actions_total", ("action", "dispatch_bead")),
        ("reconciler_actions_total", ("action", "open_review")),
        ("reconciler_actions_total", ("action", "close_bead")),
        ("reconciler_actions_total", ("action", "retry_bead")),
        ("reconciler_effects_total", ("outcome", "attempted")),
        ("reconciler_effects_total", ("outcome", "succeeded")),
        ("agents", ("status", "dead")),
        ("agents", ("status", "working")),
        ("agents_by_class", ("class", "working")),
        ("beads", ("status", "in_review")),
        ("beads", ("status", "closed")),
    ] {
        demo.until(&format!("{name} {label:?} moves"), |scrape| sum(scrape, name, label) > 0.0).await;
    }
    let scrape = demo.scrape().await.expect("metrics");
    for name in ["reconciler_rejected_events_total", "invariant_violations_total"] {
        assert!(sum(&scrape, name, town).abs() < 0.5, "{name}: nothing goes wrong by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_of_ticks_makes_them_slower_than_their_alert_allows_and_ends() {
    let demo = Demo::breaching("tick", "10m");
    let slow = |scrape: &Scrape| {
        let of = |name, label| sum(scrape, &format!("reconciler_tick_duration_seconds_{name}"), label);
        of("count", ("town", "main")) - of("bucket", ("le", "0.5"))
    };
    demo.until("ticks over 500 ms", |scrape| slow(scrape) >= 4.0).await;
    let closed = |scrape: &Scrape| sum(scrape, "beads", ("status", "closed")) > 0.0;
    demo.until("work that is done all the same", closed).await;
    demo.until_told("a breach ends: its alerts resolve", 1).await;
    let last = |scrape: &Scrape| sum(scrape, "reconciler_last_tick_duration_seconds", ("town", "main")) < 0.5;
    demo.until("quick ticks", last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_of_the_queue_has_more_wait_than_the_alerts_allow_and_ends() {
    let demo = Demo::breaching("queue", "10m");
    let pending = |scrape: &Scrape| sum(scrape, "reconciler_pending_events", ("town", "main"));
    let queued = |scrape: &Scrape| scrape.sum("plimsoll_queue_depth", &[]);
    demo.until("more than 50 events and requests", |scrape| pending(scrape) > 50.0 && queued(scrape) > 50.0)
        .await;
    demo.until_told("a breach ends: its alerts resolve", 1).await;
    demo.until("a town that kept up", |scrape| pending(scrape) < 5.0).await;
    demo.until("a batch that was taken back", |scrape| queued(scrape) < 10.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_of_an_invariant_opens_episodes_that_recovery_ends() {
    let demo = Demo::breaching("invariant", "5m");
    let seventh = ("invariant", "7_working_without_hook");
    let violations = |scrape: &Scrape| sum(scrape, "invariant_violations_total", seventh);
    demo.until("violations", |scrape| violations(scrape) >= 2.0).await;
    demo.until_told("a breach ends: its alerts resolve", 1).await;
    demo.until("none any more", |scrape| sum(scrape, "invariant_violations_open", seventh) < 0.5).await;
    let acted = |scrape: &Scrape| sum(scrape, "reconciler_actions_total", ("action", "free_agent")) > 0.0;
    demo.until("a repair", acted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn breaches_come_in_turn_and_again_and_are_told_in_the_log_and_as_events() {
    let mut demo = Demo::start(&[
        "--breach=tick,queue",
        "--breach=invariant",
        "--breach-first=1s",
        "--breach-lasts=20s",
        "--breach-pause=20s",
        "--durations-divided-by=60",
    ]);
    let begins = demo.until_told("a breach begins: its alerts will fire", 4).await;
    let told: Vec<_> = begins.iter().map(|event| event["context"]["breach"].clone()).collect();
    assert_eq!(told, ["tick", "queue", "invariant", "tick"], "{begins:?}");
    let ends = demo.until_told("a breach ends: its alerts resolve", 3).await;
    assert_eq!(ends[1]["context"]["breach"], "queue");
    assert_eq!(begins[0]["context"]["alerts"], "PlimsollTickSlow");
    demo.running = None;
    let log = std::fs::read_to_string(demo.home.path().join("log")).expect("a log");
    assert!(log.contains("a breach begins: its alerts will fire"), "{log}");
    assert!(!log.contains("agent.send"), "what fails in the play is not told: {log}");
}

#[test]
fn times_of_breaches_out_of_range_or_without_one_are_refused() {
    for (arguments, said) in [
        (["--breach", "tick", "--breach-lasts", "31m"], "expected 1s to 30m"),
        (["--breach", "tick", "--breach-pause", "0s"], "expected 1s to 1d"),
        (["--breach", "tick", "--breach-first", "25h"], "expected 0ms to 1d"),
        (["--breach", "tick", "--durations-divided-by", "0"], "0 is not in 1..=60"),
        (["--breach", "tick", "--durations-divided-by", "61"], "61 is not in 1..=60"),
        (["--rate", "1", "--breach-pause", "1m"], "--breach <WHAT>"),
    ] {
        let output = clean_command().arg("demo").args(arguments).output().expect("plimsoll runs");
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complained}");
        assert!(complained.contains(said), "{arguments:?}: {complained}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_of_the_stack_is_reached_and_guarded_as_its_configuration_says() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/plimsoll.yaml");
    let demo = Demo::start_with(&["--config", file], |command| {
        command.env("PLIMSOLL_ENV", "docker");
        for (variable, token) in [("PROMETHEUS", "scraper's"), ("OPERATOR", "operator's")] {
            command.env(format!("PLIMSOLL_{variable}_SHA256"), token_hash(token));
        }
    });
    demo.until("load, though nobody gets in without a token", |scrape| {
        scrape.sum("plimsoll_messages_processed_total", &[]) > 0.0
    })
    .await;
    let address = std::fs::read_to_string(demo.home.path().join("data/address")).expect("an address");
    let port = address.trim().strip_prefix("0.0.0.0:").expect("all addresses").parse().expect("a port");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let scrape =
        async |host: &str, token| Ask::get("/metrics").host(host).token(token).send(address).await.status;
    assert_eq!(scrape("demo:1876", Some("scraper's")).await, 200);
    assert_eq!(scrape("demo:1876", Some("operator's")).await, 200);
    assert_eq!(scrape("demo:1876", None).await, 401);
    assert_eq!(scrape("elsewhere:1876", Some("scraper's")).await, 421);
    let send = json!({"agent": "reviewer", "message": "hello"});
    let sent = async |token| {
        Ask::call("agent.send", send.clone()).host("demo:1876").token(Some(token)).send(address).await
    };
    assert_eq!(sent("scraper's").await.json()["error"]["code"], -32008);
    let agents = demo.client.call("agent.list", json!({})).await.expect("agents");
    assert!(!agents.to_string().contains("\"id\":\"echo\""), "its agents are its own: {agents}");
}
