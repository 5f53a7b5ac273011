//! What a request keeps of its model calls, also of the one that was under way when it was stopped.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The model calls of one request. Each enters itself when it ends, on whatever way out: once the provider's stream is
/// dropped, all are in it. Cheap to clone.
///
/// A std mutex suffices: a hold is a few additions.
#[derive(Debug, Clone, Default)]
pub struct RequestCalls(Arc<Mutex<State>>);

/// What model calls used together.
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
}

#[derive(Debug, Default)]
struct State {
    used: CallsUsed,
    finish_reason: Option<String>,
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
    pub(super) fn add(&self, one: CallsUsed, finish_reason: Option<String>) {
        let mut state = self.state();
        state.used = state.used.with(one);
        state.finish_reason = finish_reason;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallsUsed {
    fn with(self, more: Self) -> Self {
        if self.calls == 0 {
            return more;
        }
        Self {
            calls: self.calls + more.calls,
            input_tokens: self.input_tokens.zip(more.input_tokens).map(|(a, b)| a.saturating_add(b)),
            output_tokens: self.output_tokens.zip(more.output_tokens).map(|(a, b)| a.saturating_add(b)),
            cost_usd: self.cost_usd.zip(more.cost_usd).map(|(a, b)| a + b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_known_only_where_every_call_says_it() {
        let calls = RequestCalls::default();
        assert_eq!(calls.used(), CallsUsed::default());
        let one = CallsUsed { calls: 1, input_tokens: Some(3), output_tokens: Some(1), cost_usd: Some(0.5) };
        calls.add(one, None);
        calls.add(CallsUsed { output_tokens: None, ..one }, Some("length".to_owned()));
        calls.add(one, Some("stop".to_owned()));
        let all = CallsUsed { calls: 3, input_tokens: Some(9), output_tokens: None, cost_usd: Some(1.5) };
        assert_eq!((calls.used(), calls.finish_reason().as_deref()), (all, Some("stop")));
    }
}
