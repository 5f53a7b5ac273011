//! The demo: it starts, it is lively, it ends cleanly.

use std::process::Stdio;
use std::time::Duration;

use plimsoll::client::{Client, Target};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::child::Running;
use crate::support::exposition::Scrape;
use crate::support::server::{PATIENCE, clean_command, until};

/// A demo that runs until this is dropped.
struct Demo {
    client: Client,
    _running: Running,
    _home: TempDir,
}

impl Demo {
    fn start(more: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let data = home.path().join("data");
        let mut command = clean_command();
        command.args(["demo", "--port", "0", "--rate", "1"]).args(more).arg("--data-dir").arg(&data);
        let running = Running::start(command.stdout(Stdio::null()));
        Self { client: Client::new(Target::DataDir(data)).expect("a client"), _running: running, _home: home }
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
async fn a_breach_of_ticks_makes_them_slower_than_their_alert_allows() {
    let demo = Demo::start(&["--breach", "tick"]);
    demo.until("ticks over 500 ms", |scrape| {
        let of = |name, label| sum(scrape, &format!("reconciler_tick_duration_seconds_{name}"), label);
        let (all, quick) = (of("count", ("town", "main")), of("bucket", ("le", "0.5")));
        all >= 5.0 && quick < 0.5
    })
    .await;
    let closed = |scrape: &Scrape| sum(scrape, "beads", ("status", "closed")) > 0.0;
    demo.until("work that is done all the same", closed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_of_the_queue_has_more_events_wait_than_their_alert_allows() {
    let demo = Demo::start(&["--breach", "queue"]);
    let pending =
        |more: f64| move |scrape: &Scrape| sum(scrape, "reconciler_pending_events", ("town", "main")) > more;
    demo.until("some events that wait", pending(5.0)).await;
    // They come every half second; people do not wait for that here.
    for number in 0..40 {
        let bead = json!({"town": "main", "title": format!("Carry stone {number}")});
        demo.client.call("town.addBead", bead).await.expect("a bead");
    }
    demo.until("more than 50 events", pending(50.0)).await;
    demo.until("more of them, though there are enough beads", pending(70.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_of_an_invariant_opens_an_episode_that_recovery_ends() {
    let demo = Demo::start(&["--breach", "invariant"]);
    let seventh = ("invariant", "7_working_without_hook");
    demo.until("a violation", |scrape| sum(scrape, "invariant_violations_total", seventh) > 0.5).await;
    demo.until("none any more", |scrape| sum(scrape, "invariant_violations_open", seventh) < 0.5).await;
    let acted = |scrape: &Scrape| sum(scrape, "reconciler_actions_total", ("action", "free_agent")) > 0.0;
    demo.until("a repair", acted).await;
}
