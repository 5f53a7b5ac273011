//! The configuration as its files and the shell show it: the commented defaults, overlays, `config` and what they refuse.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use plimsoll::config::{Config, load_text};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::server::clean_command;

fn defaults() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/plimsoll.yaml");
    fs::read_to_string(path).expect("the commented defaults are there")
}

/// The text with every commented key in force: `#key:` and `#- key`, never `# prose`.
pub(crate) fn uncommented(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let content = line.trim_start();
        let Some(key) =
            content.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']) && !rest.is_empty())
        else {
            lines.push(line.to_owned());
            continue;
        };
        // An empty collection gives way to what stands commented below it.
        if let Some(last) = lines.last_mut() {
            for empty in [" []", " {}"] {
                if let Some(name) = last.strip_suffix(empty) {
                    *last = name.to_owned();
                }
            }
        }
        lines.push(format!("{}{key}", &line[..line.len() - content.len()]));
    }
    lines.join("\n")
}

fn value(text: &str) -> Value {
    let config = load_text(text.as_bytes(), &|_| None::<OsString>);
    let config = config.unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
    });
    serde_json::to_value(config).expect("a configuration is written")
}

/// The keys of a schema, the names of providers, models, agents and headers left out.
fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let named = [
                "providers",
                "prices",
                "agents",
                "notify",
                "telemetry.otlp.headers",
                "providers.*.env",
                "towns",
                "towns.*.agents",
            ]
            .contains(&path);
            for (key, value) in map {
                let step = if named { "*" } else { key };
                let path = if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
                keys(value, &path, into);
                into.insert(path);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, &format!("{path}[]"), into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_commented_defaults_are_the_defaults() {
    assert_eq!(value(&defaults()), serde_json::to_value(Config::default()).expect("it is written"));
}

/// Every key that an error names as expected in some place stands in the file: asked by putting a wrong key in each.
#[test]
fn the_commented_defaults_show_every_key() {
    let mut shown = BTreeSet::new();
    keys(&value(&uncommented(&defaults())), "", &mut shown);
    let places = [
        ("", ""),
        ("server", "server: {ZZZ: 1}"),
        ("server.tls", "server: {tls: {ZZZ: 1}}"),
        ("auth", "auth: {ZZZ: 1}"),
        ("auth.tokens[]", "auth: {tokens: [{ZZZ: 1}]}"),
        ("metrics", "metrics: {ZZZ: 1}"),
        ("journal", "journal: {ZZZ: 1}"),
        ("journal.audit", "journal: {audit: {ZZZ: 1}}"),
        ("gateway", "gateway: {ZZZ: 1}"),
        ("live", "live: {ZZZ: 1}"),
        ("telemetry", "telemetry: {ZZZ: 1}"),
        ("telemetry.log", "telemetry: {log: {ZZZ: 1}}"),
        ("telemetry.otlp", "telemetry: {otlp: {ZZZ: 1}}"),
        ("telemetry.sentry", "telemetry: {sentry: {ZZZ: 1}}"),
        ("notify.*", "notify: {n: {ZZZ: 1}}"),
        ("providers.*", "providers: {p: {kind: echo, ZZZ: 1}}"),
        ("providers.*", "providers: {p: {kind: openai, base_url: http://h, ZZZ: 1}}"),
        ("providers.*", "providers: {p: {kind: anthropic, ZZZ: 1}}"),
        ("providers.*", "providers: {p: {kind: exec, program: p, ZZZ: 1}}"),
        ("prices.*", "prices: {m: {ZZZ: 1}}"),
        ("engine", "engine: {ZZZ: 1}"),
        ("agents.*", "agents: {a: {ZZZ: 1}}"),
        ("agents.*.instance", "agents: {a: {instance: {ZZZ: 1}}}"),
        ("agents.*.instance.ready", "agents: {a: {instance: {ready: {ZZZ: 1}}}}"),
        ("agents.*.instance.process", "agents: {a: {instance: {process: {ZZZ: 1}}}}"),
        ("agents.*.instance.container", "agents: {a: {instance: {container: {ZZZ: 1}}}}"),
        ("agents.*.instance.scripted", "agents: {a: {instance: {scripted: {ZZZ: 1}}}}"),
        ("agents.*.instance.scripted.starts[]", "agents: {a: {instance: {scripted: {starts: [{ZZZ: 1}]}}}}"),
        ("agents.*.instance.container.binds[]", "agents: {a: {instance: {container: {binds: [{ZZZ: 1}]}}}}"),
    ];
    // These stand in what is said of others; both at once are refused.
    let elsewhere = [
        "providers.*.api_key_file",
        "agents.*.instance.ready.line",
        "agents.*.instance.container.name",
        "notify.*.url_file",
        "notify.*.secret_file",
        "telemetry.sentry.dsn_file",
    ];
    for (place, text) in places {
        let text = if text.is_empty() { "ZZZ: 1" } else { text };
        let problems = load_text(text.as_bytes(), &|_| None::<OsString>).map(|_| ()).expect_err(text);
        let message = problems.iter().find(|p| p.message.starts_with("unknown key")).expect("it is unknown");
        let (_, expected) = message.message.split_once("expected one of ").expect("nothing is near");
        for key in expected.split(", ") {
            let path = if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
            assert!(
                shown.contains(&path) || elsewhere.contains(&path.as_str()),
                "config/plimsoll.yaml does not show {path}"
            );
        }
    }
}

fn world(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        fs::write(path, text).expect("the file is written");
    }
    dir
}

