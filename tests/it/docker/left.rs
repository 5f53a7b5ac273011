//! What an earlier plimsoll left behind, wherever it was interrupted.

use plimsoll::lifecycle::{State, remove_left_containers};
use serde_json::json;
use std::time::Duration;

use super::engine::{Engine, IMAGE, OwnEngine};
use super::stand::{SERVER, World, live, says_ready, script, with};
use crate::support::server::until;
use crate::support::tools::needs_package;

#[test]
fn one_that_was_left_running_is_kept_and_goes_on() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "adopted");
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        life.until_written(&["container_planned", "lazy_start"]).await;
    });
    let before = world.running();
    assert_eq!(before.len(), 1, "nobody stopped it");
    live(async || {
        let life = world.life(&with(script(SERVER), &json!({"idle_after": "1s"})), &json!({}));
        life.until_written(&["container_planned", "lazy_start", "adopted", "lazy_stop"]).await;
        assert_eq!(world.records()[2].detail, json!({"container": before[0]}));
        assert_eq!((world.running(), world.containers()), (vec![], before.clone()));
        assert_eq!(life.heard(), Vec::<String>::new(), "what it printed before is not told again");
        life.instances.shut_down().await;
    });
}

#[test]
fn the_end_of_one_that_was_kept_is_seen_and_requests_find_it_up() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "kept");
    let config = with(
        script("trap 'exit 0' TERM; echo ready; sleep 1000 & wait"),
        &json!({"ready": {"line": "ready"}}),
    );
    live(async || {
        let life = world.life(&config, &json!({}));
        drop(life.up().await);
        life.until_written(&["container_planned", "lazy_start"]).await;
    });
    live(async || {
        let life = world.life(&config, &json!({}));
        drop(life.up().await);
        life.until_written(&["container_planned", "lazy_start", "adopted"]).await;
        engine.docker(&["kill", &world.planned()]);
        life.until_written(&["container_planned", "lazy_start", "adopted", "exited"]).await;
        life.instances.shut_down().await;
    });
}

#[test]
fn one_that_shall_not_be_kept_or_would_be_made_otherwise_is_stopped() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "lost");
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        life.until_written(&["container_planned", "lazy_start"]).await;
    });
    live(async || {
        let life = world.life(&script(SERVER), &json!({"orphans": "stop"}));
        life.until_written(&["container_planned", "lazy_start", "lost"]).await;
        assert_eq!(world.records()[2].detail, json!({"action": "stopped", "container": world.planned()}));
        assert_eq!((world.running(), life.state()), (vec![], State::Cold));
        drop(life.up().await);
    });
    live(async || {
        let other = with(script(SERVER), &json!({"container": {"pids_max": 100}}));
        let life = world.life(&other, &json!({}));
        let first = world.planned();
        until("its end", async || world.running().is_empty().then_some(())).await;
        drop(life.up().await);
        assert_ne!(world.planned(), first);
        assert_eq!(world.containers(), [world.planned()], "the old one is gone");
        assert_eq!(life.book.names(&world.id), [world.planned()]);
        life.instances.shut_down().await;
    });
}

#[test]
fn one_that_ended_while_nobody_was_there_leaves_a_row() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "gone");
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        life.until_written(&["container_planned", "lazy_start"]).await;
    });
    engine.docker(&["kill", &world.planned()]);
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        life.until_written(&["container_planned", "lazy_start", "lost"]).await;
        assert_eq!(world.records()[2].detail, json!({"action": "gone", "container": world.planned()}));
        assert!(!world.ledger.was_up(&world.id));
        life.instances.shut_down().await;
    });
}

#[test]
fn one_that_somebody_made_is_found_if_plimsoll_may_have_started_it_and_only_then() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "started");
    let (name, label) = (format!("{}-started", world.id), format!("io.plimsoll.instance={}", world.id));
    let never = "trap 'exit 0' TERM; sleep 1000 & wait";
    engine.docker(&["run", "-d", "--name", &name, "--label", &label, IMAGE, "/bin/sh", "-c", never]);
    let config = json!({"container": {"name": name}, "ready": {"line": "ready"}});
    let stops = json!({"trust": "start_stop", "orphans": "stop"});
    live(async || {
        let life = world.life(&config, &stops);
        life.instances.shut_down().await;
        assert_eq!(world.running(), std::slice::from_ref(&name), "whoever started it wants it");
    });
    engine.docker(&["stop", "-t", "1", &name]);
    // Interrupted before it was ready.
    live(async || {
        let life = world.life(&config, &stops);
        let started = until("the start", async || (!world.running().is_empty()).then_some(()));
        tokio::select! {
            refused = life.acquire() => panic!("{refused:?}"),
            () = started => {}
        }
    });
    live(async || {
        let life = world.life(&config, &stops);
        life.until_written(&["container_starting", "lost"]).await;
        assert!(world.running().is_empty());
        life.instances.shut_down().await;
    });
}

