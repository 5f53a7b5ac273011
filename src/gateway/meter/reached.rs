//! That an agent's budget of the day is used up: a record of its own, once a day and agent, also over restarts.

use serde::{Deserialize, Serialize};

use super::Meter;
use crate::clock::Timestamp;
use crate::ids::AgentId;
use crate::journal::{Actor, Append, Journal, NewRecord, Record, StreamId};
use crate::units::Money;

/// The kind of the record.
pub const BUDGET_REACHED: &str = "budget_reached";

/// The version of its detail.
const BUDGET_REACHED_VERSION: u16 = 1;

/// The detail of `budget_reached`, version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BudgetReached {
    agent: AgentId,
    /// What it spent that day.
    usd: f64,
    /// What it may.
    budget_usd: f64,
    /// When the day ends.
    until: Timestamp,
}

impl BudgetReached {
    pub(super) fn new(agent: &AgentId, spent: Money, budget: Money, until: Timestamp) -> Self {
        Self { agent: agent.clone(), usd: spent.usd(), budget_usd: budget.usd(), until }
    }

    fn record(&self) -> NewRecord {
        NewRecord {
            kind: BUDGET_REACHED,
            version: BUDGET_REACHED_VERSION,
            actor: Actor::System,
            trace_id: None,
            detail: serde_json::to_value(self).expect("names and numbers are JSON"),
        }
    }
}

impl Meter {
    /// Writes which budgets are used up; whether the journal took it.
    pub(super) async fn write_reached(&self, journal: &dyn Journal) -> bool {
        let reached = std::mem::take(&mut self.state().reached);
        let mut well = true;
        for reached in reached {
            let records = vec![reached.record()];
            let append = Append { stream: StreamId::request(), expected_last_seq: None, records };
            if journal.append(append).await.is_err() {
                self.state().reached.push(reached);
                well = false;
            }
        }
        well
    }

    /// Takes in that a budget was used up, so that it is not written again that day.
    pub(super) fn fold_reached(&self, record: &Record) {
        let Ok(reached) = BudgetReached::deserialize(&record.detail) else {
            tracing::warn!(seq = record.seq.0, "that a budget was used up may be recorded twice");
            return;
        };
        self.state().accounts.entry(reached.agent).or_default().saw_reached(reached.until);
    }
}
