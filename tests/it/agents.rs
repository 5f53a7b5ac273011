//! The agents of `config/examples`: what `config init` writes, and what plimsoll makes of Claude Code, Codex and Gemini
//! CLI. Programs of their names stand in for them and print what the real ones printed (`tests/fixtures/agents`).

#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::config::uncommented;
use crate::support::server::clean_command;

const EXAMPLES: [&str; 6] = ["anthropic", "claude-code", "codex", "gemini", "ollama", "openai"];
const KEYS: [&str; 4] = ["ANTHROPIC_API_KEY", "CODEX_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"];

/// Beside the example, so that several servers can run at once.
const OVERLAY: &str = "server: {listen: '127.0.0.1:0'}\n";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn example(agent: &str) -> String {
    let path = repository().join("config/examples").join(agent).join("plimsoll.yaml");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("written");
}

/// The environment in which an example is used: keys, a home, and the programs in its folder `bin`.
fn surround(command: &mut Command, dir: &Path) {
    let system = std::env::var("PATH").unwrap_or_default();
    command.env("HOME", dir).env("PLIMSOLL_ENV", "test").env("SECRET_OF_PLIMSOLL", "not for a child");
    command.env("PATH", format!("{}:{system}", dir.join("bin").display()));
    command.envs(KEYS.map(|key| (key, format!("the value of {key}"))));
}

fn plimsoll(dir: &Path, arguments: &[&str]) -> Output {
    write(dir, "test.yaml", OVERLAY);
    let mut command = clean_command();
    command.args(arguments).current_dir(dir);
    surround(&mut command, dir);
    command.output().expect("plimsoll runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn config_init_writes_a_good_example_and_says_what_to_do_next() {
    for agent in EXAMPLES {
        let dir = home();
        let output = plimsoll(dir.path(), &["config", "init", "--agent", agent]);
        assert!(output.status.success(), "{agent}: {}", said(&output));
        for step in ["plimsoll doctor --config", "plimsoll serve --config", &format!("plimsoll send {agent}")]
        {
            assert!(said(&output).contains(step), "{agent}: {}", said(&output));
        }
        let written = fs::read_to_string(dir.path().join("plimsoll.yaml")).expect("it is written");
        assert_eq!(written, example(agent));
        let shown = plimsoll(dir.path(), &["config", "init", "--agent", agent, "--output", "-"]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout), written);
        write(dir.path(), "all.yaml", &uncommented(&written));
        for file in ["plimsoll.yaml", "all.yaml"] {
            let check = plimsoll(dir.path(), &["config", "check", "--config", file]);
            assert!(check.status.success() && !said(&check).contains("warning"), "{agent}: {}", said(&check));
        }
    }
}

#[test]
fn config_init_overwrites_a_file_only_if_told_to() {
    let dir = home();
    write(dir.path(), "plimsoll.yaml", "mine: 1\n");
    let init = ["config", "init", "--agent", "codex"];
    let refused = plimsoll(dir.path(), &init);
    assert!(refused.status.code() == Some(74) && said(&refused).contains("--force"), "{}", said(&refused));
    assert_eq!(fs::read_to_string(dir.path().join("plimsoll.yaml")).expect("it is there"), "mine: 1\n");
    let forced = plimsoll(dir.path(), &[&init[..], &["--force"]].concat());
    assert!(forced.status.success(), "{}", said(&forced));
    assert_eq!(fs::read_to_string(dir.path().join("plimsoll.yaml")).expect("it is there"), example("codex"));
}
