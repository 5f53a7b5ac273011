//! Budgets that could not be kept: in dollars, for a model without a price, and with nothing to bound the overshoot.

use super::{Config, ConfigProblem, KeyPath, Node};
use crate::gateway::AgentConfig;
use crate::provider::{self, Dialect};

/// A warning for each agent whose dollars a day cannot be counted.
pub(super) fn unpriced(config: &Config, root: &Node) -> Vec<ConfigProblem> {
    config.every_agent().filter_map(|(path, agent)| of_agent(config, root, &path, agent)).collect()
}

/// A warning for each agent that may have any number of calls in flight when its budget is used up.
pub(super) fn unbounded(config: &Config, root: &Node) -> Vec<ConfigProblem> {
    let of_agent = |(path, agent): (KeyPath, &AgentConfig)| {
        let key =
            agent.usd_per_day.map(|_| "usd_per_day").or(agent.tokens_per_min.map(|_| "tokens_per_min"))?;
        let alone = matches!(config.providers.get(&agent.provider)?, provider::Config::Exec(_));
        if alone || agent.max_concurrent.is_some() {
            return None;
        }
        let path = path.key(key);
        let message = format!(
            "can be overshot by all calls in flight, up to {} at once: give the agent `max_concurrent`",
            config.gateway.running_max
        );
        Some(ConfigProblem::new(root.origin(&path), path, message))
    };
    config.every_agent().filter_map(of_agent).collect()
}

fn of_agent(config: &Config, root: &Node, path: &KeyPath, agent: &AgentConfig) -> Option<ConfigProblem> {
    agent.usd_per_day?;
    let path = path.key("usd_per_day");
    let warning = |message: &str| Some(ConfigProblem::new(root.origin(&path), path.clone(), message));
    let model = match config.providers.get(&agent.provider)? {
        // These may tell what they cost, and their word counts. Claude Code does at the end of a turn, if it comes to it.
        provider::Config::Exec(exec) if exec.dialect == Dialect::ClaudeCode && config.prices.is_empty() => {
            return warning(
                "does not count turns that are cancelled or run out of time: Claude Code says what a turn cost at \
                 its end only; give its models' `prices:` for the others",
            );
        }
        provider::Config::Exec(exec)
            if exec.dialect == Dialect::Plimsoll && agent.model.is_none() && config.prices.is_empty() =>
        {
            return warning(
                "counts only what the program itself says that it cost (`cost_usd`): name the agent's `model` and give its \
                 `prices:` for all else, such as turns that are stopped",
            );
        }
        provider::Config::Exec(exec) if matches!(exec.dialect, Dialect::ClaudeCode | Dialect::Plimsoll) => {
            return None;
        }
        provider::Config::Echo(_) => Some(agent.model.as_deref().unwrap_or("echo")),
        provider::Config::Exec(_) | provider::Config::OpenAi(_) | provider::Config::Anthropic(_) => {
            agent.model.as_deref()
        }
    };
    if model.is_some_and(|model| provider::price_of(&config.prices, model).is_some()) {
        return None;
    }
    warning("cannot be counted: the agent's model has no entry under `prices:`")
}
