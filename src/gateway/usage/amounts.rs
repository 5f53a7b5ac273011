//! What requests used, as sums. Start at [`UsageAmounts`].

use serde::{Deserialize, Serialize};

use super::super::record::Outcome;
use crate::provider::ModelUsed;
use crate::units::Money;

/// What requests used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageAmounts {
    /// Requests that ended; by model, those that called it.
    pub requests: u64,
    /// Those among them that failed or ran out of time.
    pub failed: u64,
    /// Model calls.
    pub calls: u64,
    /// Tokens read, cache included, as far as they are known.
    pub input_tokens: u64,
    /// Tokens written, as far as they are known.
    pub output_tokens: u64,
    /// Tokens among those read that came from a cache.
    pub cache_read_tokens: u64,
    /// Tokens among those read that were written to a cache.
    pub cache_write_tokens: u64,
    /// US dollars of the calls whose cost is known; `null` where it is of none of them and some may be billed.
    pub cost_usd: Option<f64>,
    /// Tokens that calls were stopped before they said, or did not say, by the bytes of text.
    pub estimated_tokens: u64,
    /// US dollars of such calls, beside `costUsd`; `null` where none of them has a price. Budgets count both.
    pub estimated_usd: Option<f64>,
    /// Calls that may be billed and whose model has no price: they are not free, and in no dollars.
    pub unpriced: u64,
    /// Calls that may be billed and did not say their tokens.
    pub unreported: u64,
}

impl UsageAmounts {
    pub(super) fn of_request(outcome: Outcome) -> Self {
        let failed = match outcome {
            Outcome::Failed | Outcome::Deadline => 1,
            Outcome::Ok | Outcome::Cancelled | Outcome::Refused => 0,
        };
        Self { requests: 1, failed, ..Self::default() }
    }

    pub(super) fn add_calls(&mut self, used: &ModelUsed) {
        self.calls += used.calls;
        self.input_tokens = self.input_tokens.saturating_add(used.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(used.output_tokens);
        self.cache_read_tokens = self.cache_read_tokens.saturating_add(used.cache_read_tokens);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(used.cache_write_tokens);
        add_usd(&mut self.cost_usd, used.cost_usd);
        self.estimated_tokens = self.estimated_tokens.saturating_add(used.estimated_tokens);
        add_usd(&mut self.estimated_usd, used.estimated_usd);
        self.unpriced += used.unpriced;
        self.unreported += used.unreported;
    }

    pub(super) fn add(&mut self, more: &Self) {
        let Self {
            requests,
            failed,
            calls,
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
            cost_usd,
            estimated_tokens,
            estimated_usd,
            unpriced,
            unreported,
        } = *more;
        self.requests += requests;
        self.failed += failed;
        self.calls += calls;
        self.input_tokens = self.input_tokens.saturating_add(input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(output_tokens);
        self.cache_read_tokens = self.cache_read_tokens.saturating_add(cache_read_tokens);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(cache_write_tokens);
        add_usd(&mut self.cost_usd, cost_usd);
        self.estimated_tokens = self.estimated_tokens.saturating_add(estimated_tokens);
        add_usd(&mut self.estimated_usd, estimated_usd);
        self.unpriced += unpriced;
        self.unreported += unreported;
    }

    /// US dollars, known and estimated.
    pub(super) fn all_usd(&self) -> f64 {
        self.cost_usd.unwrap_or(0.0) + self.estimated_usd.unwrap_or(0.0)
    }

    /// As it is told: nothing is no dollars, unless what it cost has no price.
    pub(super) fn told(self) -> Self {
        let told = |usd: Option<f64>, unpriced: bool| {
            let nothing = if unpriced { None } else { Some(0.0) };
            usd.or(nothing).map(Money::clean)
        };
        let unpriced = self.unpriced > 0;
        Self {
            cost_usd: told(self.cost_usd, unpriced),
            estimated_usd: told(self.estimated_usd, unpriced && self.estimated_tokens > 0),
            ..self
        }
    }
}

fn add_usd(sum: &mut Option<f64>, more: Option<f64>) {
    *sum = more.map_or(*sum, |more| Some(sum.unwrap_or(0.0) + more));
}
