//! In a container of a real engine.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::world::{TOKEN, World};
use crate::docker::engine::OwnEngine;
use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_messages_start_one_container_and_idleness_stops_it() {
    let Some(world) = World::in_a_container("hundred") else { return };
    let mut config = world.config();
    config["agents"][&world.id]["instance"]["idle_after"] = json!("2s");
    let server = Server::start(config).await;
    assert_eq!(world.agent(&server).await["mode"], "container");
    assert!(world.containers().is_empty(), "nothing is made before it is needed");
    let sends = (0..100).map(|n| {
        let (world, server) = (&world, &server);
        async move { world.send(server, &format!("s{}", n % 10), &format!("message {n}")).await }
    });
    for (n, answer) in join_all(sends).await.iter().enumerate() {
        assert_eq!(answer["text"], format!("message {n}"));
    }
    until("the stop", async || {
        (world.kinds(&server).await == ["container_planned", "lazy_start", "lazy_stop"]).then_some(())
    })
    .await;
    assert_eq!((world.running().len(), world.containers().len()), (0, 1), "it stays for the next start");
    world.agree(&server).await;
    let health: Value = server.client().get("/health").await.expect("answers").json().await.expect("JSON");
    assert_eq!(health["components"]["engine"]["status"], "ok");
    assert_eq!(server.scrape().await.count("plimsoll_component_up", &[("component", "engine")]), 1);
    assert_eq!(world.send(&server, "s0", "again").await["text"], "again");
    assert_eq!(world.containers().len(), 1, "the same one");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_container_that_runs_is_kept() {
    let Some(world) = World::in_a_container("kept") else { return };
    let server = Server::start(world.config()).await;
    world.send(&server, "s", "hello").await;
    until("its row", async || (world.kinds(&server).await.len() == 2).then_some(())).await;
    let before = world.running();
    let mut server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    world.state(&server, "idle").await;
    assert_eq!(world.running(), before, "the same one, without an interruption");
    let kinds = async || world.kinds(&server).await;
    until("its row", async || {
        (kinds().await == ["container_planned", "lazy_start", "adopted"]).then_some(())
    })
    .await;
    assert_eq!(world.send(&server, "s", "again").await["text"], "again");
    world.agree(&server).await;
    server.stop().await;
    assert!(world.running().is_empty(), "stopped with plimsoll");
}

/// Takes the agent out of the configuration, as what makes it over the API.
fn as_made(world: &World, config: &mut Value) -> Value {
    let mut entry = config["agents"][&world.id].take();
    config["agents"] = json!({});
    entry["id"] = json!(world.id);
    entry.as_object_mut().expect("keys").remove("cwd");
    // Nothing is expanded there.
    let text = entry.to_string().replace("$${", "${");
    serde_json::from_str(&text).expect("JSON")
}

/// Asks again while the instance of the last one still ends.
async fn post(server: &Server, entry: &Value) -> Answer {
    until("the end of the last one", async || {
        let ask = Ask::post("/agents", entry.to_string()).header("content-type", "application/json");
        let answer = ask.token(Some(TOKEN)).send(server.address()).await;
        (!answer.text().contains("still ends")).then_some(answer)
    })
    .await
}

async fn delete(server: &Server, id: &str) {
    let ask = Ask::method("DELETE", &format!("/agents/{id}")).token(Some(TOKEN));
    let deleted = ask.send(server.address()).await;
    assert!([200, 204].contains(&deleted.status), "{}", deleted.text());
}

/// Deleted, nothing of it is left: no container, no counter, no series. Made again, it begins again.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_deleted_takes_its_container_with_it() {
    let Some(world) = World::in_a_container("deleted") else { return };
    let mut config = world.config();
    let entry = as_made(&world, &mut config);
    let server = Server::start(config.clone()).await;
    let make = async |server: &Server| {
        let answer = post(server, &entry).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    make(&server).await;
    assert_eq!(world.send(&server, "s", "hello").await["text"], "hello");
    until("its row", async || (world.kinds(&server).await.len() == 2).then_some(())).await;
    delete(&server, &world.id).await;
    until("the end of its container", async || world.containers().is_empty().then_some(())).await;
    until("its last records", async || {
        let kinds = world.kinds(&server).await;
        ["lazy_stop", "removed"].iter().all(|kind| kinds.contains(&(*kind).to_owned())).then_some(())
    })
    .await;
    let text = server.client().get("/metrics").await.expect("answers").text().await.expect("text");
    assert!(!text.contains(&world.id), "its series are gone");

    make(&server).await;
    let counts = world.agent(&server).await["state"]["lifecycle_metrics"].clone();
    assert_eq!((&counts["lazy_start"], &counts["last_event"]), (&json!(0), &Value::Null));
    let mut server = Server::spawn(server.kill(), config);
    server.ready().await;
    let counts = world.agent(&server).await["state"]["lifecycle_metrics"].clone();
    assert_eq!(
        (&counts["lazy_start"], &counts["last_event"]),
        (&json!(0), &Value::Null),
        "after a restart too"
    );
    assert_eq!(world.send(&server, "s", "again").await["text"], "again");
    assert_eq!(world.containers().len(), 1);
}

/// It went out of the configuration, and at the next start the engine was away.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_an_agent_that_is_gone_is_removed_when_the_engine_comes_back() {
    let Some(mut own) = OwnEngine::start().await else { return };
    let world = World::in_a_container_of(own.engine.clone(), "back");
    let mut config = world.config();
    says_ready(&world, &mut config);
    let server = Server::start(config.clone()).await;
    server.call("lifecycle.start", json!({"instance": world.id})).await;
    world.state(&server, "idle").await;
    let dir = server.kill();
    own.kill();
    config["agents"] = json!({});
    let mut server = Server::spawn(dir, config);
    server.ready().await;
    until("the first try", async || server.log().contains("of an agent that is gone is left").then_some(()))
        .await;
    own.start_again().await;
    until("its end", async || world.containers().is_empty().then_some(())).await;
    until("its row", async || (world.kinds(&server).await.last()? == "container_removed").then_some(()))
        .await;
}

