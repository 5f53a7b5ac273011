//! What the machine and its engine do to an instance, and what callers, rows and metrics then say.

use std::fs::{Permissions, create_dir, set_permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::world::{TOKEN, World};
use crate::docker::engine::{Engine, IMAGE};
use crate::docker::gate::{EngineGate, made_by};
use crate::support::http::{Ask, soon};
use crate::support::server::{Server, clean_command, until};

/// Somebody who owns nothing.
const NOBODY: u32 = 65_534;

/// Somebody takes the name between the plan and the container.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_told_as_that_and_whoever_has_it_keeps_it() {
    let Some(world) = World::in_a_container("taken") else { return };
    let Some(engine) = Engine::of_machine() else { return };
    let (thief, id) = (engine.clone(), world.id.clone());
    let gate = EngineGate::before(&engine, move |request| {
        let is_first = || thief.containers(&id, &["--all"]).is_empty();
        if let Some(name) = made_by(request).filter(|_| is_first()) {
            let label = format!("io.plimsoll.instance={id}");
            thief.docker(&["create", "--name", name, "--label", &label, IMAGE, "/bin/sleep", "1000"]);
        }
        true
    })
    .await;
    let mut config = world.config();
    config["engine"]["address"] = json!(gate.address());
    let server = Server::start(config).await;
    let mut stream = Ask::get("/events").token(Some(TOKEN)).open(server.address()).await;
    stream.until("\r\n\r\n").await;

    assert_eq!(world.refused(&server).await.1["cause"], "name_conflict");
    let taken = world.containers();
    let failure = world.agent(&server).await["failure"].clone();
    assert_eq!(failure["kind"], "name_conflict");
    let error = failure["error"].as_str().expect("an error");
    assert!(error.contains(&format!("something else is called {}", taken[0])), "{error}");
    let told = stream.until(r#""kind":"name_conflict""#).await;
    assert!(told.contains("container.lazy_start_failed"), "{told}");
    let records = world.records(&server).await;
    let detail = |kind: &str| &records.iter().find(|row| row["kind"] == kind).expect(kind)["detail"];
    assert_eq!(detail("container_planned")["name"], taken[0]);
    assert_eq!(detail("lazy_start_failed")["kind"], "name_conflict");
    let reason = [("agent_instance", world.id.as_str()), ("reason", "name_conflict")];
    assert_eq!(server.scrape().await.count("plimsoll_instance_failures_total", &reason), 1);
    assert_eq!((taken.len(), world.running().len()), (1, 0), "it is left alone");

    engine.docker(&["rename", &taken[0], &format!("{}-theirs", world.id)]);
    server.call("lifecycle.start", json!({"instance": world.id})).await;
    world.state(&server, "idle").await;
    assert_eq!(world.send(&server, "s", "hello").await["text"], "hello");
    assert_eq!(world.containers().len(), 2, "one of its own");
    world.agree(&server).await;
}

/// Makes it somebody who has no right to what is closed: root has one to everything.
fn as_nobody(command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_plimsoll_may_not_use_is_told_with_what_to_do_and_others_go_on() {
    let sockets = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| sockets.path().join(name);
    let close = |name: &str, mode| set_permissions(at(name), Permissions::from_mode(mode)).expect("changed");
    create_dir(at("closed")).expect("made");
    // Nobody listens there any more: whoever may use the socket hears that instead.
    for name in ["engine.sock", "closed/engine.sock"] {
        drop(UnixListener::bind(at(name)).expect("bound"));
    }
    set_permissions(sockets.path(), Permissions::from_mode(0o755)).expect("changed");
    for name in ["engine.sock", "closed"] {
        close(name, 0o000);
    }
    for (socket, advice) in [
        ("engine.sock", "make its user a member of the group that owns the socket"),
        ("closed/engine.sock", "plimsoll may not enter a directory on the way to"),
    ] {
        let address = format!("unix://{}", at(socket).display());
        let world = World::in_a_container_of(Engine { address, network: "bridge".to_owned() }, "denied");
        let mut config = world.config();
        config["providers"]["echo"] = json!({"kind": "echo"});
        config["agents"]["other"] = json!({"provider": "echo"});
        let dir = tempfile::tempdir().expect("a temporary directory");
        if rustix::process::geteuid().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        let mut server = Server::spawn_with(dir, config, as_nobody);
        server.ready().await;
        assert_eq!(world.refused(&server).await.1["cause"], "engine");
        let failure = world.agent(&server).await["failure"].clone();
        let error = failure["error"].as_str().expect("an error");
        assert!(failure["kind"] == "engine" && error.contains(advice), "{failure}");
        until("the engine is told as down", async || {
            let health: Value = server.client().get("/health").await.ok()?.json().await.ok()?;
            (health["components"]["engine"]["status"] == "degraded").then_some(())
        })
        .await;
        let reason = [("agent_instance", world.id.as_str()), ("reason", "engine")];
        let scrape = server.scrape().await;
        assert_eq!(scrape.count("plimsoll_component_up", &[("component", "engine")]), 0);
        assert_eq!(scrape.count("plimsoll_instance_failures_total", &reason), 1);
        let other = server.call("agent.send", json!({"agent": "other", "message": "hello"})).await;
        assert_eq!(other["text"], "hello");
        let mut doctor = clean_command();
        doctor.args(["doctor", "--config"]).arg(server.dir().join("plimsoll.yaml"));
        doctor.arg("--data-dir").arg(server.data_dir()).current_dir(server.dir());
        as_nobody(&mut doctor);
        let told = String::from_utf8(doctor.output().expect("plimsoll runs").stdout).expect("UTF-8");
        assert!(told.contains(advice), "{told}");
        server.stop().await;
    }
    close("closed", 0o700);
}

/// What may be kept is looked at before anything is done, and that may take long: the end waits for none of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_what_was_left_that_takes_long_is_given_up_at_the_end() {
    let Some(world) = World::in_a_container("given-up") else { return };
    let Some(engine) = Engine::of_machine() else { return };
    let (hangs, looked, followed) =
        (Arc::<AtomicBool>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
    let (is_hung, looks, follows) = (Arc::clone(&hangs), Arc::clone(&looked), Arc::clone(&followed));
    let gate = EngineGate::before(&engine, move |request| {
        if is_hung.load(Ordering::SeqCst) && request.contains("/containers/") {
            looks.notify_one();
            return false;
        }
        if request.contains("/logs?") && request.contains("follow=true") {
            follows.notify_one();
        }
        true
    })
    .await;
    let mut config = world.config();
    config["engine"]["address"] = json!(gate.address());
    config["engine"]["timeout"] = json!("2s");
    let server = Server::start(config.clone()).await;
    world.send(&server, "s", "hello").await;
    soon("what it prints", followed.notified()).await;
    let kinds = async |server: &Server| world.kinds(server).await;
    until("its row", async || (kinds(&server).await == ["container_planned", "lazy_start"]).then_some(()))
        .await;
    let (before, dir) = (world.running(), server.kill());

    // The engine hangs: nobody can tell, so nothing is said.
    hangs.store(true, Ordering::SeqCst);
    let mut server = Server::spawn(dir, config.clone());
    server.ready().await;
    soon("the look", looked.notified()).await;
    server.stop().await;
    assert_eq!(world.running(), before, "it goes on");

    // It is there, and not ready for an hour.
    hangs.store(false, Ordering::SeqCst);
    let usual = config.clone();
    config["agents"][&world.id]["instance"]["ready"] = json!({"http": "/never"});
    config["agents"][&world.id]["instance"]["ready_timeout"] = json!("1h");
    let mut server = Server::spawn(server.kill(), config);
    server.ready().await;
    assert_eq!(kinds(&server).await, ["container_planned", "lazy_start"], "nothing was said of it");
    soon("the look", followed.notified()).await;
    assert_eq!(world.running(), before);
    server.stop().await;
    assert!(world.running().is_empty(), "stopped with plimsoll");
    let mut server = Server::spawn(server.kill(), usual);
    server.ready().await;
    let records = world.records(&server).await;
    let lost = json!({"action": "stopped", "container": before[0]});
    assert_eq!((records.len(), &records[2]["kind"], &records[2]["detail"]), (3, &json!("lost"), &lost));
    world.agree(&server).await;
    server.signal(Signal::TERM);
    server.ended().await;
}
