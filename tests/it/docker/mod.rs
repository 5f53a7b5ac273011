//! Instances that are containers of a real Docker engine.

#![cfg(target_os = "linux")]

pub(crate) mod engine;
pub(crate) mod example;
pub(crate) mod fake;
pub(crate) mod gate;
mod left;
mod podman;
mod proxy;
mod stand;
mod trouble;

use futures_util::future::join_all;
use plimsoll::lifecycle::{Cause, EngineStatus, State};
use serde_json::json;

use crate::support::server::until;
use engine::{CHECKED, Engine};
use stand::{SERVER, World, live, script, with};

#[test]
fn a_hundred_requests_start_one_container_and_it_is_stopped_and_used_again() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "hundred");
    live(async || {
        let config = with(script(SERVER), &json!({"idle_after": "1s", "ready": {"http": "/index.html"}}));
        let life = world.life(&config, &json!({}));
        let leases = join_all((0..100).map(|_| life.acquire())).await;
        assert!(leases.iter().all(Result::is_ok), "{leases:?}");
        let [name] = &world.running()[..] else { panic!("not one: {:?}", world.running()) };
        assert!(name.starts_with(&format!("plimsoll-{}-", world.id)));
        let address = leases[0].as_ref().expect("up").address().expect("one");
        assert_eq!(address.port(), 8080);
        assert!(tokio::net::TcpStream::connect(address).await.is_ok());
        assert_eq!(life.client.status(), EngineStatus::Up);
        until("its line", async || (life.heard() == ["it serves"]).then_some(())).await;
        drop(leases);
        life.until_written(&["container_planned", "lazy_start", "lazy_stop"]).await;
        assert_eq!((world.running(), world.containers()), (vec![], vec![name.clone()]));
        drop(life.up().await);
        assert_eq!(world.running(), std::slice::from_ref(name), "the same");
        life.instances.shut_down().await;
        assert!(world.running().is_empty());
        let counted = world.ledger.of(&world.id);
        assert_eq!((counted.lazy_start, counted.lazy_stop, counted.exited), (2, 2, 0));
    });
}

#[test]
fn a_container_has_limits_and_no_rights() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "limits");
    live(async || {
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        let [name] = &world.running()[..] else { panic!("not one: {:?}", world.running()) };
        let host = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CapDrop}} \
                    {{.HostConfig.SecurityOpt}} {{.HostConfig.CgroupnsMode}} {{.HostConfig.Privileged}}";
        assert_eq!(engine.inspect(name, host), "536870912 256 [ALL] [no-new-privileges] private false");
        life.instances.shut_down().await;
    });
}

#[test]
fn it_is_ready_by_its_port_by_a_line_of_either_output_and_by_its_healthcheck() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "ready");
    let line = |redirect: &str| format!("trap 'exit 0' TERM; echo ready {redirect}; sleep 1000 & wait");
    let checked = "trap 'exit 0' TERM; touch /tmp/healthy; sleep 1000 & wait";
    let cases = [
        script(SERVER),
        with(script(&line("")), &json!({"ready": {"line": "ready"}})),
        with(script(&line(">&2")), &json!({"ready": {"line": "ready"}})),
        with(script(checked), &json!({"ready": {"healthcheck": true}, "container": {"image": CHECKED}})),
    ];
    live(async || {
        for config in cases {
            let life = world.life(&config, &json!({}));
            drop(life.acquire().await.unwrap_or_else(|error| panic!("{config}: {error}")));
            assert_eq!(world.containers().len(), 1, "another body replaces the container: {config}");
            life.instances.shut_down().await;
        }
    });
}

#[test]
fn a_line_of_an_earlier_run_makes_nothing_ready() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "lines");
    live(async || {
        let once = "trap 'exit 0' TERM; test -e /tmp/again || echo ready; touch /tmp/again; echo run; sleep 1000 & wait";
        let config = with(script(once), &json!({"ready": {"line": "ready"}, "ready_timeout": "2s"}));
        let life = world.life(&config, &json!({}));
        drop(life.up().await);
        life.instances.stop(&world.id, Cause::system()).expect("known");
        life.until_state(State::Cold).await;
        let (kind, error) = life.failure().await;
        assert_eq!(kind.as_str(), "not_ready", "{error}");
        let runs = life.heard();
        assert_eq!(runs, ["ready", "run", "run"], "each line once");
        life.instances.shut_down().await;
    });
}

#[test]
fn one_that_somebody_made_is_started_and_stopped_if_its_label_says_so() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "named");
    let (name, label) = (format!("{}-named", world.id), format!("io.plimsoll.instance={}", world.id));
    engine.docker(&["create", "--name", &name, "--label", &label, engine::IMAGE, "/bin/sh", "-c", SERVER]);
    live(async || {
        let config = json!({"container": {"name": name}});
        let looks = world.life(&config, &json!({"trust": "observe"}));
        let (kind, error) = looks.failure().await;
        assert_eq!(kind.as_str(), "not_started", "{error}");
        assert!(error.contains("plimsoll may only look"), "{error}");
        looks.instances.shut_down().await;
        let life = world.life(&config, &json!({"trust": "start_stop"}));
        drop(life.up().await);
        assert_eq!(world.running(), std::slice::from_ref(&name));
        life.instances.shut_down().await;
        assert!(world.running().is_empty());
        engine.docker(&["start", &name]);
        let looks = world.life(&config, &json!({"trust": "observe"}));
        drop(looks.up().await);
        let stops = || world.kinds().iter().filter(|kind| *kind == "lazy_stop").count();
        assert_eq!(stops(), 1, "that of the one that may stop it");
        let refused = looks.instances.stop(&world.id, Cause::system()).expect_err("it may only look");
        assert!(refused.to_string().contains("set `engine.trust`"), "{refused}");
        assert_eq!(looks.state(), State::Idle);
        looks.instances.shut_down().await;
        assert_eq!(stops(), 1, "nothing was stopped");
        assert_eq!(world.running(), std::slice::from_ref(&name), "whoever may only look stops nothing");
    });
}

#[test]
fn what_is_removed_leaves_no_container() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "removed");
    live(async || {
        use plimsoll::lifecycle::Runner as _;
        let life = world.life(&script(SERVER), &json!({}));
        drop(life.up().await);
        life.runner.remove().await.expect("removed");
        assert!(world.containers().is_empty());
        assert!(world.ledger.containers(&world.id).is_empty());
        until("its end", async || world.kinds().contains(&"exited".to_owned()).then_some(())).await;
        life.instances.shut_down().await;
    });
}
