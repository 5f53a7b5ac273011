//! Metrics of the journal.

use crate::telemetry::metric::{Counter, Definition};

/// Records appended, by kind of stream.
pub static APPENDS: Counter<1> =
    Counter::new("plimsoll_journal_appends_total", &["stream"], "Records made durable, by kind of stream.");

/// All metrics of this module.
pub const CATALOGUE: &[&Definition] = &[&APPENDS.0];