/// Its agent has a container that somebody else made from now on: the one that was made for it is needed no more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_is_removed_when_the_agent_gets_a_container_of_somebody_elses() {
    let Some(world) = World::in_a_container("renamed") else { return };
    let mut config = world.config();
    let server = Server::start(config.clone()).await;
    world.send(&server, "s", "hello").await;
    until("its row", async || (world.kinds(&server).await.len() == 2).then_some(())).await;
    config["agents"][&world.id]["instance"]["container"] = json!({"name": "somebody-elses"});
    let mut server = Server::spawn(server.kill(), config);
    server.ready().await;
    until("its end", async || world.containers().is_empty().then_some(())).await;
    let kinds = ["container_planned", "lazy_start", "container_removed"];
    until("its row", async || (world.kinds(&server).await == kinds).then_some(())).await;
}

/// What an agent is made with over the API goes by the same policy as what the file says.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_container_is_refused_over_the_api() {
    let Some(world) = World::in_a_container("hostile") else { return };
    let root = tempfile::tempdir().expect("a temporary directory");
    std::os::unix::fs::symlink("/", root.path().join("innocent")).expect("linked");
    let mut config = world.config();
    let entry = as_made(&world, &mut config);
    config["engine"]["bind_root"] = json!(root.path());
    let server = Server::start(config).await;
    let mut entry = entry;
    entry["instance"]["container"]["user"] = json!("1000");
    assert_eq!(post(&server, &entry).await.status, 201, "the good one is taken");
    delete(&server, &world.id).await;
    let bind = |source: &str| json!([{"source": source, "target": "/host", "writable": true}]);
    let inside = root.path().join("innocent").display().to_string();
    for (key, value) in [
        ("privileged", json!(true)),
        ("network", json!("host")),
        ("pid", json!("host")),
        ("devices", json!(["/dev/kmsg"])),
        ("cap_add", json!(["SYS_ADMIN"])),
        ("volumes", json!(["/:/host"])),
        ("host_config", json!({"Privileged": true})),
        ("image", json!("evil/agent:1")),
        ("binds", bind("/")),
        ("binds", bind("/var/run/docker.sock")),
        ("binds", bind(&inside)),
    ] {
        let mut hostile = entry.clone();
        hostile["instance"]["container"][key] = value.clone();
        let answer = post(&server, &hostile).await;
        if answer.status == 201 {
            // What only the machine can tell is found out when the container would be made.
            let refused = world.refused(&server).await;
            assert_eq!(refused.1["cause"], "refused", "{key}: {value}");
            delete(&server, &world.id).await;
        } else {
            assert!([400, 422].contains(&answer.status), "{key}: {}", answer.text());
            assert!(answer.text().contains(&format!("instance.container.{key}")), "{key}: {}", answer.text());
        }
        until("no container", async || world.containers().is_empty().then_some(())).await;
    }
}

/// Nothing connects to what an engine of a test's own runs.
fn says_ready(world: &World, config: &mut Value) {
    let instance = &mut config["agents"][&world.id]["instance"];
    instance["ready"] = json!({"line": "ready"});
    instance["container"]["command"] =
        json!(["/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 1000 & wait"]);
    config["engine"]["timeout"] = json!("2s");
}

/// The engine's death is none of its containers' here, as with `--live-restore`.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_may_be_killed_and_come_back() {
    let Some(mut own) = OwnEngine::start().await else { return };
    let world = World::in_a_container_of(own.engine.clone(), "engine");
    let mut config = world.config();
    says_ready(&world, &mut config);
    let server = Server::start(config).await;
    let params = json!({"instance": world.id});
    server.call("lifecycle.start", params.clone()).await;
    world.state(&server, "idle").await;
    own.kill();
    until("the engine is told as down", async || {
        let health: Value = server.client().get("/health").await.ok()?.json().await.ok()?;
        (health["components"]["engine"]["status"] == "degraded").then_some(())
    })
    .await;
    assert_eq!(server.scrape().await.count("plimsoll_component_up", &[("component", "engine")]), 0);
    assert_eq!(world.agent(&server).await["state"]["lifecycle_state"], "idle", "nobody knows otherwise");
    own.start_again().await;
    until("the engine is told as up", async || {
        let health: Value = server.client().get("/health").await.ok()?.json().await.ok()?;
        (health["components"]["engine"]["status"] == "ok").then_some(())
    })
    .await;
    assert_eq!(world.kinds(&server).await, ["container_planned", "lazy_start"], "it had not ended");
    server.call("lifecycle.stop", params).await;
    world.state(&server, "cold").await;
    until("its row", async || (world.kinds(&server).await.len() == 3).then_some(())).await;
    world.agree(&server).await;
}
