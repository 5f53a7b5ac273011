//! `plimsoll doctor`: each check starts from a world that passes, and breaks one thing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::certificates::Certificates;
use crate::support::server::{Server, clean_command, free_port};

struct Visit {
    code: Option<i32>,
    report: Value,
}

impl Visit {
    /// Status and detail of one check.
    fn check(&self, name: &str) -> (&str, &str) {
        let checks = self.report["checks"].as_array().expect("a list of checks");
        let check = checks.iter().find(|check| check["check"] == name).expect(name);
        (check["status"].as_str().expect("a status"), check["detail"].as_str().expect("a detail"))
    }
}

fn visit(dir: &Path, config: &str, variables: &[(&str, &str)]) -> Visit {
    fs::write(dir.join("plimsoll.yaml"), config).expect("the file is written");
    let mut command = clean_command();
    command.args(["doctor", "--json", "--config", "plimsoll.yaml", "--data-dir", "data"]);
    command.current_dir(dir).envs(variables.iter().copied());
    let output = command.output().expect("plimsoll runs");
    let text = String::from_utf8(output.stdout).expect("output is UTF-8");
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Visit { code: output.status.code(), report }
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

const GOOD: &str = "server: {listen: '127.0.0.1:0'}\n";

#[test]
fn a_new_machine_is_well() {
    let dir = home();
    let visit = visit(dir.path(), GOOD, &[]);
    assert_eq!(visit.code, Some(0), "{:#}", visit.report);
    assert_eq!(visit.report["ok"], true);
    let statuses: Vec<&str> = visit.report["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter_map(|c| c["status"].as_str())
        .collect();
    assert_eq!(
        statuses,
        [
            "pass", "skip", "pass", "pass", "skip", "pass", "pass", "pass", "skip", "skip", "skip", "skip",
            "skip", "skip", "pass"
        ],
        "{:#}",
        visit.report
    );
    assert!(!dir.path().join("data").exists(), "looking makes nothing");
}

#[test]
fn without_a_file_the_first_check_is_skipped() {
    let dir = home();
    let mut command = clean_command();
    command.args(["doctor", "--json"]).current_dir(dir.path()).env("HOME", dir.path());
    let output = command.output().expect("plimsoll runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["checks"][0]["status"], "skip", "{report:#}");
    assert!(report["checks"][0]["detail"].as_str().is_some_and(|text| text.contains("config/plimsoll.yaml")));
}

#[test]
fn a_missing_overlay_fails_and_names_the_path() {
    let dir = home();
    let visit = visit(dir.path(), GOOD, &[("PLIMSOLL_ENV", "staging")]);
    assert_eq!(visit.code, Some(1));
    let (status, detail) = visit.check("overlay");
    assert!(status == "fail" && detail.contains("staging.yaml"), "{detail}");
    assert_eq!(visit.check("port").0, "skip", "what needs a configuration says so");
}

#[test]
fn a_wrong_configuration_fails_with_every_line() {
    let dir = home();
    let visit = visit(dir.path(), "servr: {}\nlive: {events: 0}\n", &[]);
    assert_eq!(visit.code, Some(1));
    let (status, detail) = visit.check("configuration");
    assert!(
        status == "fail" && detail.contains(":1:1: servr") && detail.contains(":2:8: live.events"),
        "{detail}"
    );
}

#[test]
fn a_taken_port_fails() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("an address");
    let dir = home();
    let visit = visit(dir.path(), &format!("server: {{listen: '{address}'}}"), &[]);
    assert_eq!(visit.code, Some(1));
    assert_eq!(visit.check("port"), ("fail", format!("{address} is in use by another program").as_str()));
}

#[test]
fn a_data_directory_that_is_a_file_or_of_a_newer_format_fails() {
    let dir = home();
    fs::write(dir.path().join("data"), "").expect("the file is written");
    assert_eq!(visit(dir.path(), GOOD, &[]).check("data directory").0, "fail");
    fs::remove_file(dir.path().join("data")).expect("it is removed");
    fs::create_dir(dir.path().join("data")).expect("the directory is made");
    fs::write(dir.path().join("data/FORMAT"), "plimsoll-data 999\n").expect("the file is written");
    let visit = visit(dir.path(), GOOD, &[]);
    let (status, detail) = visit.check("journal");
    assert!(status == "fail" && detail.contains("999"), "{detail}");
    assert_eq!(visit.code, Some(1));
}

#[test]
fn a_provider_and_a_collector_that_are_down_fail_by_name() {
    // A port that was free a moment ago and that nobody listens on.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let config = format!(
        "{GOOD}providers:\n  main: {{kind: openai, base_url: 'http://{gone}/v1', retries: 0}}\ntelemetry:\n  otlp: {{endpoint: 'http://{gone}'}}\n"
    );
    let dir = home();
    let visit = visit(dir.path(), &config, &[]);
    assert_eq!(visit.code, Some(1));
    let (status, detail) = visit.check("providers");
    assert!(status == "fail" && detail.starts_with("main: "), "{detail}");
    let (status, detail) = visit.check("trace collector");
    assert!(status == "fail" && detail.contains(&gone.to_string()), "{detail}");
}

#[test]
fn a_program_that_is_not_there_is_to_be_installed() {
    let config = format!("{GOOD}providers:\n  p: {{kind: exec, program: no-such-program}}\n");
    let dir = home();
    let visit = visit(dir.path(), &config, &[]);
    assert_eq!(visit.check("providers").0, "fail");
    let checks = visit.report["checks"].as_array().expect("checks");
    let advice = checks.iter().find(|check| check["check"] == "providers").map(|check| &check["advice"]);
    let advice = advice.and_then(Value::as_str).expect("advice");
    assert!(advice.starts_with("install the program") && !advice.contains("address"), "{advice}");
}

#[test]
fn a_collector_that_takes_connections_passes_by_key_and_by_variable() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("an address");
    // Says nothing, and hangs up: it is not for the check to speak OTLP.
    std::thread::spawn(move || holder.incoming().take(2).for_each(drop));
    let dir = home();
    let key = format!("{GOOD}telemetry: {{otlp: {{endpoint: 'http://{address}'}}}}\n");
    assert_eq!(visit(dir.path(), &key, &[]).check("trace collector").0, "pass");
    let variable = format!("http://{address}");
    let visit = visit(dir.path(), GOOD, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &variable)]);
    assert_eq!(visit.check("trace collector").0, "pass");
}

