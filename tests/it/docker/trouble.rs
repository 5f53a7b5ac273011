//! What goes wrong with containers: each has its own kind, says what to do, and leaves nothing running.

use std::time::Duration;

use plimsoll::lifecycle::{EngineStatus, State};
use serde_json::{Value, json};

use super::engine::{CHECKED, Engine, IMAGE, OwnEngine};
use super::stand::{Life, SERVER, World, live, says_ready, script, with};
use crate::support::server::until;

/// Starts it, and expects a failure of this kind that says this, and nothing that runs.
async fn fails(world: &World, config: &Value, engine: &Value, kind: &str, said: &str) {
    let life = world.life(config, engine);
    let (failed, error) = life.failure().await;
    assert_eq!(failed.as_str(), kind, "{config}: {error}");
    assert!(error.contains(said), "{config}: {error}");
    assert!(world.running().is_empty(), "{config}: something runs");
    life.instances.shut_down().await;
}

#[test]
fn one_that_ends_before_it_is_ready_says_how() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "early");
    let eats = with(script("exec tail /dev/zero"), &json!({"container": {"memory_max": "8MiB"}}));
    live(async || {
        for (config, said) in [
            (script("exit 0"), "it ended with exit code 0 before it was ready: see `docker logs"),
            (script("exit 3"), "with exit code 3"),
            (script("exit 137"), "with exit code 137"),
            (eats, "because it used more than `memory_max` (8MiB)"),
        ] {
            fails(&world, &config, &json!({}), "exited", said).await;
        }
    });
}

#[test]
fn one_that_is_never_ready_says_what_was_looked_for() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "never");
    let never = |ready: Value| with(script("trap 'exit 0' TERM; sleep 1000 & wait"), &ready);
    live(async || {
        for (ready, said) in [
            (json!({"ready_timeout": "500ms"}), "its port 8080 took no connection within 500ms"),
            (
                json!({"ready_timeout": "500ms", "ready": {"http": "/x"}}),
                "/x on its port 8080 did not answer",
            ),
            (json!({"ready_timeout": "500ms", "ready": {"line": "ok"}}), "it printed no line with \"ok\""),
            (json!({"ready": {"healthcheck": true}}), "has no HEALTHCHECK"),
            (
                json!({"ready": {"healthcheck": true}, "container": {"image": CHECKED}}),
                "fails: see `docker inspect",
            ),
        ] {
            fails(&world, &never(ready), &json!({}), "not_ready", said).await;
        }
        let nowhere = json!({"network": "no-such-network"});
        fails(&world, &script(SERVER), &nowhere, "not_started", "no-such-network").await;
        let missing = with(script(""), &json!({"container": {"command": ["/no/such/program"]}}));
        fails(&world, &missing, &json!({}), "not_started", "/no/such/program").await;
    });
}

#[test]
fn one_without_an_address_on_the_network_is_unreachable() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "nowhere");
    let (name, label) = (format!("{}-nowhere", world.id), format!("io.plimsoll.instance={}", world.id));
    let args =
        ["create", "--network", "none", "--name", &name, "--label", &label, IMAGE, "/bin/sh", "-c", SERVER];
    engine.docker(&args);
    live(async || {
        let config = json!({"container": {"name": name}});
        fails(&world, &config, &json!({}), "unreachable", "`docker network connect bridge").await;
    });
}

#[test]
fn one_that_others_made_and_started_goes_on_if_it_is_not_ready() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "theirs");
    let (name, label) = (format!("{}-theirs", world.id), format!("io.plimsoll.instance={}", world.id));
    let waits = "trap 'exit 0' TERM; sleep 1000 & wait";
    engine.docker(&["run", "-d", "--name", &name, "--label", &label, IMAGE, "/bin/sh", "-c", waits]);
    live(async || {
        let config = json!({"container": {"name": name}, "ready_timeout": "300ms"});
        let life = world.life(&config, &json!({"trust": "start_stop"}));
        assert_eq!(life.failure().await.0.as_str(), "not_ready");
        assert_eq!(world.running(), std::slice::from_ref(&name));
        engine.docker(&["stop", "-t", "1", &name]);
        assert_eq!(life.failure().await.0.as_str(), "not_ready");
        assert!(world.running().is_empty(), "what plimsoll started it stops");
        life.instances.shut_down().await;
    });
}

