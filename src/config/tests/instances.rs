//! Instances and the engine: from a good example, one thing is broken, and exactly that is told.

use serde_json::{Value, json};

use super::super::load_text;

fn good() -> Value {
    json!({
        "engine": {"trust": "create", "images": ["acme/agent:1"], "bind_root": "/srv"},
        "providers": {"own": {"kind": "openai"}, "echo": {"kind": "echo"}},
        "agents": {
            "p": {"provider": "own", "model": "m", "instance": {
                "port": 8001, "ready": {"http": "/health"}, "process": {"program": "server", "args": ["--port", "8001"]},
            }},
            "c": {"provider": "own", "model": "m", "instance": {
                "port": 80,
                "container": {"image": "acme/agent:1", "binds": [{"source": "/srv/models", "target": "/models"}]},
            }},
            "n": {"provider": "own", "model": "m", "instance": {"port": 80, "container": {"name": "made-by-hand"}}},
            "s": {"provider": "echo", "model": "m", "instance": {"scripted": {"starts": [{"takes": "1s"}]}}},
        },
    })
}

/// The problems of the good example with this value at that place, as `key: message`.
fn with(pointer: &str, value: Value) -> Vec<String> {
    let mut config = good();
    if let Some(there) = config.pointer_mut(pointer) {
        *there = value;
    } else {
        let (parent, key) = pointer.rsplit_once('/').expect("a place");
        config.pointer_mut(parent).expect("it is there")[key] = value;
    }
    let read = load_text(config.to_string().as_bytes(), &|_| None);
    let problems = read.map(|_| ()).err().unwrap_or_default();
    problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
}

#[test]
fn a_good_one_is_taken() {
    assert_eq!(with("/gateway", json!({})), [""; 0]);
}

#[test]
fn each_thing_that_is_wrong_is_told_at_its_key() {
    for (pointer, value, key, word) in [
        ("/engine/address", json!("/var/run/docker.sock"), "engine.address", "unix:///"),
        ("/engine/address", json!("tcp://host"), "engine.address", "tcp://host:port"),
        ("/engine/network", json!("host"), "engine.network", "bridge"),
        ("/engine/network", json!("container:other"), "engine.network", "bridge"),
        ("/engine/bind_root", json!("/"), "engine.bind_root", "not the root"),
        ("/engine/bind_root", json!("srv"), "engine.bind_root", "absolute"),
        ("/engine/timeout", json!("1ms"), "engine.timeout", "100ms"),
        ("/engine/images", json!(["acme/agent:1", "a b"]), "engine.images[1]", "an image"),
        ("/agents/p/provider", json!("echo"), "agents.p.provider", "without `base_url`"),
        ("/agents/s/provider", json!("own"), "agents.s.provider", "another provider"),
        ("/agents/p/instance/port", json!(0), "agents.p.instance.port", "1 to 65535"),
        ("/agents/p/instance/path", json!("v1"), "agents.p.instance.path", "begins with /"),
        ("/agents/p/instance/idle_after", json!("0s"), "agents.p.instance.idle_after", "1s"),
        ("/agents/p/instance/waiting_max", json!(0), "agents.p.instance.waiting_max", "1 to"),
        ("/agents/p/instance/ready", json!({"http": "/a", "line": "b"}), "agents.p.instance.ready", "one of"),
        (
            "/agents/p/instance/ready",
            json!({"healthcheck": true}),
            "agents.p.instance.ready.healthcheck",
            "only a container",
        ),
        ("/agents/p/instance/process/program", json!(""), "agents.p.instance.process.program", "a program"),
        (
            "/agents/p/instance/process/env",
            json!({"1A": "x"}),
            "agents.p.instance.process.env.1A",
            "a variable",
        ),
        ("/agents/p/instance/container", json!({"name": "other"}), "agents.p.instance", "one of"),
        (
            "/agents/n/instance/container/image",
            json!("acme/agent:1"),
            "agents.n.instance.container",
            "either",
        ),
        ("/agents/n/instance/container/command", json!(["x"]), "agents.n.instance.container", "as it is"),
        (
            "/agents/c/instance/container/image",
            json!("evil:1"),
            "agents.c.instance.container.image",
            "engine.images",
        ),
        (
            "/agents/c/instance/container/memory_max",
            json!("1MiB"),
            "agents.c.instance.container.memory_max",
            "6MiB",
        ),
        ("/agents/c/instance/container/cpus", json!(0.0), "agents.c.instance.container.cpus", "0.01"),
        (
            "/agents/c/instance/container/binds/0/target",
            json!("/"),
            "agents.c.instance.container.binds[0].target",
            "absolute path in the container",
        ),
        (
            "/engine/address",
            json!("tcp://10.0.0.1:2375"),
            "agents.c.instance.container.binds[0]",
            "its own file system",
        ),
        ("/agents/s/instance/port", json!(80), "agents.s.instance.port", "0 to 0"),
    ] {
        let told = with(pointer, value.clone());
        let [told] = &told[..] else { panic!("{pointer} {value}: {told:#?}") };
        assert!(told.starts_with(&format!("{key}: ")) && told.contains(word), "{pointer} {value}: {told}");
    }
}

#[test]
fn who_writes_outside_of_its_container_is_not_root() {
    let told = with("/agents/c/instance/container/binds/0/writable", json!(true));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("agents.c.instance.container.user: "), "{told:?}");
    assert!(told[0].contains("the number of another user"), "{told:?}");
}

#[test]
fn a_name_of_plimsolls_own_is_nobody_elses() {
    let name = "plimsoll-a-0123456789abcdef0123456789abcdef";
    let told = with("/agents/n/instance/container/name", json!(name));
    assert!(told.len() == 1 && told[0].contains("plimsoll's own"), "{told:?}");
    assert!(with("/agents/n/instance/container/name", json!("plimsoll-a-b")).is_empty());
}

#[test]
fn what_trust_does_not_allow_is_told_of_each_agent_that_needs_it() {
    let told = with("/engine/trust", json!("observe"));
    let keys: Vec<&str> = told.iter().filter_map(|told| told.split(": ").next()).collect();
    let expected =
        ["agents.c.instance.start", "agents.c.instance.container.image", "agents.n.instance.start"];
    assert_eq!(keys, expected);
}

#[test]
fn two_processes_do_not_share_a_port() {
    let mut other = good()["agents"]["p"].clone();
    other["instance"]["process"]["program"] = json!("another");
    let told = with("/agents/q", other);
    assert!(told[0].starts_with("agents.q.instance.port: the process of agents.p "), "{told:?}");
}

#[test]
fn templates_are_checked_as_agents_are_and_never_run_by_themselves() {
    let hosted = good()["agents"]["p"].clone();
    let mut own_port = hosted.clone();
    own_port["instance"]["port"] = json!(9_009);
    assert_eq!(with("/templates", json!({"t": own_port})), Vec::<String>::new());
    let told = with("/templates", json!({"t": hosted}));
    assert!(told[0].starts_with("templates.t.instance.port: the process of agents.p "), "{told:?}");
    for (template, key) in [
        (json!({"provider": "nobody"}), "templates.t.provider: "),
        (json!({"provider": "own", "model": "m", "max_concurrent": 0}), "templates.t.max_concurrent: "),
        (json!({"provider": "own"}), "templates.t.model: "),
        (json!({"provider": "own", "model": "m", "colour": 1}), "templates.t.colour: "),
        (good()["agents"]["n"].clone(), "templates.t.instance.container.name: a container"),
    ] {
        let told = with("/templates", json!({"t": template}));
        assert!(told.iter().any(|told| told.starts_with(key)), "{key} {told:?}");
    }
}
