//! Tokens and money, model by model, in bounded memory.

use super::{Used, name};
use crate::provider::OTHER_MODELS;

/// Models of one turn that are counted one by one; what more there are is counted together, as [`OTHER_MODELS`].
const MODELS_MAX: usize = 32;

/// What was used so far. What the agent named a price of stays apart from what it did not: that has to be priced still.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Vec<Used>);

impl Tally {
    /// Adds what was used of one model.
    pub(super) fn add(&mut self, mut used: Used) {
        used.model = used.model.and_then(name);
        if self.join(&used) {
            return;
        }
        if self.0.len() >= MODELS_MAX {
            used.model = Some(OTHER_MODELS.to_owned());
            if self.join(&used) {
                return;
            }
        }
        self.0.push(used);
    }

    /// Whether there was one of the same kind to add it to.
    fn join(&mut self, used: &Used) -> bool {
        let same = |known: &&mut Used| {
            known.model == used.model && known.cost_usd.is_some() == used.cost_usd.is_some()
        };
        let known = self.0.iter_mut().find(same);
        known.map(|known| known.add(used.clone())).is_some()
    }

    /// Adds what was used of several.
    pub(super) fn extend(&mut self, all: impl IntoIterator<Item = Used>) {
        all.into_iter().for_each(|used| self.add(used));
    }

    /// Says why the model stopped that answered: the one of this name, or the first.
    pub(super) fn finish(&mut self, model: Option<&str>, reason: Option<String>) {
        let named = self.0.iter().position(|used| used.model.as_deref() == model);
        if let Some(used) = self.0.get_mut(named.unwrap_or(0)) {
            used.finish_reason = reason;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was used, in the order in which the models came.
    pub(super) fn used(&self) -> Vec<Used> {
        self.0.clone()
    }
}

impl Used {
    fn add(&mut self, other: Self) {
        let Self {
            model: _,
            input_tokens,
            cached_tokens,
            cache_write_tokens,
            output_tokens,
            cost_usd,
            finish_reason,
            uncounted,
            charged_later: _,
        } = other;
        self.input_tokens = sum(self.input_tokens, input_tokens);
        self.cached_tokens = sum(self.cached_tokens, cached_tokens);
        self.cache_write_tokens = sum(self.cache_write_tokens, cache_write_tokens);
        self.output_tokens = sum(self.output_tokens, output_tokens);
        self.cost_usd = self.cost_usd.zip(cost_usd).map(|(one, other)| one + other);
        self.finish_reason = finish_reason.or(self.finish_reason.take());
        self.uncounted = self.uncounted.saturating_add(uncounted);
    }
}

/// Counts together; what is not known adds nothing.
pub(super) fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    }
}

/// Money as an agent says it: a number that is none, or below nothing, is not known.
pub(super) fn dollars(amount: Option<f64>) -> Option<f64> {
    amount.filter(|amount| amount.is_finite() && *amount >= 0.0)
}
