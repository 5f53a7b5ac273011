//! The proxy of the stack between plimsoll and the socket of an engine, `stack/engine-proxy.cfg`, in a real HAProxy.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use plimsoll::lifecycle::EngineStatus;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::engine::{Engine, IMAGE};
use super::fake::{FakeEngine, Said};
use super::stand::{SERVER, World, live, script, with};
use crate::support::child::Running;
use crate::support::http::Ask;
use crate::support::server::{free_port, until};
use crate::support::tools::needs;

const CONFIG: &str = include_str!("../../../stack/engine-proxy.cfg");

/// As plimsoll names a container of an agent `writer`.
const OWN: &str = "plimsoll-writer-0123456789abcdef0123456789abcdef";

/// Stopped when dropped.
struct Proxy {
    address: SocketAddr,
    _haproxy: Running,
    _dir: TempDir,
}

impl Proxy {
    /// Before this engine, or `None` after saying that the test is skipped.
    async fn before(engine: &Engine) -> Option<Self> {
        let haproxy = needs("haproxy")?;
        let socket = engine.address.strip_prefix("unix://").expect("a socket of this machine");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("haproxy.cfg");
        let config = CONFIG.replace("bind :2375", &format!("bind {address}"));
        fs::write(&file, config.replace("unix@/var/run/docker.sock", &format!("unix@{socket}")))
            .expect("written");
        let mut command = Command::new(haproxy);
        command.arg("-f").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let proxy = Self { address, _haproxy: Running::start(&mut command), _dir: dir };
        until("the proxy", async || TcpStream::connect(address).await.ok()).await;
        Some(proxy)
    }

    async fn status(&self, method: &'static str, path: &str, body: Option<&str>) -> u16 {
        let ask = match body {
            Some(body) => Ask::post(path, body).header("content-type", "application/json"),
            None => Ask::method(method, path),
        };
        ask.send(self.address).await.status
    }
}

#[test]
fn an_agent_in_a_container_starts_and_stops_through_the_proxy() {
    let Some(engine) = Engine::of_machine() else { return };
    let world = World::new(&engine, "proxied");
    live(async || {
        let Some(proxy) = Proxy::before(&engine).await else { return };
        let config = with(script(SERVER), &json!({"idle_after": "1s", "ready": {"http": "/index.html"}}));
        let life = world.life(&config, &json!({"address": format!("tcp://{}", proxy.address)}));
        drop(life.up().await);
        assert_eq!((world.running().len(), life.client.status()), (1, EngineStatus::Up));
        until("its line", async || (life.heard() == ["it serves"]).then_some(())).await;
        life.until_written(&["container_planned", "lazy_start", "lazy_stop"]).await;
        assert_eq!(world.running(), [""; 0]);
        life.instances.shut_down().await;
    });
}

