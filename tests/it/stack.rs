//! `docker compose up`: the real image, guarded as the file says, scraped by a real Prometheus with its own token.
//!
//! Grafana and Jaeger are not started: where this runs, their images may be out of reach.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plimsoll::client::{Client, ClientError, Target};
use plimsoll::secret::Secret;
use serde_json::{Value, json};

use crate::support::server::{clean_command, free_port, until};
use crate::support::tools::needs;

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const IMAGE: &str = "plimsoll:stack-test";

/// A project of its own; all of it goes when dropped.
struct Stack {
    name: String,
    port: u16,
    prometheus_port: u16,
    demo_port: u16,
    alertmanager_port: u16,
    /// Laid over the file.
    overlay: Option<PathBuf>,
}

impl Stack {
    fn new(name: &str) -> Self {
        let name = format!("plimsoll-{name}-{}", std::process::id());
        let [port, prometheus_port, demo_port, alertmanager_port] = std::array::from_fn(|_| free_port());
        Self { name, port, prometheus_port, demo_port, alertmanager_port, overlay: None }
    }

    fn compose(&self, arguments: &[&str]) -> Output {
        let plugin = run(Command::new("docker").args(["compose", "version"])).status.success();
        let mut command = Command::new(if plugin { "docker" } else { "docker-compose" });
        if plugin {
            command.arg("compose");
        }
        command.args(["--project-name", &self.name, "--file", "docker-compose.yml"]);
        command.args(self.overlay.iter().flat_map(|file| [OsStr::new("--file"), file.as_os_str()]));
        command.args(arguments);
        command.env("PLIMSOLL_AGENTS_NETWORK", format!("{}-agents", self.name));
        command.env("PLIMSOLL_IMAGE", IMAGE).env("PLIMSOLL_PORT", self.port.to_string());
        command.env("PROMETHEUS_PORT", self.prometheus_port.to_string());
        command.env("DEMO_PORT", self.demo_port.to_string());
        command.env("ALERTMANAGER_PORT", self.alertmanager_port.to_string());
        run(command.current_dir(env!("CARGO_MANIFEST_DIR")))
    }

    fn plimsoll(&self, token: Option<&str>) -> Client {
        let token = token.map(|token| Secret::new(token.to_owned(), "token"));
        client(self.port, token)
    }

    /// The operator's token.
    fn operator(&self) -> String {
        let token = said(&self.compose(&["exec", "-T", "plimsoll", "cat", "/run/secrets/operator/token"]));
        assert_eq!(token.trim().len(), 64, "{token}");
        token.trim().to_owned()
    }

    async fn healthy(&self) {
        until("health", async || self.plimsoll(None).get("/health").await.ok()).await;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", said(&self.compose(&["logs"])));
        }
        self.compose(&["down", "--volumes", "--timeout", "10"]);
    }
}

