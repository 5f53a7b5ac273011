//! Counters that every module steps: limits that were hit, things that were dropped, components that are up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::metric::{Counters, Gauges};
use super::metrics::{COMPONENT_UP, DROPPED, LIMIT_HITS};
use super::registry::Registry;

/// The handles of the counters that belong to no one module. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    limit_hits: Counters<1>,
    dropped: Counters<2>,
    component_up: Gauges<1>,
    components: Components,
}

/// What each component last said of itself. A std mutex suffices: a hold is one look-up.
pub(super) type Components = Arc<Mutex<BTreeMap<&'static str, Health>>>;

/// Whether a component does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Up,
    /// It does not.
    Down,
}

impl Shared {
    /// The handles in this registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            limit_hits: registry.counters(&LIMIT_HITS),
            dropped: registry.counters(&DROPPED),
            component_up: registry.gauges(&COMPONENT_UP),
            components: registry.components(),
        }
    }

    /// Counts a refusal by the limit of this name.
    pub fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.with([limit]).increment(1);
    }

    /// Makes the counter of a limit stand at 0 before it is first hit.
    pub fn expect_limit(&self, limit: &'static str) {
        let _born_at_zero = self.limit_hits.with([limit]);
    }

    /// Counts `count` things of this kind that were lost for this reason.
    pub fn dropped(&self, what: &'static str, reason: &'static str, count: u64) {
        self.dropped.with([what, reason]).increment(count);
    }

    /// Makes the counter of a loss stand at 0 before anything is lost.
    pub fn expect_dropped(&self, what: &'static str, reason: &'static str) {
        let _born_at_zero = self.dropped.with([what, reason]);
    }

    /// Says whether a component does its work.
    pub fn component(&self, component: &'static str, health: Health) {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).insert(component, health);
        self.component_up.with([component]).set(match health {
            Health::Up => 1.0,
            Health::Down => 0.0,
        });
    }

    /// What a component last said of itself; `None` if it is not there.
    #[must_use]
    pub fn health_of(&self, component: &str) -> Option<Health> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).get(component).copied()
    }
}