#[test]
fn a_port_of_this_machine_that_is_taken_is_told() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "port");
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("one").port();
    let (name, label) = (format!("{}-port", world.id), format!("io.plimsoll.instance={}", world.id));
    let publish = format!("{port}:8080");
    let args = ["create", "-p", &publish, "--name", &name, "--label", &label, IMAGE, "/bin/sh", "-c", SERVER];
    engine.docker(&args);
    live(async || {
        let config = json!({"container": {"name": name}});
        fails(&world, &config, &json!({}), "port_in_use", "is in use by something else").await;
    });
}

#[test]
fn an_image_that_is_missing_or_cannot_be_fetched_is_told_apart() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "image");
    let image = "127.0.0.1:1/acme/agent:1";
    let config = json!({"container": {"image": image}});
    live(async || {
        let never = json!({"images": [image]});
        fails(&world, &config, &never, "image_missing", "`docker pull 127.0.0.1:1/acme/agent:1`").await;
        let missing = json!({"images": [image], "pull": "missing"});
        fails(&world, &config, &missing, "pull_refused", "could not be fetched").await;
        let unlisted = json!({"images": [], "pull": "missing"});
        fails(&world, &script(SERVER), &unlisted, "refused", "`engine.images` does not list").await;
        fails(&world, &config, &unlisted, "refused", "`engine.images` does not list").await;
        let kept = json!({"images": [image], "pull": "missing", "trust": "start_stop"});
        fails(&world, &config, &kept, "refused", "set `engine.trust: create`").await;
        assert!(world.containers().is_empty());
    });
}

#[test]
fn a_bind_that_leads_out_of_its_root_is_refused_also_when_it_is_swapped_later() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "binds");
    let root = tempfile::tempdir().expect("a temporary directory");
    let root_path = root.path().canonicalize().expect("there");
    let (inside, link) = (root_path.join("inside"), root_path.join("link"));
    std::fs::create_dir(&inside).expect("made");
    std::fs::write(inside.join("file"), "seen\n").expect("written");
    std::os::unix::fs::symlink("/etc", &link).expect("linked");
    let bound = |source: &std::path::Path| {
        let bind = json!({"source": source, "target": "/data"});
        let says = "cat /data/file; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait";
        with(script(says), &json!({"container": {"binds": [bind]}}))
    };
    let allowed = json!({"bind_root": root_path});
    live(async || {
        fails(&world, &bound(&link), &allowed, "refused", "it leads to /etc").await;
        assert!(world.containers().is_empty());
        let life = world.life(&bound(&inside), &allowed);
        drop(life.up().await);
        until("the file", async || (life.heard() == ["seen"]).then_some(())).await;
        life.instances.shut_down().await;
        std::fs::rename(&inside, root_path.join("elsewhere")).expect("moved");
        std::os::unix::fs::symlink("/etc", &inside).expect("linked");
        fails(&world, &bound(&inside), &allowed, "refused", "it leads to /etc").await;
    });
}

#[test]
fn what_has_no_label_or_only_labels_is_somebody_elses_and_is_left_alone() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "forged");
    let (forged, other) = (format!("plimsoll-{}-forged", world.id), format!("{}-other", world.id));
    let (instance, owner) =
        (format!("io.plimsoll.instance={}", world.id), format!("io.plimsoll.owner={}", world.owner));
    let labels = ["--label", &instance, "--label", &owner];
    let image = [IMAGE, "/bin/sh", "-c", SERVER];
    engine.docker(&[&["run", "-d", "--name", &forged][..], &labels, &image].concat());
    engine.docker(&[&["run", "-d", "--name", &other][..], &image].concat());
    live(async || {
        let (kind, error) = world.life(&json!({"container": {"name": other}}), &json!({})).failure().await;
        assert_eq!(kind.as_str(), "foreign", "{error}");
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        assert_eq!(world.running().len(), 2, "one of its own");
        // Somebody takes the name of the one that plimsoll made.
        life.instances.shut_down().await;
        let planned = world.planned();
        engine.docker(&["rm", "-f", &planned]);
        engine.docker(&[&["run", "-d", "--name", &planned, "--label", &instance][..], &image].concat());
        let again = world.life(&script(SERVER), &json!({}));
        let (kind, error) = again.failure().await;
        assert_eq!(kind.as_str(), "foreign", "{error}");
        again.instances.shut_down().await;
        plimsoll::lifecycle::Runner::remove(&*again.runner).await.expect("nothing to do");
        let left = world.running();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&forged) && left.contains(&planned), "{left:?}");
    });
    engine.docker(&["rm", "-f", &other]);
}

