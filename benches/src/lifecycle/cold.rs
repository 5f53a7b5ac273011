//! A message to an agent whose instance is cold, beside the same program started, waited for and asked by hand, by turns.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::client::{Client, Connection, Target};
use plimsoll::clock::Clock;
use serde_json::{Value, json};

use super::Args;
use super::container::Engine;
use crate::child::Running;
use crate::gateway::http;
use crate::gateway::quantile;
use crate::gateway::server::Server;

/// The goal of the performance table, at the p99.
const ADDED_GOAL_MS: f64 = 5.0;

/// The shares of the samples that a row shows.
const SHARES: [f64; 3] = [0.5, 0.95, 0.99];

/// Starts before anything is counted.
const WARM_UP: u32 = 3;

/// Becoming ready or cold takes at most this.
const LIMIT: Duration = Duration::from_secs(30);

const AGENT: &str = "a";

/// What a model is asked by hand.
const QUESTION: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;

/// Milliseconds of one start and the first answer, and of it what the order to start took.
#[derive(Clone, Copy)]
struct Took {
    whole: f64,
    order: f64,
}

pub(super) async fn processes(args: &Args) -> Result<(), String> {
    let (port, by_hand) = (free_port()?, SocketAddr::from(([127, 0, 0, 1], free_port()?)));
    let program = std::env::current_exe().map_err(|error| format!("no program to start: {error}"))?;
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let host = json!({"process": {"program": program, "args": model(listen)}});
    let mut hosted = Hosted::start(args, port, &host, &Value::Null).await?;
    let (mut hand, mut agent) = (Vec::new(), Vec::new());
    for turn in 0..WARM_UP + args.processes {
        let began = hosted.clock.elapsed();
        let mut command = Command::new(&program);
        command.args(model(by_hand)).stdin(Stdio::null()).stdout(Stdio::null());
        let child = Running(command.spawn().map_err(|error| format!("no {}: {error}", program.display()))?);
        let order = millis(hosted.clock.elapsed() - began);
        ask_by_hand(by_hand, &hosted.clock).await?;
        let whole = millis(hosted.clock.elapsed() - began);
        drop(child);
        let took = hosted.ask(turn).await?;
        if turn >= WARM_UP {
            hand.push(Took { whole, order });
            agent.push(took);
        }
    }
    println!("\nA cold start of a process and its first answer, {} times, by turns", args.processes);
    print(&hand, &agent);
    Ok(())
}

pub(super) async fn containers(args: &Args) -> Result<(), String> {
    let engine = match Engine::of_machine() {
        Ok(engine) => engine,
        Err(why) => {
            println!("\nNo containers: {why}");
            return Ok(());
        }
    };
    let command = model(SocketAddr::from(([0, 0, 0, 0], PORT)));
    let image = engine.image()?;
    let program = image.program.clone();
    let command: Vec<String> = std::iter::once(program).chain(command).collect();
    let host = json!({"stop_grace": "0s", "container": {"image": image.name, "command": command}});
    let trust =
        json!({"address": engine.address, "trust": "create", "images": [image.name], "pull": "never"});
    let by_hand = engine.container(&image, &command)?;
    let mut hosted = Hosted::start(args, PORT, &host, &trust).await?;
    let (mut hand, mut agent) = (Vec::new(), Vec::new());
    for turn in 0..WARM_UP + args.containers {
        let began = hosted.clock.elapsed();
        by_hand.start()?;
        let order = millis(hosted.clock.elapsed() - began);
        ask_by_hand(SocketAddr::new(by_hand.address()?, PORT), &hosted.clock).await?;
        let whole = millis(hosted.clock.elapsed() - began);
        by_hand.kill()?;
        let took = hosted.ask(turn).await?;
        if turn >= WARM_UP {
            hand.push(Took { whole, order });
            agent.push(took);
        }
    }
    hosted.remove(&engine)?;
    println!(
        "\nA cold start of a container that is made, and its first answer, {} times, by turns",
        hand.len()
    );
    print(&hand, &agent);
    println!("The engine's own order to start, and the rest:");
    let orders = [&hand, &agent].map(|all| all.iter().map(|took| took.order).collect::<Vec<_>>());
    let rests = [&hand, &agent].map(|all| all.iter().map(|took| took.whole - took.order).collect::<Vec<_>>());
    let [[by_hand, as_agent], [rest_by_hand, rest_as_agent]] =
        [orders, rests].map(|pair| pair.map(|mut samples| shares(&mut samples)));
    row("order, by hand, ms", by_hand, None);
    row("order, agent.send, ms", as_agent, None);
    row("rest, by hand, ms", rest_by_hand, None);
    row("rest, agent.send, ms", rest_as_agent, None);
    row("rest, added, ms", difference(rest_as_agent, rest_by_hand), Some(ADDED_GOAL_MS));
    Ok(())
}

/// Where a container answers.
const PORT: u16 = 8000;

/// The arguments with which this program is a model server that answers at once.
fn model(listen: SocketAddr) -> Vec<String> {
    ["peer", "model", "--after-ms", "0", "--listen", &listen.to_string()].map(str::to_owned).into()
}