#[test]
fn whatever_was_interrupted_the_next_start_finds_it() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "halves");
    let written = ["container_planned", "lazy_start"];
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        life.until_written(&written).await;
    });
    // Planned and never made.
    let never = world.planned();
    engine.docker(&["rm", "-f", &never]);
    live(async || {
        drop(world.life(&script(SERVER), &json!({})).up().await);
        assert_eq!(world.containers(), [world.planned()]);
    });
    // Made and not started, or not started again.
    let made = world.planned();
    engine.docker(&["stop", "-t", "1", &made]);
    live(async || {
        drop(world.life(&script(SERVER), &json!({})).up().await);
        assert_eq!(world.running(), std::slice::from_ref(&made));
    });
    // Its agent is gone.
    live(async || {
        let life = world.life(&script(SERVER), &json!({"orphans": "stop"}));
        life.instances.shut_down().await;
        for trust in ["observe", "start_stop"] {
            let looks = world.life(&script(SERVER), &json!({"trust": trust}));
            let left =
                remove_left_containers(&looks.client, &looks.book, |_| true, Duration::from_secs(1)).await;
            assert_eq!((left.len(), world.containers().len()), (2, 1), "{left:?}");
            assert!(left[0].contains("set `engine.trust: create`"), "{left:?}");
            looks.instances.shut_down().await;
        }
        // What the engine does not know now may come late.
        let remove =
            async || remove_left_containers(&life.client, &life.book, |_| true, Duration::from_secs(1)).await;
        engine.docker(&["rename", &made, "it-elsewhere"]);
        assert_eq!((remove().await, life.book.names(&world.id).contains(&made)), (vec![], true));
        engine.docker(&["rename", "it-elsewhere", &made]);
        assert_eq!((remove().await, world.containers()), (vec![], vec![]));
        assert_eq!(life.book.names(&world.id), [never], "it may come still");
    });
}

#[test]
fn a_start_that_is_stopped_in_the_middle_leaves_nothing_running() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "middle");
    live(async || {
        let config =
            with(script("trap 'exit 0' TERM; sleep 1000 & wait"), &json!({"ready": {"line": "never"}}));
        let life = world.life(&config, &json!({}));
        let stop = async {
            until("the container", async || (!world.running().is_empty()).then_some(())).await;
            life.instances.shut_down().await;
        };
        let (refused, ()) = tokio::join!(life.acquire(), stop);
        assert!(refused.is_err());
        assert!(world.running().is_empty());
        life.until_written(&["container_planned", "lazy_stop"]).await;
    });
}

#[test]
fn an_engine_that_is_away_at_the_start_is_asked_again_and_no_second_container_is_made() {
    let mut own = None;
    live(async || own = OwnEngine::start().await);
    let Some(mut own) = own else { return };
    let world = World::new(&own.engine, "away");
    live(async || {
        drop(world.life(&says_ready(), &json!({})).up().await);
    });
    own.kill();
    live(async || {
        let life = world.life(&says_ready(), &json!({}));
        assert!(life.acquire().await.is_err());
        own.start_again().await;
        until("a lease", async || life.acquire().await.ok()).await;
        assert_eq!(world.running().len(), 1);
        assert_eq!(world.containers().len(), 1);
        until("its row", async || world.kinds().contains(&"adopted".to_owned()).then_some(())).await;
        life.instances.shut_down().await;
        assert!(world.running().is_empty());
    });
}

/// A container that somebody made is ours to stop only as long as it is known that we started it.
#[test]
fn one_that_somebody_made_is_kept_also_if_the_engine_was_away_at_the_start() {
    let mut own = None;
    live(async || own = OwnEngine::start().await);
    let Some(mut own) = own else { return };
    let world = World::new(&own.engine, "named-away");
    let (name, label) = (format!("{}-made", world.id), format!("io.plimsoll.instance={}", world.id));
    let says = "trap 'exit 0' TERM; echo ready; sleep 1000 & wait";
    own.engine.docker(&["create", "--name", &name, "--label", &label, IMAGE, "/bin/sh", "-c", says]);
    let config = json!({"container": {"name": name}, "ready": {"line": "ready"}});
    let stops = json!({"trust": "start_stop"});
    live(async || {
        let life = world.life(&config, &stops);
        drop(life.up().await);
        life.until_written(&["container_starting", "lazy_start"]).await;
    });
    own.kill();
    live(async || {
        let life = world.life(&config, &stops);
        assert!(life.acquire().await.is_err());
        life.until_written(&["container_starting", "lazy_start", "lazy_start_failed"]).await;
    });
    live(async || {
        own.start_again().await;
        let life = world.life(&config, &stops);
        life.until_state(State::Idle).await;
        life.until_written(&["container_starting", "lazy_start", "lazy_start_failed", "adopted"]).await;
        life.instances.shut_down().await;
        assert!(world.running().is_empty());
    });
}

/// The engine keeps so many bytes of what a container prints, and the line that said that it is ready may be gone.
#[test]
fn one_whose_line_is_gone_is_kept_by_its_port() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "rotated");
    let config = with(
        script("echo ready; trap 'exit 0' TERM; httpd -f -p 8080 -h / & wait"),
        &json!({"ready": {"line": "ready"}}),
    );
    live(async || {
        let life = world.life(&config, &json!({}));
        drop(life.up().await);
        life.until_written(&["container_planned", "lazy_start"]).await;
    });
    let log = engine.inspect(&world.planned(), "{{.LogPath}}");
    if !needs_package("to write to the log of a container", std::fs::write(log.trim(), "").is_ok()) {
        return;
    }
    live(async || {
        let life = world.life(&with(config.clone(), &json!({"ready_timeout": "1s"})), &json!({}));
        life.until_written(&["container_planned", "lazy_start", "adopted"]).await;
        life.instances.shut_down().await;
    });
}

#[test]
fn one_that_somebody_restarted_is_kept_on() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "restarted");
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        engine.docker(&["restart", "-t", "1", &world.planned()]);
        life.until_written(&["container_planned", "lazy_start", "exited", "adopted"]).await;
        life.until_state(State::Idle).await;
        life.instances.shut_down().await;
        assert!(world.running().is_empty());
    });
}
