//! What was spent by requests whose records the journal lost: written as a record of its own once it takes records again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Meter;
use super::account::{Lost, Spent};
use super::window::Minute;
use crate::clock::Timestamp;
use crate::gateway::UsageAmounts;
use crate::ids::{AgentId, RequestId};
use crate::journal::{Actor, Append, Journal, NewRecord, StreamId};
use crate::units::Money;

/// The kind of the record.
pub const SPEND_LOST: &str = "spend_lost";

/// The version of its detail.
const SPEND_LOST_VERSION: u16 = 1;

/// How long to wait before the journal is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The detail of `spend_lost`, version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpendLost {
    pub(super) agent: AgentId,
    /// When the last of the requests ended; all did in the same quarter of an hour.
    pub(super) at: Timestamp,
    pub(super) requests: u64,
    pub(super) usd: f64,
    pub(super) estimated_usd: f64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) estimated_tokens: u64,
    /// Those of its tokens that count in the minute in which this is written, by the second.
    tokens_by_second: Minute,
    /// The same of the requests, by when they were let in.
    requests_by_second: Minute,
}

impl SpendLost {
    /// As it is written at `now`.
    fn new(agent: &AgentId, lost: &Lost, now: Timestamp) -> Self {
        let Lost { requests, at, spent, ref tokens, ref arrivals } = *lost;
        Self {
            agent: agent.clone(),
            at,
            requests,
            usd: spent.usd.usd(),
            estimated_usd: spent.estimated_usd.usd(),
            input_tokens: spent.input_tokens,
            output_tokens: spent.output_tokens,
            estimated_tokens: spent.estimated_tokens,
            tokens_by_second: tokens.at(now),
            requests_by_second: arrivals.at(now),
        }
    }

    /// As what it is in `usage`.
    pub(super) fn used(&self) -> UsageAmounts {
        UsageAmounts {
            requests: self.requests,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cost_usd: Some(self.usd),
            estimated_tokens: self.estimated_tokens,
            estimated_usd: Some(self.estimated_usd),
            ..UsageAmounts::default()
        }
    }

    pub(super) fn lost(&self) -> Lost {
        Lost {
            requests: self.requests,
            at: self.at,
            spent: Spent {
                usd: Money::of_usd(self.usd),
                estimated_usd: Money::of_usd(self.estimated_usd),
                input_tokens: self.input_tokens,
                output_tokens: self.output_tokens,
                estimated_tokens: self.estimated_tokens,
            },
            tokens: self.tokens_by_second.clone(),
            arrivals: self.requests_by_second.clone(),
        }
    }
}

impl Meter {
    /// The record of a request that [ended](Meter::ended) is lost.
    pub(in crate::gateway) fn record_lost(&self, agent: &AgentId, request: &RequestId, spent: Spent) {
        let mut state = self.state();
        let account = state.accounts.get_mut(agent);
        if account.is_some_and(|account| account.record_lost(request, spent)) {
            self.lost.notify_one();
        }
    }

    /// Writes what is lost, and which budgets are used up, whenever there is something, until it is told to stop. What it is writing then is waited for.
    pub(in crate::gateway) async fn keep_books(&self, journal: &dyn Journal, stop: &CancellationToken) {
        while stop.run_until_cancelled(self.lost.notified()).await.is_some() {
            while !self.write_lost(journal).await {
                if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Writes what is lost, and which budgets are used up; whether the journal took it.
    pub(in crate::gateway) async fn write_lost(&self, journal: &dyn Journal) -> bool {
        let _alone = self.writing.lock().await;
        let agents: Vec<_> = self.state().accounts.keys().cloned().collect();
        let mut well = self.write_reached(journal).await;
        for agent in agents {
            let lost = self.state().accounts.entry(agent.clone()).or_default().take_lost();
            if lost.is_empty() {
                continue;
            }
            let now = self.state().timeline.now_of(&self.clock);
            let record = |lost| NewRecord {
                kind: SPEND_LOST,
                version: SPEND_LOST_VERSION,
                actor: Actor::System,
                trace_id: None,
                detail: serde_json::to_value(SpendLost::new(&agent, lost, now))
                    .expect("names and numbers are JSON"),
            };
            let records = lost.iter().map(record).collect();
            let append = Append { stream: StreamId::request(), expected_last_seq: None, records };
            if journal.append(append).await.is_err() {
                // An append that failed is known not to have landed.
                self.state().accounts.entry(agent).or_default().writing_failed(&lost);
                well = false;
            }
        }
        well
    }
}
