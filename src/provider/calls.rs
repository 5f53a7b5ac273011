//! What a request keeps of its model calls, also of the one that was under way when it was stopped.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::limits::{LABEL_BYTES_MAX, MODELS_PER_REQUEST_MAX};
use crate::units::Money;

/// The name under which the models past the limit stand together.
pub const OTHER_MODELS: &str = "other";

/// The model calls of one request. Each enters itself when it ends, on whatever way out: once the provider's stream is
/// dropped, all are in it. Cheap to clone.
///
/// A std mutex suffices: a hold is a few additions.
#[derive(Debug, Clone, Default)]
pub struct RequestCalls(Arc<Mutex<State>>);

/// What model calls used together, where every one of them says it: the usage that stands in an answer. Those that are
/// free used nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CallsUsed {
    /// How many there were.
    pub calls: u64,
    /// Tokens read, cache included; `None` where a provider does not say, and for no call at all.
    pub input_tokens: Option<u64>,
    /// Tokens written; `None` where a provider does not say, and for no call at all.
    pub output_tokens: Option<u64>,
    /// US dollars; `None` where tokens or prices are not known, and for no call at all.
    pub cost_usd: Option<f64>,
    /// How many were not free.
    counted: u64,
}

/// What the calls of a request to one model used, as far as it is known: what was paid is never lost because something
/// else is unknown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelUsed {
    /// Who was asked (`gen_ai.provider.name`).
    pub provider: String,
    /// The model that answered, or that was asked for.
    pub model: String,
    /// How many calls there were.
    pub calls: u64,
    /// Tokens read, cache included, of the calls that say it.
    pub input_tokens: u64,
    /// Tokens written, of the calls that say it.
    pub output_tokens: u64,
    /// Tokens among those read that came from a cache.
    pub cache_read_tokens: u64,
    /// Tokens among those read that were written to a cache.
    pub cache_write_tokens: u64,
    /// US dollars, of the calls whose cost is known; `null` where that is none.
    pub cost_usd: Option<f64>,
    /// Calls that may be billed and whose model has no price: they are not free, and in no dollars.
    pub unpriced: u64,
    /// Calls that may be billed and did not say how many tokens they read, or how many they wrote.
    pub unreported: u64,
    /// Tokens that calls did not say, by the bytes of text.
    #[serde(default)]
    pub estimated_tokens: u64,
    /// US dollars of calls that did not say all tokens, beside `cost_usd`; `null` where there are none.
    pub estimated_usd: Option<f64>,
}

/// What one call used, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CallUsed<'a> {
    pub(super) provider: &'a str,
    pub(super) model: &'a str,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    pub(super) cache_read_tokens: Option<u64>,
    pub(super) cache_write_tokens: Option<u64>,
    pub(super) cost_usd: Option<f64>,
    /// Whether it may be billed, and no later call will say what it used.
    pub(super) paid: bool,
    /// Whether it used nothing.
    pub(super) free: bool,
    /// What it used beside what it said.
    pub(super) estimated: Option<Estimate>,
}

/// What a call used that was paid and not said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) tokens: u64,
    /// US dollars that are in no cost; `None` without a price.
    pub(super) usd: Option<f64>,
}

#[derive(Debug, Default)]
struct State {
    used: CallsUsed,
    finish_reason: Option<String>,
    models: Vec<ModelUsed>,
    stopped_by: Option<Cow<'static, str>>,
}

impl RequestCalls {
    /// What all calls that ended used.
    #[must_use]
    pub fn used(&self) -> CallsUsed {
        self.state().used
    }

    /// Why the last call that ended stopped, as the provider says it.
    #[must_use]
    pub fn finish_reason(&self) -> Option<String> {
        self.state().finish_reason.clone()
    }

    /// The same by model, with what is known of each; at most [`MODELS_PER_REQUEST_MAX`] and [`OTHER_MODELS`].
    #[must_use]
    pub fn models(&self) -> Vec<ModelUsed> {
        self.state().models.clone()
    }

    /// Says why the stream is about to be dropped: the `error.type` of a call that is under way then. The first word
    /// stands.
    pub fn stop(&self, error_type: Cow<'static, str>) {
        self.state().stopped_by.get_or_insert(error_type);
    }

    /// The `error.type` of a call that is dropped.
    pub(super) fn stopped_by(&self) -> Cow<'static, str> {
        let stopped_by = self.state().stopped_by.clone();
        let unsaid = || if std::thread::panicking() { "panic".into() } else { "cancelled".into() };
        stopped_by.unwrap_or_else(unsaid)
    }

    /// Adds a call that ended, and why it stopped.
    pub(super) fn add(&self, call: &CallUsed<'_>, finish_reason: Option<String>) {
        let mut state = self.state();
        state.used = state.used.with(call);
        state.of_model(call).add(call);
        state.finish_reason = finish_reason;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of_model(&mut self, call: &CallUsed<'_>) -> &mut ModelUsed {
        let known = |models: &[ModelUsed], provider: &str, model: &str| {
            models.iter().position(|used| used.provider == provider && used.model == model)
        };
        let (provider, mut model) = (cut(call.provider), cut(call.model));
        let mut at = known(&self.models, provider, model);
        if at.is_none() && self.models.len() >= MODELS_PER_REQUEST_MAX {
            model = OTHER_MODELS;
            at = known(&self.models, provider, model);
        }
        let at = at.unwrap_or_else(|| {
            let (provider, model) = (provider.to_owned(), model.to_owned());
            self.models.push(ModelUsed { provider, model, ..ModelUsed::default() });
            self.models.len() - 1
        });
        &mut self.models[at]
    }
}

/// As much of a name from outside as a label may have.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(LABEL_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

