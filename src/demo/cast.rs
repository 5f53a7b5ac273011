//! Who plays in the demo: agents of one small team, each with a temper of its own, beside the crew of its town.

use std::collections::BTreeMap;
use std::time::Duration;

use super::crew;
use crate::gateway::AgentConfig;
use crate::ids::AgentId;
use crate::lifecycle::{InstanceConfig, ScriptedAct, ScriptedHost};
use crate::provider::{Config as ProviderConfig, EchoConfig, Price};
use crate::units::Period;

/// One agent of the demo.
#[derive(Debug)]
pub struct Member {
    /// Its id.
    pub name: &'static str,
    /// What it is for.
    pub role: &'static str,
    /// The model it claims.
    pub model: &'static str,
    /// How long it thinks, in milliseconds.
    pub latency_ms: u64,
    /// The share of its answers that fail.
    pub failure_rate: f64,
    /// The share of its answers that call a tool.
    pub tool_rate: f64,
    /// Its requests that run at once, where that is few.
    pub max_concurrent: Option<usize>,
    /// US dollars that it may spend in a day, where that is limited.
    pub usd_per_day: Option<f64>,
    /// How often it is asked, beside the others; 0 is only where something goes wrong on purpose.
    pub weight: u32,
    /// Whether it starts when it is asked, and stops soon after.
    pub lazy: bool,
}

/// The one that is asked for more than it can do where requests are to wait. Nobody else asks it, so nobody waits long for
/// an answer, and all is well again as soon as the batch is taken back.
pub(super) const BATCH_AGENT: &str = "registrar";

/// All agents of the demo that people talk to.
pub const AGENTS: &[Member] = &[
    Member {
        name: "greeter",
        role: "chat",
        model: "demo-small",
        latency_ms: 15,
        failure_rate: 0.0,
        tool_rate: 0.0,
        max_concurrent: None,
        usd_per_day: None,
        weight: 40,
        lazy: false,
    },
    Member {
        name: "reviewer",
        role: "review",
        model: "demo-large",
        latency_ms: 300,
        failure_rate: 0.01,
        tool_rate: 0.6,
        max_concurrent: None,
        // The load costs about 40 in a day; from 80 % on an alert tells.
        usd_per_day: Some(100.0),
        weight: 25,
        lazy: false,
    },
    Member {
        name: "researcher",
        role: "research",
        model: "demo-large",
        latency_ms: 900,
        failure_rate: 0.04,
        tool_rate: 0.8,
        max_concurrent: Some(8),
        usd_per_day: None,
        weight: 15,
        lazy: false,
    },
    Member {
        name: "flaky",
        role: "try-out",
        model: "demo-experimental",
        latency_ms: 120,
        // So that under 6 % of all requests fail: more is what an alert is about.
        failure_rate: 0.15,
        tool_rate: 0.2,
        max_concurrent: None,
        usd_per_day: None,
        weight: 12,
        lazy: false,
    },
    Member {
        name: "archivist",
        role: "batch",
        model: "demo-large",
        latency_ms: 2_500,
        failure_rate: 0.02,
        tool_rate: 0.3,
        max_concurrent: Some(3),
        usd_per_day: None,
        weight: 8,
        lazy: false,
    },
    Member {
        name: BATCH_AGENT,
        role: "batch",
        model: "demo-small",
        latency_ms: 2_500,
        failure_rate: 0.0,
        tool_rate: 0.0,
        max_concurrent: Some(3),
        usd_per_day: None,
        weight: 0,
        lazy: false,
    },
    Member {
        name: "translator",
        role: "translation",
        model: "demo-small",
        latency_ms: 40,
        failure_rate: 0.0,
        tool_rate: 0.0,
        max_concurrent: None,
        usd_per_day: None,
        weight: 1,
        lazy: true,
    },
];

/// The demo's providers: one per agent, because each has its own temper.
#[must_use]
pub fn providers(seed: u64) -> BTreeMap<String, ProviderConfig> {
    let one = |(index, member): (u64, &Member)| {
        let echo = EchoConfig {
            latency: Period(Duration::from_millis(member.latency_ms)),
            failure_rate: member.failure_rate,
            tool_rate: member.tool_rate,
            tool_failure_rate: 0.1,
            seed: seed.wrapping_add(index),
        };
        (member.name.to_owned(), ProviderConfig::Echo(echo))
    };
    (0..).zip(AGENTS).map(one).chain(crew::providers(seed)).collect()
}

/// The demo's agents, its town's crew among them.
#[must_use]
pub fn agents() -> BTreeMap<AgentId, AgentConfig> {
    let one = |member: &Member| {
        let config = AgentConfig {
            model: Some(member.model.to_owned()),
            role: Some(member.role.to_owned()),
            max_concurrent: member.max_concurrent,
            usd_per_day: member.usd_per_day,
            instance: member.lazy.then(fails_to_start_now_and_then),
            ..AgentConfig::of_provider(member.name)
        };
        (id(member.name), config)
    };
    AGENTS.iter().map(one).chain(crew::agents()).collect()
}

pub(super) fn id(name: &str) -> AgentId {
    AgentId::parse(name).expect("every name of the demo is an id: a test reads them all")
}

/// One that takes a moment to start, and fails now and then.
pub(super) fn fails_to_start_now_and_then() -> InstanceConfig {
    let takes = |millis| ScriptedAct { takes: Period::from_millis(millis), fails: false };
    let fails = ScriptedAct { fails: true, ..takes(700) };
    // One of sixty, early: with four starts a minute never three in twenty minutes, which an alert is about.
    let works = [400, 550, 350, 900, 450].map(takes);
    let starts = (0..60).zip(works.into_iter().cycle());
    let starts = starts.map(|(n, works)| if n == 2 { fails } else { works }).collect();
    InstanceConfig::scripted(Period::from_secs(2), ScriptedHost { starts, stops: vec![takes(120)] })
}

/// Prices of all models but the experimental one, which shows what an unpriced model looks like.
#[must_use]
pub fn prices() -> BTreeMap<String, Price> {
    let price = |input, output| Price { input, output, cache_read: None, cache_write: None };
    BTreeMap::from([
        ("demo-small".to_owned(), price(0.25, 1.25)),
        ("demo-large".to_owned(), price(3.0, 15.0)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_has_its_provider() {
        let providers = providers(1);
        let agents = agents();
        assert_eq!(agents.len(), AGENTS.len() + crew::CREW.len());
        assert!(agents.values().all(|agent| providers.contains_key(&agent.provider)));
    }
}