#[test]
fn one_that_is_killed_leaves_a_row_and_is_started_by_the_next_request() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "killed");
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        engine.docker(&["kill", &world.planned()]);
        life.until_written(&["container_planned", "lazy_start", "exited"]).await;
        assert_eq!(world.records()[2].detail, json!({"exit_code": 137, "oom": false}));
        drop(life.up().await);
        engine.docker(&["rm", "-f", &world.planned()]);
        life.until_state(State::Cold).await;
        drop(life.up().await);
        assert_eq!(world.containers().len(), 1, "another one");
        life.instances.shut_down().await;
    });
}

#[test]
fn an_engine_that_is_not_there_says_what_to_do_and_the_circuit_closes_when_it_comes() {
    live(async || {
        let Some(mut own) = OwnEngine::start().await else { return };
        own.kill();
        let world = World::new(&own.engine, "absent");
        let life = world.life(&says_ready(), &json!({}));
        let (kind, error) = life.failure().await;
        assert_eq!(kind.as_str(), "engine", "{error}");
        assert!(error.contains("start the container engine, or set `engine.address`"), "{error}");
        until("the circuit", async || {
            matches!(life.client.status(), EngineStatus::Down { .. }).then_some(())
        })
        .await;
        own.start_again().await;
        until("the engine", async || (life.client.status() == EngineStatus::Up).then_some(())).await;
        until("a start", async || life.acquire().await.ok()).await;
        life.instances.shut_down().await;
    });
}

#[test]
fn what_failed_to_come_up_and_could_not_be_stopped_is_looked_for() {
    live(async || {
        let Some(mut own) = OwnEngine::start().await else { return };
        let world = World::new(&own.engine, "halt");
        // This engine's addresses are also those of the machine's engine, where a port may be open.
        let never = json!({"ready": {"line": "never"}, "ready_timeout": "10s", "port": 9});
        let life = world.life(&with(says_ready(), &never), &json!({"timeout": "5s"}));
        let kills = async {
            until("the container", async || (!world.running().is_empty()).then_some(())).await;
            own.kill();
        };
        let ((kind, error), ()) = tokio::join!(life.failure(), kills);
        assert_eq!(kind.as_str(), "engine", "{error}");
        assert!(error.contains("may still run"), "{error}");
        own.start_again().await;
        until("its end", async || world.running().is_empty().then_some(())).await;
        life.until_written(&["container_planned", "lazy_start_failed", "lost"]).await;
        life.instances.shut_down().await;
    });
}

#[test]
fn an_engine_that_is_killed_takes_nothing_down_and_what_ended_meanwhile_is_seen() {
    live(async || {
        let Some(mut own) = OwnEngine::start().await else { return };
        let world = World::new(&own.engine, "restart");
        let life = world.life(&says_ready(), &json!({"timeout": "5s"}));
        let lease = life.up().await;
        let pid = own.engine.inspect(&world.planned(), "{{.State.Pid}}");
        own.kill();
        until_down(&life).await;
        assert!(std::path::Path::new("/proc").join(&pid).exists(), "it goes on");
        own.start_again().await;
        until("the engine", async || (life.client.status() == EngineStatus::Up).then_some(())).await;
        life.until_written(&["container_planned", "lazy_start"]).await;
        assert_eq!(life.state(), State::Ready);
        own.kill();
        let pid = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("no zero");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
        until_down(&life).await;
        assert_eq!(life.state(), State::Ready, "nobody can tell");
        own.start_again().await;
        life.until_written(&["container_planned", "lazy_start", "exited"]).await;
        drop(lease);
        until("a start", async || life.acquire().await.ok()).await;
        life.instances.shut_down().await;
    });
}

async fn until_down(life: &Life<'_>) {
    until("the circuit", async || matches!(life.client.status(), EngineStatus::Down { .. }).then_some(()))
        .await;
}

#[test]
fn an_engine_that_hangs_holds_nobody_for_longer_than_a_call_may_take() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "hangs");
    live(async || {
        // It takes connections, and says nothing.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("tcp://{}", listener.local_addr().expect("one"));
        let life = world.life(&script(SERVER), &json!({"address": address, "timeout": "200ms"}));
        let failed = tokio::time::timeout(Duration::from_secs(10), life.failure()).await.expect("in time");
        assert_eq!(failed.0.as_str(), "engine", "{}", failed.1);
        assert!(failed.1.contains("does not answer in time"), "{}", failed.1);
        life.instances.shut_down().await;
    });
}
