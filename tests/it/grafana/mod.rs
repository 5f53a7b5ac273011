//! What the stack's Grafana is given: every provisioning file, looked at as strictly as Grafana does and more.
//!
//! No Grafana runs here: docs/alerts.md says what was tried on a real one.

mod alerting;
mod broken;
mod lint;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::alerts_twin::{TWIN, root, rules, yaml};
use crate::dashboards::{dashboards, list, text};
use crate::support::tools::needs;
use lint::{World, complaints};

const COMPOSE: &str = include_str!("../../../docker-compose.yml");
const INIT: &str = include_str!("../../../stack/init.sh");

/// The lines of one service of the stack.
fn service(name: &str) -> &'static str {
    let start = COMPOSE.find(&format!("\n  {name}:\n")).unwrap_or_else(|| panic!("no service {name}"));
    let block = &COMPOSE[start + 3..];
    let ends = block.match_indices("\n  ").find(|(at, _)| !block[at + 3..].starts_with([' ', '#']));
    &block[..ends.map_or(block.len(), |(at, _)| at)]
}

/// What the stack's Grafana finds: the secrets that `init` makes and that are mounted there, folders, panels.
fn world() -> World {
    let grafana = service("grafana");
    let targets: Vec<&str> =
        grafana.lines().filter_map(|line| line.trim().strip_prefix("- ")?.split(':').nth(1)).collect();
    let secrets =
        INIT.lines().filter_map(|line| line.strip_prefix("secret /")).map(|path| format!("/{path}"));
    let mounted = |path: &String| targets.iter().any(|target| path.starts_with(&format!("{target}/")));
    let panels = dashboards().into_iter().flat_map(|(_, dashboard)| {
        let uid = text(&dashboard, "/uid").to_owned();
        let ids = list(&dashboard, "/panels").iter().map(|panel| panel["id"].to_string()).collect::<Vec<_>>();
        ids.into_iter().map(move |id| (uid.clone(), id))
    });
    World {
        files: secrets.filter(mounted).collect(),
        folders: targets.iter().map(|&target| target.to_owned()).collect(),
        panels: panels.collect(),
    }
}

/// The provisioning files of the repository, and what `init` writes into `alerting` in their place.
fn provisioned(alerting: &Path) -> Vec<(String, String)> {
    let folder = root().join("stack/grafana/provisioning");
    let mut files = Vec::new();
    for part in ["datasources", "dashboards", "plugins"] {
        files.extend(files_of(&folder.join(part), part));
    }
    files.extend(files_of(alerting, "alerting"));
    files
}

fn files_of(folder: &Path, part: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: &Path| {
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        (format!("{part}/{name}"), fs::read_to_string(path).unwrap_or_default())
    };
    paths.iter().map(|path| read(path)).collect()
}

/// Runs `init.sh` with its folders in a temporary one; gives that and how it ended.
fn init(variables: &[(&str, &str)]) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let at = |path: &str| folder.path().join(path);
    let made = ["prometheus", "operator", "grafana", "ingest"].map(|name| format!("run/secrets/{name}"));
    for path in made.iter().map(String::as_str).chain([
        "run/plimsoll",
        "run/grafana/alerting",
        "run/alertmanager",
        "bin",
    ]) {
        fs::create_dir_all(at(path)).expect("a folder");
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_plimsoll"), at("bin/plimsoll")).expect("a link");
    let own = root().join("stack/grafana/provisioning/alerting");
    let script = INIT.replace("/etc/plimsoll/alerting", own.to_str().expect("UTF-8"));
    let told = root().join("stack/alertmanager.yml");
    let script = script.replace("/etc/plimsoll/alertmanager.yml", told.to_str().expect("UTF-8"));
    let script = script.replace("/run/", &format!("{}/", at("run").display()));
    let mut command = Command::new("sh");
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap_or_default());
    command
        .arg("-c")
        .arg(script)
        .env("PATH", path)
        .env_remove("ALERT_WEBHOOK_URL")
        .env_remove("COMPOSE_PROFILES");
    let output = command.envs(variables.iter().copied()).output().expect("sh runs");
    (folder, output)
}

/// What it wrote for Grafana; it has to have worked, and Grafana to start with it.
fn written_by_init(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let (folder, output) = init(variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = provisioned(&folder.path().join("run/grafana/alerting"));
    let found = complaints(&files, &world());
    assert!(found.is_empty(), "{}", found.join("\n"));
    files.into_iter().filter(|(path, _)| path.starts_with("alerting/")).collect()
}

fn names(files: &[(String, String)]) -> Vec<&str> {
    files.iter().map(|(path, _)| path.as_str()).collect()
}

fn file<'a>(files: &'a [(String, String)], name: &str) -> &'a str {
    let found = files.iter().find(|(path, _)| path == name);
    found.map(|(_, text)| text.as_str()).unwrap_or_else(|| panic!("no {name}: {:?}", names(files)))
}

