//! Agents whose model calls fail again and again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::ModelCall;
use crate::clock::Timestamp;
use crate::ids::AgentId;
use crate::limits::MODEL_FAILURES_DEGRADED;

/// How calls end that say nothing of the provider: somebody cancelled, or plimsoll itself had enough.
const NEUTRAL: [&str; 3] = ["answer_too_large", "cancelled", "panic"];

/// Model calls that fail again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailingAgents {
    /// Agents whose last [`MODEL_FAILURES_DEGRADED`] calls failed.
    pub agents: usize,
    /// When the first of all these calls ended.
    pub since: Timestamp,
}

/// The failed calls of each agent since its last good one. A std mutex suffices: a hold is one look-up.
#[derive(Default)]
pub(super) struct Streaks(Mutex<HashMap<AgentId, Streak>>);

struct Streak {
    calls: u64,
    since: Timestamp,
}

impl Streaks {
    pub(super) fn note(&self, call: &ModelCall) {
        let mut streaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match call.error.as_deref() {
            None if streaks.is_empty() => {}
            None => {
                streaks.remove(&call.agent);
            }
            Some(error) if NEUTRAL.contains(&error) => {}
            Some(_) => {
                let new = Streak { calls: 0, since: call.timestamp };
                streaks.entry(call.agent.clone()).or_insert(new).calls += 1;
            }
        }
    }

    pub(super) fn forget(&self, agent: &AgentId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
    }

    pub(super) fn failing(&self) -> Option<FailingAgents> {
        let streaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let long = streaks.values().filter(|streak| streak.calls >= MODEL_FAILURES_DEGRADED);
        let since = long.clone().map(|streak| streak.since).min()?;
        Some(FailingAgents { agents: long.count(), since })
    }
}
