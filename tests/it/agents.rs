//! The agents of `config/examples`: what `config init` writes, and what plimsoll makes of Claude Code, Codex and Gemini
//! CLI. Programs of their names stand in for them and print what the real ones printed (`tests/fixtures/agents`).

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plimsoll::client::ClientError;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::config::uncommented;
use crate::support::http::soon;
use crate::support::server::{Server, clean_command, until};
use crate::support::tools::needs;

const EXAMPLES: [&str; 8] =
    ["anthropic", "claude-code", "codex", "gemini", "local-container", "local-process", "ollama", "openai"];
const KEYS: [&str; 4] = ["ANTHROPIC_API_KEY", "CODEX_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"];

/// Beside the example, so that several servers can run at once.
const OVERLAY: &str = "server: {listen: '127.0.0.1:0'}\n";

/// Keeps how it is called, and does what the file `next` says.
const STAND_IN: &str = r#"#!/bin/sh
turn="$HOME/turns/$(ls "$HOME/turns" | wc -l)"
mkdir "$turn"
printf '%s\n' "$@" > "$turn/arguments"
cat > "$turn/message"
env > "$turn/variables"
. "$HOME/next"
"#;

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
    let there = fs::read_dir(repository().join("config/examples")).expect("listed");
    assert_eq!(there.count(), EXAMPLES.len(), "each is known here");
    for agent in EXAMPLES {
        let dir = home();
        let output = plimsoll(dir.path(), &["config", "init", "--agent", agent]);
        assert!(output.status.success(), "{agent}: {}", said(&output));
        let id = if agent.starts_with("local-") { "local" } else { agent };
        for step in ["plimsoll doctor --config", "plimsoll serve --config", &format!("plimsoll send {id} '")]
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
    let told = said(&refused);
    assert!(told.contains("Several agents") && !told.contains("os error"), "{told}");
    assert_eq!(fs::read_to_string(dir.path().join("plimsoll.yaml")).expect("it is there"), "mine: 1\n");
    let forced = plimsoll(dir.path(), &[&init[..], &["--force"]].concat());
    assert!(forced.status.success(), "{}", said(&forced));
    assert_eq!(fs::read_to_string(dir.path().join("plimsoll.yaml")).expect("it is there"), example("codex"));
}

#[test]
fn config_init_writes_what_stands_beside_it_or_nothing() {
    let dir = home();
    write(dir.path(), "Dockerfile", "FROM mine\n");
    let init = ["config", "init", "--agent", "local-container"];
    let refused = plimsoll(dir.path(), &init);
    let told = said(&refused);
    assert!(refused.status.code() == Some(74) && told.contains("Dockerfile: it is there"), "{told}");
    assert!(!dir.path().join("plimsoll.yaml").exists() && !dir.path().join("server.py").exists());
    let forced = plimsoll(dir.path(), &[&init[..], &["--force", "--output", "./plimsoll.yaml"]].concat());
    assert!(said(&forced).contains("\n  docker build --tag plimsoll-local:1 .\n"), "{}", said(&forced));
    for (name, from) in [
        ("plimsoll.yaml", "local-container"),
        ("Dockerfile", "local-container"),
        ("server.py", "local-process"),
    ] {
        let own = fs::read(repository().join("config/examples").join(from).join(name)).expect("it is there");
        assert_eq!(fs::read(dir.path().join(name)).expect("it is written"), own, "{name}");
    }
}

#[test]
fn config_init_says_when_another_file_is_taken_first() {
    let dir = home();
    let note = "Without --config, commands take config/plimsoll.yaml here.";
    let init = ["config", "init", "--agent", "codex", "--force"];
    assert!(!said(&plimsoll(dir.path(), &init)).contains(note));
    fs::create_dir(dir.path().join("config")).expect("made");
    write(dir.path(), "config/plimsoll.yaml", "");
    let told = said(&plimsoll(dir.path(), &init));
    assert!(told.contains(note), "{told}");
}