fn plimsoll(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = clean_command();
    command.args(arguments).current_dir(dir.path()).env("HOME", dir.path());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("plimsoll runs")
}

fn shown(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

const BASE: &str = "server:\n  allowed_hosts: [base]\n  batch_max: 5\nlive:\n  events: 7\n";
const OVERLAY: &str = "server:\n  allowed_hosts: [one, two]\nlive:\n  events: ${EVENTS:-9}\n";

#[test]
fn an_overlay_gives_merged_values_and_unset_is_the_base_to_the_byte() {
    let both = world(&[("config/plimsoll.yaml", BASE), ("config/docker.yaml", OVERLAY)]);
    let base = world(&[("config/plimsoll.yaml", BASE)]);
    let show = ["config", "show"];
    assert_eq!(shown(&mut plimsoll(&both, &show)), shown(&mut plimsoll(&base, &show)));
    let json = |command: &mut Command| -> Value { serde_json::from_str(&shown(command)).expect("JSON") };
    let merged = json(plimsoll(&both, &["config", "show", "--json"]).env("PLIMSOLL_ENV", "docker"));
    assert_eq!(merged["server"]["allowed_hosts"], serde_json::json!(["one", "two"]));
    assert_eq!(merged["server"]["batch_max"], 5);
    assert_eq!(merged["live"]["events"], 9);
    let origins = shown(plimsoll(&both, &["config", "show", "--origin"]).env("PLIMSOLL_ENV", "docker"));
    let line = |key: &str| origins.lines().find(|line| line.starts_with(key)).expect(key).to_owned();
    assert!(line("live.events: 9").ends_with("config/docker.yaml:4"), "{origins}");
    assert!(line("server.batch_max: 5").ends_with("config/plimsoll.yaml:3"), "{origins}");
    assert!(line("live.model_calls: 200").ends_with("default"), "{origins}");
}

#[test]
fn what_config_show_prints_is_read_again_as_the_same() {
    let dir = world(&[("plimsoll.yaml", BASE)]);
    let text = shown(&mut plimsoll(&dir, &["config", "show"]));
    fs::write(dir.path().join("again.yaml"), &text).expect("the file is written");
    assert_eq!(shown(&mut plimsoll(&dir, &["config", "show", "--config", "again.yaml"])), text);
}

/// Files with one key of these defaults each.
fn alone(defaults: &Value) -> Vec<Value> {
    let Value::Object(map) = defaults else { return vec![defaults.clone()] };
    let below = |(key, value): (&String, &Value)| {
        alone(value).into_iter().map(|one| serde_json::json!({ key: one })).collect::<Vec<_>>()
    };
    map.iter().flat_map(below).collect()
}

#[test]
fn each_key_alone_is_enough_and_the_others_keep_their_defaults() {
    let mut defaults = value("");
    // Their names are the operator's, so one key alone does not make one.
    let known = defaults.as_object_mut().expect("a map");
    known.retain(|key, _| !["providers", "agents", "prices"].contains(&key.as_str()));
    for one in alone(&defaults) {
        assert_eq!(value(&one.to_string()), value(""), "{one}");
    }
}

#[test]
fn a_missing_overlay_ends_with_3_and_names_the_path() {
    let dir = world(&[("config/plimsoll.yaml", BASE)]);
    for command in [&["config", "check"][..], &["config", "show"]] {
        let output = run(plimsoll(&dir, command).env("PLIMSOLL_ENV", "staging"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("config/staging.yaml does not exist"), "{said}");
    }
}

#[test]
fn config_check_tells_every_problem_with_its_line() {
    let dir = world(&[("plimsoll.yaml", "servr: {}\nlive: {events: many, model_calls: 0}\n")]);
    let output = run(&mut plimsoll(&dir, &["config", "check"]));
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [
        "plimsoll.yaml:1:1: servr: unknown key, did you mean `server`?",
        "plimsoll.yaml:2:16: live.events: expected a whole number",
        "plimsoll.yaml:2:22: live.model_calls: expected 1 to 100000",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    fs::write(dir.path().join("plimsoll.yaml"), BASE).expect("the file is written");
    let good = shown(&mut plimsoll(&dir, &["config", "check"]));
    assert!(good.starts_with("good: ") && good.contains("plimsoll.yaml"), "{good}");
}

#[test]
fn config_show_prints_the_name_of_a_secret_and_not_the_secret() {
    let config = "providers:\n  p:\n    kind: openai\n    base_url: http://h/v1\n    api_key: ${KEY}\n";
    let dir = world(&[("plimsoll.yaml", config)]);
    for arguments in [&["config", "show"][..], &["config", "show", "--json"], &["config", "show", "--origin"]]
    {
        let text = shown(plimsoll(&dir, arguments).env("KEY", "hunter2"));
        assert!(text.contains("${KEY}") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn every_overlay_that_comes_along_fits_the_defaults() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        if name == "plimsoll" || path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let mut command = clean_command();
        command.args(["config", "check", "--config"]).arg(folder.join("plimsoll.yaml"));
        command.args(["--data-dir", "data"]).env("PLIMSOLL_ENV", name);
        let output = run(&mut command);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