#[test]
fn grafana_starts_with_what_init_writes() {
    let files = written_by_init(&[]);
    assert_eq!(
        names(&files),
        ["alerting/contact-points.yaml", "alerting/policies.yaml", "alerting/rules.yaml"]
    );
    assert_eq!(file(&files, "alerting/rules.yaml"), fs::read_to_string(root().join(TWIN)).expect("the twin"));
    let same = written_by_init(&[("ALERT_WEBHOOK_URL", "")]);
    assert_eq!(same, files, "an empty variable is none");
}

#[test]
fn a_webhook_is_told_beside_plimsoll_and_not_of_the_demo_or_the_watchdog() {
    let hook = "https://user:pa%24s$x@hooks.example/T/B?a=b&c=$d";
    let files = written_by_init(&[("ALERT_WEBHOOK_URL", hook)]);
    let elsewhere = yaml(file(&files, "alerting/elsewhere.yaml"));
    let url = text(&elsewhere, "/contactPoints/0/receivers/0/settings/url");
    assert_eq!(url.replace("$$", "$"), hook, "as Grafana expands it");
    let policy = yaml(file(&files, "alerting/policies.yaml"));
    let routes = list(&policy, "/policies/0/routes");
    let receivers: Vec<&str> = routes.iter().map(|route| text(route, "/receiver")).collect();
    assert_eq!(receivers, ["plimsoll", "demo", "elsewhere", "plimsoll"]);
    let goes_on: Vec<bool> = routes.iter().map(|route| route["continue"] == true).collect();
    assert_eq!(goes_on, [false, false, true, false], "the first two tell nobody else");
}

#[test]
fn init_keeps_its_tokens_tells_none_and_pauses_for_alertmanager() {
    let (folder, output) = init(&[("COMPOSE_PROFILES", "demo,alertmanager")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let at = |path: &str| fs::read_to_string(folder.path().join("run").join(path)).expect(path);
    let token = at("secrets/ingest/token");
    assert_eq!(token.len(), 64);
    assert!(at("plimsoll/tokens.env").contains("PLIMSOLL_INGEST_SHA256="));
    assert!(!String::from_utf8_lossy(&output.stdout).contains(&token));
    let paused = yaml(&at("grafana/alerting/rules.yaml"));
    assert!(rules(&paused).iter().all(|rule| rule["isPaused"] == true));
}

#[test]
fn alertmanager_tells_plimsoll_of_all_but_the_demo_and_a_webhook_that_is_set() {
    let hook = "https://user:pa%24s$x@hooks.example/T/B?a=b&c=$d";
    for (variables, receivers) in [
        (&[][..], &["plimsoll", "demo"][..]),
        (&[("ALERT_WEBHOOK_URL", hook)], &["plimsoll", "demo", "elsewhere"]),
    ] {
        let (folder, output) = init(variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = folder.path().join("run/alertmanager/alertmanager.yml");
        let told = yaml(&fs::read_to_string(&file).expect("written"));
        let names: Vec<&str> = list(&told, "/receivers").iter().map(|one| text(one, "/name")).collect();
        assert_eq!(names, receivers);
        let routes: Vec<&str> =
            list(&told, "/route/routes").iter().map(|one| text(one, "/receiver")).collect();
        assert_eq!(routes, [&["plimsoll", "demo"], &receivers[2..], &["plimsoll"]].concat());
        if let Some(elsewhere) = list(&told, "/receivers").get(2) {
            assert_eq!(text(elsewhere, "/webhook_configs/0/url"), hook);
        }
        let Some(amtool) = needs("amtool") else { return };
        let checked = Command::new(amtool).arg("check-config").arg(file).output().expect("amtool runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn an_address_that_is_none_is_refused_by_init() {
    let bad = [
        "hooks.example",
        "https://",
        "https://a b",
        "https://a\nb",
        "https://a'b",
        "ftp://a",
        "https://a\"b\\",
    ];
    for url in bad {
        let (_folder, output) = init(&[("ALERT_WEBHOOK_URL", url)]);
        assert!(!output.status.success(), "{url:?} is taken");
        assert!(String::from_utf8_lossy(&output.stderr).contains("ALERT_WEBHOOK_URL"), "{output:?}");
    }
}

#[test]
fn the_volume_that_init_fills_is_the_one_that_grafana_reads() {
    assert!(service("init").contains("- grafana-alerting:/run/grafana/alerting"));
    assert!(service("init").contains("- ./stack/grafana/provisioning/alerting:/etc/plimsoll/alerting:ro"));
    assert!(service("init").contains("- alertmanager-config:/run/alertmanager\n"));
    assert!(service("init").contains("- ./stack/alertmanager.yml:/etc/plimsoll/alertmanager.yml:ro"));
    let grafana = service("grafana");
    assert!(
        grafana.contains("source: grafana-alerting\n        target: /etc/grafana/provisioning/alerting\n")
    );
}