#[test]
fn configurations_in_the_documents_are_good() {
    for (document, section, agents) in [
        ("agents.md", "## Several agents\n", 3),
        ("agents.md", "### Processes\n", 1),
        ("configuration.md", "explains both:\n", 1),
    ] {
        let text = fs::read_to_string(repository().join("docs").join(document)).expect("the document");
        let text = text.split_once(section).expect("the section").1;
        let yaml = text.split_once("```yaml\n").expect("a file").1.split_once("```").expect("its end").0;
        let dir = home();
        write(dir.path(), "plimsoll.yaml", yaml);
        let checked = plimsoll(dir.path(), &["config", "check", "--config", "plimsoll.yaml"]);
        assert!(checked.status.success() && !said(&checked).contains("warning"), "{}", said(&checked));
        let shown = plimsoll(dir.path(), &["config", "show", "--json", "--config", "plimsoll.yaml"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        assert_eq!(shown["agents"].as_object().map(serde_json::Map::len), Some(agents), "{section}");
    }
}

#[test]
fn config_init_leaves_a_file_that_it_cannot_replace_as_it_was() {
    let dir = home();
    write(dir.path(), "plimsoll.yaml", "mine: 1\n");
    // As on a full disk: no file may grow.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_plimsoll")]);
    command.args(["config", "init", "--agent", "codex", "--force"]).current_dir(dir.path());
    let output = command.output().expect("it runs");
    assert!(!output.status.success(), "{}", said(&output));
    assert_eq!(fs::read_to_string(dir.path().join("plimsoll.yaml")).expect("it is there"), "mine: 1\n");
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing is left beside it");
}

/// The directory of an example with a program that stands in for its agent.
struct World {
    dir: TempDir,
    agent: &'static str,
}

impl World {
    fn of(agent: &'static str) -> Self {
        Self::with(agent, &example(agent))
    }

    fn with(agent: &'static str, configuration: &str) -> Self {
        let dir = home();
        for folder in ["bin", "turns"] {
            fs::create_dir(dir.path().join(folder)).expect("made");
        }
        let program = match agent {
            "claude-code" => "claude",
            other => other,
        };
        let program = dir.path().join("bin").join(program);
        fs::write(&program, STAND_IN).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("made executable");
        write(dir.path(), "plimsoll.yaml", configuration);
        write(dir.path(), "test.yaml", OVERLAY);
        Self { dir, agent }
    }

    /// The program prints a recording and ends so.
    fn next(&self, recording: &str, code: u8) {
        let path = repository().join("tests/fixtures/agents").join(recording);
        assert!(path.is_file(), "{recording}");
        self.next_does(&format!("cat '{}'\nexit {code}\n", path.display()));
    }

    fn next_does(&self, script: &str) {
        write(self.dir.path(), "next", script);
    }

    async fn serve(self) -> Running {
        let Self { dir, agent } = self;
        let path = dir.path().to_owned();
        let mut server = Server::spawn_there(dir, |command| surround(command, &path));
        server.ready().await;
        Running { server, agent }
    }
}

/// An example that is served.
struct Running {
    server: Server,
    agent: &'static str,
}

impl Running {
    fn world(&self) -> PathBuf {
        self.server.dir().to_owned()
    }

    fn next(&self, recording: &str, code: u8) {
        let path = repository().join("tests/fixtures/agents").join(recording);
        assert!(path.is_file(), "{recording}");
        self.next_does(&format!("cat '{}'\nexit {code}\n", path.display()));
    }

    fn next_does(&self, script: &str) {
        write(&self.world(), "next", script);
    }

    async fn ask(&self, message: &str, more: Value) -> Result<Value, ClientError> {
        let mut params = json!({"agent": self.agent, "message": message, "session": "s"});
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.server.client().call("agent.send", params).await
    }

    /// What the program got in turn `n`: a file of `arguments`, `message`, `variables`.
    fn turn(&self, n: usize, file: &str) -> String {
        let path = self.world().join(format!("turns/{n}/{file}"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn arguments(&self, n: usize) -> Vec<String> {
        self.turn(n, "arguments").lines().map(str::to_owned).collect()
    }

    async fn last_call(&self) -> Value {
        self.server.call("system.metrics", json!({})).await["modelCalls"]["recentCalls"][0].clone()
    }

    /// The record of the request in the journal.
    async fn record(&self, answer: &Value) -> Value {
        let id = answer["requestId"].as_str().expect("an id");
        let found = until("the record", async || {
            let finished = self.server.finished().await?;
            finished.into_iter().find(|record| record["detail"]["requestId"] == id)
        });
        found.await["detail"].clone()
    }

    /// Asks, and cancels once the program has printed its first line.
    async fn stopped_at_its_first_line(&self, id: &str) {
        let seen = self.server.call("agent.logs", json!({"agent": self.agent})).await["next"].clone();
        let more = json!({"requestId": id});
        let stopping = async {
            let after = json!({"agent": self.agent, "after": seen, "waitMs": 30_000});
            let printed = self.server.call("agent.logs", after).await;
            assert_eq!(printed["lines"].as_array().map(Vec::len), Some(1), "{printed}");
            self.server.call("agent.cancel", json!({"requestId": id})).await;
        };
        let (asked, ()) = tokio::join!(self.ask("hello", more), stopping);
        asked.expect_err("it was cancelled");
    }

    /// Kills plimsoll and starts it again on the same directory.
    async fn restart(self) -> Self {
        World { dir: self.server.kill(), agent: self.agent }.serve().await
    }
}

/// What is right about one recorded turn.
struct Expected {
    recording: &'static str,
    tool: &'static str,
    failed: bool,
    tokens: [u64; 2],
    cost: Option<f64>,
}

async fn check_turn(agent: &'static str, expected: Expected) {
    let Expected { recording, tool, failed, tokens: [input, output], cost } = expected;
    let world = World::of(agent);
    world.next(recording, 0);
    let running = world.serve().await;
    let message = "--help\n$(id) `id`; \"quoted\"\n";
    let answer = running.ask(message, json!({})).await.unwrap_or_else(|error| panic!("{recording}: {error}"));
    assert_eq!(answer["text"], "All done.", "{recording}");
    assert_eq!(answer["usage"], json!({"inputTokens": input, "outputTokens": output}), "{recording}");
    assert_eq!(answer["toolCalls"][0]["name"], tool, "{recording}: {answer}");
    assert_eq!(answer["toolCalls"][0]["ok"], json!(!failed), "{recording}: {answer}");
    assert_eq!(running.turn(0, "message"), message, "{recording}");

    let call = running.last_call().await;
    assert_eq!([&call["inputTokens"], &call["outputTokens"]], [&json!(input), &json!(output)], "{recording}");
    assert_eq!(call.get("error"), None, "{recording}");
    let close = |value: &Value| match cost {
        Some(cost) => value.as_f64().is_some_and(|value| (value - cost).abs() < 1e-9),
        None => value.is_null(),
    };
    assert!(close(&call["costUsd"]), "{recording}: {call}");
    let record = running.record(&answer).await;
    assert!(record["outcome"] == "ok" && close(&record["costUsd"]), "{recording}: {record}");
    assert!(!record.to_string().contains("All done"), "what was said is in no record");

    let variables = running.turn(0, "variables");
    let names: Vec<&str> = variables.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(!variables.contains("not for a child") && !names.contains(&"PLIMSOLL_ENV"), "{variables}");
    let others = KEYS.iter().filter(|key| names.contains(key)).count();
    assert_eq!(others, 1, "{agent} gets its own key alone: {variables}");
}

#[tokio::test]
async fn claude_code_answers_and_its_tools_tokens_and_cost_are_told() {
    let good = Expected {
        recording: "claude-code.tool.jsonl",
        tool: "Bash",
        failed: false,
        tokens: [624, 14],
        cost: Some(0.00192),
    };
    check_turn("claude-code", Expected { recording: "claude-code.tool-failed.jsonl", failed: true, ..good })
        .await;
    check_turn("claude-code", Expected { recording: "claude-code.denied.jsonl", failed: true, ..good }).await;
    check_turn("claude-code", good).await;
}

#[tokio::test]
async fn codex_answers_and_its_tools_and_tokens_are_told_and_priced_by_the_table() {
    let good = Expected {
        recording: "codex.tool.jsonl",
        tool: "command_execution",
        failed: false,
        tokens: [642, 24],
        cost: Some((242.0 * 1.25 + 400.0 * 0.125 + 24.0 * 10.0) / 1e6),
    };
    check_turn("codex", Expected { recording: "codex.tool-failed.jsonl", failed: true, ..good }).await;
    check_turn("codex", good).await;
}

#[tokio::test]
async fn gemini_answers_and_its_tools_and_tokens_are_told() {
    let good = Expected {
        recording: "gemini.tool.jsonl",
        tool: "run_shell_command",
        failed: false,
        tokens: [100, 14],
        // The model of the recording is in no table, and what the one costs that was asked for says nothing of it.
        cost: None,
    };
    check_turn("gemini", good).await;
}

/// Claude Code says on standard output that it does not know a conversation, the two others on standard error alone.
#[tokio::test]
async fn a_conversation_that_an_agent_does_not_know_any_more_is_forgotten() {
    for (agent, recording, gone, code) in [
        ("codex", "codex.tool.jsonl", "codex.session-gone.stderr", 1),
        ("gemini", "gemini.plain.jsonl", "gemini.session-gone.stderr", 42),
    ] {
        let fixtures = repository().join("tests/fixtures/agents");
        let text = fs::read_to_string(fixtures.join(recording)).expect("it is there");
        let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        let id =
            ["thread_id", "session_id"].into_iter().find_map(|name| first[name].as_str()).expect("an id");
        let world = World::of(agent);
        world.next(recording, 0);
        let running = world.serve().await;
        running.ask("one", json!({})).await.expect("an answer");
        let of_another = fs::read_to_string(fixtures.join(gone)).expect("it is there");
        let words = of_another.replace("11111111-2222-4333-8444-555555555555", id);
        write(&running.world(), "words", &words);
        running.next_does(&format!("cat \"$HOME/words\" >&2; exit {code}\n"));
        let failed = running.ask("two", json!({})).await.expect_err("it does not know it");
        assert!(failed.to_string().contains("send the message again"), "{agent}: {failed}");
        running.next(recording, 0);
        running.ask("two", json!({})).await.expect("an answer");
        let resumed = running.arguments(2).iter().any(|argument| argument.contains(id));
        assert!(!resumed, "{agent}: {:?}", running.arguments(2));
    }
}

/// The second message of a session goes on with the agent's own conversation, also after plimsoll was killed.
#[tokio::test]
async fn a_session_resumes_the_agents_own_also_after_a_restart() {
    for (agent, recording, option, id) in [
        ("claude-code", "claude-code.plain.jsonl", "--resume", "session_id"),
        ("codex", "codex.tool.jsonl", "resume", "thread_id"),
        ("gemini", "gemini.plain.jsonl", "--resume", "session_id"),
    ] {
        let text = fs::read_to_string(repository().join("tests/fixtures/agents").join(recording))
            .expect("it is there");
        let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        let resumed = [option.to_owned(), first[id].as_str().expect("an id").to_owned()];
        let resumes = |arguments: &[String]| arguments.windows(2).any(|pair| pair == resumed);

        let world = World::of(agent);
        world.next(recording, 0);
        let mut running = world.serve().await;
        running.ask("one", json!({})).await.expect("an answer");
        assert!(!running.arguments(0).contains(&resumed[0]), "{agent}: there is nothing to resume");
        running.ask("two", json!({})).await.expect("an answer");
        assert!(resumes(&running.arguments(1)), "{agent}: {:?}", running.arguments(1));
        running.ask("other", json!({"session": "other"})).await.expect("an answer");
        assert!(
            !running.arguments(2).contains(&resumed[0]),
            "{agent}: another session is another conversation"
        );
        running = running.restart().await;
        running.ask("three", json!({})).await.expect("an answer");
        assert!(resumes(&running.arguments(3)), "{agent}: {:?}", running.arguments(3));
        running.server.call("session.reset", json!({"agent": agent, "session": "s"})).await;
        running.ask("anew", json!({})).await.expect("an answer");
        assert!(!running.arguments(4).contains(&resumed[0]), "{agent}: a session that was reset begins anew");
    }
}

#[tokio::test]
async fn what_codex_used_before_is_not_paid_again_when_it_is_resumed() {
    let world = World::of("codex");
    world.next("codex.tool.jsonl", 0);
    let running = world.serve().await;
    running.ask("one", json!({})).await.expect("an answer");
    running.next("codex.tool.jsonl", 0);
    let text =
        fs::read_to_string(repository().join("tests/fixtures/agents/codex.tool.jsonl")).expect("it is there");
    let later = text
        .replace("\"input_tokens\":642", "\"input_tokens\":963")
        .replace("\"output_tokens\":24", "\"output_tokens\":36");
    write(&running.world(), "later.jsonl", &later);
    running.next_does("cat \"$HOME/later.jsonl\"\n");
    let running = running.restart().await;
    let answer = running.ask("two", json!({})).await.expect("an answer");
    assert_eq!(answer["usage"], json!({"inputTokens": 321, "outputTokens": 12}));
}

/// How a failed turn ends for its caller, and what is counted.
async fn check_failure(agent: &'static str, recording: &str, code: u8, cause: &str) {
    let world = World::of(agent);
    world.next(recording, code);
    let running = world.serve().await;
    let error = running.ask("hello", json!({"requestId": "mine"})).await.expect_err("it fails");
    let ClientError::Rpc { code: -32007, message, .. } = &error else { panic!("{recording}: {error}") };
    assert!(message.contains(cause), "{recording}: {message}");
    let call = running.last_call().await;
    assert!(call["error"].is_string(), "{recording}: {call}");
    let record = running.record(&json!({"requestId": "mine"})).await;
    assert_eq!((&record["outcome"], &record["code"]), (&json!("failed"), &json!(-32007)), "{recording}");
    let events =
        running.server.call("system.events", json!({"level": "error", "source": "agent.send"})).await;
    assert_eq!(events[0]["context"]["requestId"], "mine", "{recording}: {events}");
    for quiet in [&record, &events, &call] {
        assert!(!quiet.to_string().contains("stand-in failure"), "{recording}: {quiet}");
    }
}

#[tokio::test]
async fn a_model_that_refuses_the_agent_fails_the_request_with_its_status() {
    check_failure("claude-code", "claude-code.error-401.jsonl", 1, "401").await;
    check_failure("claude-code", "claude-code.error-529.jsonl", 1, "529").await;
    check_failure("codex", "codex.error-401.jsonl", 1, "401").await;
    check_failure("codex", "codex.error-529.jsonl", 1, "529").await;
    check_failure("gemini", "gemini.error-401.jsonl", 145, "401").await;
    check_failure("gemini", "gemini.error-529.jsonl", 17, "529").await;
}

#[tokio::test]
async fn an_agent_that_reached_its_turn_limit_fails_the_request_and_says_so() {
    check_failure("claude-code", "claude-code.error-max-turns.jsonl", 1, "max_turns").await;
    check_failure("gemini", "gemini.error-max-turns.jsonl", 53, "max_turns").await;
}

#[tokio::test]
async fn an_agent_that_is_killed_or_hangs_fails_the_request_and_frees_the_lane() {
    for agent in ["claude-code", "codex", "gemini"] {
        let world = World::of(agent);
        world.next_does("kill -9 $$\n");
        let running = world.serve().await;
        let error = running.ask("hello", json!({})).await.expect_err("it fails");
        assert!(
            matches!(&error, ClientError::Rpc { code: -32007, .. }) && error.to_string().contains("signal 9"),
            "{agent}: {error}"
        );
        running.next_does("sleep 600\n");
        let error = running.ask("hello", json!({"deadlineMs": 300})).await.expect_err("it takes too long");
        assert!(matches!(error, ClientError::Rpc { code: -32004, .. }), "{agent}: {error}");
        running.next_does("exit 0\n");
        let error = running.ask("hello", json!({})).await.expect_err("nothing was answered");
        assert!(matches!(error, ClientError::Rpc { code: -32007, .. }), "{agent}: {error}");
        let metrics = running.server.call("system.metrics", json!({})).await;
        assert_eq!(
            (&metrics["errors"], &metrics["activeRequests"]),
            (&json!(3), &json!(0)),
            "{agent}: {metrics}"
        );
    }
}

/// Before its first message nothing tells the model but the line with which Claude Code begins.
#[tokio::test]
async fn a_turn_that_is_stopped_before_its_first_message_is_priced_by_the_model_that_was_named() {
    let world = World::of("claude-code");
    world.next_does(
        r#"echo '{"type":"system","subtype":"init","session_id":"s","model":"claude-opus-4-8[1m]"}'; sleep 600"#,
    );
    let running = world.serve().await;
    running.stopped_at_its_first_line("mine").await;
    let record = running.record(&json!({"requestId": "mine"})).await;
    let used = &record["models"][0];
    assert_eq!((&used["model"], &used["unpriced"]), (&json!("claude-opus-4-8"), &json!(0)), "{record}");
    assert!(used["estimatedUsd"].as_f64().is_some_and(|usd| usd > 0.0), "{record}");
}

/// Its own message is a few bytes; the agent sends its instructions and tools along.
#[tokio::test]
async fn a_stopped_turn_is_estimated_by_what_the_one_before_it_read() {
    let init = r#"{"type":"system","subtype":"init","session_id":"s","model":"claude-opus-4-8"}"#;
    let world = World::of("claude-code");
    world.next("claude-code.tool.jsonl", 0);
    let running = world.serve().await;
    running.ask("one", json!({})).await.expect("an answer");
    running.next_does(&format!("echo '{init}'; sleep 600"));
    running.stopped_at_its_first_line("mine").await;
    let record = running.record(&json!({"requestId": "mine"})).await;
    let used = &record["models"][0];
    // As its first of two messages: 12 tokens, 200 from the cache and 100 to it.
    assert_eq!(used["estimatedTokens"], 312, "{record}");
    assert!(used["estimatedUsd"].as_f64().is_some_and(|usd| (usd - 0.000_785).abs() < 1e-9), "{record}");
    running.next_does("sleep 600");
    running
        .ask("three", json!({"requestId": "third", "deadlineMs": 300}))
        .await
        .expect_err("it takes too long");
    let record = running.record(&json!({"requestId": "third"})).await;
    assert_eq!(
        record["models"][0]["estimatedTokens"], 5,
        "what was said here, for it had not begun: {record}"
    );
}

#[tokio::test]
async fn a_program_that_fails_before_any_model_call_costs_nothing() {
    let world = World::of("gemini");
    world.next_does("echo 'Invalid auth method selected.' >&2; exit 41\n");
    let running = world.serve().await;
    running.ask("hello", json!({"requestId": "mine"})).await.expect_err("it fails");
    let record = running.record(&json!({"requestId": "mine"})).await;
    let used = ["unpriced", "unreported", "estimatedTokens", "estimatedUsd"]
        .map(|key| record["models"][0][key].clone());
    assert_eq!(used, [json!(0), json!(0), json!(0), Value::Null], "{record}");
}

/// A program could call its own supervisor: where there is one, nobody on the network is the operator by being there.
#[tokio::test]
async fn the_first_start_with_a_program_makes_a_token_shows_it_once_and_shuts_the_door() {
    let world = World::of("codex");
    world.next("codex.tool.jsonl", 0);
    let running = world.serve().await;
    let shown = running.server.log();
    let token =
        shown.split_whitespace().find(|word| word.starts_with("plim_")).expect("it is shown").to_owned();
    assert_eq!(shown.matches("plim_").count(), 1, "once");
    for line in shown.lines().filter(|line| line.starts_with('{')) {
        assert!(!line.contains("plim_"), "in no log line");
    }
    let listed = running.server.tcp_client(None).call("agent.list", json!({})).await;
    assert!(matches!(listed, Err(ClientError::TokenNeeded)), "{listed:?}");
    running.server.tcp_client(Some(&token)).call("token.list", json!({})).await.expect("an operator's token");
    running.ask("hello", json!({})).await.expect("the control socket needs none");
    assert!(!running.turn(0, "variables").contains(&token));

    let page = running.server.client().get("/audit?kind=token_created").await.expect("the journal");
    let page = page.text().await.expect("text");
    assert!(page.contains("first-operator") && !page.contains(&token), "{page}");
    let running = running.restart().await;
    assert_eq!(running.server.log().matches("plim_").count(), 1, "not at the second start");
    running.server.tcp_client(Some(&token)).call("token.list", json!({})).await.expect("it is kept");
    running.server.call("token.revoke", json!({"name": "first-operator"})).await;
    let running = running.restart().await;
    assert_eq!(running.server.log().matches("plim_").count(), 1, "one that was revoked is not made anew");
    let listed = running.server.tcp_client(None).call("agent.list", json!({})).await;
    assert!(matches!(listed, Err(ClientError::TokenNeeded)), "{listed:?}");
}

#[tokio::test]
async fn without_a_program_no_token_is_made() {
    let server = Server::start(json!({})).await;
    assert!(!server.log().contains("plim_"));
    server.tcp_client(None).call("agent.list", json!({})).await.expect("a local caller is the operator");
}

#[tokio::test]
async fn logs_shows_what_the_program_prints_and_follows_it_without_secrets() {
    let world = World::of("gemini");
    world.next_does("echo 'to stderr' >&2\necho '{\"key\":\"'\"$GEMINI_API_KEY\"'\"}'\nexit 1\n");
    let running = world.serve().await;
    let data_dir = running.server.data_dir().display().to_string();
    running.ask("one", json!({})).await.expect_err("it says nothing");
    let output = plimsoll(&running.world(), &["logs", "gemini", "--json", "--data-dir", &data_dir]);
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let mut texts: Vec<_> =
        lines.iter().map(|line| [&line["stream"], &line["text"]].map(Value::to_string)).collect();
    texts.sort();
    assert_eq!(texts.len(), 2, "{lines:?}");
    assert!(texts[1][1].contains("***") && !texts[1][1].contains("the value of"), "{texts:?}");
    assert_eq!(texts[0], ["\"stderr\"", "\"to stderr\""]);
    assert!(!running.server.log().contains("to stderr"), "it stands in no log");

    let mut follow = tokio::process::Command::from(clean_command());
    follow.args(["logs", "gemini", "-f", "-n", "1", "--data-dir", &data_dir]).kill_on_drop(true);
    let mut follow = follow.stdout(std::process::Stdio::piped()).spawn().expect("plimsoll starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    soon("the last line", lines.next_line()).await.expect("UTF-8").expect("a line");
    running.next_does("echo 'fresh words' >&2\nexit 1\n");
    running.ask("two", json!({})).await.expect_err("it says nothing");
    let line = soon("the new line", lines.next_line()).await.expect("UTF-8").expect("a line");
    assert!(line.ends_with("fresh words"), "{line}");
}

#[test]
fn doctor_says_whether_the_program_its_directory_and_its_variables_are_there() {
    let world = World::of("claude-code");
    let dir = world.dir.path();
    let doctor = |variables: bool| {
        let mut command = clean_command();
        command
            .args(["doctor", "--json", "--config", "plimsoll.yaml", "--data-dir", "data"])
            .current_dir(dir);
        surround(&mut command, dir);
        // This machine may have the program, too.
        command.env("PATH", dir.join("bin"));
        if !variables {
            command.env_remove("ANTHROPIC_API_KEY");
        }
        let output = command.output().expect("plimsoll runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let check = |name: &str| {
            let checks = report["checks"].as_array().expect("a list");
            checks.iter().find(|check| check["check"] == name).expect(name)["status"]
                .as_str()
                .map(str::to_owned)
        };
        (check("providers").expect("a status"), check("programs").expect("a status"))
    };
    let statuses = |providers: &str, programs: &str| (providers.to_owned(), programs.to_owned());
    assert_eq!(doctor(true), statuses("pass", "pass"));
    assert_eq!(doctor(false), statuses("pass", "warn"));
    let program = dir.join("bin/claude");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).expect("made unusable");
    assert_eq!(doctor(true), statuses("fail", "pass"));
    let moved = example("claude-code").replace("cwd: .", "cwd: gone");
    write(dir, "plimsoll.yaml", &moved);
    assert_eq!(doctor(true), statuses("fail", "fail"));
}

/// The agent of one's own that `docs/agents.md` shows, as it stands there.
#[tokio::test]
async fn the_agent_in_the_document_works_and_remembers() {
    if needs("python3").is_none() {
        return;
    }
    let document = fs::read_to_string(repository().join("docs/agents.md")).expect("the document");
    let after = document.split_once("```python\n").expect("a program").1;
    let work = home();
    write(work.path(), "counter.py", after.split_once("```").expect("its end").0);
    let server = Server::start(json!({
        "providers": {"counter": {"kind": "exec", "program": "python3", "args": ["counter.py"]}},
        "agents": {"counter": {"provider": "counter", "cwd": work.path()}},
        "prices": {"counter-1": {"input": 1.0, "output": 1.0}},
    }))
    .await;
    for (session, text) in [
        ("s", "Message 1 has 9 characters."),
        ("s", "Message 2 has 9 characters."),
        ("other", "Message 1 has 9 characters."),
    ] {
        let params = json!({"agent": "counter", "message": "two words", "session": session});
        let answer = server.call("agent.send", params).await;
        assert_eq!(answer["text"], text);
        assert_eq!(answer["usage"], json!({"inputTokens": 2, "outputTokens": 5}));
        assert_eq!(answer["toolCalls"], json!([{"name": "count", "ok": true}]));
    }
}
