//! What was spent by requests whose records the journal lost: written as a record of its own once it takes records again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::account::{Lost, Spent};
use super::window::Money;
use super::{Meter, State};
use crate::clock::Timestamp;
use crate::ids::{AgentId, RequestId};
use crate::journal::{Actor, Append, Journal, NewRecord, StreamId};

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
    pub(super) tokens: u64,
}

impl SpendLost {
    fn new(agent: &AgentId, lost: &Lost) -> Self {
        let Spent { money, tokens } = lost.spent;
        Self { agent: agent.clone(), at: lost.at, requests: lost.requests, usd: money.usd(), tokens }
    }

    pub(super) fn spent(&self) -> Spent {
        Spent { money: Money::of_usd(self.usd), tokens: self.tokens }
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

    /// Writes what is lost whenever there is something, for ever.
    pub(in crate::gateway) async fn keep_books(&self, journal: &dyn Journal) {
        loop {
            self.lost.notified().await;
            while !self.write_lost(journal).await {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Writes what is lost; whether the journal took it.
    pub(in crate::gateway) async fn write_lost(&self, journal: &dyn Journal) -> bool {
        let _alone = self.writing.lock().await;
        let taken = self.state().take_lost();
        let mut well = true;
        for (agent, details) in taken {
            let record = |detail: &SpendLost| NewRecord {
                kind: SPEND_LOST,
                version: SPEND_LOST_VERSION,
                actor: Actor::System,
                trace_id: None,
                detail: serde_json::to_value(detail).expect("names and numbers are JSON"),
            };
            let records = details.iter().map(record).collect();
            let append = Append { stream: StreamId::request(), expected_last_seq: None, records };
            if journal.append(append).await.is_err() {
                // An append that failed is known not to have landed.
                self.state().accounts.entry(agent).or_default().writing_failed();
                well = false;
            }
        }
        well
    }
}

impl State {
    fn take_lost(&mut self) -> Vec<(AgentId, Vec<SpendLost>)> {
        let of_agent = |(id, account): (&AgentId, &mut super::Account)| {
            let lost: Vec<_> = account.take_lost().iter().map(|lost| SpendLost::new(id, lost)).collect();
            (!lost.is_empty()).then(|| (id.clone(), lost))
        };
        self.accounts.iter_mut().filter_map(of_agent).collect()
    }
}
