//! In a container of a real engine.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::world::World;
use crate::docker::engine::OwnEngine;
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

/// The engine's death is none of its containers' here, as with `--live-restore`.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_may_be_killed_and_come_back() {
    let Some(mut own) = OwnEngine::start().await else { return };
    let world = World::in_a_container_of(own.engine.clone(), "engine");
    let mut config = world.config();
    // Nothing connects to what this engine runs.
    config["agents"][&world.id]["instance"]["ready"] = json!({"line": "ready"});
    config["agents"][&world.id]["instance"]["container"]["command"] =
        json!(["/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 1000 & wait"]);
    config["engine"]["timeout"] = json!("2s");
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
