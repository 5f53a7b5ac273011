//! Beads that are worked by real agents: Claude Code, Codex and Gemini CLI as they are installed, and models behind their
//! APIs. Only the model is played.

#![cfg(target_os = "linux")]

mod models;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::server::Server;
use crate::support::tools::needs;
use crate::support::upstream::Upstream;
use models::{DECISION, NOTES};

/// How long anything may take: programs of a hundred megabytes start a dozen times, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// Who works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ClaudeCode,
    Codex,
    Gemini,
    OpenAi,
    Anthropic,
}

impl Kind {
    /// The program that it is, if it is one.
    const fn program(self) -> Option<&'static str> {
        match self {
            Self::ClaudeCode => Some("claude"),
            Self::Codex => Some("codex"),
            Self::Gemini => Some("gemini"),
            Self::OpenAi | Self::Anthropic => None,
        }
    }

    /// Its provider: a program with a home of its own, or the API.
    fn provider(self, program: &Path, home: &Path, address: &str) -> Value {
        match self {
            Self::ClaudeCode => json!({
                "kind": "exec", "dialect": "claude-code", "program": program,
                "args": ["--permission-mode", "dontAsk", "--allowedTools", "Bash", "--setting-sources", "user"],
                "env": {"HOME": home, "ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": format!("http://{address}"),
                    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"},
            }),
            Self::Codex => {
                let local = format!(
                    "model_providers.local={{name=\"local\",base_url=\"http://{address}/v1\",env_key=\"LOCAL_KEY\",wire_api=\"responses\"}}"
                );
                json!({
                    "kind": "exec", "dialect": "codex", "program": program,
                    "args": ["--sandbox", "danger-full-access", "-c", "model_provider=\"local\"", "-c", local,
                        "-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false"],
                    "env": {"HOME": home, "LOCAL_KEY": "x"},
                })
            }
            Self::Gemini => {
                let settings = json!({"security": {"auth": {"selectedType": "gemini-api-key"}},
                    "general": {"disableAutoUpdate": true}, "privacy": {"usageStatisticsEnabled": false}});
                fs::create_dir(home.join(".gemini")).expect("made");
                fs::write(home.join(".gemini/settings.json"), settings.to_string()).expect("written");
                json!({
                    "kind": "exec", "dialect": "gemini", "program": program,
                    "args": ["--approval-mode", "yolo", "--allowed-mcp-server-names", "none"],
                    "env": {"HOME": home, "GEMINI_API_KEY": "x", "GOOGLE_GEMINI_BASE_URL": format!("http://{address}"),
                        "GEMINI_CLI_TRUST_WORKSPACE": "true"},
                })
            }
            Self::OpenAi => {
                json!({"kind": "openai", "base_url": format!("http://{address}/v1"), "json_schema": true})
            }
            Self::Anthropic => {
                let base_url = format!("http://{address}");
                json!({"kind": "anthropic", "base_url": base_url, "api_key": "x", "json_schema": true})
            }
        }
    }

    fn agent(self, name: &str, work: &Path) -> Value {
        match self {
            Self::ClaudeCode => json!({"provider": name, "cwd": work}),
            Self::Codex => json!({"provider": name, "cwd": work, "model": "gpt-5-codex"}),
            Self::Gemini => json!({"provider": name, "cwd": work, "model": "gemini-2.5-flash"}),
            Self::OpenAi | Self::Anthropic => json!({"provider": name, "model": "m-1"}),
        }
    }
}

/// A town `desk` with one worker, and a town `bench` with a maker and a checker.
struct World {
    server: Server,
    models: Upstream,
    dir: TempDir,
}

impl World {
    /// `None` if the program is not installed.
    async fn of(kind: Kind) -> Option<Self> {
        let program = match kind.program() {
            None => PathBuf::new(),
            Some(name) => needs(name)?,
        };
        let models = models::serve().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = json!({"providers": {}, "agents": {}, "towns": {
            "desk": {"agents": {"worker": {}}, "policy": {
                "dispatch": {"attempts_max": 2, "backoff": ["0s"]}, "stuck": {"ending_grace": "0s"}}},
            "bench": {"agents": {"maker": {}, "checker": {"role": "reviewer"}}, "policy": {
                "review": {"enabled": true}, "stuck": {"ending_grace": "0s"}}},
        }});
        for name in ["worker", "maker", "checker"] {
            let (home, work) = (dir.path().join(name), dir.path().join(name).join("work"));
            fs::create_dir_all(&work).expect("made");
            config["providers"][name] = kind.provider(&program, &home, &models.address().to_string());
            config["agents"][name] = kind.agent(name, &work);
        }
        let server = Server::start(config).await;
        Some(Self { server, models, dir })
    }

