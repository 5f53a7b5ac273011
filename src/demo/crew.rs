//! Who works in the demo's town: workers that fail now and then, each in a way of its own, and who review their work.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cast::{fails_to_start_now_and_then, id};
use crate::gateway::AgentConfig;
use crate::ids::{AgentId, TownId};
use crate::provider::{Config as ProviderConfig, EchoConfig};
use crate::reconciler::{MemberConfig, TownConfig};
use crate::town::Policy;
use crate::town::policy::{BreakerPolicy, DispatchPolicy, ReviewPolicy};
use crate::town::words::Role;
use crate::units::Period;

/// The name of the demo's town.
pub const TOWN: &str = "main";

/// One of the crew.
#[derive(Debug)]
pub struct Hand {
    /// Its id.
    pub name: &'static str,
    /// What it is there for.
    pub role: Role,
    /// How long a piece of work takes it, in milliseconds.
    pub latency_ms: u64,
    /// The share of its work that fails.
    pub failure_rate: f64,
    /// The share of its work for which it calls a tool.
    pub tool_rate: f64,
    /// What it takes in a minute, where that is limited: past it nothing is given to it for a while.
    pub requests_per_min: Option<u32>,
    /// Whether it starts when it is needed, and fails to now and then.
    pub lazy: bool,
}

const HAND: Hand = Hand {
    name: "",
    role: Role::Worker,
    latency_ms: 1_000,
    failure_rate: 0.1,
    tool_rate: 0.5,
    requests_per_min: None,
    lazy: false,
};

/// All of them.
pub const CREW: &[Hand] = &[
    Hand { name: "carpenter", latency_ms: 1_800, failure_rate: 0.15, ..HAND },
    Hand { name: "inspector", role: Role::Reviewer, latency_ms: 700, failure_rate: 0.05, ..HAND },
    Hand { name: "mason", latency_ms: 1_200, failure_rate: 0.2, ..HAND },
    Hand { name: "smith", latency_ms: 2_600, failure_rate: 0.05, lazy: true, ..HAND },
    Hand { name: "warden", role: Role::Reviewer, latency_ms: 900, failure_rate: 0.05, ..HAND },
    // Asked when all others are busy, and soon too often.
    Hand { name: "weaver", latency_ms: 900, requests_per_min: Some(1), ..HAND },
];

/// Their providers.
pub(super) fn providers(seed: u64) -> impl Iterator<Item = (String, ProviderConfig)> {
    (0..).zip(CREW).map(move |(index, hand)| {
        let echo = EchoConfig {
            latency: Period(Duration::from_millis(hand.latency_ms)),
            failure_rate: hand.failure_rate,
            tool_rate: hand.tool_rate,
            tool_failure_rate: 0.1,
            seed: seed.wrapping_add(1_000 + index),
        };
        (hand.name.to_owned(), ProviderConfig::Echo(echo))
    })
}

/// Their entries under `agents:`.
pub(super) fn agents() -> impl Iterator<Item = (AgentId, AgentConfig)> {
    CREW.iter().map(|hand| {
        let config = AgentConfig {
            model: Some("demo-large".to_owned()),
            role: Some("town".to_owned()),
            requests_per_min: hand.requests_per_min,
            instance: hand.lazy.then(fails_to_start_now_and_then),
            ..AgentConfig::of_provider(hand.name)
        };
        (id(hand.name), config)
    })
}

/// The id of the demo's town.
#[must_use]
pub fn town() -> TownId {
    TownId::parse(TOWN).expect("it keeps the rule")
}

/// The demo's town: work is reviewed, and what failed is tried again so soon that it is seen within a minute.
#[must_use]
pub fn towns() -> BTreeMap<TownId, TownConfig> {
    let member = |hand: &Hand| (id(hand.name), MemberConfig { role: hand.role, nudge: None });
    let policy = Policy {
        dispatch: DispatchPolicy {
            backoff: [2, 5, 10].map(Period::from_secs).to_vec(),
            deadline: Period::from_secs(60),
            ..DispatchPolicy::default()
        },
        breaker: BreakerPolicy {
            window: Period::from_secs(60),
            probe_after: Period::from_secs(15),
            beads: 20,
        },
        review: ReviewPolicy { enabled: true, ..ReviewPolicy::default() },
        ..Policy::default()
    };
    BTreeMap::from([(town(), TownConfig { agents: Some(CREW.iter().map(member).collect()), policy })])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_town_has_work_for_all_of_the_crew_and_a_policy_that_holds() {
        let towns = towns();
        let town = &towns[&town()];
        assert_eq!(town.policy.problems(), []);
        let agents: BTreeMap<_, _> = agents().collect();
        assert!(town.members().all(|(id, _)| agents.contains_key(id)));
        assert_eq!(town.members().count(), CREW.len());
    }
}