fn client(port: u16, token: Option<Secret>) -> Client {
    Client::new(Target::Url { base: format!("http://127.0.0.1:{port}"), token, ca_file: None })
        .expect("a client")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether an engine answers and has the images; says so if not.
fn engine() -> bool {
    if needs("docker").is_none() {
        return false;
    }
    let images = [
        "debian:bookworm-slim",
        "rust:1.95-slim-bookworm",
        "prom/prometheus:v3.7.3",
        "prom/alertmanager:v0.28.1",
        "haproxy:3.2.4-alpine",
    ];
    let inspected = run(Command::new("docker").args(["image", "inspect"]).args(images));
    if inspected.status.success() {
        return true;
    }
    let required = std::env::var("PLIMSOLL_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
    assert!(!required, "no Docker engine answers with the images {images:?}: {}", said(&inspected));
    println!("skipped: needs a Docker engine with the images {images:?}");
    false
}

/// Builds the image around the binary under test.
fn build() {
    let context = tempfile::tempdir().expect("a temporary directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "Dockerfile",
        ".dockerignore",
        "config/docker.yaml",
        "config/plimsoll.yaml",
        "stack/init.sh",
        "stack/serve.sh",
    ] {
        let target = context.path().join(file);
        fs::create_dir_all(target.parent().expect("a folder")).expect("the folder is made");
        fs::copy(root.join(file), target).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let binary = context.path().join("target/image/plimsoll");
    fs::create_dir_all(binary.parent().expect("a folder")).expect("the folder is made");
    fs::copy(env!("CARGO_BIN_EXE_plimsoll"), binary).expect("the binary is copied");
    let built = run(Command::new("docker").args(["build", "--quiet", "--tag", IMAGE]).arg(context.path()));
    assert!(built.status.success(), "{}", said(&built));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stack_comes_up_guarded_scraped_and_keeps_its_secrets() {
    if !engine() {
        return;
    }
    build();
    let stack = Stack::new("test");
    let up = stack.compose(&["up", "--detach", "--no-build", "init", "plimsoll", "prometheus"]);
    assert!(up.status.success(), "{}", said(&up));
    stack.healthy().await;

    let refused = stack.plimsoll(None).get("/metrics").await;
    assert!(matches!(refused, Err(ClientError::TokenNeeded)), "/metrics without a token: {refused:?}");
    let token = stack.operator();
    let sent = json!({"agent": "echo", "message": "hello"});
    let answer = stack.plimsoll(Some(&token)).call("agent.send", sent.clone()).await.expect("an answer");
    assert_eq!(answer["text"], "hello");
    let logs = said(&stack.compose(&["logs"]));
    assert!(!logs.contains(&token), "the operator's token stands in a log");

    let prometheus = client(stack.prometheus_port, None);
    until("a scrape by token", async || {
        let answer = prometheus.get("/api/v1/query?query=up%7Bjob%3D%22plimsoll%22%7D").await.ok()?;
        let answer: Value = answer.json().await.ok()?;
        (answer.pointer("/data/result/0/value/1") == Some(&json!("1"))).then_some(())
    })
    .await;
    let rules = prometheus.get("/api/v1/rules").await.expect("rules").text().await.expect("text");
    assert!(rules.contains("PlimsollQueueDepthHigh"), "{rules}");

    let outside = said(&stack.compose(&[
        "exec",
        "-T",
        "plimsoll",
        "sh",
        "-c",
        "id -u; touch /x 2>&1; grep CapEff /proc/1/status",
    ]));
    assert!(outside.starts_with("65532\n"), "{outside}");
    assert!(outside.contains("Read-only file system"), "{outside}");
    assert!(outside.contains("0000000000000000"), "{outside}");

    let down = stack.compose(&["down", "--timeout", "10"]);
    assert!(down.status.success(), "{}", said(&down));
    let again = stack.compose(&["up", "--detach", "--no-build", "init", "plimsoll"]);
    assert!(again.status.success(), "{}", said(&again));
    stack.healthy().await;
    stack.plimsoll(Some(&token)).call("agent.send", sent).await.expect("the same token still works");
    let journal = said(&stack.compose(&[
        "exec",
        "-T",
        "plimsoll",
        "plimsoll",
        "audit",
        "list",
        "--kind",
        "request_finished",
    ]));
    assert_eq!(journal.matches("stack-operator").count(), 2, "both requests are in the journal: {journal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_of_the_demo_comes_through_alertmanager_to_the_demo_alone() {
    if !engine() {
        return;
    }
    build();
    let mut stack = Stack::new("alerts");
    let dir = tempfile::tempdir().expect("a temporary directory");
    stack.overlay = Some(hurried(dir.path()));
    let profiles = ["--profile", "demo", "--profile", "alertmanager"];
    let told = ["up", "--detach", "--no-build", "init", "plimsoll", "prometheus", "alertmanager", "demo"];
    let up = stack.compose(&[&profiles[..], &told].concat());
    assert!(up.status.success(), "{}", said(&up));
    stack.healthy().await;
    let token = stack.operator();
    let at = |port| client(port, Some(Secret::new(token.clone(), "token")));
    let (real, demo) = (at(stack.port), at(stack.demo_port));
    let prometheus = client(stack.prometheus_port, None);
    let has = async |query: &str| {
        let answer = get(&prometheus, &format!("/api/v1/query?query={query}")).await?;
        answer.pointer("/data/result/0").is_some().then_some(())
    };
    let scraped = "plimsoll_reconciler_tick_duration_seconds_count%7Bjob%3D%22plimsoll-demo%22%7D";
    until("a scrape of the demo", async || has(scraped).await).await;
    let fires = "ALERTS%7Balertname%3D%22PlimsollTickSlow%22%2Calertstate%3D%22firing%22%7D";
    until("the alert on slow ticks to fire", async || has(fires).await).await;
    let slow = until("the alert on slow ticks", async || {
        let alerts = get(&demo, "/api/alerts").await?;
        let named = |alert: &&Value| alert["labels"]["alertname"] == "PlimsollTickSlow";
        alerts["alerts"].as_array()?.iter().find(named).cloned()
    })
    .await;
    assert_eq!((&slow["source"], &slow["labels"]["job"]), (&json!("alertmanager"), &json!("plimsoll-demo")));
    // Its own may fire: no collector of traces was started.
    let of_real = get(&real, "/api/alerts").await.expect("an answer");
    let mut told = of_real["alerts"].as_array().expect("alerts").iter();
    assert!(
        told.all(|alert| alert["labels"]["job"] == "plimsoll"),
        "the demo's are not told to it: {of_real}"
    );
}

async fn get(client: &Client, path: &str) -> Option<Value> {
    client.get(path).await.ok()?.json().await.ok()
}

/// Laid over the file: every length of time of the rules is a thirtieth, and one breach comes soon.
fn hurried(dir: &Path) -> PathBuf {
    let rules = dir.join("rules");
    fs::create_dir(&rules).expect("a folder");
    let mut render = clean_command();
    render.args(["alerts", "prometheus", "--durations-divided-by", "30", "--output"]);
    let rendered = run(render.arg(rules.join("plimsoll.rules.yaml")));
    assert!(rendered.status.success(), "{}", said(&rendered));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scrape = fs::read_to_string(root.join("stack/prometheus.yml")).expect("readable");
    let scrape = scrape.replace("interval: 15s", "interval: 1s").replace("interval: 30s", "interval: 1s");
    let scrape = scrape.replace("scrape_timeout: 10s", "scrape_timeout: 1s");
    let scrape = scrape.replace("type: A,", "type: A, refresh_interval: 1s,");
    fs::write(dir.join("prometheus.yml"), scrape).expect("written");
    fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("others may read it");
    let breach = ["--breach", "tick", "--breach-lasts", "30m", "--durations-divided-by", "30"];
    let kept = ["--config", "/etc/plimsoll/config/plimsoll.yaml", "--data-dir", "/var/lib/plimsoll"];
    let demo = [&["demo"][..], &breach, &kept].concat();
    let overlay = json!({"services": {
        "demo": {"command": demo},
        "prometheus": {"volumes": [
            format!("{}:/etc/prometheus/prometheus.yml:ro", dir.join("prometheus.yml").display()),
            format!("{}:/etc/prometheus/rules:ro", rules.display()),
        ]},
    }});
    let file = dir.join("overlay.json");
    fs::write(&file, overlay.to_string()).expect("written");
    file
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_profile_docker_an_agent_in_a_container_starts_and_stops() {
    use crate::docker::engine::Engine;
    use crate::docker::example::{BUILT, Cleared, built};
    let (true, Some(machine)) = (engine(), Engine::of_machine()) else { return };
    let Some(config) = built(&machine) else { return };
    let _cleared = Cleared(machine);
    build();
    let mut stack = Stack::new("docker");
    // The folder of the configuration is that of the example, with the file for `docker compose` beside it.
    let main = config.path().join("plimsoll.yaml");
    let written = fs::read_to_string(&main).expect("it is written");
    let swift = written.replace("plimsoll-local:1", BUILT).replace("idle_after: 5m", "idle_after: 1s");
    fs::write(&main, swift).expect("written");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("config/docker.yaml"), config.path().join("docker.yaml")).expect("copied");
    let overlay = json!({"services": {"plimsoll": {"volumes": [
        format!("{}:/etc/plimsoll/config:ro", config.path().display()),
    ]}}});
    let file = config.path().join("overlay.json");
    fs::write(&file, overlay.to_string()).expect("written");
    fs::set_permissions(config.path(), Permissions::from_mode(0o755)).expect("plimsoll may read it");
    stack.overlay = Some(file);
    let up =
        stack.compose(&["--profile", "docker", "up", "--detach", "--no-build", "init", "plimsoll", "engine"]);
    assert!(up.status.success(), "{}", said(&up));
    stack.healthy().await;
    let plimsoll = stack.plimsoll(Some(&stack.operator()));
    let sent = json!({"agent": "local", "message": "what is 6 * 7?"});
    let answer = until("an answer", async || plimsoll.call("agent.send", sent.clone()).await.ok()).await;
    assert_eq!(answer["text"], "6 * 7 = 42");
    until("the stop of an idle one", async || {
        let agents: Value = plimsoll.get("/agents").await.ok()?.json().await.ok()?;
        let state = &agents["agents"][0]["state"];
        (state["lifecycle_state"] == "cold" && state["lifecycle_metrics"]["lazy_stop"] == 1).then_some(())
    })
    .await;
    // The engine is behind its proxy only, and hears of nothing else.
    let asks = "exec 3<>/dev/tcp/engine/2375 && printf 'GET /containers/json HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3; \
                test -e /var/run/docker.sock || echo no socket";
    let asked = said(&stack.compose(&["exec", "-T", "plimsoll", "bash", "-c", asks]));
    assert!(asked.contains("403") && asked.contains("no socket"), "{asked}");
    let outside = "timeout 3 bash -c '</dev/tcp/engine/2375' || echo not reached";
    let asked = said(&run(Command::new("docker")
        .args(["run", "--rm", "--network", &format!("{}_stack", stack.name)])
        .args(["debian:bookworm-slim", "sh", "-c", outside])));
    assert!(asked.contains("not reached"), "{asked}");
}

#[test]
fn ports_are_published_on_loopback_only_and_images_are_pinned() {
    let published: Vec<&str> =
        COMPOSE.lines().filter_map(|line| line.trim().strip_prefix("ports: ")).collect();
    assert_eq!(published.len(), 6, "{published:?}");
    assert!(published.iter().all(|ports| ports.starts_with("[\"127.0.0.1:${")), "{published:?}");
    let images: Vec<&str> = COMPOSE.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    assert!(images.iter().all(|image| image.contains(':') && !image.ends_with(":latest")), "{images:?}");
}

#[test]
fn every_service_gives_up_its_powers_and_has_limits() {
    let services = COMPOSE.split("\nservices:\n").nth(1).and_then(|rest| rest.split("\nnetworks:\n").next());
    let services = services.expect("the services");
    let guarded = COMPOSE.split("\nservices:\n").next().expect("the anchor");
    let blocks = services.split("\n  ").fold(Vec::<String>::new(), |mut blocks, line| {
        if line.starts_with(' ') || line.starts_with('#') || blocks.is_empty() {
            blocks.last_mut().map_or_else(|| (), |block| block.push_str(&format!("\n  {line}")));
            if blocks.is_empty() {
                blocks.push(line.to_owned());
            }
        } else {
            blocks.push(line.to_owned());
        }
        blocks
    });
    assert!(blocks.len() >= 5, "{blocks:?}");
    for block in blocks {
        let whole = if block.contains("<<: *guarded") { format!("{block}{guarded}") } else { block };
        for wanted in
            ["no-new-privileges:true", "cap_drop: [ALL]", "mem_limit:", "pids_limit:", "read_only: true"]
        {
            assert!(whole.contains(wanted), "{wanted} is missing in {whole}");
        }
    }
}

#[test]
fn what_the_program_embeds_reaches_the_build_of_the_image() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".dockerignore")).expect(".dockerignore");
    let (mut folders, mut found) = (vec![root.join("src")], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            for embedded in text.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let file = path.parent().expect("a folder").join(embedded);
                let file = file.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                let file = file.strip_prefix(root).expect("a file of the repository");
                let first = file.components().next().expect("a name").as_os_str().to_str().expect("UTF-8");
                let sent = ignored.lines().any(|line| line == format!("!{first}"));
                assert!(sent, "{} embeds {}, which .dockerignore keeps away", path.display(), file.display());
                found += 1;
            }
        }
    }
    assert!(found > 0, "the program embeds something");
}
