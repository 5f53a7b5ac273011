//! Can the processes of instances be run, and are their ports theirs? Where they work, `programs` says.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::Verdict;
use super::super::scene::Scene;
use super::NO_CONFIGURATION;
use crate::ids::AgentId;
use crate::lifecycle::ProcessHost;
use crate::process::{Found, look_for};

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    look(scene).boxed()
}

async fn look(scene: &Scene) -> Verdict {
    let Ok(loaded) = &scene.loaded else { return Verdict::skip(NO_CONFIGURATION) };
    let instances =
        loaded.config.agents.iter().filter_map(|(id, agent)| Some((id, agent.instance.as_ref()?)));
    let hosted: Vec<_> = instances
        .filter_map(|(id, instance)| Some((id, instance.port, instance.process.as_ref()?)))
        .collect();
    // Nothing of a template runs before an agent is made of it, which may have taken its port by now.
    let templates = loaded.config.templates.iter();
    let templates = templates.filter_map(|(id, made)| Some((id, made.instance.as_ref()?.process.as_ref()?)));
    let templates: Vec<_> = templates.collect();
    if hosted.is_empty() && templates.is_empty() {
        return Verdict::skip("no agent has a process of its own");
    }
    let agents = scene.ask("/agents").await;
    let mut answers = Vec::new();
    for (id, number, process) in hosted {
        answers.extend([program(id.as_str(), process), port(id, number, agents.as_ref())]);
    }
    answers.extend(templates.iter().map(|(id, process)| program(&format!("template {id}"), process)));
    let failed = answers.iter().any(Result::is_err);
    let lines: Vec<_> = answers.into_iter().map(|answer| answer.unwrap_or_else(|line| line)).collect();
    if failed {
        let advice = "install the program or name it by its path; end what holds the port, or choose another `port`; \
                      other agents work without it";
        return Verdict::fail(lines.join("\n"), advice);
    }
    Verdict::pass(lines.join("\n"))
}

fn program(id: &str, host: &ProcessHost) -> Result<String, String> {
    let ProcessHost { program, args: _, env_pass: _, env } = host;
    match look_for(program, env.get("PATH").map(|path| path.expose())) {
        Found::Executable => Ok(format!("{id}: {program} can be run")),
        Found::NotExecutable => Err(format!("{id}: {program} may not be executed by this user: chmod +x it")),
        Found::Nothing => Err(format!("{id}: there is no program {program}")),
    }
}

/// `agents` is what a plimsoll that runs says of them.
fn port(id: &AgentId, port: u16, agents: Option<&Value>) -> Result<String, String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{id}: {address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && agents.is_some_and(|it| is_up(id, it)) => {
            Ok(format!("{id}: {address} is held by the instance that runs"))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Err(format!("{id}: {address} is in use by another program"))
        }
        Err(error) => Err(format!("{id}: {address} cannot be listened on: {error}")),
    }
}

/// Whether a plimsoll that runs has something of this instance running. Of one that starts with it, it does not tell.
fn is_up(id: &AgentId, agents: &Value) -> bool {
    let all = agents.get("agents").and_then(Value::as_array);
    let Some(agent) = all.and_then(|all| all.iter().find(|agent| agent["id"] == id.as_str())) else {
        return false;
    };
    let state = agent["state"]["lifecycle_state"].as_str();
    agent["mode"] == "process" && agent.get("failure").is_none() && !matches!(state, Some("cold" | "failed"))
}
