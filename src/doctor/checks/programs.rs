//! Do the programs and the processes of agents find their directories and variables? Whether the programs are there,
//! `providers` and `processes` say.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::super::Verdict;
use super::super::scene::Scene;
use super::NO_CONFIGURATION;
use crate::config::Config;
use crate::gateway::AgentConfig;
use crate::provider;

pub(in crate::doctor) fn check(scene: &Scene) -> BoxFuture<'_, Verdict> {
    let verdict = match &scene.loaded {
        Ok(loaded) => look(&loaded.config, &scene.unset),
        Err(_) => Verdict::skip(NO_CONFIGURATION),
    };
    ready(verdict).boxed()
}

fn look(config: &Config, unset: &[String]) -> Verdict {
    let is_program = |name: &String| matches!(config.providers.get(name), Some(provider::Config::Exec(_)));
    let has_process = |agent: &AgentConfig| agent.instance.as_ref().is_some_and(|it| it.process.is_some());
    let agents = config.every_agent().filter(|(_, agent)| is_program(&agent.provider) || has_process(agent));
    let (mut seen, mut gone) = (Vec::new(), Vec::new());
    for (path, agent) in agents {
        // A configuration without it is refused.
        let Some(cwd) = &agent.cwd else { continue };
        match cwd.metadata() {
            Ok(found) if found.is_dir() => seen.push(format!("{path} works in {}", cwd.display())),
            Ok(_) => gone.push(format!("{path}.cwd: {} is no directory", cwd.display())),
            Err(error) => gone.push(format!("{path}.cwd: {}: {error}", cwd.display())),
        }
    }
    if !gone.is_empty() {
        return Verdict::fail(gone.join("\n"), "make the directory, or name the one that the agent works in");
    }
    if !unset.is_empty() {
        let detail = format!("variables of env_pass that are not set: {}", unset.join(", "));
        let advice =
            "set them where plimsoll is started, or take them from env_pass if the program has its own login";
        return Verdict::warn(detail, advice);
    }
    if seen.is_empty() {
        Verdict::skip("no agent is a program or has a process")
    } else {
        Verdict::pass(seen.join("\n"))
    }
}