    async fn add(&self, town: &str, bead: &str) {
        let bead = json!({"town": town, "id": bead, "title": "Make the file", "instructions": "Write hi into made.txt."});
        self.server.call("town.addBead", bead).await;
    }

    /// Waits until this bead has ended, and why, or until it waits for a person.
    async fn settled(&self, town: &str, bead: &str) -> String {
        let settled = async {
            loop {
                let found = self.server.call("town.bead", json!({"town": town, "bead": bead})).await;
                if found["wait"]["why"] == "waiting_on_human" {
                    return "waits for a person".to_owned();
                }
                if let Some(reason) = found["reason"].as_str() {
                    return format!("{}: {reason}", found["status"].as_str().expect("a status"));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(PATIENCE, settled).await;
        waited.unwrap_or_else(|_| panic!("{bead} of {town} does not settle:\n{:#?}", self.requests()))
    }

    /// What the models were asked, without the long instructions of the agents.
    fn requests(&self) -> Vec<String> {
        let requests = self.models.requests();
        requests.iter().map(|request| request.head.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// The events of a town, the oldest first: kind and fields.
    async fn events(&self, town: &str) -> Vec<(String, Value)> {
        let path = format!("/audit?stream=town/{town}&limit=1000");
        let page = self.server.client().get(&path).await.expect("the journal");
        let page: Value = page.json().await.expect("JSON");
        let records = page["records"].as_array().expect("records").iter().rev();
        records
            .map(|record| (record["kind"].as_str().expect("a kind").to_owned(), record["detail"].clone()))
            .collect()
    }

    /// What each agent said of this bead, in order.
    async fn said(&self, town: &str, bead: &str) -> Vec<String> {
        let events = self.events(town).await;
        let of_it = |detail: &Value| {
            let dispatch = detail["dispatch_id"].as_str().unwrap_or_default();
            dispatch.rsplit_once('.').is_some_and(|(of, _)| of == bead)
        };
        let mut said = Vec::new();
        for (kind, detail) in events.iter().filter(|(_, detail)| of_it(detail)) {
            let word = |key: &str| detail[key].as_str().unwrap_or_default();
            match kind.as_str() {
                "agent_done" => said.push(format!("{}: {}", word("outcome"), word("summary"))),
                "review_done" => said.push(format!("{}: {}", word("verdict"), word("notes"))),
                "nudge_sent" => said.push(format!("asked for its {}", word("tier"))),
                _ => {}
            }
        }
        said
    }

    /// How often a model was told this.
    fn told(&self, text: &str) -> usize {
        self.models.requests().iter().filter(|request| request.body.to_string().contains(text)).count()
    }
}

/// The questions how a bead ended, and nothing else, are asked by a schema, where there is an API that takes one.
fn asks_by_schema(kind: Kind, world: &World) {
    let at = match kind {
        Kind::OpenAi => "/response_format/json_schema/schema",
        Kind::Anthropic => "/output_config/format/schema",
        Kind::ClaudeCode | Kind::Codex | Kind::Gemini => return,
    };
    let requests = world.models.requests();
    let asked: Vec<_> =
        requests.iter().filter_map(|request| Some((request.body.pointer(at)?, &request.body))).collect();
    assert_eq!(asked.len(), 2, "of two beads: {asked:#?}");
    for (schema, body) in asked {
        assert_eq!(schema["properties"]["outcome"]["enum"], json!(["done", "failed", "needs_human"]));
        assert_eq!(schema["required"], json!(["outcome", "summary"]));
        let last = body["messages"].as_array().and_then(|all| all.last()).expect("a message").to_string();
        assert!(last.contains("did not say how the work on"), "{last}");
    }
}

/// A worker that is done, fails, mumbles, mumbles and then says it, or needs a person.
async fn the_desk(world: &World) {
    for bead in ["bad", "mumble", "late", "person"] {
        world.add("desk", bead).await;
    }
    assert_eq!(world.settled("desk", "bad").await, "failed: attempts_exhausted");
    let failed = "failed: There is no such file.";
    assert_eq!(world.said("desk", "bad").await, [failed, failed]);
    assert!(world.told("This is attempt 2: those before did not succeed.") > 0);

    assert_eq!(world.settled("desk", "mumble").await, "waits for a person");
    assert_eq!(world.said("desk", "mumble").await, ["asked for its ending"], "once more, and never closed");
    assert_eq!(world.settled("desk", "late").await, "closed: done");
    assert_eq!(world.said("desk", "late").await, ["asked for its ending", "done: It works."]);

    assert_eq!(world.settled("desk", "person").await, "waits for a person");
    let asked = ["needs_human: Which colour?"];
    assert_eq!(world.said("desk", "person").await, asked);
    let agents = world.server.call("town.agents", json!({"town": "desk"})).await;
    assert_eq!(agents["agents"][0]["status"], "idle", "nobody is stuck: {agents}");
    let escalations = world.server.call("town.beads", json!({"town": "desk", "kind": "escalation"})).await;
    let titles: Vec<_> =
        escalations["beads"].as_array().expect("beads").iter().map(|e| &e["title"]).collect();
    assert_eq!(titles, ["bad: attempts_exhausted", "mumble: unreadable", "person: needs_human"]);

    for bead in ["person", "person.e1"] {
        let shown = world.server.call("town.bead", json!({"town": "desk", "bead": bead})).await;
        assert_eq!(shown["summary"], "Which colour?", "{shown}");
    }

    // As docs/towns.md says: the person answers in the bead's conversation, and lets it go on.
    let answer = json!({"agent": "worker", "session": "bead:person", "message": DECISION});
    timeout(PATIENCE, world.server.call("agent.send", answer)).await.expect("an answer");
    assert_eq!(world.said("desk", "person").await, asked, "what is said to a person ends no bead");
    world.server.call("town.releaseBead", json!({"town": "desk", "bead": "person"})).await;
    assert_eq!(world.settled("desk", "person").await, "closed: done");
    assert_eq!(world.settled("desk", "person.e1").await, "closed: subject_ended");
}

/// A task that is reviewed twice.
async fn the_bench(world: &World) {
    world.add("bench", "good").await;
    assert_eq!(world.settled("bench", "good").await, "closed: approved");
    assert_eq!(world.said("bench", "good").await, ["done: It works."; 2]);
    assert_eq!(world.said("bench", "good.r1").await, [format!("changes: {NOTES}")]);
    assert_eq!(world.said("bench", "good.r2").await, ["approved: Good."]);
    assert!(world.told(&format!("asks for changes: {NOTES}")) > 0, "the maker hears of it");
    assert!(world.told("says of it: It works.") > 0, "the checker knows what was done");
}

async fn works(kind: Kind) {
    let Some(world) = World::of(kind).await else { return };
    tokio::join!(the_desk(&world), the_bench(&world));
    asks_by_schema(kind, &world);
    let made = fs::read_to_string(world.dir.path().join("maker/work/made.txt"));
    assert_eq!(made.ok().as_deref(), kind.program().map(|_| "hi"), "the work itself");
    for town in ["desk", "bench"] {
        let events = world.events(town).await;
        let ill = ["violation_opened", "event_rejected", "dispatch_failed", "dispatch_lost"];
        let ill: Vec<_> = events.iter().filter(|(kind, _)| ill.contains(&kind.as_str())).collect();
        assert!(ill.is_empty(), "{town}: {ill:?}");
    }
}

#[tokio::test]
async fn claude_code_works_beads_to_each_of_their_ends() {
    works(Kind::ClaudeCode).await;
}

#[tokio::test]
async fn codex_works_beads_to_each_of_their_ends() {
    works(Kind::Codex).await;
}

#[tokio::test]
async fn gemini_cli_works_beads_to_each_of_their_ends() {
    works(Kind::Gemini).await;
}

#[tokio::test]
async fn a_model_of_the_openai_api_works_beads_to_each_of_their_ends() {
    works(Kind::OpenAi).await;
}

#[tokio::test]
async fn a_model_of_anthropics_api_works_beads_to_each_of_their_ends() {
    works(Kind::Anthropic).await;
}