#[test]
fn an_image_that_is_not_there_is_fetched_through_the_proxy() {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let hears = Arc::clone(&heard);
    let fake = move |request: &str| {
        hears.lock().expect("requests").push(request.to_owned());
        Said(404, json!({"message": "no such image"}))
    };
    live(async || {
        let fake = FakeEngine::start(fake);
        let Some(proxy) = Proxy::before(&fake.engine()).await else { return };
        let world = World::new(&fake.engine(), "fetched");
        let config = json!({"address": format!("tcp://{}", proxy.address), "pull": "missing"});
        let life = world.life(&script(SERVER), &config);
        life.failure().await;
        let heard = heard.lock().expect("requests").clone();
        let asked = |begin: &str| heard.iter().any(|request| request.starts_with(begin));
        assert!(asked("POST /images/create?fromImage=plimsoll-test%2Fbusybox&tag=it"), "{heard:?}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_plimsoll_asks_of_its_own_containers_passes_the_proxy_and_nothing_else_does() {
    let fake = FakeEngine::start(|_| Said(200, json!({})));
    let Some(proxy) = Proxy::before(&fake.engine()).await else { return };
    let own = |rest: &str| format!("/v1.41/containers/{OWN}{rest}");
    let image = "ghcr.io%2Facme%2Fagent:1.2";
    for (method, path) in [
        ("GET", "/version".to_owned()),
        ("GET", "/v1.51/_ping".to_owned()),
        ("GET", own("/json")),
        ("GET", own("/logs?follow=true&stdout=true")),
        ("POST", own("/start")),
        ("POST", own("/stop?t=10")),
        ("DELETE", own("?v=true&force=true")),
        ("GET", format!("/v1.41/images/{image}/json")),
        ("POST", "/v1.41/images/create?fromImage=ghcr.io%2Facme%2Fagent&tag=1.2".to_owned()),
    ] {
        assert_eq!(proxy.status(method, &path, None).await, 200, "{method} {path}");
    }
    for (method, path) in [
        ("GET", "/v1.41/containers/json".to_owned()),
        ("GET", "/v1.41/info".to_owned()),
        ("GET", "/v1.41/containers/somebody-elses/json".to_owned()),
        ("POST", "/v1.41/containers/plimsoll-plimsoll-1/stop".to_owned()),
        ("POST", "/v1.23/containers/x/start".replace('x', OWN)),
        ("GET", own("/../somebody-elses/json")),
        ("GET", own("/%2e%2e/somebody-elses/json")),
        ("GET", own("/archive?path=/")),
        ("POST", own("/exec")),
        ("POST", own("/attach?stream=1")),
        ("POST", own("/update")),
        ("POST", own("/rename?name=x")),
        ("POST", own("/json")),
        ("GET", own("/start")),
        ("PUT", own("/archive?path=/")),
        ("POST", "/v1.41/images/create?fromSrc=-".to_owned()),
        ("POST", "/v1.41/images/create?fromImage=a&fromSrc=http://x".to_owned()),
        ("POST", "/v1.41/build".to_owned()),
        ("GET", "/v1.41/volumes".to_owned()),
        ("POST", "/v1.41/networks/bridge/connect".to_owned()),
        ("GET", "/v1.41/secrets".to_owned()),
        ("GET", "/".to_owned()),
    ] {
        assert_eq!(proxy.status(method, &path, None).await, 403, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_with_power_over_the_machine_is_made_through_the_proxy() {
    let fake = FakeEngine::start(|_| Said(200, json!({})));
    let Some(proxy) = Proxy::before(&fake.engine()).await else { return };
    let create = format!("/v1.41/containers/create?name={OWN}");
    let with = |more: &str| {
        let host = r#""Privileged": false, "NetworkMode": "agents", "IpcMode": "private", "Mounts": [], "CapDrop": ["ALL"]"#;
        format!(
            r#"{{"Image": "{IMAGE}", "Env": ["A=\"Privileged\": true"], "HostConfig": {{{host}{more}}}}}"#
        )
    };
    assert_eq!(proxy.status("POST", &create, Some(&with(""))).await, 200);
    // As large as a body gets that plimsoll's configuration may ask for, and one that the proxy cannot see whole.
    for (bytes, status) in [(60_000, 200), (200_000, 403)] {
        let body = with("").replace("A=", &format!("A={}", "x".repeat(bytes)));
        assert_eq!(proxy.status("POST", &create, Some(&body)).await, status, "{bytes} bytes");
    }
    for more in [
        r#", "Privileged": true"#,
        r#", "privileged" :	true"#,
        r#", "Privileged": 1"#,
        r#", "Priv\u0069leged": true"#,
        r#", "Binds": ["/:/host"]"#,
        r#", "Mounts": [ {"Type": "bind", "Source": "/", "Target": "/host"}]"#,
        r#", "Devices": [{"PathOnHost": "/dev/sda"}]"#,
        r#", "DeviceRequests": [{"Count": -1}]"#,
        r#", "VolumesFrom": ["plimsoll-plimsoll-1"]"#,
        r#", "CapAdd": ["SYS_ADMIN"]"#,
        r#", "PidMode": "host""#,
        r#", "UsernsMode": "host""#,
        r#", "NetworkMode": "host""#,
        r#", "NetworkMode": "container:plimsoll""#,
        r#", "IpcMode": "host""#,
        r#", "CgroupnsMode": "host""#,
        r#", "SecurityOpt": ["seccomp=unconfined"]"#,
        r#", "Sysctls": {"kernel.shm_rmid_forced": "1"}"#,
        r#", "CgroupParent": "/""#,
        r#", "Runtime": "other""#,
    ] {
        assert_eq!(proxy.status("POST", &create, Some(&with(more))).await, 403, "{more}");
    }
    for query in ["", "?name=anything", "?name=a&name=x", "?platform=x"] {
        let path = format!("/v1.41/containers/create{}", query.replace('x', OWN));
        assert_eq!(proxy.status("POST", &path, Some(&with(""))).await, 403, "{path}");
    }
    let form = Ask::post(&create, "name=other").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(form.send(proxy.address).await.status, 403);
}
