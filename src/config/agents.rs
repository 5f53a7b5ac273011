//! What an entry of `agents:` or `templates:` may be, and what must fit together: of the files, and of those that come
//! over the API.

use std::collections::BTreeMap;

use super::problem::{ConfigProblem, KeyPath, nearest};
use super::tree::Node;
use super::validate::{Checks, DAY, SECOND};
use crate::ids::AgentId;
use crate::lifecycle::EngineConfig;
use crate::{gateway, provider};

/// What an agent has to fit.
pub(crate) struct Surroundings<'a> {
    pub(crate) running_max: usize,
    pub(crate) providers: &'a BTreeMap<String, provider::Config>,
    pub(crate) engine: &'a EngineConfig,
}

/// Checks one agent; `root` says where it stands.
pub(crate) fn validate_agent(
    id: &AgentId,
    agent: &gateway::AgentConfig,
    place: &Surroundings<'_>,
    root: &Node,
) -> Vec<ConfigProblem> {
    let mut checks = Checks { root, problems: Vec::new() };
    let names: Vec<&str> = place.providers.keys().map(String::as_str).collect();
    checks.whole_agent(&KeyPath::of(&["agents", id.as_str()]), agent, place, &names);
    checks.problems
}

impl Checks<'_> {
    pub(super) fn whole_agent(
        &mut self,
        path: &KeyPath,
        agent: &gateway::AgentConfig,
        place: &Surroundings<'_>,
        names: &[&str],
    ) {
        let provider = place.providers.get(&agent.provider);
        self.agent(path, agent, place.running_max, names);
        self.model(path, agent, provider);
        self.hosting(path, agent, provider, place.engine);
    }

    fn agent(
        &mut self,
        path: &KeyPath,
        agent: &gateway::AgentConfig,
        running_max: usize,
        providers: &[&str],
    ) {
        let gateway::AgentConfig {
            provider,
            model: _,
            system: _,
            role: _,
            cwd: _,
            max_concurrent,
            usd_per_day,
            tokens_per_min,
            requests_per_min,
            deadline,
            tools: _,
            instance: _,
        } = agent;
        if !providers.contains(&provider.as_str()) {
            let near = nearest(provider, providers.iter().copied());
            let near = near.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
            self.wrong(&path.key("provider"), format!("no such key under `providers:`{near}"));
        }
        if let Some(max) = max_concurrent {
            self.range(&path.key("max_concurrent"), *max, 1..=running_max.max(1));
        }
        if let Some(dollars) = usd_per_day {
            self.range(&path.key("usd_per_day"), *dollars, 0.0..=1_000_000.0);
        }
        if let Some(tokens) = tokens_per_min {
            self.range(&path.key("tokens_per_min"), *tokens, 1..=1_000_000_000);
        }
        if let Some(requests) = requests_per_min {
            self.range(&path.key("requests_per_min"), *requests, 1..=1_000_000);
        }
        if let Some(deadline) = deadline {
            self.period(&path.key("deadline"), *deadline, SECOND..=DAY);
        }
    }

    /// A server that is asked for no model in particular refuses, or takes one that nobody chose.
    fn model(&mut self, path: &KeyPath, agent: &gateway::AgentConfig, provider: Option<&provider::Config>) {
        let whole = !self.root.get(&path.0).is_some_and(Node::has_refused);
        let unnamed = agent.model.as_deref().is_none_or(str::is_empty);
        match provider {
            Some(provider::Config::OpenAi(_) | provider::Config::Anthropic(_)) if unnamed && whole => self
                .wrong(&path.key("model"), "the key is missing: a model's API is asked for a model by name"),
            Some(provider::Config::Exec(_)) if agent.cwd.is_none() && whole => self.wrong(
                &path.key("cwd"),
                "the key is missing: an agent of `kind: exec` works in a directory of its own",
            ),
            Some(provider::Config::Exec(exec)) => {
                let problem = agent.system.as_deref().and_then(|system| exec.refuses_system(system));
                problem.into_iter().for_each(|problem| self.wrong(&path.key("system"), problem));
            }
            Some(provider::Config::OpenAi(_) | provider::Config::Anthropic(_)) => {}
            Some(provider::Config::Echo(_)) | None => {}
        }
    }
}