#[tokio::test]
async fn a_collector_with_an_own_authority_passes_by_key_and_by_variable() {
    let certificates = Certificates::make();
    let server = Server::start(serde_json::json!({"server": {"tls": certificates.config()}})).await;
    let (authority, endpoint) = (certificates.file("ca.pem"), format!("https://{}", server.address()));
    let authority = authority.to_str().expect("UTF-8").to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        let dir = home();
        let plain = format!("{GOOD}telemetry: {{otlp: {{endpoint: '{endpoint}'}}}}\n");
        let key = format!("{GOOD}telemetry: {{otlp: {{endpoint: '{endpoint}', ca_file: '{authority}'}}}}\n");
        let variable = [("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str())];
        let missing = [("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent/ca.pem")];
        let visits = [(&plain, &[][..]), (&key, &[]), (&plain, &variable), (&plain, &missing)];
        visits.map(|(config, variables)| {
            let visit = visit(dir.path(), config, variables);
            let (status, detail) = visit.check("trace collector");
            (status.to_owned(), detail.to_owned())
        })
    });
    let [stranger, by_key, by_variable, missing] = looked.await.expect("it does not panic");
    assert!(stranger.0 == "fail" && stranger.1.contains("certificate"), "{stranger:?}");
    assert_eq!((by_key.0.as_str(), by_variable.0.as_str()), ("pass", "pass"), "{by_key:?} {by_variable:?}");
    assert!(missing.0 == "fail" && missing.1.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{missing:?}");
}

/// Every file below a folder with its content and the time of its last change.
fn state_of(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("there").flatten() {
        let changed = entry.metadata().and_then(|meta| meta.modified()).expect("there");
        if entry.path().is_dir() {
            found.extend(state_of(&entry.path()));
            found.push((entry.path(), Vec::new(), changed));
        } else {
            found.push((entry.path(), fs::read(entry.path()).expect("readable"), changed));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn looking_at_a_journal_that_nobody_uses_changes_nothing() {
    let mut server = Server::start(serde_json::json!({})).await;
    let made = server.client().call("token.create", serde_json::json!({"name": "a", "role": "viewer"})).await;
    made.expect("a record");
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().await.success());
    let dir = server.kill();
    let before = state_of(&dir.path().join("data"));
    let visit = visit(dir.path(), GOOD, &[]);
    let (status, detail) = visit.check("journal");
    assert!(status == "pass" && detail.contains("2 partitions"), "{detail}");
    assert_eq!(visit.check("clock").0, "pass");
    assert!(state_of(&dir.path().join("data")) == before, "something was written");
}

#[test]
fn exposure_and_literal_secrets_are_warned_of_and_fail_nothing() {
    let hash = "a".repeat(64);
    let config = format!(
        "auth: {{tokens: [{{name: t, role: viewer, sha256: {hash}}}]}}\nserver: {{listen: '0.0.0.0:0', insecure_plaintext: true}}\nproviders:\n  echo: {{kind: echo}}\ntelemetry: {{otlp: {{headers: {{x-key: hunter2}}}}}}\n"
    );
    let dir = home();
    let visit = visit(dir.path(), &config, &[]);
    assert_eq!(visit.code, Some(0), "{:#}", visit.report);
    let (status, detail) = visit.check("exposure");
    assert!(status == "warn" && detail.contains("without TLS") && !detail.contains("no token"), "{detail}");
    assert!(detail.contains("telemetry.otlp.headers.x-key") && !visit.report.to_string().contains("hunter2"));
}

#[test]
fn a_listener_beyond_loopback_that_serve_refuses_for_want_of_a_token_fails() {
    let config = "server: {listen: '0.0.0.0:0', insecure_plaintext: true}\n";
    let dir = home();
    let first = visit(dir.path(), config, &[]);
    let (status, detail) = first.check("exposure");
    assert!(first.code == Some(1) && status == "fail" && detail.contains("no token"), "{detail}");
    let mut command = clean_command();
    command.args(["token", "new", "me", "--role", "operator", "--config", "plimsoll.yaml"]);
    let made = command.args(["--data-dir", "data"]).current_dir(dir.path()).output().expect("plimsoll runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let then = visit(dir.path(), config, &[]);
    let (status, detail) = then.check("exposure");
    assert!(
        then.code == Some(0) && status == "warn" && detail.contains("only a running plimsoll"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_plimsoll_that_runs_holds_its_port_and_its_directory_by_right() {
    let server = Server::start(serde_json::json!({})).await;
    let address = server.url().replace("http://", "");
    let dir = server.dir().to_owned();
    let config = format!("server: {{listen: '{address}'}}");
    let visit =
        tokio::task::spawn_blocking(move || visit(&dir, &config, &[])).await.expect("it does not panic");
    assert_eq!(visit.code, Some(0), "{:#}", visit.report);
    for name in ["port", "data directory", "journal"] {
        let (status, detail) = visit.check(name);
        assert!(status == "pass" && detail.contains("that runs"), "{name}: {detail}");
    }
}

#[tokio::test]
async fn a_plimsoll_that_runs_and_cannot_append_is_not_well() {
    let mut server = Server::start(serde_json::json!({})).await;
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().await.success());
    let dir = server.kill();
    fs::remove_file(dir.path().join("data/journal/work/00000000000000000001/manifest.json"))
        .expect("removed");
    let mut server = Server::spawn(dir, serde_json::json!({}));
    server.ready().await;
    let dir = server.dir().to_owned();
    let visit = tokio::task::spawn_blocking(move || visit(&dir, GOOD, &[])).await.expect("it does not panic");
    let (status, detail) = visit.check("journal");
    assert!(status == "fail" && detail.contains("nothing can be appended"), "{status}: {detail}");
    assert_eq!(visit.check("data directory").0, "pass");
}

#[tokio::test]
async fn a_missing_overlay_makes_serve_refuse_and_name_the_path() {
    let dir = home();
    fs::write(dir.path().join("plimsoll.yaml"), GOOD).expect("the file is written");
    let mut command = clean_command();
    command.args(["serve", "--config", "plimsoll.yaml", "--data-dir", "data"]);
    let output = command.current_dir(dir.path()).env("PLIMSOLL_ENV", "staging").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("staging.yaml does not exist"), "{said}");
}

/// An agent `a` in a process on this port.
fn hosted(port: u16) -> Value {
    json!({
        "server": {"listen": "127.0.0.1:0"},
        "providers": {"own": {"kind": "openai"}},
        "agents": {"a": {
            "provider": "own",
            "model": "m",
            "instance": {"port": port, "process": {"program": "sh"}},
        }},
    })
}

#[test]
fn a_process_passes_and_fails_by_its_program_its_port_its_directory_and_its_variables() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address");
    let port = free_port();
    let dir = home();
    let good = visit(dir.path(), &hosted(port).to_string(), &[]);
    let words = format!("a: sh can be run\na: 127.0.0.1:{port} is free");
    assert_eq!(good.check("processes"), ("pass", words.as_str()));
    assert_eq!((good.check("programs").0, good.check("engine").0), ("pass", "skip"));

    let break_it = |path: &str, value: Value| {
        let mut config = hosted(port);
        let (parent, key) = path.rsplit_once('/').expect("a path");
        config.pointer_mut(parent).expect("an object")[key] = value;
        visit(dir.path(), &config.to_string(), &[])
    };
    let missing = break_it("/agents/a/instance/process/program", json!("no-such-program"));
    let (status, detail) = missing.check("processes");
    assert!(status == "fail" && detail.contains("there is no program no-such-program"), "{detail}");
    fs::write(dir.path().join("plain"), "").expect("written");
    let plain = break_it("/agents/a/instance/process/program", json!("./plain"));
    assert!(plain.check("processes").1.contains("chmod +x"), "{:?}", plain.check("processes"));
    let held = break_it("/agents/a/instance/port", json!(taken.port()));
    let words = format!("a: sh can be run\na: {taken} is in use by another program");
    assert_eq!(held.check("processes"), ("fail", words.as_str()));
    assert_eq!(break_it("/agents/a/cwd", json!("gone")).check("programs").0, "fail");
    let unset = break_it("/agents/a/instance/process/env_pass", json!(["NOT_SET_ANYWHERE"]));
    assert_eq!(unset.check("programs"), ("warn", "variables of env_pass that are not set: NOT_SET_ANYWHERE"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_port_that_is_held_by_the_instance_that_runs_is_fine() {
    use crate::{local::written, support::tools::needs};
    if needs("python3").is_none() {
        return;
    }
    let (dir, port) = (written("local-process"), free_port());
    let process = json!({"args": ["server.py", "--port", port.to_string()]});
    let overlay = json!({
        "server": {"listen": "127.0.0.1:0"},
        "agents": {"local": {"instance": {"port": port, "process": process}}},
    });
    fs::write(dir.path().join("test.yaml"), overlay.to_string()).expect("written");
    let mut server = Server::spawn_there(dir, |command| {
        command.env("PLIMSOLL_ENV", "test");
    });
    server.ready().await;
    let config = fs::read_to_string(server.dir().join("plimsoll.yaml")).expect("it is there");
    let port_is = || {
        let visit = visit(server.dir(), &config, &[("PLIMSOLL_ENV", "test")]);
        let (status, detail) = visit.check("processes");
        (status.to_owned(), detail.lines().last().unwrap_or_default().to_owned())
    };
    let said = |status: &str, words: &str| (status.to_owned(), format!("local: 127.0.0.1:{port} {words}"));
    assert_eq!(port_is(), said("pass", "is free"));
    let stranger = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
    assert_eq!(port_is(), said("fail", "is in use by another program"));
    drop(stranger);
    server.call("agent.send", json!({"agent": "local", "message": "hello"})).await;
    assert_eq!(port_is(), said("pass", "is held by the instance that runs"));
    server.stop().await;
}

/// An agent `a` in this container of this engine.
fn in_container(address: &str, container: &Value, engine: &Value) -> String {
    let mut config = json!({
        "server": {"listen": "127.0.0.1:0"},
        "engine": {"address": address},
        "providers": {"own": {"kind": "openai"}},
        "agents": {"a": {"provider": "own", "model": "m", "instance": {"port": 8000, "container": container}}},
    });
    let more = engine.as_object().expect("an object").clone();
    config["engine"].as_object_mut().expect("an object").extend(more);
    config.to_string()
}

#[test]
fn an_engine_that_is_not_there_fails_and_says_what_to_do() {
    let dir = home();
    let container = json!({"name": "mine"});
    let address = format!("unix://{}/none.sock", dir.path().display());
    let visit = visit(dir.path(), &in_container(&address, &container, &json!({"trust": "start_stop"})), &[]);
    let (status, detail) = visit.check("engine");
    assert!(status == "fail" && detail.contains("start the container engine"), "{detail}");
    assert_eq!(visit.check("images"), ("skip", "the container engine does not answer, see above"));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_answers_with_trouble_is_not_one_that_does_not_answer() {
    use crate::docker::fake::{FakeEngine, Said};
    let fake = FakeEngine::start(|_| Said(500, json!({"message": "the disk is full"})));
    let address = fake.engine().address;
    let image = json!({"image": "acme/agent:1"});
    for (container, more, what) in [
        (json!({"name": "mine"}), json!({"trust": "start_stop"}), "container mine"),
        (image, json!({"trust": "create", "images": ["acme/agent:1"]}), "image acme/agent:1"),
    ] {
        let config = in_container(&address, &container, &more);
        let looks = tokio::task::spawn_blocking(move || visit(home().path(), &config, &[]));
        let visit = looks.await.expect("plimsoll runs");
        assert_eq!(visit.check("engine").0, "pass");
        let said = "the engine says: the disk is full: see the log of the engine";
        let detail = format!("a: whether {what} is there cannot be told, {said}");
        assert_eq!(visit.check("images"), ("fail", detail.as_str()));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_engine_its_images_and_its_containers_are_looked_at() {
    use crate::docker::engine::{Engine, IMAGE};
    let Some(engine) = Engine::of_machine() else { return };
    let dir = home();
    let images = |container: Value, more: Value| {
        let visit = visit(dir.path(), &in_container(&engine.address, &container, &more), &[]);
        let (status, detail) = visit.check("engine");
        assert!(status == "pass" && detail.contains("with API 1."), "{detail}");
        let (status, detail) = visit.check("images");
        (status.to_owned(), detail.to_owned())
    };
    let told = |status: &str, words: String| (status.to_owned(), format!("a: {words}"));
    let create = |image: &str, pull: &str| json!({"trust": "create", "images": [image], "pull": pull});
    let of = |image: &str| json!({"image": image});
    assert_eq!(images(of(IMAGE), create(IMAGE, "never")), told("pass", format!("image {IMAGE} is there")));
    let none = "plimsoll-test/none:it";
    let words = format!("image {none} is not there, and fetched with the first start");
    assert_eq!(images(of(none), create(none, "missing")), told("pass", words));
    let words = format!("image {none} is not there (`engine.pull: never`)");
    assert_eq!(images(of(none), create(none, "never")), told("fail", words));

    let name = format!("it-doctor-{}", std::process::id());
    let named = |trust: &str| images(json!({"name": name}), json!({"trust": trust}));
    assert_eq!(named("start_stop"), told("fail", format!("there is no container {name}")));
    engine.docker(&["create", "--name", &name, IMAGE, "/bin/sleep", "1000"]);
    let foreign = named("start_stop");
    engine.docker(&["rm", "-f", &name]);
    engine.docker(&[
        "create",
        "--name",
        &name,
        "--label",
        "io.plimsoll.instance=a",
        IMAGE,
        "/bin/sleep",
        "1000",
    ]);
    let stopped = named("start_stop");
    engine.docker(&["start", &name]);
    let running = named("start_stop");
    engine.docker(&["rm", "-f", &name]);
    let words = format!("container {name} does not carry the label io.plimsoll.instance=a");
    assert_eq!(foreign, told("fail", words));
    assert_eq!(stopped, told("pass", format!("container {name} is there, and stopped")));
    assert_eq!(running, told("pass", format!("container {name} runs")));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_over_tcp_is_asked_there_and_one_that_is_far_is_warned_of() {
    use crate::docker::{engine::Engine, gate::EngineGate};
    let Some(engine) = Engine::of_machine() else { return };
    let gate = EngineGate::before(&engine, |_| true).await;
    let container = json!({"name": format!("it-doctor-tcp-{}", std::process::id())});
    let looked = |address: &str| {
        let (dir, config) = (home(), in_container(address, &container, &json!({"trust": "start_stop"})));
        let visit = tokio::task::block_in_place(|| visit(dir.path(), &config, &[]));
        let (status, detail) = visit.check("engine");
        (status.to_owned(), detail.to_owned(), visit.check("images").0.to_owned())
    };
    let (status, detail, images) = looked(&gate.address());
    assert!(
        status == "pass" && detail.contains("with API 1.") && detail.contains(&gate.address()),
        "{detail}"
    );
    assert_eq!(images, "fail", "there is no such container: it was asked for");
    // This machine's address on that network is the first; an engine that starts for the first time names no gateway.
    let subnet =
        engine.docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]);
    let here = subnet.split_once(".0/").map_or_else(|| panic!("{subnet}"), |(net, _)| format!("{net}.1"));
    let (status, detail, _) = looked(&format!("tcp://{here}:{}", gate.port));
    assert!(status == "warn" && detail.contains("with API 1."), "{status}: {detail}");
    let closed = format!("tcp://127.0.0.1:{}", free_port());
    let (status, detail, images) = looked(&closed);
    assert_eq!((status.as_str(), images.as_str()), ("fail", "skip"));
    assert!(detail.contains(&format!("nothing listens at {closed}: start the container engine")), "{detail}");
}
