//! The fields of a `tracing` event as JSON values, one way for all who read them.

use std::fmt;

use serde_json::Value;
use tracing::Event;
use tracing::field::{Field, Visit};

/// Hands each field's name and value to `take`, in the order in which they were written.
pub(super) fn each_field(event: &Event<'_>, take: impl FnMut(&str, Value)) {
    event.record(&mut Each(take));
}

struct Each<F>(F);

impl<F: FnMut(&str, Value)> Visit for Each<F> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        (self.0)(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        (self.0)(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        (self.0)(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        (self.0)(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        (self.0)(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        (self.0)(field.name(), format!("{value:?}").into());
    }
}