impl CallUsed<'_> {
    /// Whether it was paid for, and nobody knows what.
    pub(super) fn is_unpriced(&self) -> bool {
        self.paid && self.cost_usd.is_none() && self.estimated.is_none_or(|estimate| estimate.usd.is_none())
    }
}

impl CallsUsed {
    fn with(self, call: &CallUsed<'_>) -> Self {
        let calls = self.calls + 1;
        if call.free {
            return Self { calls, ..self };
        }
        let CallUsed { input_tokens, mut output_tokens, mut cost_usd, .. } = *call;
        if call.estimated.is_some() {
            // What was said of a call that was stopped is a part of it.
            (output_tokens, cost_usd) = (None, None);
        }
        let counted = self.counted + 1;
        if counted == 1 {
            return Self { calls, input_tokens, output_tokens, cost_usd, counted };
        }
        Self {
            calls,
            counted,
            input_tokens: self.input_tokens.zip(input_tokens).map(|(a, b)| a.saturating_add(b)),
            output_tokens: self.output_tokens.zip(output_tokens).map(|(a, b)| a.saturating_add(b)),
            cost_usd: self.cost_usd.zip(cost_usd).map(|(a, b)| Money::clean(a + b)),
        }
    }
}

impl ModelUsed {
    fn add(&mut self, call: &CallUsed<'_>) {
        let CallUsed { provider: _, model: _, input_tokens, output_tokens, .. } = *call;
        let more = |sum: &mut u64, tokens: Option<u64>| *sum = sum.saturating_add(tokens.unwrap_or(0));
        self.calls += 1;
        more(&mut self.input_tokens, input_tokens);
        more(&mut self.output_tokens, output_tokens);
        more(&mut self.cache_read_tokens, call.cache_read_tokens);
        more(&mut self.cache_write_tokens, call.cache_write_tokens);
        let more_usd = |sum: &mut Option<f64>, usd: Option<f64>| {
            *sum = usd.map_or(*sum, |usd| Some(Money::clean(sum.unwrap_or(0.0) + usd)));
        };
        more_usd(&mut self.cost_usd, call.cost_usd);
        self.unpriced += u64::from(call.is_unpriced());
        self.unreported += u64::from(call.paid && (input_tokens.is_none() || output_tokens.is_none()));
        more(&mut self.estimated_tokens, call.estimated.map(|estimate| estimate.tokens));
        more_usd(&mut self.estimated_usd, call.estimated.and_then(|estimate| estimate.usd));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(model: &str) -> CallUsed<'_> {
        CallUsed {
            provider: "p",
            model,
            input_tokens: Some(3),
            output_tokens: Some(1),
            cache_read_tokens: Some(2),
            cache_write_tokens: None,
            cost_usd: Some(0.5),
            paid: true,
            free: false,
            estimated: None,
        }
    }

    #[test]
    fn a_sum_is_known_only_where_every_call_says_it() {
        let calls = RequestCalls::default();
        assert_eq!(calls.used(), CallsUsed::default());
        calls.add(&call("m"), None);
        calls.add(&CallUsed { output_tokens: None, ..call("m") }, Some("length".to_owned()));
        calls.add(&call("m"), Some("stop".to_owned()));
        let all = CallsUsed {
            calls: 3,
            input_tokens: Some(9),
            output_tokens: None,
            cost_usd: Some(1.5),
            counted: 3,
        };
        assert_eq!((calls.used(), calls.finish_reason().as_deref()), (all, Some("stop")));
    }

    #[test]
    fn a_try_that_was_free_hides_nothing_of_the_others() {
        let free = CallUsed { provider: "p", model: "m", free: true, ..CallUsed::default() };
        for tries in [[free, call("m")], [call("m"), free]] {
            let calls = RequestCalls::default();
            tries.iter().for_each(|used| calls.add(used, None));
            let CallsUsed { calls, input_tokens, output_tokens, cost_usd, .. } = calls.used();
            assert_eq!((calls, input_tokens, output_tokens, cost_usd), (2, Some(3), Some(1), Some(0.5)));
        }
        let calls = RequestCalls::default();
        calls.add(&free, None);
        assert_eq!((calls.used().calls, calls.used().cost_usd), (1, None));
    }

    #[test]
    fn what_was_paid_stays_known_beside_a_call_of_which_nothing_is() {
        let calls = RequestCalls::default();
        calls.add(&CallUsed { provider: "p", model: "m", paid: true, ..CallUsed::default() }, None);
        calls.add(&call("m"), None);
        assert_eq!(calls.used().cost_usd, None);
        let known = ModelUsed {
            provider: "p".to_owned(),
            model: "m".to_owned(),
            calls: 2,
            input_tokens: 3,
            output_tokens: 1,
            cache_read_tokens: 2,
            cache_write_tokens: 0,
            cost_usd: Some(0.5),
            unpriced: 1,
            unreported: 1,
            ..ModelUsed::default()
        };
        assert_eq!(calls.models(), [known]);
    }

    #[test]
    fn models_past_the_limit_stand_together_and_names_are_cut() {
        let calls = RequestCalls::default();
        let names: Vec<String> = (0..MODELS_PER_REQUEST_MAX + 2).map(|n| format!("m{n}")).collect();
        names.iter().for_each(|name| calls.add(&call(name), None));
        let models = calls.models();
        assert_eq!(models.len(), MODELS_PER_REQUEST_MAX + 1);
        assert_eq!(models.last().map(|m| (m.model.as_str(), m.calls)), Some((OTHER_MODELS, 2)));
        assert_eq!(cut(&"ä".repeat(LABEL_BYTES_MAX)), "ä".repeat(LABEL_BYTES_MAX / 2));
    }
}