fn print(hand: &[Took], agent: &[Took]) {
    println!("{:<22} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p95", "p99", "goal p99");
    let [by_hand, as_agent] =
        [hand, agent].map(|all| shares(&mut all.iter().map(|took| took.whole).collect::<Vec<_>>()));
    row("by hand, ms", by_hand, None);
    row("agent.send, ms", as_agent, None);
    row("added, ms", difference(as_agent, by_hand), Some(ADDED_GOAL_MS));
}

fn shares(samples: &mut [f64]) -> [f64; 3] {
    SHARES.map(|share| quantile(samples, share))
}

fn difference(more: [f64; 3], less: [f64; 3]) -> [f64; 3] {
    [0, 1, 2].map(|i| more[i] - less[i])
}

fn row(name: &str, [p50, p95, p99]: [f64; 3], goal: Option<f64>) {
    let goal = goal.map_or_else(String::new, |goal| format!("<= {goal}"));
    println!("{name:<22} {p50:>9.2} {p95:>9.2} {p99:>9.2} {goal:>9}");
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// Asks as soon as there is somebody to ask.
async fn ask_by_hand(address: SocketAddr, clock: &Clock) -> Result<(), String> {
    let given_up = clock.elapsed() + LIMIT;
    let mut connection = loop {
        match http::Connection::open(address).await {
            Ok(connection) => break connection,
            Err(error) if clock.elapsed() > given_up => return Err(format!("no {address}: {error}")),
            Err(_) => std::thread::park_timeout(Duration::from_micros(100)),
        }
    };
    let answer = connection.post("/v1/chat/completions", QUESTION).await;
    let answer = answer.map_err(|error| format!("no answer from {address}: {error}"))?;
    if answer.contains("choices") { Ok(()) } else { Err(format!("a strange answer: {answer}")) }
}

/// A server with one agent that is cold.
struct Hosted {
    _server: Server,
    client: Client,
    connection: Connection,
    clock: Clock,
    data_dir: PathBuf,
}

impl Hosted {
    async fn start(args: &Args, port: u16, host: &Value, engine: &Value) -> Result<Self, String> {
        let mut instance = json!({"port": port, "idle_after": "1h"});
        for (key, value) in host.as_object().into_iter().flatten() {
            instance[key] = value.clone();
        }
        let mut config = json!({
            "providers": {"own": {"kind": "openai", "stream": false, "retries": 0}},
            "agents": {AGENT: {"provider": "own", "model": "m", "instance": instance}},
        });
        if !engine.is_null() {
            config["engine"] = engine.clone();
        }
        let server = Server::start(&args.binary, config).await?;
        let data_dir = server.data_dir();
        let client = Client::new(Target::DataDir(data_dir.clone())).map_err(|error| error.to_string())?;
        let connection = client.connect().await.map_err(|error| error.to_string())?;
        Ok(Self { _server: server, client, connection, clock: Clock::system(), data_dir })
    }

    /// Sends a message to the agent, and stops its instance then.
    async fn ask(&mut self, turn: u32) -> Result<Took, String> {
        let began = self.clock.elapsed();
        let session = format!("s{turn}");
        let params = json!({"agent": AGENT, "session": session, "message": "hello"});
        self.call("agent.send", params).await?;
        let whole = millis(self.clock.elapsed() - began);
        self.call("lifecycle.stop", json!({"instance": AGENT})).await?;
        let given_up = self.clock.elapsed() + LIMIT;
        loop {
            let state = self.state().await?;
            let counts = &state["lifecycle_metrics"];
            let (starts, stops) = (counts["lazy_start"].as_u64(), counts["lazy_stop"].as_u64());
            // The rows come a little after what they tell.
            if state["lifecycle_state"] == "cold" && [starts, stops] == [Some(u64::from(turn) + 1); 2] {
                break;
            }
            if self.clock.elapsed() > given_up {
                return Err(format!("message {turn} was not one start and one stop: {state}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Took { whole, order: self.order().await? })
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.connection.call(method, params).await.map_err(|error| error.to_string())?;
        self.connection.answer(id, |_, _| {}).await.map_err(|error| format!("{method}: {error}"))
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let answer = self.client.get(path).await.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }

    async fn state(&self) -> Result<Value, String> {
        Ok(self.get("/agents").await?["agents"][0]["state"].clone())
    }

    /// What the last order to start took.
    async fn order(&self) -> Result<f64, String> {
        let page = self.get(&format!("/audit?stream=instance/{AGENT}&kind=lazy_start&limit=1")).await?;
        let order = page["records"][0]["detail"]["start_ms"].as_f64();
        order.ok_or_else(|| format!("no start in the journal: {page}"))
    }

    /// Removes the containers that were made for it.
    fn remove(self, engine: &Engine) -> Result<(), String> {
        let owner = std::fs::read_to_string(self.data_dir.join("id")).unwrap_or_default();
        drop(self);
        engine.remove_of(owner.trim())
    }
}
